"""Movement: how far each slot got between two polls, and at what rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from . import states
from .observed import FRESH_S, Observed
from .rates import windowed
from .snapshot import SlotState

HISTORY = 400  # points of rate kept for the picture; older ones are thinned out
TREND = 16  # rates of a slot kept for its sparkline


class Movement:
    """The progress of the slots from poll to poll: their rates, their heartbeats, their last new rows.

    `history`: (seconds since the watching began, rows a second of all slots) for the picture.
    """

    def __init__(self, since: float):
        self._since = since
        self.history: list[tuple[float, float]] = []
        self._points: list[tuple[float, int]] = []
        self._slot_points: dict[str, list[tuple[float, int]]] = {}
        self._trends: dict[str, deque[float]] = {}
        self._reported: dict[str, float] = {}
        self._beats: dict[str, tuple[object, float]] = {}
        self._moved: dict[str, tuple[tuple[int, int], float]] = {}

    def age_s(self, observed: Observed, now: float) -> float | None:
        """Return the age of the last heartbeat by the host's clock, or by ours if less: a host's clock may be set."""
        if not observed.report.heartbeat_at:
            return None
        age = max(0.0, observed.reading.now - observed.report.heartbeat_at)
        beat, before = observed.report.heartbeat, self._beats.get(observed.name)
        self._beats[observed.name] = (beat, now)
        return min(age, now - before[1]) if before and beat is not None and beat != before[0] else age

    def still_s(self, observed: Observed, now: float) -> float:
        """Return for how many seconds a running slot has shown no new row."""
        place, moved = (observed.done, observed.in_part), self._moved.get(observed.name)
        if moved is None or moved[0] != place or observed.state != states.RUNNING:
            moved = self._moved[observed.name] = (place, now)
        return now - moved[1]

    def rate(self, observed: Observed, age_s: float | None, now: float) -> float | None:
        """Return a slot's rows a second at this poll, and add it to its trend."""
        rate = self._rate(observed, age_s, now)
        trend = self._trends.setdefault(observed.name, deque(maxlen=TREND))
        trend.append(0.0 if rate is None else round(rate, 3))
        return rate

    def _rate(self, observed: Observed, age_s: float | None, now: float) -> float | None:
        """Return the rate that the worker reports while it computes, else the committed rate (neighbours may help)."""
        by_commits = windowed(self._slot_points.setdefault(observed.name, []), now, observed.done)
        if observed.state not in (states.RUNNING, states.HELPING) or not observed.entry.alive:
            return by_commits if observed.state != states.UNREACHABLE else None
        rate = observed.report.rows_per_s
        rate = observed.report.rate if rate is None else rate  # since its start, until a minute has passed
        if rate is None or (age_s is not None and age_s > FRESH_S):
            return by_commits
        self._reported[observed.name] = rate
        return rate or None

    def trend(self, slot: str) -> tuple[float, ...]:
        """Return a slot's rates at the last polls, the newest last; 0 for an unknown one."""
        return tuple(self._trends.get(slot, ()))

    def rate_of_all(self, slots: Sequence[SlotState], now: float) -> float | None:
        """Return the sum of the workers' reported rates; without any report, the rate of committed rows."""
        by_commits = windowed(self._points, now, sum(slot.committed for slot in slots))
        rates = [rate for slot in slots if (rate := self._reported.get(slot.slot)) is not None]
        self._reported.clear()  # at the next poll a worker may report nothing
        rate = sum(rates) if rates else by_commits
        if not rate:
            return None
        self.history.append((round(now - self._since, 2), round(rate, 3)))
        if len(self.history) > HISTORY:
            self.history[:] = self.history[::2]
        return rate
