"""Limits: on what may come, a burst at once and then an amount a second, and on how long something may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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


@contextmanager
def at_most(seconds: float, hang_up: Callable[[], None]) -> Iterator[None]:
    """Hang up when this takes longer: for some answers paramiko waits without end."""
    alarm = threading.Timer(seconds, hang_up)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
