"""Acts of a person on a run's workers, perhaps while a driver watches the run. One at a time; the driver waits.

While a person restarts or stops workers, a reading may show all of them at rest, or half of them dead. The driver
concludes nothing from that, and does nothing, before the act is over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worker.escape import safe_text

from . import locks
from .run import Run

PATIENCE_S = 600.0  # to wait for another act: each of its steps has its own deadline


_mine = threading.local()  # an act may contain others: a restart is a stop and a start


@contextmanager
def act(run: Run, words: str) -> Iterator[None]:
    """Hold the workers of the run's hosts for one act of a person, named by `words`; another act is waited for."""
    if getattr(_mine, "run", None) == run.folder:
        yield
        return
    with locks.held(run.acts_lock, "\n".join([words, *(spec.name for spec in run.hosts)]), PATIENCE_S):
        _mine.run = run.folder
        try:
            yield
        finally:
            _mine.run = None


def under_way(run: Run) -> str:
    """Return the act that is under way, in words; empty when there is none."""
    return safe_text(locks.holder(run.acts_lock).partition("\n")[0], 200)


def hosts_in_act(run: Run) -> frozenset[str]:
    """Return the hosts whose workers a person is stopping or starting now."""
    return frozenset(locks.holder(run.acts_lock).splitlines()[1:])


def stamp(run: Run) -> int:
    """Return a number that changes when an act begins or ends."""
    return locks.stamp(run.acts_lock)
