"""One run: a folder. All its state is there or in its folder on the hosts; `Run` owns the paths."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from worker.escape import safe_text
from worker.files import read_json, write_json
from worker.layout import FORMAT, HostFolder, committed

from .. import records
from ..corpus import corpus as corpora
from ..errors import DataError, ProfileError
from ..profile import profile as profiles
from ..profile import tokens
from . import choices, run_mark
from . import plan as plans
from .disk import explain_disk_errors
from .journal import Journal
from .machine_facts import HostsFile, MachineFacts
from .phase_result import PhaseResult
from .run_mark import PROFILE

PHASES = ("01_preflight", "02_launch", "03_monitor", "04_merge_validate")


@dataclass(frozen=True)
class Run:
    """A run's folder and the profile as used; `only` names the hosts to work on, if not all."""

    folder: Path
    profile: profiles.Profile
    only: frozenset[str] = frozenset()

    @property
    def hosts(self) -> tuple[profiles.HostSpec, ...]:
        """The hosts to work on: all of the profile's, or those of `only`."""
        return tuple(host for host in self.profile.hosts if not self.only or host.name in self.only)

    @property
    def name(self) -> str:
        """The run's name: its folder's, and its folder's on every host."""
        return self.folder.name

    @property
    def id(self) -> str:
        """The random id that distinguishes this run from others of its name; empty if it was made without one."""
        return run_mark.read(self.folder).id

    @property
    def profile_file(self) -> Path:
        """The profile as used now."""
        return self.folder / PROFILE

    @property
    def first_profile_file(self) -> Path:
        """The profile that the run was created with, if it changed since."""
        return self.folder / "profile.first.yaml"

    def left_file(self, host: str) -> Path:
        """The profile as it was when this host was taken out of it: how to reach the host later."""
        return self.folder / "left" / f"{host}.yaml"

    @property
    def left(self) -> tuple[profiles.HostSpec, ...]:
        """The hosts that left the run: they were in its profile and are not any more. Raises ProfileError."""
        here = {host.name for host in self.profile.hosts}
        files = [file for file in sorted((self.folder / "left").glob("*.yaml")) if file.stem not in here]
        return tuple(host for f in files for host in profiles.load(f, as_used=True).hosts if host.name == f.stem)

    @property
    def made_from(self) -> str:
        """The path of the profile that the run was made from, as the person gave it."""
        created = next(self.journal.events("run created"), None)
        return str((created.get("profile") if created else None) or self.profile.path)

    @property
    def everywhere(self) -> Run:
        """The same run with all hosts that may have files of it: also those that left."""
        return replace(self, profile=replace(self.profile, hosts=(*self.profile.hosts, *self.left)))

    @property
    def driver_lock(self) -> Path:
        """Held by the one command that drives the run, with its process."""
        return self.folder / "driver.lock"

    @property
    def corpus(self) -> Path:
        """The corpus as numbered by preflight."""
        return self.folder / "corpus"

    @property
    def since(self) -> str:
        """The folder of the earlier run from which this one takes vectors; empty if it takes none.

        A folder of runs may be moved as a whole: the earlier run is then beside this one.
        """
        since = run_mark.read(self.folder).since
        beside = self.folder.parent / Path(since).name
        return str(beside) if since and not Path(since).is_dir() and beside.is_dir() else since

    @property
    def whole(self) -> Path:
        """All documents of a run with --since; its `corpus` then holds only what must be computed."""
        return self.folder / "whole"

    @property
    def amended(self) -> Path:
        """A corpus with corrected texts, before it replaces the other."""
        return self.folder / "amended"

    @property
    def local(self) -> HostFolder:
        """The parts that came home, in the layout of a host."""
        return HostFolder(self.folder)

    @property
    def committed_parts(self) -> list[Path]:
        """The arrays of the parts that came home, in the order of their rows."""
        return [self.local.part(start, stop) for start, stop in committed(self.local.parts)]

    @property
    def refused(self) -> Path:
        """Parts that came home and were found damaged, or of something else, before they were merged."""
        return self.folder / "refused"

    @property
    def merged(self) -> Path:
        """The result: embeddings.npy, articles.jsonl, manifest.json."""
        return self.folder / "merged"

    @property
    def candidate(self) -> Path:
        """A merged result whose checks have not been made yet, in the layout of `merged`."""
        return self.folder / "candidate"

    @property
    def rejected(self) -> Path:
        """The last merged result whose checks failed, with the reason."""
        return self.folder / "rejected"

    @property
    def published_file(self) -> Path:
        """The record of what has the final names."""
        return self.folder / "published.json"

    @property
    def publishing_file(self) -> Path:
        """A publication that is decided and not finished."""
        return self.folder / "publishing.json"

    @property
    def report(self) -> Path:
        """The evidence: executed notebooks, results, pictures, report.html."""
        return self.folder / "report"

    @property
    def notes(self) -> Path:
        """Documents that a person files: the execution report in the founding plan's form."""
        return self.folder / "notes"

    @property
    def journal(self) -> Journal:
        """What happened, in order."""
        return Journal(self.folder / "journal.jsonl")

    @property
    def sums(self) -> Path:
        """The sha256 of every file of the sealed run."""
        return self.folder / "SHA256SUMS"

    @property
    def founding_file(self) -> Path:
        """The merged pickle in the founding shape, in the profile's output folder."""
        return self.profile.output.folder / self.profile.output.merged

    @property
    def founding_candidate(self) -> Path:
        """The same of a merged result whose checks have not been made yet."""
        return self.founding_file.with_name(f".{self.founding_file.name}.{self.name}.candidate")

    @property
    def plan_file(self) -> Path:
        """The current plan."""
        return self.folder / "plan.json"

    @property
    def plan_lock(self) -> Path:
        """Held while the next revision of the plan is made."""
        return self.folder / "plan.lock"

    @property
    def landing_lock(self) -> Path:
        """Held while a part's array and record come under their final names: two hosts may have made the same part."""
        return self.folder / "landing.lock"

    @property
    def acts_lock(self) -> Path:
        """Held while a person restarts or stops workers, with the act in words."""
        return self.folder / "acts.lock"

    @property
    def faults_lock(self) -> Path:
        """Held while faults that hosts recorded are written into the journal, so that none is written twice."""
        return self.folder / "faults.lock"

    @property
    def watching_file(self) -> Path:
        """What the watching notebook saw last, for the command that runs it; a record for people."""
        return self.folder / ".watching.part"

    @property
    def told_file(self) -> Path:
        """What a person was told of this run, and what became of each message; outside the seal."""
        return self.folder / ".told.part"

    @property
    def told_lock(self) -> Path:
        """Held while it is decided whether a message was sent before."""
        return self.folder / "told.lock"

    def revision_file(self, epoch: int) -> Path:
        """A revision of the plan that was replaced by a later one."""
        return self.folder / "plans" / f"epoch_{epoch:04d}.json"

    def plan(self) -> plans.Plan:
        """The current plan, verified. Raises DataError; where there is none yet it says which notebook makes it."""
        if not self.plan_file.exists():
            raise DataError(f"run {self.name} has no plan yet: run {PHASES[0]} first (or: runbook run)")
        return plans.load(self.plan_file)

    def result_file(self, phase: str) -> Path:
        """The result file of `phase`."""
        return self.report / f"{phase}.result.json"

    def result(self, phase: str) -> PhaseResult | None:
        """Return the result of `phase`, or None. Raises DataError."""
        return records.read(PhaseResult, self.result_file(phase))

    def passed(self, phase: str) -> bool:
        """Whether `phase` has a result in which all checks hold. Raises DataError."""
        result = self.result(phase)
        return bool(result and result.ok)

    @explain_disk_errors("keeping the phase's result")
    def save_result(self, phase: str, **fields: Any) -> str:
        """Write the result for the next phase, whole, after everything else of the phase; return its sha256."""
        return write_json(self.result_file(phase), {"format": FORMAT, "phase": phase, "run": self.name, **fields})

    @property
    def finished(self) -> bool:
        """True when the last phase's result says that all of its checks hold."""
        return self.passed(PHASES[-1])

    @property
    def basis(self) -> choices.RunBasis:
        """What this run is based on, to compare another profile with it."""
        corpus = plan = None
        with suppress(DataError):
            corpus = corpora.load(self.corpus)
        with suppress(DataError):
            plan = self.plan()
        home = tuple(committed(self.local.parts))
        return choices.RunBasis(self.name, self.id, self.profile, corpus, plan, home, self.staged)

    @property
    def staged(self) -> frozenset[str]:
        """The hosts that were given something to do."""
        return frozenset(event["host"] for event in self.journal.events("staged"))

    @property
    def launched(self) -> bool:
        """Whether anything may have been computed yet: from then on the plan is fixed."""
        return bool(self.staged or committed(self.local.parts))

    @property
    def only_failed_preflight(self) -> bool:
        """Whether this run has only a failed preflight so far, after which a person edits the profile."""
        tried = [event for event in self.journal.events("gate", "checked") if event.get("phase") in (None, PHASES[0])]
        return bool(tried) and not tried[-1].get("ok") and not self.launched

    def note(self, text: str) -> None:
        """Write an operator's remark into the journal. Raises ProfileError for an empty one."""
        words = " ".join(safe_text(text, 1000).split())
        if not words:
            raise ProfileError("a note needs words; nothing was written")
        if tokens.looks_secret(words):
            raise ProfileError("a note goes into the archive, and this one holds what looks like a secret; not written")
        self.journal.write("note", text=words)

    @explain_disk_errors("keeping a record")
    def save_json(self, name: str, value: dict[str, Any]) -> Path:
        """Keep a record in the report folder; the journal names its sha256."""
        path = self.report / name
        self.journal.write("record written", wrote={f"{self.report.name}/{name}": write_json(path, value)})
        return path

    def load_json(self, name: str) -> dict[str, Any]:
        """A record of the report folder. Raises DataError when it is missing."""
        value = read_json(self.report / name)
        if value is None:
            raise DataError(f"{self.report / name}: missing; run the notebook that writes it")
        return value

    @property
    def hosts_file(self) -> Path:
        """What preflight found about each host."""
        return self.report / "hosts.json"

    def host_facts(self) -> dict[str, MachineFacts]:
        """Return what preflight found about each host, by its name; empty before a preflight."""
        with suppress(DataError):
            if file := records.read(HostsFile, self.hosts_file):
                return cast(dict[str, MachineFacts], file.hosts)
        return {}

    def __repr__(self) -> str:
        return f"run {self.name} ({self.folder})"
