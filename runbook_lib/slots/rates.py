"""Rates: rows a second over a window, the time left at that rate, and a clock that does not count our own sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

WINDOW_S = 60.0  # the rate and the ETA look back this far: a cumulative rate stays wrong for too long
BAND_S = 300.0  # the range of the ETA comes from the rates of the last five minutes


class AwakeClock:
    """Seconds in which the run was watched. Sleep of this machine and pauses of the watching do not count."""

    def __init__(self, most_s: float, clock: Callable[[], float] = time.monotonic):
        """Start the clock. `most_s`: a longer time between two polls counts as this much."""
        self._most_s, self._clock = most_s, clock
        self._last = self._now = clock()

    def now(self) -> float:
        """Return the time of this poll."""
        at = self._clock()
        self._now += min(max(0.0, at - self._last), self._most_s)
        self._last = at
        return self._now


def windowed(points: list[tuple[float, int]], now: float, rows: int) -> float | None:
    """Add a (time, rows) point; return rows a second over the last WINDOW_S, None while unknown."""
    points.append((now, rows))
    while len(points) > 2 and points[1][0] < now - WINDOW_S:
        points.pop(0)
    began, before = points[0]
    return (rows - before) / (now - began) if now > began and rows > before else None


def eta_range(left: int, history: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return (least, most) seconds for `left` rows at the rates of the last BAND_S; None with fewer than three."""
    rates = [rate for at, rate in history if at >= history[-1][0] - BAND_S and rate > 0]
    return (left / max(rates), left / min(rates)) if len(rates) >= 3 else None
