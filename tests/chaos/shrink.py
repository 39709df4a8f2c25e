"""Delta debugging: leave out faults of a failing history until each that is left is needed.

A history is not deterministic (real processes race), so what is left out stays out only if it failed without, once in
`tries` plays.
"""

from __future__ import annotations

from collections.abc import Callable

from .history import History, without

Fails = Callable[[History], bool]


def shrink(history: History, fails: Fails, tries: int = 2, plays: int = 60) -> History:
    """The smallest history found that still fails, after at most so many plays."""
    left = plays

    def still(candidate: History) -> bool:
        nonlocal left
        for _ in range(tries):
            if left <= 0:
                return False
            left -= 1
            if fails(candidate):
                return True
        return False

    pieces = 2
    while len(history.events) > 1 and left > 0:
        size = max(1, len(history.events) // pieces)
        for start in range(0, len(history.events), size):
            candidate = without(history, range(start, start + size))
            if candidate.events and still(candidate):
                history, pieces = candidate, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(history.events), pieces * 2)
    return history
