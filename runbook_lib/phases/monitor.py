"""Monitor: watch a run until every row is committed: look, judge, show; what it finds goes into the journal.

What is done about what is seen is handed in (`tend.tend`), and runs beside the looking (`acting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from worker.escape import safe_text

from ..run import acts
from ..run.checks import Checks
from ..run.run import Run
from ..slots import states
from ..slots.incidents import Incidents
from ..slots.snapshot import SlotState, Snapshot
from ..slots.watcher import Watcher
from .acting import Act, Acting, ByHost

LOOK_S = 5.0  # a look waits so long for a host that is slow to answer; the others are not held up by it
GLANCE_S = 0.05  # what is done at once is told at once
SOON_S = 1.0  # what was done changes what is to be done next, perhaps by others


class View(Protocol):
    """What shows a `Snapshot`; live.Live is one."""

    def show(self, state: Snapshot) -> None:
        """Show this state instead of the one before."""


async def watch(
    run: Run,
    view: View,
    act: Act | None = None,
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Snapshot:
    """Look again and again, show each state in `view`, until every row is committed or nobody works any more.

    `rest(seconds)` is awaited between two looks. `act(run, state)` may do something about what is seen (see tend)
    and tells in words what it did. Interrupting this leaves the workers computing; calling it again takes up where they
    are.
    """
    watcher, incidents = Watcher(run, run.plan()), Incidents(run)
    interval, hurried = run.profile.monitor.interval_s, False
    acting = Acting(act, len(run.hosts) + 1)
    run.journal.write("watching", rows=watcher.plan.rows)
    state, settled = await _look(run, watcher)
    try:
        while True:
            if settled:
                incidents.note(state)
            over = settled and (state.done or state.resting)
            if not over or act is None:
                view.show(replace(state, alerts=(*state.alerts, *acting.trouble.values())))
            if over and state.late:  # it may have something to say
                state, settled = await _look(run, watcher, None)
                continue
            if over and act is None:
                break
            if settled or isinstance(act, ByHost):
                acting.begin(run, state)
            if over:
                did = await _shown_if_long(acting.to_the_end(run, state), view, state)
                state, settled = await _look(run, watcher)
                if settled and (state.done or (state.resting and not did)):
                    incidents.note(state)
                    view.show(state)  # after the last parts came home
                    break
            else:
                did = await acting.ended(GLANCE_S)
                if _given_up(state, run.profile.monitor.deadline_s):
                    break
            hurried = bool(did) and not hurried
            await rest(min(interval, SOON_S) if hurried else interval)
            state, settled = await _look(run, watcher)
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.journal.write("watching interrupted", committed=state.committed)
        print("Watching stopped. The workers go on; run this cell again to take up where they are.")
        return state
    finally:
        acting.close()
    if state.done:
        incidents.note_idle(state)
    run.journal.write("watched", committed=state.committed, rows=state.rows, seconds=round(state.elapsed_s, 1))
    return state


def look(run: Run) -> Snapshot:
    """One look at a run; what it finds and nobody told yet goes into the journal, as when it is watched."""
    state = Watcher(run, run.plan()).poll()
    if not acts.under_way(run):
        Incidents(run).note(state)
    return state


async def _look(run: Run, watcher: Watcher, within_s: float | None = LOOK_S) -> tuple[Snapshot, bool]:
    """A state, and whether something may be concluded from it: not in the middle of a person's act."""
    before = acts.stamp(run)
    watcher.within_s = within_s
    state = await asyncio.to_thread(watcher.poll)
    if words := acts.under_way(run):
        alert = f"a person's act is under way: {words}"
        return replace(state, alerts=(*state.alerts, alert)), False
    return state, acts.stamp(run) == before


async def _shown_if_long(ending: Coroutine[Any, Any, list[str]], view: View, state: Snapshot) -> list[str]:
    """What came of the ending; the picture before it is worth showing only where that takes a while."""
    task = asyncio.ensure_future(ending)
    if not (await asyncio.wait([task], timeout=SOON_S))[0]:
        view.show(state)
    return await task


def _given_up(state: Snapshot, deadline_s: float) -> bool:
    """Whether everybody who still has rows, and does not rest, has been silent for longer than the deadline."""
    left = [slot for slot in state.slots if not slot.done and slot.state not in states.REST]
    return bool(left) and all(state.silent_s.get(slot.host, 0.0) > deadline_s for slot in left)


def _why(slot: SlotState) -> str:
    """Why a slot is not done, in words."""
    return "stopped by a person" if slot.state == states.STOPPED else f"{slot.state} {slot.reason}".strip()


def finished(state: Snapshot) -> Checks:
    """Whether every row is committed and none was given up: what the gate of this phase asks."""
    checks = Checks("Every row is committed")
    for slot in state.slots:
        progress = f"{slot.committed:,} of {slot.rows:,} rows" + ("" if slot.done else f"; {_why(slot)}")
        stopped = "`runbook run` goes on, or `runbook restart`"
        next_step = stopped if slot.state == states.STOPPED else f"runbook logs {state.run} {slot.slot}"
        checks.add(slot.slot, slot.done, progress, f"{slot.rows:,}", next_step, slot.host)
    why = {each.row: f": {safe_text(each.reason, 300)}" for each in state.refusals}
    given_up = ", ".join(state.named.get(row, f"row {row}") + why.get(row, "") for row in state.quarantined[:10])
    checks.add(
        "rows given up",
        not state.quarantined,
        given_up or "none",
        "none",
        "mend their texts in the corpus, then: runbook run PROFILE --amend",
    )
    checks.add("rows", state.done, f"{state.committed:,}", f"{state.rows:,}", "run this notebook again")
    return checks
