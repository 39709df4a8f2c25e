"""One way to write a file: whole under its name or not at all, and still there after a power cut; JSON and hashes.

Standard library only: the control machine, the agent and the workers use it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import uuid
from pathlib import Path
from typing import Any, BinaryIO, Iterable  # noqa: UP035  (Python 3.9 on lab boxes)

JSON_LIMIT = 64 * 2**20  # bytes of one file
# What a look leaves behind: by the Finder, Spotlight, a copy to another disk (macOS), the Explorer (Windows), Dolphin
# (KDE), an office program, a network disk, JupyterLab. No program of ours reads it, so no digest and no list holds it.
LITTER = re.compile(
    r"\._.*|\.DS_Store|\.localized|Icon\r|\.Spotlight-V100|\.fseventsd|\.Trashes|\.TemporaryItems|\.apdisk|__MACOSX"
    r"|\.DocumentRevisions-V100|\.VolumeIcon\.icns|\.AppleD(ouble|esktop|B)|Thumbs\.db|[Dd]esktop\.ini|\$RECYCLE\.BIN"
    r"|System Volume Information|\.directory|\.Trash-\d+|\.~lock\..*#|\.nfs[0-9a-f]+|\.ipynb_checkpoints"
)
_roots: set[Path] = set()


def never_make(root: Path) -> None:
    """From now on this process makes no run's folder `root`: one that went, as when a disk is unmounted, stays gone.

    Else the last words of a worker would make it anew, without the mark that says whose it is.
    """
    _roots.add(root)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are not there: a power cut takes none of them with what is in it."""
    if folder.is_dir():
        return
    if folder in _roots:
        raise FileNotFoundError(errno.ENOENT, "the run's folder is gone", str(folder))
    make_folder(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)
    sync_folder(folder.parent)


def sync(fd: int) -> None:
    """Have what was written on the disk itself: a Mac's fsync leaves it in the drive's memory, which may lose power."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):  # not every file system has it, and fsync says what is wrong
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network and FUSE file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


def open_private(path: Path, flags: int) -> BinaryIO:
    """A file for writing, made for us only where it is not there; a link under its name is not followed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | flags, 0o600)
    return os.fdopen(fd, "wb")


def put_in_place(file: BinaryIO, temporary: Path, path: Path) -> None:
    """Give an open file its final name, once all of it is on the disk; after this a power cut takes neither.

    Its temporary name is its writer's own: one that no other writer has, or one from which the next try goes on.
    """
    file.flush()
    sync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | Iterable[bytes], mode: int = 0o600, expected: str | None = None) -> str:
    """Write `data` whole under `path` or not at all, and give its sha256; ValueError when it is not `expected`.

    A temporary name in the same folder, fsync, rename, fsync of the folder: a final name always means a whole file.
    """
    make_folder(path.parent, 0o777 if mode & 0o077 else 0o700)  # what is for us only lies in folders for us only
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    digest = hashlib.sha256()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        with os.fdopen(fd, "wb") as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                digest.update(chunk)
                file.write(chunk)
            if expected not in (None, digest.hexdigest()):
                raise ValueError(f"expected sha256 {expected}, found {digest.hexdigest()}")
            put_in_place(file, temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which file
            error.filename = str(path)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def write_json(path: Path, value: Any, mode: int = 0o600) -> str:
    """`write_atomic` of a JSON value; sorted keys, so equal values are equal bytes."""
    return write_atomic(path, json_line(json.dumps(value, sort_keys=True, ensure_ascii=False)), mode)


def json_line(text: str) -> bytes:
    """JSON as a line of UTF-8; half a surrogate pair, which UTF-8 cannot hold, stands as its escape."""
    return (text + "\n").encode("utf-8", "backslashreplace")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is no such file.

    Raises ValueError for anything but one whole object of at most `limit` bytes: NaN, deep nesting and half files too.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        return None
    if len(raw) > limit:
        raise ValueError(f"{path}: larger than {limit} bytes")
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def is_litter(path: str) -> bool:
    """Whether a file is one that a look leaves behind, or lies in such a folder; `path` as seen from our own folder."""
    return any(LITTER.fullmatch(name) for name in path.split("/"))
