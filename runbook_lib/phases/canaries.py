"""Canaries on this machine's side: what the slots' known texts gave is brought home, judged, and a wrong slot fenced.

This machine computes the same texts itself, once a run, where a host is another machine and the model is at hand. What
was heard is kept in the run: `canaries/<digest>.json`, and the journal says which slot gave which.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from worker import canary as known
from worker.escape import safe_text
from worker.files import make_folder, read_json, sha256_file, write_atomic, write_json
from worker.layout import HostFolder
from worker.wire import Canary

from .. import records
from ..errors import DataError, HostError, LinkLost, RunbookError
from ..hosts import hosts as machines
from ..result import alike
from ..result.alike import Reference
from ..run import fences
from ..run import model as models
from ..run.checks import Checks
from ..run.plan import Plan
from ..run.run import Run
from ..slots.snapshot import Snapshot
from . import fencing, monitor
from .recompute import answers, model_at_hand

NAME, EVENT, HERE = "known texts alike on every slot", "canaries", "here"
LIMIT, MOST_HEARD = 2**23, 32  # bytes of a file of canaries; results of one slot: a host may say anything
KEPT = 8  # the last results that a slot names, as `worker.canaries` keeps
WITHIN_S = 180.0  # for this machine's own
ROOM, MOST = 3.0, 0.1  # times what the run's dtype does to these texts here, where that is more than is usual
STOP = "runbook stop RUN; see what differs (libraries, model, this machine: runbook check), then begin another run"


# -------------------------------------------------------------------------------------------------- brought home, kept


def heard(run: Run) -> dict[str, list[Canary]]:
    """Return what each slot gave, in order, by the journal and the files of the run; nothing of a slot let in again."""
    given: dict[str, list[Canary]] = {}
    for slot, digests in _told(run).items():
        found = [(digest, _read(run.local.canary(digest))) for digest in digests]
        given[slot] = [canary for digest, canary in found if canary and known.digest(canary) == digest]
    return {slot: canaries for slot, canaries in given.items() if canaries}


def _told(run: Run) -> dict[str, list[str]]:
    """Return the digests that each slot gave since it was last let in."""
    told: dict[str, list[str]] = {}
    for event in run.journal.events(EVENT, fencing.LIFTED):
        if event["event"] == fencing.LIFTED:
            told.pop(event["slot"], None)
        else:
            told.setdefault(event["slot"], []).append(event["digest"])
    return told


def _read(path: Path) -> Canary | None:
    try:
        value = read_json(path, LIMIT)
        return None if value is None else Canary.from_json(value, f"{path}:")
    except (OSError, ValueError):
        return None


_heard: dict[tuple[Path, int], set[tuple[str, str]]] = {}  # by revision: a slot that was let in again is heard anew
_judged: set[tuple[Path, int]] = set()  # by revision: all that was heard is judged


def bring(run: Run, state: Snapshot) -> bool:
    """Bring home what slots gave and was not heard of yet; whether there was any. A host that fails is asked later."""
    known_here = _heard.setdefault((run.folder, run.plan().epoch), set())
    said = [(slot, each) for slot in state.slots for each in slot.canaries[-KEPT:]]
    given = [(slot, each) for slot, each in said if (slot.slot, each) not in known_here]
    if not given:
        return False  # as at nearly every look: the journal is not read
    told = _told(run)
    new = [(slot, each) for slot, each in given if each not in told.get(slot.slot, ())]
    new = [(slot, each) for slot, each in new if len(told.get(slot.slot, ())) < MOST_HEARD]
    known_here.update((slot, each) for slot, digests in told.items() for each in digests)
    came, silent = False, set[str]()
    for slot, digest in new:
        if slot.host in silent:
            continue
        try:
            _bring_one(run, slot.host, digest)
        except LinkLost:  # each further question would wait as long, and all other hosts with it
            silent.add(slot.host)
            continue
        except RunbookError:
            continue
        path = run.local.canary(digest)
        wrote = {path.relative_to(run.folder).as_posix(): sha256_file(path)}
        run.journal.write(EVENT, slot=slot.slot, host=slot.host, digest=digest, wrote=wrote)
        known_here.add((slot.slot, digest))
        came = True
    return came


def _bring_one(run: Run, name: str, digest: str) -> None:
    path = run.local.canary(digest)
    if path.exists():
        return
    spec = next((spec for spec in run.profile.hosts if spec.name == name), None)
    if spec is None:
        raise HostError(f"{name}: it left the profile")
    host = machines.connect(spec, run.name)
    remote = HostFolder(host.folder.root).canary(digest)
    raw = host.read(remote, LIMIT)
    canary = _parsed(raw)  # before it has its name here: a kill must not leave one that nobody looked at
    if canary is None or known.digest(canary) != digest:
        raise DataError(f"{name}: {remote.name}: not what its name says")
    if (shape := alike.vectors_of(canary).shape) != (known.COUNT, run.plan().model.dim):
        raise DataError(f"{name}: {remote.name}: expected {known.COUNT} x {run.plan().model.dim}, found {shape}")
    make_folder(path.parent)
    write_atomic(path, raw)


def _parsed(raw: bytes) -> Canary | None:
    try:
        return Canary.from_json(json.loads(raw))
    except (ValueError, RecursionError):
        return None


# ------------------------------------------------------------------------------------------------- this machine's own


def reference(run: Run) -> Reference | None:
    """Return this machine's own vectors of the canaries, from file; None if there are none."""
    return records.read(Reference, _here(run))


