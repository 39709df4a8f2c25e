"""A file that takes a supervisor's last word when the disk is full: its bytes are there before they are needed.

Written through memory, in place: neither a full disk nor a limit on the size of files stands in the way. A checksum
tells a reader that it is whole. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import Any

from .files import make_folder

SIZE = 64 * 1024
HEAD = 65  # the checksum and a line's end


class Reserve:
    """The reserved file of one supervisor; without room for it at the start there is none, and nothing else changes."""

    def __init__(self, path: Path):
        self._map: mmap.mmap | None = None
        with contextlib.suppress(OSError):
            make_folder(path.parent, 0o700)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_size != SIZE:
                    os.truncate(fd, 0)
                    os.pwrite(fd, bytes(SIZE), 0)
                    os.fsync(fd)
                if os.fstat(fd).st_size == SIZE:  # shorter where the disk is full already
                    self._map = mmap.mmap(fd, SIZE)
            finally:
                os.close(fd)

    def write(self, value: dict[str, Any]) -> bool:
        """Replace what it holds; False where there is no such file, or the value is too large for it."""
        body = json.dumps(value).encode()
        if self._map is None or HEAD + len(body) > SIZE:
            return False
        whole = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        self._map[:] = whole.ljust(SIZE, b"\0")
        return True


def read(path: Path) -> dict[str, Any]:
    """What a supervisor wrote there; empty where that is nothing, or not whole."""
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE)
        head, _, body = raw.partition(b"\n")
        body = body.rstrip(b"\0")
        value = json.loads(body) if hashlib.sha256(body).hexdigest().encode() == head else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
