"""The mark of a run's folder: a random id, and a number that counts the runs of its folder of runs.

A name can be used twice, and clocks and file dates can go back, so neither identifies a run.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker.escape import safe_text
from worker.files import read_json, write_json
from worker.layout import FORMAT, HostFolder

from ..errors import DataError

RUN_ID = re.compile(r"[0-9a-f]{32}")
PROFILE = "profile.yaml"  # with it a folder is a run's


@dataclass(frozen=True)
class Mark:
    """What `write` recorded about a run; empty for a run of an earlier version."""

    id: str = ""
    number: int = 0
    profile: str = ""
    since: str = ""


def write(folder: Path, profile: Path, since: str = "") -> None:
    """Mark a new run's folder: a random id, the next number of its runs folder, the profile's file.

    `since`: the folder of the run from which it takes vectors, if any.
    """
    record = {
        "format": FORMAT,
        "run": folder.name,
        "id": uuid.uuid4().hex,
        "number": 1 + max(map(_number, oldest_first(folder.parent)), default=0),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": str(profile),
        **({"since": since} if since else {}),
    }
    write_json(HostFolder(folder).mark, record)


def read(folder: Path) -> Mark:
    """The mark of the run in `folder`. Raises DataError for one that is damaged."""
    file = HostFolder(folder).mark
    try:
        record = read_json(file)
    except ValueError as error:
        raise DataError(str(error)) from None
    if record is None:
        return Mark()
    if not RUN_ID.fullmatch(str(record.get("id"))):
        raise DataError(f"{file}: expected the run's id, 32 hexadecimal digits; found {safe_text(str(record), 200)}")
    number = record.get("number")
    return Mark(
        str(record["id"]),
        number if isinstance(number, int) else 0,
        str(record.get("profile", "")),
        str(record.get("since", "")),
    )


def why_not_ours(folder: Path) -> str:
    """Say why a run may only be read: we do not carry out another account's choices. Empty for our own."""
    if not folder.exists() or folder.stat().st_uid == os.geteuid():
        return ""
    return f"{folder} belongs to another account (number {folder.stat().st_uid}): it can be verified, and not worked on"


def oldest_first(runs: Path) -> list[Path]:
    """Return the folders of the runs in `runs`, oldest first; those of versions without a number come first."""
    folders = [path for path in runs.iterdir() if (path / PROFILE).is_file()] if runs.is_dir() else []
    return sorted(folders, key=lambda f: (number := _number(f), 0 if number else f.stat().st_mtime_ns, f.name))


def _number(folder: Path) -> int:
    with suppress(DataError):
        return read(folder).number
    return 0


@contextmanager
def lock_runs_folder(runs: Path) -> Iterator[None]:
    """Lock the folder of runs: otherwise two commands at once would make a run each for the same rows."""
    if not runs.is_dir():
        yield
        return
    fd = os.open(runs, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
