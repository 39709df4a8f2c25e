"""A limit on what may come: a burst at once, then an amount a second."""

from __future__ import annotations

import time


class Rate:
    """Counts what comes: a burst is free, more than `per_s` for long is too much."""

    def __init__(self, burst: float, per_s: float):
        self.burst, self.per_s = burst, per_s
        self._came, self._at = 0.0, time.monotonic()

    def exceeded(self, more: float = 1.0) -> bool:
        """Count `more`; True when it is too much."""
        now = time.monotonic()
        self._came = max(0.0, self._came - (now - self._at) * self.per_s) + more
        self._at = now
        return self._came > self.burst
