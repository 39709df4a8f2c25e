"""The tasks of a cluster: submitted together, for what each has left, and stopped together."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from worker.escape import safe_text
from worker.rows import Covered
from worker.wire import Reading

from ..errors import HostError, RunbookError
from ..hosts import hosts as machines
from ..hosts import together
from ..hosts.content import json_content
from ..hosts.scheduler import is_queued
from ..profile.profile import HostSpec
from ..run.plan import Plan
from ..run.run import Run
from ..slots import incidents
from .staging import NotStaged

STOP_S = 90.0  # for the scheduler to end tasks; a task that it does not know is waited for until its sign is old
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0  # between two questions to the queue, while a person waits


@dataclass(frozen=True)
class Placed:
    """A task with `left` rows to do; `started`: submitted now, else `why` it was left alone."""

    left: int
    started: bool
    why: str = ""

    def __str__(self) -> str:
        return f"{'submitted' if self.started else self.why}, {self.left} rows left"


class LeftAlone(StrEnum):
    """Why nothing was started for a host."""

    NO_ROWS = "no rows left for this host"
    STOPPED = "stopped by a person; left so"
    NOT_MEANT = "left as it is"


Outcome = Placed | LeftAlone | RunbookError


@dataclass(frozen=True)
class Wanted:
    """Which tasks are to be submitted: all, or `only` some; whether a stop or a giving up is undone."""

    only: Collection[str] | None
    retry_given_up: bool
    undo_stop: bool


def submit(run: Run, plan: Plan, specs: Sequence[HostSpec], wanted: Wanted) -> dict[str, Outcome]:
    """Submit the tasks of one cluster that have rows left and neither work nor wait, in one go; an outcome for each."""
    chosen = [spec for spec in specs if wanted.only is None or spec.name in wanted.only]
    results: dict[str, Outcome] = {spec.name: LeftAlone.NOT_MEANT for spec in specs if spec not in chosen}
    if not chosen:
        return results
    to_do: dict[str, int] = {}
    readings = together.poll(run, chosen)
    for spec in chosen:
        reading = readings[spec.name]
        found = reading if isinstance(reading, RunbookError) else _look(plan, spec, reading, wanted)
        if isinstance(found, int):
            to_do[spec.name] = found
        else:
            results[spec.name] = found
    if to_do:
        done = machines.ask_host(run, chosen[0], lambda host: _submit(run, plan, host, chosen, to_do, readings, wanted))
        results |= dict.fromkeys(to_do, done) if isinstance(done, RunbookError) else done
    return results


def _look(plan: Plan, spec: HostSpec, reading: Reading, wanted: Wanted) -> Outcome | int:
    """Return the rows that a task is to be submitted for; or why it is not: nothing to do, at work, or in the queue."""
    given_up = [] if wanted.retry_given_up else [(row, row + 1) for row in reading.quarantined]
    settled = Covered([*reading.committed, *given_up])
    left = sum(plan.left(slot, settled) for slot in plan.of_host(spec.name))
    if not left:
        return LeftAlone.NO_ROWS
    if not reading.assigned:
        return NotStaged(spec.name)
    if reading.supervisor_alive:
        return Placed(left, False, "works already")
    if reading.queued and (entry := reading.queued.entry):
        return Placed(left, False, safe_text(f"in the queue already ({entry.state} {entry.reason})", 300))
    return LeftAlone.STOPPED if reading.stop_requested and not wanted.undo_stop else left


def _submit(
    run: Run,
    plan: Plan,
    host: machines.Host,
    specs: Sequence[HostSpec],
    to_do: dict[str, int],
    readings: dict[str, Reading | RunbookError],
    wanted: Wanted,
) -> dict[str, Outcome]:
    """Submit these tasks, having taken away what a person or a failure had left for them."""
    tasks = {spec.task: spec.name for spec in specs if spec.name in to_do}
    for name in tasks.values():
        host.remove(host.folder.stop_request(name))
    first = readings[tasks[min(tasks)]]
    if wanted.retry_given_up and isinstance(first, Reading):
        for row in first.quarantined:
            host.remove(host.folder.quarantined(row))
    left = {task: to_do[name] for task, name in tasks.items()}
    answer = host.scheduler.submit(host.python, f"rb-{run.name}-e{plan.epoch}", left, wanted.retry_given_up)
    results: dict[str, Outcome] = {}
    for task, name in tasks.items():
        if task in answer["submitted"]:
            results[name] = Placed(left[task], True)
        elif task in answer["given_up"]:
            why = "given up: so many submissions in a row ended without a new row. Read its log, then runbook run"
            results[name] = Placed(left[task], False, why)
        else:
            results[name] = Placed(left[task], False, answer["there"].get(str(task), "left alone"))
    return results


def stop(run: Run, specs: Sequence[HostSpec]) -> bool:
    """Stop the tasks of one cluster, those in the queue too; whether there were any. Raises HostError.

    The request comes first: a task that its scheduler has lost sees it, and one that is ended knows by whom.
    """
    host = machines.connect(specs[0], run.name)
    before = _readings(run, specs)
    for spec in specs:
        incidents.record(run, spec.name, before[spec.name])
        if before[spec.name].assigned:
            host.put(host.folder.stop_request(spec.name), json_content({"stop": True}))
    tasks = [spec.task for spec in specs]
    were_there = host.scheduler.cancel(tasks) or any(reading.supervisor_alive for reading in before.values())
    limit_s = STOP_S + 4 * (specs[0].heartbeat_s or 0.0)
    deadline, pause_s = time.monotonic() + limit_s, FIRST_PAUSE_S
    while left := _at_work(run, host, specs):
        if time.monotonic() > deadline:
            raise HostError(f"{specs[0].cluster}: tasks {', '.join(left)} did not end within {limit_s:g} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return were_there


def _at_work(run: Run, host: machines.Host, specs: Sequence[HostSpec]) -> list[str]:
    """Return the tasks that give a fresh sign, or that the queue has, asked now."""
    host.scheduler.ask_queue()
    readings = _readings(run, specs)
    return [name for name, reading in readings.items() if reading.supervisor_alive or is_queued(reading)]


def _readings(run: Run, specs: Sequence[HostSpec]) -> dict[str, Reading]:
    """Return the readings of a cluster's tasks. Raises the first failure."""
    readings = together.poll(run, specs)
    for reading in readings.values():
        if isinstance(reading, RunbookError):
            raise reading
    return {name: reading for name, reading in readings.items() if isinstance(reading, Reading)}
