"""What `runbook run` shows while a phase runs: a bar in a terminal, a line now and then in a log.

The rows are counted from this machine's own files: the phase that runs asks the hosts already. What it saw last, its
rate, the time left and its alerts, it leaves in a file of the run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
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
    """What the watching phase saw last: rate and time left in words, and its alerts."""

    pace: str = ""
    alerts: tuple[str, ...] = ()


LOG_LINE_S = 20.0  # where no terminal shows a bar, a line this often


def show(run: Run, phase: str, child: subprocess.Popen[bytes], meanwhile: Callable[[], None]) -> None:
    """Show how far a phase is until its process ends, and every alert once; `meanwhile` is called every second."""
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
            for alert in status.alerts:
                if alert not in alerts:
                    alerts.add(alert)
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


def log_line(phase: str, seconds: float, rows: str, status: LastSeen) -> str:
    """One line for a log: phase, time, rows, rate and time left, how many alerts stand."""
    standing = many(len(status.alerts), "alert") if status.alerts else ""
    return f"{phase}: " + ", ".join(filter(None, (f"{seconds:.0f} s", rows, status.pace, standing)))


def last_seen(run: Run, since: float) -> LastSeen:
    """The rate, the time left and the alerts that the watching phase saw last, if it did since then."""
    try:
        record = read_json(run.watching_file) or {}
    except (OSError, ValueError):
        record = {}
    if not isinstance(record.get("at"), int | float) or record["at"] < since:
        return LastSeen()
    alerts = record.get("alerts")
    shown = tuple(one_line(alert, 500) for alert in alerts) if isinstance(alerts, list) else ()
    return LastSeen(one_line(record.get("pace") or "", 100), shown)
