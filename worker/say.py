"""The log of a worker or a supervisor: its standard output."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timezone

from .escape import safe_text


def say(text: str) -> None:
    """One line of the log that is our standard output. Losing it is better than ending: the disk may be full."""
    stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{stamp} {safe_text(text, 20_000)}\n".encode()
    with contextlib.suppress(OSError):  # not print: what its buffer keeps would change the exit code at the end
        os.write(1, line)
