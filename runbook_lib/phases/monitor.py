"""Monitor: watch a run until every row is committed: poll, judge, show; incidents go into the journal.

The caller passes the act that reacts to a state (`tend.tend`); it runs in parallel to the polling (`acting`).
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
from ..slots.needs import Teller
from ..slots.snapshot import SlotState, Snapshot
from ..slots.watcher import Watcher
from .acting import Act, Acting, ByHost

LOOK_S = 5.0  # a poll waits so long for a slow host, which does not delay the others
GLANCE_S = 0.05  # short wait, so that quick jobs are reported in the same round
SOON_S = 1.0  # after an act the next poll comes sooner: the state has changed


class View(Protocol):
    """Something that shows a `Snapshot`, for example live.Live."""

    def show(self, state: Snapshot) -> None:
        """Show this state instead of the one before."""


async def watch(
    run: Run,
    view: View,
    act: Act | None = None,
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Snapshot:
    """Poll again and again, show each state in `view`, until every row is committed or no worker works any more.

    `rest(seconds)` is awaited between two polls. `act(run, state)` may react to the state (see tend) and returns in
    words what it did. Interrupting this does not stop the workers; a later call continues to watch them.
    """
    watcher, incidents, teller = Watcher(run, run.plan()), Incidents(run), Teller(run)
    interval, hurried = run.profile.monitor.interval_s, False
    acting = Acting(act, len(run.hosts) + 1)
    run.journal.write("watching", rows=watcher.plan.rows)
    state, settled = await _look(run, watcher)
    try:
        while True:
            if settled:
                incidents.note(state)
                teller.look()
            over = settled and (state.done or state.resting)
            if not over or act is None:
                view.show(replace(state, alerts=(*state.alerts, *acting.trouble.values())))
            if over and state.late:  # a late host may still answer
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
                    view.show(state)  # after the download of the last parts
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
    """Poll a run once; new incidents go into the journal, as in `watch`."""
    state = Watcher(run, run.plan()).poll()
    if not acts.under_way(run):
        Incidents(run).note(state)
    return state


async def _look(run: Run, watcher: Watcher, within_s: float | None = LOOK_S) -> tuple[Snapshot, bool]:
    """Return a state, and whether it is settled: it is not while a person's act runs."""
    before = acts.stamp(run)
    watcher.within_s = within_s
    state = await asyncio.to_thread(watcher.poll)
    if words := acts.under_way(run):
        alert = f"a person's act is under way: {words}"
        return replace(state, alerts=(*state.alerts, alert)), False
    return state, acts.stamp(run) == before


async def _shown_if_long(ending: Coroutine[Any, Any, list[str]], view: View, state: Snapshot) -> list[str]:
    """Await `ending` and return its result; show the present state first if it takes long."""
    task = asyncio.ensure_future(ending)
    if not (await asyncio.wait([task], timeout=SOON_S))[0]:
        view.show(state)
    return await task


def _given_up(state: Snapshot, deadline_s: float) -> bool:
    """Return whether all hosts of unfinished slots that do not rest have been silent for longer than the deadline."""
    left = [slot for slot in state.slots if not slot.done and slot.state not in states.REST]
    return bool(left) and all(state.silent_s.get(slot.host, 0.0) > deadline_s for slot in left)


def _why(slot: SlotState) -> str:
    """Return in words why a slot is not done."""
    return "stopped by a person" if slot.state == states.STOPPED else f"{slot.state} {slot.reason}".strip()


def finished(state: Snapshot) -> Checks:
    """Check that every row is committed and none was given up, for the gate of this phase."""
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
        "correct their texts in the corpus, then: runbook run PROFILE --amend",
    )
    checks.add("rows", state.done, f"{state.committed:,}", f"{state.rows:,}", "run this notebook again")
    return checks
