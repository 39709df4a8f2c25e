"""Locks: files of a run that one process holds at a time; they end with it, whatever ends it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from worker.escape import safe_text

from ..errors import RunbookError
from .disk import explain_disk_errors, rewrite

TRY_S = 0.1


@contextmanager
def held(path: Path, words: str = "", within_s: float | None = None) -> Iterator[None]:
    """Hold a lock file, with `words` about the holder in it. Raises RunbookError if another keeps it too long."""
    with explain_disk_errors("taking a lock"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(fd, "r+", encoding="utf-8") as file:
        _take(file, within_s)
        with explain_disk_errors(f"taking a lock: {path}"):
            rewrite(fd, words.encode())
        yield
        os.utime(path)  # shows others that it was held


def _take(file: IO[str], within_s: float | None) -> None:
    if within_s is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RunbookError(f"{file.read() or file.name} is under way for longer than {within_s:g} s") from None
        time.sleep(TRY_S)


def holder(path: Path) -> str:
    """Return the words of a lock file's holder; empty when it is free."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read(1000) or path.name
    except OSError:
        return ""
    return ""


def driver_in_words(holder: str) -> str:
    """Say who drives a run, by the content of its driver's lock."""
    try:
        record = json.loads(holder)
        return f"by process {int(record['pid'])} since {safe_text(str(record['since']), 40)}"
    except (ValueError, KeyError, TypeError):
        return "by a command that does not say which"


def stamp(path: Path) -> int:
    """Return a number that changes whenever the lock was held."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
