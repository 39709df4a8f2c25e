"""The founding plan's execution report: its form, with every field filled from the run's files."""

from __future__ import annotations

import html
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from worker.files import write_atomic

from ..result import facts
from ..result.facts import DatedEvent, RunFacts
from ..run.journal import ACT, REMARK
from ..run.run import Run
from ..show.words import exactly, one_line
from . import figures_shown
from .next_steps import next_steps
from .page import at_utc
from .verdict import NOT_PROVED, sentence

UNDATED = "execution_report.md"  # for a run without events


def execution_report(run: Run) -> Path:
    """Write notes/execution_report_<date>.md: the founding plan's form, every field filled from the run's files.

    The date is that of the run's first event, in UTC, so that writing it again replaces it.
    """
    run_facts = facts.gather(run)
    start, _ = figures_shown.period(run_facts)
    path = run.notes / f"execution_report_{start.astimezone(UTC):%Y%m%d}.md" if start else run.notes / UNDATED
    write_atomic(path, "\n".join(_form(run_facts)).encode())
    if start:
        (run.notes / UNDATED).unlink(missing_ok=True)
    return path


def failure_log(run: Run) -> Path:
    """Write notes/failures.log: a dated line for each fault, recovery, remark and act that undid something."""
    try:
        events = [event for event in facts.events(run) if facts.is_reported(event) or facts.kind(event) == REMARK]
    except OSError:
        events = []
    lines = [
        # The date as `date` writes it, a one-digit day after two blanks, so outside one_line, which makes one of them.
        f"{event['when'].astimezone(UTC):%a %b %e %H:%M:%S UTC %Y}: "
        f"{one_line(f'{_named(event)}: {facts.details(event)}', 1000)}\n"
        for event in events
    ]
    path = run.notes / "failures.log"
    write_atomic(path, "".join(lines).encode())
    return path


def _named(event: DatedEvent) -> str:
    """Return an event's name; a person's act is marked."""
    return f"{event['event']} (act)" if facts.kind(event) == ACT else str(event["event"])


def _slots(run_facts: RunFacts) -> str:
    """Return the number of slots that gave rows, by host, and the names of those that gave none."""
    if run_facts.plan is None:
        return "missing"
    idle = run_facts.without_rows
    used = Counter(slot.host for slot in run_facts.plan.used if slot not in idle)
    whole = f"{sum(used.values())} ({', '.join(f'{count} on {_md(host)}' for host, count in used.items())})"
    named = ", ".join(f"{slot.slot} on {slot.host}" for slot in idle)
    return whole + (f"; no row is from {_md(named)}" if idle else "")


def _form(run_facts: RunFacts) -> list[str]:
    start, end = figures_shown.period(run_facts)
    plan, founding = run_facts.plan, run_facts.output("founding")
    hosts = plan.hosts if plan else []
    rate = run_facts.encoding.rate
    issues = [event for event in run_facts.events if facts.is_reported(event)]
    return [
        f"# Execution Report - {start.astimezone(UTC).date() if start else 'not started'}",
        "",
        "## Summary",
        f"- **Run:** {_md(run_facts.run.name)}",
        f"- **Start time:** {at_utc(start)}",
        f"- **End time:** {at_utc(end)}",
        f"- **Total duration:** {_duration(run_facts, start, end)}",
        f"- **Output file:** {_md(founding.path if founding else 'missing')}",
        f"- **File size:** {_size(founding.bytes if founding else None)}",
        f"- **Status:** {'SUCCESS' if run_facts.ok else 'NOT SUCCEEDED: ' + _md(sentence(run_facts))}",
        "",
        "## Metrics",
        f"- Documents: {_count(run_facts.documents)}",
        *_since(run_facts),
        f"- Questions: {_count(plan.questions if plan else None)}",
        f"- Embedding dimension: {plan.model.dim if plan else 'missing'}",
        f"- Model: {_md(f'{plan.model.name} at {plan.model.revision}, {plan.dtype}') if plan else 'missing'}",
        f"- Hosts used: {_md(', '.join(hosts)) or 'missing'}",
        f"- Slots used: {_slots(run_facts)}",
        f"- Items/sec: {f'{rate:,.1f} while slots computed' if rate else 'missing'}",
        "",
        "## Issues Encountered",
        *([f"- {at_utc(e['when'])} {_md(_named(e))}: {_md(facts.details(e))}" for e in issues] or ["None."]),
        "",
        "## Checksums (sha256)",
        *_sums(run_facts),
        "",
        "## Next Steps",
        *(f"{number}. {step}" for number, step in enumerate(_next_steps(run_facts), 1)),
        "",
        "## Not proved",
        *(f"- {_md(what, 1000)}" for what in NOT_PROVED),
        "",
    ]


def _since(run_facts: RunFacts) -> list[str]:
    """Return what was taken from an earlier run, if the run was made with --since."""
    figures = figures_shown.key_figures(run_facts) if run_facts.since else []
    names = ("reused", "added and changed", "computed now")
    return [f"- {each.name.capitalize()}: {each.value} ({_md(each.note)})" for each in figures if each.name in names]


def _duration(run_facts: RunFacts, start: datetime | None, end: datetime | None) -> str:
    """Return the working time of the phases, and the time from start to end with pauses."""
    worked = figures_shown.worked_s(run_facts)
    if worked is None or not (start and end):
        return "missing"
    return f"{exactly(worked)} of phases at work, {exactly((end - start).total_seconds())} from start to end"


def _next_steps(run_facts: RunFacts) -> list[str]:
    """Return what is still to be done with this run, by its files."""
    return [f"{_md(words)}{f': `{_code(command)}`' if command else ''}" for words, command in next_steps(run_facts)]


def _code(command: str) -> str:
    """Return a command for a code span, which nothing in it can end."""
    return html.escape(one_line(command, 500), quote=False).replace("`", "'")


def _sums(run_facts: RunFacts) -> list[str]:
    outputs = run_facts.manifest.outputs if run_facts.manifest else {}
    stated = {f"merged/{name}": written.sha256 for name, written in outputs.items()}
    stated |= {kind: output.sha256 for kind in ("founding", "backup") if (output := run_facts.output(kind))}
    return [f"- {_md(name)}: `{_md(sha256)}`" for name, sha256 in stated.items()] or ["missing"]


def _md(value: object, limit: int = 500) -> str:
    """Return any value as one line of Markdown, with all markup escaped."""
    line = html.escape(one_line(value, limit), quote=False)
    return "".join(f"\\{char}" if char in "\\*[]|`" else char for char in line)


def _count(value: int | None) -> str:
    return "missing" if value is None else f"{value:,}"


def _size(size: int | None) -> str:
    return "missing" if size is None else f"{size / 1e6:,.2f} MB ({size:,.0f} bytes)"
