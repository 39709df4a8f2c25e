"""Whether a disk has room: asked by writing, since quotas and limits say it in no other way. Standard library only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What a full disk, a quota and a limit on the size of files say.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOM_BYTES = 64 * 1024


def has_room(parts: Path) -> bool:
    """Whether the folder of parts takes one more of the largest so far: only then can a worker get anywhere."""
    probe = parts / f".room.{os.getpid()}.part"
    try:
        size = max((path.stat().st_size for path in parts.glob("*.npy")), default=0)
        try:
            probe.write_bytes(bytes(max(size, ROOM_BYTES)))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error.errno not in DISK_FULL
    return True
