"""Waiting for what another process does: the one `wait_for` of all tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str = "what was waited for", within_s: float = 60.0) -> Any:
    """Wait until `condition()` is true and give its value; fail with `what` when it takes too long.

    Between two looks it sleeps as long as a look took: who is waited for needs the processor too.
    """
    began = time.monotonic()
    deadline = began + within_s
    while not (value := condition()):
        looked = time.monotonic()
        assert looked < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(min(0.5, max(0.02, looked - began)))
        began = time.monotonic()
    return value
