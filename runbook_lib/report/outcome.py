"""The outcome of a run: the state of each phase, and the verdict, from its journal, its results and its files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.escape import safe_text
from worker.files import sha256_file

from .. import records
from ..errors import DataError
from ..records import Json
from ..result import home, publication
from ..run import driver
from ..run.checks import MARKS
from ..run.disk import explain_disk_errors
from ..run.journal import Event
from ..run.run import PHASES, Run
from ..show.words import moment, one_line
from . import archive

HELD, FAILED, DAMAGED, UNDER_WAY, BROKEN_OFF, INTERRUPTED, NOT_YET = (
    "held",
    "failed",
    "damaged",
    "under way",
    "broken off",
    "interrupted",
    "not yet",
)
DONE, UNFINISHED = "done", "unfinished"
BAD = (FAILED, DAMAGED)
SIGNS = {HELD: MARKS["ok"], FAILED: MARKS["FAILED"], DAMAGED: MARKS["FAILED"]}


@dataclass(frozen=True)
class Phase:
    """The last known state of a phase, its time, and the reason if it failed."""

    phase: str
    state: str
    at: str = ""
    reason: str = ""

    def __str__(self) -> str:
        at = f", {moment(datetime.fromisoformat(self.at))}" if self.at else ""
        why = f": {one_line(self.reason, 400)}" if self.reason else ""
        return f"{SIGNS.get(self.state, '·')} {self.phase}: {self.state}{at}{why}"


@dataclass(frozen=True)
class Outcome:
    """A run's phases and its verdict, with the reason and the next step."""

    phases: tuple[Phase, ...]
    verdict: str
    reason: str
    next: str

    @property
    def ok(self) -> bool:
        """False if a phase failed, or a file is missing or changed."""
        return self.verdict not in BAD

    def as_dict(self) -> dict[str, Json]:
        """Return the outcome for JSON."""
        return records.plain(self)

    def __str__(self) -> str:
        lines = [f"  {phase}" for phase in self.phases]
        lines.append(f"verdict: {self.verdict}{f': {self.reason}' if self.reason else ''}")
        return "\n".join(lines + ([f"next: {self.next}"] if self.next else []))


@explain_disk_errors("looking at the run")
def outcome(run: Run) -> Outcome:
    """Return the outcome of the run so far; check the sizes of its files now."""
    by_journal = {phase: Phase(phase, NOT_YET) for phase in PHASES}
    for event in run.journal.events():
        _apply(by_journal, event)
    now_driven = driver.driven(run)
    phases = tuple(_present_state(run, phase, now_driven) for phase in by_journal.values())
    bad = [phase for phase in phases if phase.state in BAD]
    again = f"the same `runbook run` again (its journal names the profile: {run.made_from})"
    if bad:
        stands = _published_note(run)
        reason = "; ".join(f"{p.phase}: {p.reason or p.state}" for p in bad) + (f". {stands}" if stands else "")
        return Outcome(phases, bad[0].state, one_line(reason, 1000), again)
    if phases[-1].state == HELD:
        lost = [
            *publication.losses(run, quick=True),
            *(f"{path.name}: {why}" for path, why in home.plainly_unusable_parts(run)),
        ]
        if lost:
            return Outcome(phases, DAMAGED, one_line("; ".join(lost), 1000), again)
        seal = "sealed" if archive.was_sealed(run) else "not sealed yet"
        return Outcome(phases, DONE, f"{seal}; sizes looked at now", f"runbook verify {run.name} looks at every byte")
    return Outcome(phases, UNDER_WAY if now_driven else UNFINISHED, "", "" if now_driven else again)


def _apply(phases: dict[str, Phase], event: Event) -> None:
    """Update the phases with one event of the journal."""
    phase, name, at = str(event.get("phase")), event.get("event"), str(event.get("at", ""))
    if name == "started from scratch":
        phases.update({later: Phase(later, NOT_YET) for later in PHASES[1:]})
    if phase not in phases:
        return
    reason = safe_text(str(event.get("reason") or ""), 1000)
    if name == "phase started":
        phases[phase] = Phase(phase, UNDER_WAY, at)
    elif name == "phase failed":
        gate = phases[phase].reason if phases[phase].state == FAILED else ""
        phases[phase] = Phase(phase, INTERRUPTED if reason == "interrupted" else FAILED, at, gate or reason)
    elif name == "phase ended" or (name == "gate" and event.get("ok")):
        phases[phase] = Phase(phase, HELD, at)
    elif name == "gate":
        phases[phase] = Phase(
            phase, FAILED, at, f"checks that do not hold: {', '.join(map(str, event.get('failed', [])))}"
        )


def _present_state(run: Run, phase: Phase, executed: bool) -> Phase:
    """Return the present state of a phase: check its result, and whether it is being executed."""
    if phase.state == UNDER_WAY and not executed:
        return Phase(phase.phase, BROKEN_OFF, phase.at, "no process executes it any more; workers may go on")
    if phase.state != HELD:
        return phase
    file = run.result_file(phase.phase)
    try:
        result = run.result(phase.phase)
    except DataError as error:
        return Phase(phase.phase, DAMAGED, phase.at, str(error))
    if result is None:
        return Phase(phase.phase, DAMAGED, phase.at, f"{file.name}: no such file")
    if not result.ok or archive.gated_sha256(run, phase.phase) not in ("", sha256_file(file)):
        return Phase(phase.phase, DAMAGED, phase.at, f"{file.name}: not what its gate wrote")
    return phase


def _published_note(run: Run) -> str:
    """Return a sentence about the published result, which stays valid when a later phase failed."""
    try:
        record = publication.published(run)
    except DataError:
        return ""
    return f"The previous result is still there, published {record.at}: {run.merged}" if record else ""
