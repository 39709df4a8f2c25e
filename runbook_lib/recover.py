"""Recover: start what should run and does not. The only phase that reaches sideways, to launch and monitor."""

from __future__ import annotations

from . import download, launch
from .run import Run
from .state import State

WATCHING_OUTAGE_S = 20.0  # while watching, a transfer that is stuck is left for the next round


def revive(run: Run, state: State) -> list[str]:
    """Bring finished parts home and start the supervisor of a host that has rows left and no supervisor.

    Given to `monitor.watch` as what to do about what it sees; tells in words what it did. With `recovery: off` in the
    profile it only collects.
    """
    did = []
    collected = download.collect(run, there=state.there, outage_s=WATCHING_OUTAGE_S)
    did += [f"part refused, its rows are done again: {why}" for why in collected.refused]
    if run.profile.recovery != "auto":
        return did
    # Never a host that was stopped, or given up, because of what happened to another one.
    wanted = {slot.host for slot in state.slots if slot.state == "dead"}
    if collected.refused:
        resting = {slot.host for slot in state.slots if slot.state in ("stopped", "fenced")}
        wanted |= {slot.host for slot in state.slots if slot.state == "done"} - resting
    if wanted:
        checks = launch.start(run, retry_given_up=False, only=wanted)
        started = [f"{check.where}: {check.seen}" for check in checks if check.seen.startswith("started")]
        for line in started:
            run.journal.write("revived", seen=line)
        did += started
    return did
