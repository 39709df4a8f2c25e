"""Errors of this machine's disks in plain words: full, read-only, failing, or a folder without the right to write."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.escape import safe_text

from ..errors import RunbookError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM)
OTHERS = (ConnectionError, TimeoutError, BlockingIOError, ChildProcessError, ProcessLookupError)  # not from a disk


class DiskError(RunbookError, OSError):
    """A file of this machine cannot be written or read. What was whole before is whole."""


@contextmanager
def explain_disk_errors(doing: str) -> Iterator[None]:
    """Turn an OSError of a disk into a DiskError that says what was being done; also a decorator."""
    try:
        yield
    except (RunbookError, *OTHERS):
        raise
    except OSError as error:
        raise DiskError(explain(doing, error)) from error


def rewrite(fd: int, data: bytes) -> None:
    """Replace an open file's content, or raise OSError: a nearly full disk writes only a part without an error."""
    os.ftruncate(fd, 0)
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)


def explain(doing: str, error: OSError) -> str:
    """Say what was being done, which file failed, why, and the next step."""
    path = Path(str(error.filename)) if error.filename else None
    # People do not know a temporary name, but its folder.
    where = path.parent if path and path.name.startswith(".") else path
    return (
        f"{doing}: {f'{where}: ' if where else ''}{safe_text(error.strerror or str(error), 300)}. {_next(error, where)}"
    )


def _next(error: OSError, where: Path | None) -> str:
    if error.errno in FULL:
        free = ""
        with suppress(OSError):
            if where:
                there = where if where.is_dir() else where.parent
                free = f" ({shutil.disk_usage(there).free / 2**20:,.1f} MiB are free)"
        return f"Next: free space on that disk{free}, then the same command again; what is whole stays"
    if error.errno == errno.EROFS:
        return "Next: that disk is mounted read-only; make it writable, then the same command again"
    if error.errno in FORBIDDEN:
        return "Next: give yourself the right to write there (chmod u+rwX), then the same command again"
    if error.errno == errno.EIO:
        return "Next: that disk fails; look at it (dmesg), and bring what lies there to another one"
    return "Next: look at that file or folder, then the same command again"
