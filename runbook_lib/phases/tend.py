"""Tend: what is done about each host while a run is watched: recovery first, then its finished parts are downloaded."""

from __future__ import annotations

from ..run.run import Run, limited
from ..slots.snapshot import Snapshot
from . import download, recover

OUTAGE_S = 20.0  # a transfer that is stuck is left for the next round


class Tend(recover.Recovery):
    """Recover, and download what is committed. A host whose parts take long holds up no other host."""

    def act_on(self, run: Run, state: Snapshot, name: str) -> list[str]:
        """What is to be done about one host; tells in words what it did."""
        return super().act_on(run, state, name) + bring_home(limited(run, name), state.of(name))


tend = Tend()


def bring_home(run: Run, state: Snapshot) -> list[str]:
    """Fetch what the hosts of a state have committed; the rows of a part that is refused are done again."""
    refused = download.collect(run, committed_by_host=state.committed_by_host, outage_s=OUTAGE_S).refused
    if not refused:
        return []
    return [*(f"part refused, its rows are done again: {why}" for why in refused), *recover.restart_refused(run, state)]
