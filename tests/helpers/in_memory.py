"""The folder for temporary files of all tests and of what they start: in memory, where the machine has room there.

A pytest plugin. What this project writes it syncs, and on a disk that takes longer than all else that most tests do.
What syncs are for is tried by power cuts that are played (`tests/chaos/power_cut.py`); kills need no disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30  # bytes: all files of all tests are fewer


def has_room(folder: Path) -> bool:
    """Whether tests can write that much there, and run programs that they write."""
    if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free >= ROOM


OURS = "TMPDIR" not in os.environ and has_room(MEMORY)  # else somebody has chosen already
if OURS:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Give the memory back when all tests passed; the files of a failed session stay until the next one has ended."""
    used: Path | None = session.config._tmp_path_factory._basetemp  # what `tmp_path_factory.getbasetemp()` gives
    if exitstatus == 0 and OURS and used and not session.config.option.basetemp:
        shutil.rmtree(used, ignore_errors=True)