def _here(run: Run) -> Path:
    return run.local.canary(HERE)


def prepare(run: Run) -> Checks:
    """Compute this machine's own while the workers load, so that a wrong slot is known by its first look."""
    checks = Checks("This machine does the known texts")
    why = make_reference(run, run.plan())
    made = reference(run)
    seen = f"they may differ by {made.tolerance:.2g}" if made else f"not done here: {why}"
    checks.add("known texts on this machine", True, seen)
    return checks


def make_reference(run: Run, plan: Plan) -> str:
    """Compute them unless they are on file; return why there are none, or an empty text.

    Where every host is this machine they would say nothing that its slots do not say of each other.
    """
    if reference(run) is not None:
        return ""
    if all(spec.computes_here for spec in run.profile.hosts):
        return "every host is this machine: its slots are held against each other"
    texts = [(text, False) for text in known.texts(plan.prompt, plan.max_tokens)]
    try:
        model = model_at_hand(run, plan)
        right = _computed(run, plan, model, texts, "float32")
        tolerance = alike.APART[plan.dtype]
        if plan.dtype != "float32":
            try:
                worst = alike.furthest(_computed(run, plan, model, texts, plan.dtype), right)
                tolerance = max(tolerance, min(ROOM * worst, MOST))
            except DataError:
                pass  # this processor cannot do that dtype: the fixed one stands
    except RunbookError as error:
        return safe_text(str(error), 300)
    made = Reference(tolerance, tuple(tuple(row) for row in right.tolist()))
    write_json(_here(run), records.plain(made))
    return ""


def _computed(run: Run, plan: Plan, model: models.Model, texts: Sequence[tuple[str, bool]], dtype: str) -> np.ndarray:
    found = [list(each.vector or ()) for each in answers(run, plan, model, texts, dtype, WITHIN_S)]
    if len(found) < len(texts) or not all(len(vector) == plan.model.dim for vector in found):
        raise DataError(f"this machine computed {len(found)} of {len(texts)} known texts within {WITHIN_S:g} s")
    return np.array(found, np.float64)


# ------------------------------------------------------------------------------------------------------------- judged


def fence_wrong(run: Run, state: Snapshot) -> list[str]:
    """Bring home what is new, fence slots that it shows to be wrong, and return in words what was done.

    All that is at home is judged until that came to an end once: a look before may have been killed, or have failed on
    a full disk, when it had just come.
    """
    plan = run.plan()
    if bring(run, state):
        _judged.discard((run.folder, plan.epoch))
    if (run.folder, plan.epoch) in _judged:
        return []
    found = alike.judge(heard(run), reference(run), plan.dtype)
    new = fencing.fence(run, {} if found.all_off else found.wrong)
    _judged.add((run.folder, plan.epoch))
    return [f"{slot} is fenced: {found.wrong[slot]}" for slot in new]


def check(run: Run) -> Checks:
    """Hold what all slots gave against each other and this machine; fence wrong ones, and refuse if all are wrong."""
    checks, plan = Checks("Every slot does known texts alike"), run.plan()
    why = make_reference(run, plan)
    fence_wrong(run, monitor.look(run))
    tell(checks, run, why)
    return checks


def tell(checks: Checks, run: Run, why: str = "", did: Collection[str] = ()) -> None:
    """Add the check of what is on file; `why`: this machine has no vectors of its own; `did`: slots that did rows."""
    plan, given, ours = run.plan(), heard(run), reference(run)
    if not given:
        seen = "not looked at: no slot says what it gave: its worker is of a version before, or none has loaded yet"
        checks.add(NAME, True, seen, "alike", "the audit at the end says who is right", warn=bool(did))
        return
    found = alike.judge(given, ours, plan.dtype)
    seen = (
        f"{len(given)} slots, {len({known.digest(each) for all_ in given.values() for each in all_})} different results"
    )
    if ours is not None:
        seen += f", furthest {found.furthest or 0:.2g} off what this machine gives (at most {ours.tolerance:.2g})"
    else:
        seen += f"; not held against this machine{f': {why}' if why else ''}"
    open_ = {slot: words for slot, words in found.wrong.items() if slot not in fences.behind(plan.fences)}
    silent = [f"{slot} did rows and says nothing of known texts" for slot in sorted({*did} - {*given})]
    named = [f"{slot}: {words}" for slot, words in list(found.wrong.items())[:6]] + found.unsure + silent[:6]
    remedy = STOP if found.all_off else fencing.REPAIRED if found.wrong else "the audit at the end says who is right"
    words = "; ".join([*named, seen])
    checks.add(NAME, not open_, words, "alike", remedy if named else "", warn=bool(named) and not open_)
