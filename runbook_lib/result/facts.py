"""The facts of a run, read from its files for the report: missing or unreadable files are listed and raise no error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Required, cast

from worker.files import read_json
from worker.layout import committed

from .. import records
from ..errors import RunbookError
from ..run import journal
from ..run.journal import EVERY_KIND, FAULT, KINDS, PHASE, RECOVERY, UNDOING
from ..run.machine_facts import HostsFile
from ..run.phase_result import CheckRecord, Output, PhaseResult
from ..run.plan import Plan, Slot
from ..run.run import PHASES, Run
from . import figures
from . import whole as wholes
from .figures import Figures
from .manifest import Manifest, Since
from .merged import Merged

SUM = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


class DatedEvent(journal.Event, total=False):
    """An event of the journal, with its time."""

    when: Required[datetime]


@dataclass(frozen=True)
class Span:
    """One execution of a phase: `done`, `failed`, `broken off` (started again without an end) or `not ended`.

    `stop` is None if the journal has no end of it; `last_event_at`: the time of its last event.
    """

    phase: str
    attempt: int
    start: datetime
    stop: datetime | None
    outcome: str
    last_event_at: datetime

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return (self.stop - self.start).total_seconds() if self.stop else None


@dataclass(frozen=True)
class Encoding:
    """Facts from the records of the downloaded parts: rows, and the time in which at least one slot computed."""

    rows: int
    parts: int
    busy_s: float
    devices: tuple[str, ...]

    @property
    def rate(self) -> float | None:
        """Rows a second while slots computed: pauses of the whole run do not count."""
        return self.rows / self.busy_s if self.busy_s > 0 else None


@dataclass(frozen=True)
class RunFacts:
    """Everything that the report is made from; `missing` lists in words what could not be read."""

    run: Run
    plan: Plan | None
    results: dict[str, PhaseResult | None]
    manifest: Manifest | None
    figures: Figures
    hosts: dict[str, dict[str, object]]
    events: list[DatedEvent]
    encoding: Encoding
    missing: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if every phase has a result whose checks all passed."""
        return all(result and result.ok for result in self.results.values())

    @property
    def since(self) -> Since | None:
        """What was taken from an earlier run; None for a run without --since, or before its corpus was numbered."""
        if self.manifest is not None:
            return self.manifest.since
        with suppress(RunbookError, OSError):
            return whole.since if (whole := wholes.load(self.run)) else None
        return None

    @property
    def documents(self) -> int | None:
        """How many rows the result has, or will have; None if unknown."""
        if self.manifest is not None:
            return self.manifest.documents
        if since := self.since:
            return since.added + since.changed + since.reused
        return self.plan.documents if self.plan else None

    @property
    def spans(self) -> list[Span]:
        """The executions of the phases, in order."""
        return spans(self.events)

    @property
    def without_rows(self) -> list[Slot]:
        """The slots that had rows in the plan and gave none to the result; empty while nothing is merged."""
        gave = self.manifest.slots if self.manifest else {}
        return [slot for slot in self.plan.used if slot.slot not in gave] if self.plan and gave else []

    def output(self, name: str) -> Output | None:
        """Return `founding` or `backup` from the result of the last phase; None if it has none."""
        result = self.results.get(PHASES[-1])
        with suppress(RunbookError):
            return result.output(name) if result else None
        return None

    def checks(self, phase: str) -> tuple[CheckRecord, ...]:
        """The checks that a phase's gate recorded."""
        result = self.results[phase]
        return result.checks if result else ()


def number(value: object) -> float | None:
    """Return a number as float, or None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def gather(run: Run) -> RunFacts:
    """Read a run's files."""
    missing: list[str] = []

    def attempt(what: str, read: Callable[[], Any], default: Any) -> Any:
        try:
            value = read()
        except (RunbookError, OSError, ValueError, KeyError, TypeError) as error:
            missing.append(f"{what}: {error}")
            return default
        if value is None:
            missing.append(f"{what}: there is none")
        return default if value is None else value

    return RunFacts(
        run=run,
        plan=attempt("plan", run.plan, None),
        results={phase: attempt(f"result of {phase}", partial(run.result, phase), None) for phase in PHASES},
        manifest=attempt("merged result", Merged(run.merged).manifest, None),
        figures=attempt("validation figures", lambda: figures.read(run.report / "validation.json"), Figures()),
        hosts=attempt("hosts as probed", lambda: records.read(HostsFile, run.hosts_file), HostsFile({})).hosts,
        events=attempt("journal", lambda: events(run), []),
        encoding=encoding(run, missing),
        missing=tuple(missing),
    )


