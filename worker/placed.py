"""What runs place in their folder on a host, by name; and how exactly that is taken away again. Standard library only.

Whatever else lies there is a stranger's: it stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Collection, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import owned
from .layout import HOST_NAME, PART_FILE, QUARANTINE_FILE, SLOT_NAME, HostFolder

MARK = HostFolder(Path()).mark.name
_ASIDE = re.compile(r"aside/[0-9A-Za-z_.-]+/")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{1,16}\.part")
_NAMES = {
    "hosts": rf"{HOST_NAME.pattern}\.json",
    "shards": r"rows_[0-9]{9}_[0-9]{9}\.jsonl",
    "parts": PART_FILE.pattern,
    "quarantine": QUARANTINE_FILE.pattern,
    "progress": rf"(?:{SLOT_NAME.pattern}|host_{HOST_NAME.pattern}|rows|known)\.[a-z.]+",
    "canaries": r"[0-9a-f]{64}\.json",
    "doubled": rf"{SLOT_NAME.pattern}\.(?:answer\.)?json",
    "slurm": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\.(?:sh|json|lock|log|out|err|exit|exit\.part)",
    "logs": rf"(?:{SLOT_NAME.pattern}|(?:host|environment)_{HOST_NAME.pattern})\.log",
}


def is_ours(path: str, bundle: Collection[str]) -> bool:
    """Whether a run placed a file of this path below its folder; `bundle` are the paths of the worker's code."""
    path = _ASIDE.sub("", path, count=1)
    folder, _, name = path.rpartition("/")
    if temporary := _TEMPORARY.fullmatch(name):
        name = temporary.group(1)
    if folder == "worker":
        return f"{folder}/{name}" in bundle
    return (folder in _NAMES and bool(re.fullmatch(_NAMES[folder], name))) or (folder, name) == ("", MARK)


def clear(root: str, run_id: str, names: Sequence[str]) -> list[str]:
    """Take these files out of a run's folder, and the folders that are empty then; the mark goes last.

    Gives those that stay: no plain file, or behind a link. ValueError where the folder is not ours, or another run's.
    """
    top, stay = Path(root), []
    if not os.path.lexists(top):  # two hosts may share the folder
        return []
    if why := owned.problem(top.parent, top) or owned.mismatch(top, run_id):
        raise ValueError(f"nothing was removed: {why}")
    folders = {top / name for name in (*_NAMES, "worker", "aside")}
    for name in names:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or name == MARK or not _is_plain(top, path):
            stay += [name] if os.path.lexists(top / path) else []
            continue
        (top / path).unlink(missing_ok=True)
        folders |= {top / above for above in path.parents if above != Path()}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with contextlib.suppress(OSError):  # not there, or not empty
            folder.rmdir()
    if [entry.name for entry in top.iterdir()] == [MARK]:
        (top / MARK).unlink()
        top.rmdir()
    return stay


def _is_plain(top: Path, path: Path) -> bool:
    """Whether a path below `top` leads, without any link, to a plain file."""
    try:
        above = all(stat.S_ISDIR(os.lstat(top / folder).st_mode) for folder in path.parents)
        return above and stat.S_ISREG(os.lstat(top / path).st_mode)
    except OSError:
        return False
