"""What `runbook run` shows while a phase runs: a bar in a terminal, a line from time to time in a log.

The rows are counted from this machine's own files, because the running phase asks the hosts already. It writes its
last rate, time left and alerts into a file of the run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from worker.files import read_json
from worker.layout import committed
from worker.rows import count, missing

from ..run.run import PHASES, Run
from .words import many, one_line


@dataclass(frozen=True)
class LastSeen:
    """The last status of the watching phase: rate and time left in words, and its alerts."""

    pace: str = ""
    alerts: tuple[str, ...] = ()


LOG_LINE_S = 20.0  # time between two lines without a terminal


def show(run: Run, phase: str, child: subprocess.Popen[bytes], meanwhile: Callable[[], None]) -> None:
    """Show the progress of a phase until its process ends, and every alert once; call `meanwhile` every second."""
    plan = run.plan() if phase in PHASES[1:3] and run.plan_file.exists() else None
    terminal = sys.stderr.isatty()
    rows_shown: list[ProgressColumn] = (
        [TextColumn("{task.completed:,}/{task.total:,} rows"), BarColumn(30)] if plan else []
    )
    columns = [
        TextColumn("{task.description}:"),
        *rows_shown,
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    ]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = printed_at = time.monotonic()
    since, alerts = time.time(), set[str]()
    with Progress(*columns, console=console, transient=True, disable=not terminal) as bar:
        task = bar.add_task(phase, total=plan.rows if plan else None, pace="")
        while child.poll() is None:
            status = last_seen(run, since)
            home = plan.rows - count(missing(0, plan.rows, committed(run.local.parts))) if plan else 0
            for alert in new_alerts(status.alerts, alerts):
                console.print(f"{phase}: ! {alert}", markup=False)
            if terminal:
                bar.update(task, completed=home, pace=status.pace)
            elif time.monotonic() - printed_at > LOG_LINE_S:
                printed_at = time.monotonic()
                rows = f"{home}/{plan.rows} rows are home" if plan else ""
                print(log_line(phase, printed_at - began, rows, status), file=sys.stderr, flush=True)
            meanwhile()
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)


def new_alerts(now: Sequence[str], shown: set[str]) -> list[str]:
    """Return the alerts that differ from those `shown` in more than a rate or a time, and add them there."""
    new = {re.sub(r"[\d.,]+(?= (?:rows/s|s|min)\b)", "#", alert): alert for alert in now}
    other = [alert for form, alert in new.items() if form not in shown]
    shown |= set(new)
    return other


def log_line(phase: str, seconds: float, rows: str, status: LastSeen) -> str:
    """Return one line for a log: phase, time, rows, rate and time left, number of open alerts."""
    standing = many(len(status.alerts), "alert") if status.alerts else ""
    return f"{phase}: " + ", ".join(filter(None, (f"{seconds:.0f} s", rows, status.pace, standing)))


def last_seen(run: Run, since: float) -> LastSeen:
    """Return the last rate, time left and alerts of the watching phase, if they are newer than `since`."""
    try:
        record = read_json(run.watching_file) or {}
    except (OSError, ValueError):
        record = {}
    if not isinstance(record.get("at"), int | float) or record["at"] < since:
        return LastSeen()
    alerts = record.get("alerts")
    shown = tuple(one_line(alert, 500) for alert in alerts) if isinstance(alerts, list) else ()
    return LastSeen(one_line(record.get("pace") or "", 100), shown)
