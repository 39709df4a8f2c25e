"""What is ours alone on a host: the working folder, and in it the folder that a run marked with its random id.

Standard library only. Where two accounts share a folder, one could leave there what the other runs: an environment, a
model, the worker. So nothing is used that another account owns or may change. Names are looked at as they are: below
the working folder no link is followed.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
from pathlib import Path
from typing import Iterator  # noqa: UP035  (Python 3.9 on lab boxes)

from .escape import safe_text
from .files import make_folder, never_make, read_json, sync_folder, write_json
from .layout import FORMAT, SHARED_FOLDERS, HostFolder, run_name_problem

PRIVATE = 0o700
SHOWN = 3


def why_not(path: Path) -> str:
    """Why a file or folder is not ours alone, and what to do, in words; empty where it is, or is not there."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    quoted = shlex.quote(str(path))
    if status.st_uid != os.geteuid():
        return f"{path} belongs to {_account(status.st_uid)}, who can change it: it is not used. {_ELSEWHERE}"
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a link, which nothing of ours is: it is not used. Remove it: rm {quoted}"
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        return f"{path} can be changed by other accounts (mode {mode:04o}). Close it: chmod go-w {quoted}"
    return ""


_ELSEWHERE = "Give this host a folder of your own in the profile (workdir), which only you can write to"


def _account(number: int) -> str:
    try:
        return f"the account {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the account number {number}"


def chain(workdir: Path, path: Path) -> Iterator[Path]:
    """The working folder, where it really is, and every folder below it down to `path`."""
    at = Path(os.path.realpath(workdir))
    yield at
    for name in path.relative_to(workdir).parts:
        at = at / name
        yield at


def problem(workdir: Path, *paths: Path) -> str:
    """Why the working folder, or what lies in it on the way to `paths`, is not ours alone; empty where all is."""
    if workdir.is_symlink() and os.lstat(workdir).st_uid not in (0, os.geteuid()):
        return f"{workdir} is a link of {_account(os.lstat(workdir).st_uid)}: it is not used. {_ELSEWHERE}"
    steps = dict.fromkeys(step for path in (workdir, *paths) for step in chain(workdir, path))
    return next((why for step in steps if (why := why_not(step))), "")


def within(folder: Path) -> str:
    """Why something in a folder, at any depth, is not ours alone; empty where all is."""
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if why := why_not(Path(at, name)):
                return why
    return why_not(folder)


def code(root: Path) -> str:
    """Why the code of a run's folder on its host must not be run; empty where it is ours alone."""
    return problem(root.parent, root, root / "worker") or within(root / "worker")


def model(folder: Path) -> str:
    """Why a model's folder below a working folder must not be loaded; empty where it is ours alone."""
    return problem(folder.parent.parent, folder) or within(folder)


def used(root: Path, path: Path) -> str:
    """Why a model or a Python that the worker of a run is to use must not be; what lies elsewhere is not judged."""
    workdir = root.parent
    if workdir not in path.parents:
        return ""
    return model(path) if path.parent == workdir / SHARED_FOLDERS[0] else problem(workdir, path.parent)


def mismatch(root: Path, run_id: object) -> str:
    """Why a folder is not that of the run with this id, in words; empty where its mark says it is."""
    try:
        owner = (read_json(HostFolder(root).mark) or {}).get("id")
    except (OSError, ValueError) as error:
        return f"{root}: whose it is cannot be read: {error}"
    return "" if owner == run_id else f"{root} is marked by the run with id {owner}, not by {run_id}"


# --- the mark ---------------------------------------------------------------------------------------------------------


def unclaimed(workdir: str, run: str, run_id: str) -> str:
    """Why the folder of a run cannot be this run's, in words; empty where it is, or can be made. Changes nothing."""
    if wrong := run_name_problem(run):
        return wrong
    top = Path(workdir).expanduser().absolute()
    root = top / run
    if why := problem(top, root, *(top / name for name in SHARED_FOLDERS)):
        return why
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        return f"run {run} was made by an earlier version, without an id: start a new one"
    if not root.exists():
        return ""
    try:
        mark = read_json(HostFolder(root).mark)
    except (OSError, ValueError) as error:
        return f"{root} is there, and whose it is cannot be read: {error}. {_otherwise(root)}"
    if mark is None:
        # A crash may have come between the folder and its mark.
        there = sorted(entry.name for entry in root.iterdir() if not _is_temporary(entry.name))
        strangers = f"{root} is there, with {_listed(there)}, and no run marked it as its own. {_otherwise(root)}"
        return strangers if there else ""
    if mark.get("id") != run_id:
        other = safe_text(f"{mark.get('run')}, id {mark.get('id')}", 200)
        return f"{root} belongs to another run ({other}); this one has id {run_id}. {_otherwise(root)}"
    return ""


def claim(workdir: str, run: str, run_id: str) -> None:
    """Make the folder of a run, with the run's mark; or find it there, ours. ValueError for anything else."""
    if wrong := run_name_problem(run):
        raise ValueError(wrong)
    root = Path(workdir).expanduser().absolute() / run
    make_folder(root.parent, PRIVATE)
    if why := unclaimed(workdir, run, run_id):
        raise ValueError(why)
    if not root.is_dir():
        root.mkdir(PRIVATE, exist_ok=True)
        sync_folder(root.parent)
    never_make(root)
    folder = HostFolder(root)
    if read_json(folder.mark) is None:
        write_json(folder.mark, {"format": FORMAT, "run": run, "id": run_id})
    if why := unclaimed(workdir, run, run_id):  # another run of this name, at the same moment
        raise ValueError(why)


def _is_temporary(name: str) -> bool:
    return name.startswith(f".{HostFolder(Path()).mark.name}.") and name.endswith(".part")


def _listed(names: list[str]) -> str:
    shown = ", ".join(safe_text(name, 80) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _otherwise(root: Path) -> str:
    return f"Nothing was touched. Name the run otherwise (--run NAME), take another workdir, or move {root} away"
