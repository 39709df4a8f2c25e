"""A file written under a temporary name, which gets its own name when it is complete and on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path

from worker.files import put_in_place

from ...records import Written

LOOK = 2**26  # bytes between two checks of the free space
RESERVE = 2**28  # bytes of the disk left to other programs; a fiftieth of a small disk


def check_room(folder: Path) -> None:
    """Raise OSError when the disk of a folder is almost full: stop before other programs cannot write."""
    usage = shutil.disk_usage(folder)
    if usage.free < min(RESERVE, usage.total // 50):
        raise OSError(errno.ENOSPC, f"next to no space left on the disk ({usage.free // 2**20} MiB)")


class WholeFile:
    """A file written piece by piece; without `commit` it is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.part")  # one fixed name: killed builds leave one file, not many
        self.temporary.unlink(missing_ok=True)
        check_room(path.parent)
        fd = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self.file = os.fdopen(fd, "wb", buffering=2**20)
        self.digest = hashlib.sha256()
        self.bytes = self._looked = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.file.write(data)
        if self.bytes - self._looked > LOOK:
            check_room(self.path.parent)
            self._looked = self.bytes
        self.digest.update(data)
        self.bytes += len(data)

    def commit(self) -> Written:
        """Give the file its own name; return its size and sha256."""
        put_in_place(self.file, self.temporary, self.path)
        self.file.close()
        return Written(self.digest.hexdigest(), self.bytes)

    def close(self) -> None:
        """Remove what was not committed."""
        with contextlib.suppress(OSError):  # on a full disk closing fails too
            self.file.close()
        self.temporary.unlink(missing_ok=True)
