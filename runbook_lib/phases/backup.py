"""Backup: a copy of the result; it counts only after it was read back and its sha256 compared."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import DataError
from ..records import Written
from ..result import publication
from ..result.large_files import pieces, read_back, write
from ..result.merged import AGAIN
from ..result.placed import Backup
from ..run.disk import explain_disk_errors
from ..run.run import Run

STAMP = "%Y%m%d_%H%M%S"
SAME_DISK = (
    "the backup lies on the same disk as the original: it protects from mistakes, not from the loss of the disk; "
    "set output.backups to another disk, or copy it elsewhere"
)


@explain_disk_errors("backing up")
def backup(run: Run, now: datetime | None = None) -> Backup:
    """Return a verified copy of the founding file and its manifest in the backups folder, made now or earlier.

    `now`: the local time in the name. Raises DataError if the original or the copy is missing or damaged.
    """
    result = publication.current_result(run)
    manifest = result.merged.manifest()
    if manifest is None:
        raise DataError(f"backing up: nothing merged yet in {run.folder}; {AGAIN}")
    stated = manifest.founding
    described = result.merged.manifest_file.read_bytes()
    existing = _existing(run, stated, described)
    copy = existing or _copy(run, result.founding, stated, now or datetime.now())
    _commit(copy, described, run)
    return _described(copy, result.founding, stated, found=existing is not None)


def _folder(run: Run) -> Path:
    return run.profile.output.backups


def _sidecar(copy: Path) -> Path:
    return copy.with_suffix(publication.MANIFEST)


def _existing(run: Run, stated: Written, manifest: bytes) -> Path | None:
    """Return an earlier backup of the same file, read back now; one with another manifest beside it is not ours."""
    stem, suffix = run.founding_file.stem, run.founding_file.suffix
    try:
        there = [file for file in _folder(run).iterdir() if file.name.startswith(f"{stem}_") and file.suffix == suffix]
        same_size = sorted(file for file in there if file.is_file() and file.stat().st_size == stated.bytes)
        same_size = [file for file in same_size if _is_free(_sidecar(file)) or _holds(_sidecar(file), manifest)]
        return next((file for file in reversed(same_size) if read_back(file).sha256 == stated.sha256), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"looking for backups in {_folder(run)}: {error.strerror}; set output.backups") from None


def _is_free(path: Path) -> bool:
    return not os.path.lexists(path)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _free_name(run: Run, now: datetime) -> Path:
    """Return the next free name for a backup; an earlier backup is never overwritten."""
    while True:
        name = f"{run.founding_file.stem}_{now.strftime(STAMP)}{run.founding_file.suffix}"
        target = _folder(run) / name
        if _is_free(target) and _is_free(_sidecar(target)):
            return target
        now += timedelta(seconds=1)


def _copy(run: Run, source: Path, stated: Written, now: datetime) -> Path:
    """Make a new copy and read it back from the disk; delete it if it differs from the original."""
    target = _free_name(run, now)
    if not source.is_file():
        raise DataError(f"backing up: {source} is missing; {AGAIN}")
    if source.stat().st_size != stated.bytes:
        raise DataError(f"backing up: {source}: expected {stated.bytes} bytes, {source.stat().st_size} found; {AGAIN}")
    remedy = (
        "Free space there, set output.backups to a folder with room that you may write to, or, where the file itself "
        f"changed, {AGAIN}"
    )
    written = write(target, pieces(source), stated.bytes, remedy, stated.sha256)
    copied = read_back(target)
    if copied != written:
        target.unlink()
        raise DataError(
            f"backing up to {target}: read back sha256 {copied.sha256}, expected {written.sha256}: that disk does not "
            "keep what is written to it; no backup was kept. Next: set output.backups to another disk"
        )
    return target


def _commit(copy: Path, manifest: bytes, run: Run) -> None:
    """Put the manifest beside the copy: it describes the copy and shows that it was read back."""
    if _holds(_sidecar(copy), manifest):
        return
    write(_sidecar(copy), [manifest], len(manifest), f"Free space in {_folder(run)}, then back up again.")


def _described(copy: Path, source: Path, stated: Written, found: bool) -> Backup:
    same_disk = copy.stat().st_dev == source.stat().st_dev if source.exists() else False
    return Backup(
        path=str(copy),
        manifest=str(_sidecar(copy)),
        sha256=stated.sha256,
        bytes=stated.bytes,
        read_back=True,
        same_disk=same_disk,
        warning=SAME_DISK if same_disk else "",
        found=found,
        free_bytes=shutil.disk_usage(copy.parent).free,
    )
