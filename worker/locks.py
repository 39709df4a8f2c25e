"""Lock files: held by a living process, and telling who it is. Standard library only.

A process that only looks also holds the lock, shared and for a moment; so one that wants it tries for a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from .files import make_folder
from .wire import Holder

PATIENCE_S = 1.0
NOTE_BYTES = 1024


def take(path: Path) -> int | None:
    """A lock that ends with this process and those that inherit it, or None when another one holds it."""
    make_folder(path.parent, 0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.05)
        except OSError as error:  # such as a network file system without locks
            os.close(fd)
            raise OSError(error.errno, f"cannot lock this file: {error.strerror}", str(path)) from None


def sign(fd: int, note: Holder) -> None:
    """Write into a lock that we hold who we are. As long as before, so that a full disk takes it too."""
    os.pwrite(fd, json.dumps(note.to_json()).encode().ljust(NOTE_BYTES), 0)


def held(path: Path) -> bool:
    """Whether a living process holds a lock."""
    return _look(path)[0]


def note(path: Path) -> Holder:
    """What the process that holds a lock says of itself; blank where no process holds it, or nothing can be read."""
    with contextlib.suppress(OSError, ValueError):
        is_held, text = _look(path)
        if is_held:
            return Holder.from_json(json.loads(text))
    return Holder()


def _look(path: Path) -> tuple[bool, bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False, b""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, os.pread(fd, NOTE_BYTES, 0)
    finally:
        os.close(fd)
    return False, b""
