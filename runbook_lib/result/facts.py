"""The facts of a run, gathered from its files for the report: what is missing or unreadable is named, never a crash."""

from __future__ import annotations

import json
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
from .figures import Figures
from .manifest import Manifest
from .merged import Merged


class DatedEvent(journal.Event, total=False):
    """An event of the journal, with its moment."""

    when: Required[datetime]


@dataclass(frozen=True)
class Span:
    """One execution of a phase: `done`, `failed`, `broken off` (started again without an end) or `not ended`.

    `stop` is None where the journal does not say when it ended; `last_event_at` is when its last event was written.
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
    """What the records of the parts that came home tell: rows, and the time in which at least one slot computed."""

    rows: int
    parts: int
    busy_s: float
    devices: tuple[str, ...]

    @property
    def rate(self) -> float | None:
        """Rows a second while slots computed: a pause of the whole run does not count."""
        return self.rows / self.busy_s if self.busy_s > 0 else None


@dataclass(frozen=True)
class RunFacts:
    """Everything the report is made from; `missing` says in words what could not be read."""

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
        """True when every phase handed over with all its checks holding."""
        return all(result and result.ok for result in self.results.values())

    @property
    def spans(self) -> list[Span]:
        """The executions of the phases, in order."""
        return spans(self.events)

    @property
    def without_rows(self) -> list[Slot]:
        """The slots that were given rows and of whom no row of the result is; none while nothing is merged."""
        gave = self.manifest.slots if self.manifest else {}
        return [slot for slot in self.plan.used if slot.slot not in gave] if self.plan and gave else []

    def output(self, name: str) -> Output | None:
        """`founding` or `backup` as the last phase states it; None where it does not."""
        result = self.results.get(PHASES[-1])
        with suppress(RunbookError):
            return result.output(name) if result else None
        return None

    def checks(self, phase: str) -> tuple[CheckRecord, ...]:
        """The checks that a phase's gate recorded."""
        result = self.results[phase]
        return result.checks if result else ()


def number(value: object) -> float | None:
    """A number, or None for anything else."""
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
    """The journal's events; a line that is none is left out here, and named by `runbook verify`."""
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
    """An event's kind: as it was written; of a line that says none of ours, as its name is known, else empty."""
    written = event.get("kind")
    if written in EVERY_KIND:
        return str(written)
    if event["event"] == "gate":  # an earlier version wrote no kind
        return PHASE if event.get("ok") else FAULT
    return KINDS.get(event["event"], "")


def is_reported(event: DatedEvent) -> bool:
    """Whether it tells what went wrong, what was done about it, or what a person undid."""
    return kind(event) in (FAULT, RECOVERY) or event["event"] in UNDOING


def details(event: journal.Event) -> str:
    """What an event of any name says besides its name, as `key: value` pairs."""
    skip = {"seq", "at", "when", "event", "kind", "prev"}
    values = {key: value for key, value in event.items() if key not in skip and value not in ("", [])}
    return "; ".join(f"{key}: {as_text(value)}" for key, value in values.items())


def as_text(value: object) -> str:
    """A JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(item)}" for key, item in value.items())
    return ", ".join(map(as_text, value)) if isinstance(value, list) else str(value)


def spans(events: Sequence[DatedEvent]) -> list[Span]:
    """The executions of phases: from the chain's own events; for a notebook run by hand, from its first event to its
    gate."""
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
        before = None if name in ("gate", "phase ended", "phase failed") else before  # what is between them is idle
    return [*ended, under_way] if under_way else ended


# ------------------------------------------------------------------------------------------------------------- parts


def encoding(run: Run, missing: list[str]) -> Encoding:
    """Rows and computing time from the parts' records; one record at a time is held."""
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
    """How much of the line intervals cover together."""
    total, at = 0.0, float("-inf")
    for low, high in sorted(intervals):
        total += max(0.0, high - max(low, at))
        at = max(at, high)
    return total
