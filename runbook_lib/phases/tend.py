"""Tend: what whoever watches has done about each host: first what lets it work, then its finished parts come home."""

from __future__ import annotations

from ..run.run import Run, limited
from ..slots.state import State
from . import download, recover

OUTAGE_S = 20.0  # a transfer that is stuck is left for the next round


class Tend(recover.Revive):
    """Recovery, and the way home of what is committed. A host's parts may take long and hold up no other host."""

    def about(self, run: Run, state: State, name: str) -> list[str]:
        """What is to be done about one host; tells in words what it did."""
        return super().about(run, state, name) + bring_home(limited(run, name), state.of(name))


tend = Tend()


def bring_home(run: Run, state: State) -> list[str]:
    """Fetch what the hosts of a state have committed; the rows of a part that is refused are done again."""
    refused = download.collect(run, there=state.there, outage_s=OUTAGE_S).refused
    if not refused:
        return []
    return [*(f"part refused, its rows are done again: {why}" for why in refused), *recover.redo(run, state)]
