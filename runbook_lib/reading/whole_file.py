"""A file that grows under a temporary name, and gets its own when it is whole and on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any


class WholeFile:
    """A file written piece by piece; without `commit` nothing of it stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.part")  # one name, so that a killed build leaves no heap
        self.temporary.unlink(missing_ok=True)
        fd = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self.file = os.fdopen(fd, "wb", buffering=2**20)
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.file.write(data)
        self.digest.update(data)
        self.bytes += len(data)

    def commit(self) -> dict[str, Any]:
        """Give the file its own name; its size and sha256."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.temporary.replace(self.path)
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}

    def close(self) -> None:
        """Remove what was not committed."""
        with contextlib.suppress(OSError):  # on a full disk closing fails too
            self.file.close()
        self.temporary.unlink(missing_ok=True)
