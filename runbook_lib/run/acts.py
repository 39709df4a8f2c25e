"""Acts: what a person does to a run's workers, perhaps while a driver watches it. One at a time; the driver waits.

While a person restarts or stops, a look may find everything at rest, or half of it dead. Nothing is concluded from
that, and nothing done about it, before the act is over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worker.escape import safe_text

from . import locks
from .run import Run

PATIENCE_S = 600.0  # for another act to end: each of its steps has a deadline of its own


_mine = threading.local()  # an act is made of others: to restart is to stop and to start


@contextmanager
def act(run: Run, words: str) -> Iterator[None]:
    """Hold the workers of the run's hosts for one act of a person, in `words`. Another one is waited for."""
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
    """The act that is under way, in words; empty when there is none."""
    return safe_text(locks.holder(run.acts_lock).partition("\n")[0], 200)


def concerned(run: Run) -> frozenset[str]:
    """The hosts whose workers a person stops or starts right now."""
    return frozenset(locks.holder(run.acts_lock).splitlines()[1:])


def stamp(run: Run) -> int:
    """Changes whenever an act began or ended."""
    return locks.stamp(run.acts_lock)
