"""Choices: what differs between two profiles of one run, and which differences are allowed while the run goes on.

A change is allowed if it can change no vector, and not where rows are. For a key that names content (corpus, questions,
model) the content decides; for what the plan has settled (parts, slots) the plan decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from worker.escape import safe_text
from worker.files import read_json
from worker.layout import HostFolder
from worker.rows import Covered, Range

from ..corpus import sources
from ..corpus.corpus import Corpus
from ..errors import ProfileError
from ..profile import rules
from ..profile.profile import CHUNK, HostSpec, Profile, plain_host
from ..profile.slurm_entry import KEYS
from ..records import Json
from . import model as models
from .plan import Plan, Slot

# Keys that name a file whose content counts.
CONTENTS = ("corpus.path", "questions")
# Keys and sections that say how a run is driven and watched, and where its result goes.
FREE = ("run", "runs", "hf_token", "monitor", "recovery", "policy", "notify", "output", "signing_key")
# What is asserted, and how files are sent: preflight compares it with the facts.
TOO_LONG = "model.too_long"
FREE_KEYS = ("corpus.documents", "model.dim", "model.sha256", "model.download", TOO_LONG)  # but for chunks
LATER = {TOO_LONG: "truncate"}  # keys that earlier versions did not know, with the value that they stood for
# Of a host: how it is reached, and the Python that it has.
FREE_OF_HOST = ("credentials", "ssh", "environment", "requirements", "wheels", *KEYS)
VECTOR = "it can change a vector"
READING = "it says how the documents are read"
CONTENT = "another content: it can change a vector"
PLANNED = "the plan has settled it"
A_HOST, NO_HOST = "a host", "no such host"


@dataclass(frozen=True)
class Change:
    """A key that differs between two profiles; `why` is the reason why it may not change in a run, if any."""

    key: str
    before: Json
    after: Json
    why: str = ""

    @property
    def leaves(self) -> str:
        """The name of the host that leaves the run by this change; empty if none does."""
        return self.key.removeprefix("hosts.") if (self.before, self.after) == (A_HOST, NO_HOST) else ""

    @property
    def joins(self) -> str:
        """The name of the host that joins the run by this change; empty if none does."""
        return self.key.removeprefix("hosts.") if (self.before, self.after) == (NO_HOST, A_HOST) else ""

    @property
    def told(self) -> str:
        """What a person is told when the run takes the change."""
        if self.joins:
            return f"{self.joins} joins the run: it is checked, then gets rows of the others"
        if self.leaves:
            return f"{self.leaves} leaves the run: what it committed counts, its other rows go to the others"
        return f"{self.key}: {self.after!s} from now on (was {self.before!s})"

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} in the run, {_shown(self.after)} in the profile"


def _shown(value: object) -> str:
    return "not given" if value is None else safe_text(str(value), 200)


def is_blocked(changes: Sequence[Change], amend: bool = False) -> bool:
    """Whether a change stops a run from going on; with `amend` the corpus may differ: it is compared later."""
    amended = ("corpus.", "questions") if amend else ()
    return any(change.why and not change.key.startswith(amended) for change in changes)


def refusal(run: str, finished: bool, profile: Profile, changes: Sequence[Change]) -> str:
    """Say why a run does not go on with this profile: every key that prevents it, and what a person can do."""
    lines = "".join(f"\n  {change} ({change.why})" for change in changes if change.why)
    mended = ". Where only texts of the same documents were mended: runbook run PROFILE --amend"
    return (
        f"run {run} is {'finished' if finished else 'unfinished'} and was made from other choices; nothing was done. "
        f"What differs:{lines}\n"
        f"Two ways out: undo this in {safe_text(str(profile.path))}, and the same command goes on with that run; or "
        "leave it as it is and begin another one: runbook run PROFILE --new"
        f"{'' if is_blocked(changes, amend=True) else mended}"
    )


def flat(profile: Profile) -> dict[str, Json]:
    """Return every dotted key of a profile with its plain value; hosts by name, so that their order is ignored."""
    value = rules.plain(profile)
    value["hosts"] = {host.name: {**plain_host(host), "name": host.name} for host in profile.hosts}
    return dict(_leaves(value, ""))


def _leaves(value: dict[str, Json], prefix: str) -> Iterator[tuple[str, Json]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner


def digests(profile: Profile) -> dict[str, str]:
    """Return hashes of what phases depend on: how documents are read and encoded, the hosts, where the result goes."""
    parts: dict[str, dict[str, Json]] = {"encoded": {}, "hosts": {}, "output": {}}
    for key, value in flat(profile).items():
        section = key.partition(".")[0]
        if LATER.get(key) == value:
            continue
        if section in parts:
            parts[section][key] = value
        elif section not in FREE:
            parts["encoded"][key] = value
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


@dataclass(frozen=True)
class RunBasis:
    """What a run is based on: its profile, its corpus and plan if any, the rows at home, the hosts that have files."""

    name: str
    id: str
    profile: Profile
    corpus: Corpus | None
    plan: Plan | None
    home: tuple[Range, ...]
    staged: frozenset[str]

    def changes(self, after: Profile) -> list[Change]:
        """Return every key that differs in `after`."""
        return list(_Comparison(self, after).changes())


@dataclass(frozen=True)
class _Comparison:
    basis: RunBasis
    after: Profile

    def changes(self) -> Iterator[Change]:
        before, after = flat(self.basis.profile), flat(self.after)
        old, new = ({host.name: host for host in profile.hosts} for profile in (self.basis.profile, self.after))
        for key in dict.fromkeys([*before, *after]):
            if not key.startswith("hosts.") and before.get(key) != after.get(key):
                yield Change(key, before.get(key), after.get(key), self._of_key(key))
            elif key in CONTENTS and self._edited(key):
                yield Change(key, before[key], f"{after[key]}, which was edited since", CONTENT)
        for name in dict.fromkeys([*old, *new]):
            if name not in new:
                yield Change(f"hosts.{name}", A_HOST, NO_HOST)  # it leaves: its rows go to the others
            elif name not in old:
                yield Change(f"hosts.{name}", NO_HOST, A_HOST)
            else:
                for key in (key for key in dict.fromkeys([*before, *after]) if key.startswith(f"hosts.{name}.")):
                    if before.get(key) != after.get(key):
                        yield Change(
                            key, before.get(key), after.get(key), self._of_host(new[name], key.rpartition(".")[2])
                        )

    def _of_key(self, key: str) -> str:
        """Return why a key may not change; empty if it may."""
        section, plan = key.partition(".")[0], self.basis.plan
        if key == TOO_LONG and CHUNK in (self.basis.profile.model.too_long, self.after.model.too_long):
            return VECTOR
        if section in FREE or key in FREE_KEYS:
            return ""
        if key == "part_rows":
            return "" if plan is None or self.after.part_rows in (None, plan.part_rows) else PLANNED
        if key in CONTENTS:
            return "" if self._same_content(key) else CONTENT
        return self._model if section == "model" else READING

    def _edited(self, key: str) -> bool:
        """Whether a file of the same name has other content now; a missing file is no edit: the run has a copy."""
        path = self.after.corpus.path if key == "corpus.path" else self.after.questions
        return bool(self.basis.corpus and path and sources.exists(path) and not self._same_content(key))

    def _same_content(self, key: str) -> bool:
        corpus = self.basis.corpus
        if corpus is None:
            return False
        if key == "corpus.path":
            return corpus.source_unchanged(self.after.corpus.path)
        return corpus.questions_unchanged(self.after.questions)

    @cached_property
    def _model(self) -> str:
        """Return why the changed keys no longer mean the model of the plan; empty if they do."""
        spec, before, plan = self.after.model, self.basis.profile.model, self.basis.plan
        if plan is None or (spec.dtype, spec.max_tokens) != (before.dtype, before.max_tokens):
            return VECTOR
        try:
            model = models.resolve(spec, models.read_token(self.after.hf_token))
        except ProfileError as error:
            return f"not known to be the same model: {error}"
        same = (model.digest, model.template, model.question_template)
        return "" if same == (plan.model.digest, plan.prompt, plan.question_prompt) else VECTOR

    # ------------------------------------------------------------------------------------------------------- hosts

    def _of_host(self, host: HostSpec, key: str) -> str:
        planned = self._slots(host.name)
        if key in FREE_OF_HOST:
            return ""
        if key in ("kind", "workdir"):
            return "" if host.name not in self.basis.staged or self._lies_there(host) else self._rows_left(host.name)
        if key == "slots":
            return PLANNED if host.slots is not None and host.slots < len(planned) else ""
        if key == "threads":
            return PLANNED if any(host.threads not in (None, slot.threads) for slot in planned) else ""
        return VECTOR if planned else ""

    def _slots(self, host: str) -> list[Slot]:
        return [slot for slot in self.basis.plan.slots if slot.host == host] if self.basis.plan else []

    def _lies_there(self, host: HostSpec) -> bool:
        """Whether the new folder holds this same run: a folder of this machine was moved, with all that is in it."""
        try:
            mark = read_json(HostFolder(Path(host.workdir) / self.basis.name).mark) if host.is_here else None
        except (OSError, ValueError):
            mark = None
        return bool(self.basis.id) and (mark or {}).get("id") == self.basis.id

    def _rows_left(self, host: str) -> str:
        """Say how many rows need a host: it has to compute them, or they are not home yet."""
        plan, home = self.basis.plan, self.basis.home
        covered = Covered(home)
        left = sum(plan.left(slot, covered) for slot in self._slots(host)) if plan else 0
        remedy = f"`runbook move {self.basis.name} {host}` gives them to the others"
        return f"{left:,} of its rows are not home yet; {remedy}" if left else ""
