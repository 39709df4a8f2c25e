"""The verdict on a run, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError
from ..result import publication
from ..result.facts import DatedEvent, RunFacts, kind, number
from ..run.phase_result import CheckRecord
from ..run.run import PHASES
from ..show.words import exactly, many, one_line
from ..slots.incidents import BEGAN, ENDED
from .figures_shown import period, worked_s

# What no check here can prove, in words: shown in the report and at the end of `runbook verify`.
NOT_PROVED = (
    "that no single row is off. Each vector is held against its text by words alone, and the rows that fit least, with "
    "others drawn at random after all parts were home, are computed again: this bounds how many may be off. Where two "
    "vectors are swapped whose texts are alike, or one is a little wrong, only computing these rows again shows it",
    "who made these files, unless a signature of the list was verified with keys that you brought: whoever may write "
    "all files may write a new list",
    "that the vectors serve your purpose: how questions find their documents is shown, and only you can judge it",
)


def sentence(run_facts: RunFacts) -> str:
    """Return the verdict's reason in words: what was done, or what is open."""
    if not run_facts.ok:
        open_ends = [_why_open(phase, run_facts) for phase in PHASES if not held(run_facts, phase)]
        stands = _published_at(run_facts)
        return " ".join(open_ends + ([f"The previous result is still there, {stands}."] if stands else []))
    documents, asked = (run_facts.manifest.documents, run_facts.manifest.questions) if run_facts.manifest else (0, 0)
    warned = sum(1 for _, check in all_checks(run_facts) if check.verdict == "warning")
    backed = " Its backup was read back." if run_facts.output("backup") else ""
    looked = f" {many(warned, 'warning')} below." if warned else ""
    what = (
        many(documents, "document") + (f" and {many(asked, 'question')}" if asked else "") if documents else "All rows"
    )
    return f"{what} are embedded, merged and checked row by row.{backed}{looked}"


def troubles(run_facts: RunFacts) -> str:
    """Return how long the run took, and the last three troubles of slots with their ends, the latest first."""
    began = [event for event in run_facts.events if event["event"] == BEGAN]
    start, end = period(run_facts)
    worked = worked_s(run_facts)
    took = "" if worked is None else f"Its phases took {exactly(worked)}"
    if worked is not None and start and end and (elapsed := (end - start).total_seconds()) > 1.05 * worked + 5:
        took += f", within {exactly(elapsed)}"
    took += "." if took else ""
    others = sum(1 for event in run_facts.events if kind(event) == "fault" and event["event"] != BEGAN)
    if not began:
        text = "No worker was in trouble."
    else:
        shown = "; ".join(_trouble(event, _end_of(event, run_facts.events)) for event in began[:-4:-1])
        text = f"Workers were in trouble {many(len(began), 'time')}: {shown}{'; …' if len(began) > 3 else ''}."
    more = f" {many(others, 'other fault')} below." if others else ""
    return f"{took} {text}{more}".strip()


def _trouble(event: DatedEvent, ended: DatedEvent | None) -> str:
    """Return one slot's trouble and its end in words."""
    end = f"worked again after {exactly(number(ended.get('seconds_lost')))}" if ended else "no end on record"
    why = one_line(event.get("cause") or "", 80)
    return f"{one_line(event.get('slot'), 40)} {one_line(event.get('verdict'), 40)}{f' ({why})' if why else ''}, {end}"


def _end_of(event: DatedEvent, events: Sequence[DatedEvent]) -> DatedEvent | None:
    """Return the end of a slot's trouble: the slot's first recovery after it."""
    later = events[next(i for i, other in enumerate(events) if other is event) :]
    return next((e for e in later if e["event"] == ENDED and e.get("slot") == event.get("slot")), None)


def held(run_facts: RunFacts, phase: str) -> bool:
    """Return whether a phase has a result whose checks all passed."""
    result = run_facts.results[phase]
    return bool(result and result.ok)


def _published_at(run_facts: RunFacts) -> str:
    """Return when the result under the final names was published; a phase may have failed since."""
    try:
        record = publication.published(run_facts.run)
    except DataError:
        return ""
    return f"published {record.at}" if record else ""


def _why_open(phase: str, run_facts: RunFacts) -> str:
    result = run_facts.results[phase]
    if result is None:
        events = [e for e in run_facts.events if (e["event"], e.get("phase")) == ("phase failed", phase)]
        reason = f" ({one_line(str(events[-1].get('reason')), 300)})" if events else ""
        return f"{phase} has no result{reason}."
    names = [check.name for check in result.checks if check.verdict == "FAILED"]
    listed = one_line(", ".join(names[:5])) + (", …" if len(names) > 5 else "")
    return f"{phase}: {many(len(names), 'check')} not holding ({listed})."


def all_checks(run_facts: RunFacts) -> list[tuple[str, CheckRecord]]:
    """Return every check of every phase, with its phase."""
    return [(phase, check) for phase in PHASES for check in run_facts.checks(phase)]
