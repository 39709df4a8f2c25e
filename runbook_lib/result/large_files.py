"""Large files: read in pieces, written whole or not at all; write errors come with a remedy."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.files import write_atomic

from ..errors import DataError
from ..records import Written
from ..run.disk import FULL

PIECE_BYTES = 2**20
# Other programs of the machine may read results; private files lie in the run's folder, which is 0700.
RESULT_MODE = 0o644


def pieces(path: Path) -> Iterator[bytes]:
    """Return the bytes of a file, piece by piece. Raises OSError."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def write(path: Path, chunks: Iterable[bytes], needed_bytes: int, remedy: str, expected: str = "") -> Written:
    """Write all `chunks` under `path` or nothing, and return sha256 and size.

    Raises DataError if the disk is full, the folder cannot be written, or the content has another sha256 than
    `expected` (if given); `remedy` says what a person can do.
    """
    if expected:
        chunks = _expecting(chunks, expected, f"writing {path}: what was to be written changed. {remedy}")
    try:
        sha256 = write_atomic(path, chunks, RESULT_MODE)
        return Written(sha256, path.stat().st_size)
    except OSError as error:
        raise DataError(
            f"writing {path}: {_why(path, error, needed_bytes)}; nothing was left there. {remedy}"
        ) from None


def _expecting(chunks: Iterable[bytes], sha256: str, complaint: str) -> Iterator[bytes]:
    """Pass `chunks` on; raise at the end if their sum is wrong, before the file gets its name."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise DataError(complaint)


def _why(path: Path, error: OSError, needed_bytes: int) -> str:
    if error.errno not in FULL:
        return f"{error.strerror or error}: the folder cannot be written"
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free"
    except OSError:
        free = "free space not known"
    return f"{error.strerror}: expected room for {needed_bytes:,} bytes, {free}"


def _forget(fd: int) -> None:
    """Ask the system to read the file from the disk next time, not from its cache."""
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    elif no_cache := getattr(fcntl, "F_NOCACHE", None):  # macOS
        fcntl.fcntl(fd, no_cache, 1)


def read_back(path: Path) -> Written:
    """Return sum and size of a file, read from the disk and not from the system's cache if possible."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        _forget(file.fileno())
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return Written(digest.hexdigest(), size)