# ----------------------------------------------------------------------------------------------------------- journal


def events(run: Run) -> list[DatedEvent]:
    """Read the journal's events; an invalid line is left out here, and reported by `runbook verify`."""
    dated = []
    for line in run.journal.path.read_bytes().splitlines():
        try:
            record = json.loads(line)
            when, name = datetime.fromisoformat(record["at"]), str(record["event"])
            dated.append(cast(DatedEvent, {**record, "when": when, "event": name}))
        except (ValueError, KeyError, TypeError):
            continue
    return dated


def kind(event: journal.Event) -> str:
    """Return an event's kind: the written one; else the kind that belongs to its name, or an empty text."""
    written = event.get("kind")
    if written in EVERY_KIND:
        return str(written)
    if event["event"] == "gate":  # an earlier version wrote no kind
        return PHASE if event.get("ok") else FAULT
    return KINDS.get(event["event"], "")


def is_reported(event: DatedEvent) -> bool:
    """Return whether an event is a fault, a recovery, or an act of a person that undid something."""
    return kind(event) in (FAULT, RECOVERY) or event["event"] in UNDOING


def details(event: journal.Event) -> str:
    """Return the fields of an event besides its name, as `key: value` pairs."""
    skip = {"seq", "at", "when", "event", "kind", "prev"}
    values = {key: value for key, value in event.items() if key not in skip and value not in ("", [])}
    return "; ".join(f"{key}: {as_text(value)}" for key, value in values.items())


def briefly(event: journal.Event) -> str:
    """Return `details` as a person reads them in a line: of a sum the beginning, and not which files were written."""
    seen = cast(journal.Event, {key: value for key, value in event.items() if key != "wrote"})
    return SUM.sub(r"\1…", details(seen))


def as_text(value: object) -> str:
    """Return a JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(item)}" for key, item in value.items())
    return ", ".join(map(as_text, value)) if isinstance(value, list) else str(value)


def spans(events: Sequence[DatedEvent]) -> list[Span]:
    """Return the executions of phases: by the chain's events; for a notebook run by hand, first event to gate."""
    chained = {event.get("phase") for event in events if event["event"] == "phase started"}
    ended: list[Span] = []
    under_way: Span | None = None
    before = None
    for event in events:
        phase, name, when = str(event.get("phase")), event["event"], event["when"]
        before = before or when
        if name == "phase started":
            ended += [replace(under_way, outcome="broken off")] if under_way else []
            under_way = Span(phase, int(number(event.get("attempt")) or 1), when, None, "not ended", when)
        elif name in ("phase ended", "phase failed") and under_way and under_way.phase == phase:
            outcome = "done" if name == "phase ended" else "failed"
            ended.append(replace(under_way, stop=when, outcome=outcome, last_event_at=when))
            under_way = None
        elif name == "gate" and phase not in chained and before:
            ended.append(Span(phase, 1, before, when, "done" if event.get("ok") else "failed", when))
        under_way = replace(under_way, last_event_at=when) if under_way else None
        before = (
            None if name in ("gate", "phase ended", "phase failed") else before
        )  # the time between two phases is idle
    return [*ended, under_way] if under_way else ended


# ------------------------------------------------------------------------------------------------------------- parts


def encoding(run: Run, missing: list[str]) -> Encoding:
    """Return rows and computing time from the parts' records; one record at a time is in memory."""
    rows, times, devices = 0, [], set()
    ranges = committed(run.local.parts)
    for start, stop in ranges:
        path = run.local.part(start, stop).with_suffix(".json")
        try:
            record = read_json(path) or {}
        except (OSError, ValueError) as error:
            missing.append(f"{path.name}: {error}")
            continue
        rows += stop - start
        devices.add(str(record.get("device") or "unknown device"))
        end, spent = number(record.get("written_at")), number(record.get("seconds"))
        if end is not None and spent is not None:
            times.append((end - spent, end))
    return Encoding(rows, len(ranges), covered(times), tuple(sorted(devices)))


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the total length that the intervals cover together."""
    total, at = 0.0, float("-inf")
    for low, high in sorted(intervals):
        total += max(0.0, high - max(low, at))
        at = max(at, high)
    return total
