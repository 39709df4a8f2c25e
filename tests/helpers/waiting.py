"""Waiting for what another process does: the one `wait_for` of all tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str = "what was waited for", within_s: float = 60.0) -> Any:
    """Wait until `condition()` is true and give its value; fail with `what` when it takes too long."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return value
