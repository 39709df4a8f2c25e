"""Tend: the work for each host while a run is watched: recovery first, then the download of its finished parts."""

from __future__ import annotations

from collections.abc import Collection

from ..run.opening import limited
from ..run.run import Run
from ..slots.snapshot import Snapshot
from . import canaries, download, recover

OUTAGE_S = 20.0  # a transfer that is stuck is left for the next round


class Tend(recover.Recovery):
    """Recover, and download committed parts. A host with slow downloads does not delay the others."""

    def act_on(self, run: Run, state: Snapshot, names: Collection[str]) -> list[str]:
        """Do what the hosts need that are reached as one; return in words what was done."""
        did = super().act_on(run, state, names)
        return did + bring_home(limited(run, ",".join(names)), state.for_hosts(names))

    def act_on_all(self, run: Run, state: Snapshot) -> list[str]:
        """Fence slots that do known texts wrong; then do what needs a view of all hosts."""
        return canaries.fence_wrong(run, state) + super().act_on_all(run, state)


tend = Tend()


def bring_home(run: Run, state: Snapshot) -> list[str]:
    """Fetch what the hosts in a state committed and was not home then; the rows of a refused part are done again."""
    plan, there = run.plan(), state.committed_by_host
    new = {name: download.not_home(plan, name, parts, state.home) for name, parts in there.items()}
    refused = download.fetch_parts(run, {name: parts for name, parts in new.items() if parts}, OUTAGE_S)
    if not refused:
        return []
    return [*(f"part refused, its rows are done again: {why}" for why in refused), *recover.restart_refused(run, state)]
