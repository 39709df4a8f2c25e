"""What differs for a host that a scheduler placed: its disk is shared by thousands, its GPUs are given to it.

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import owned
from .files import make_folder, write_atomic
from .layout import HostFolder
from .wire import Assignment, read_assignment

GPUS = "CUDA_VISIBLE_DEVICES"  # which a task is given
OF_TASK = "env:"  # a slot's GPU by its place among them: their UUIDs are not known before


def assignment_of(folder: HostFolder, host: str) -> Assignment | None:
    """What a host is to do; None where that cannot be read: who needs it, says so."""
    try:
        return read_assignment(folder.assignment(host))
    except (OSError, ValueError):
        return None


def placed(folder: HostFolder, assignment: Assignment | None) -> HostFolder:
    """The run's folder, with notes of every batch on a disk of this machine where a scheduler placed the host."""
    if assignment is None or not assignment.scheduler:
        return folder
    notes = Path(tempfile.gettempdir(), f"runbook-{os.getuid()}-{assignment.run_id[:16]}-{assignment.host}")
    try:
        make_folder(notes, 0o700)
        return folder if owned.why_not(notes) else replace(folder, notes=notes)  # others use this machine too
    except OSError:
        return folder


def gpu_of(spec_gpu: str | None, environment: Mapping[str, str]) -> str:
    """The GPU of a slot: its UUID, or for `env:2` the third of those that the task was given. OSError: it has fewer."""
    if spec_gpu is None or not spec_gpu.startswith(OF_TASK):
        return spec_gpu or ""
    given = [entry for entry in environment.get(GPUS, "").split(",") if entry]
    place = int(spec_gpu[len(OF_TASK) :])
    if place >= len(given):
        raise OSError(
            f"{GPUS}: expected at least {place + 1} GPUs for this slot, the scheduler gave {len(given)} "
            f"({','.join(given) or 'none'}); ask for more with `gres`, or lower `slots`"
        )
    return given[place]


def look(root: Path) -> dict[str, Any]:
    """What a task is given here, and whether the run's folder can be written and locked from this machine."""
    folder = HostFolder(root)
    path = folder.slurm(f"try-{socket.gethostname()}-{os.getpid()}.json")
    answer: dict[str, Any] = {"node": socket.gethostname(), "not_written": "", "not_locked": ""}
    try:
        write_atomic(path, b"{}\n")
        answer["not_locked"] = _why_not_locked(path)
        path.unlink()
    except OSError as error:
        answer["not_written"] = str(error)
    given = [entry for entry in os.environ.get(GPUS, "").split(",") if entry]
    return {**answer, "cores": _cores(), "gpus": given}


def _why_not_locked(path: Path) -> str:
    """Why files cannot be locked there, and rows of a file; empty where both can."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError as error:
            return f"this file system does not lock ({error.strerror})"
    return ""


def _cores() -> int:
    """The processors of this task: by the scheduler's word, or those that this process may use, if fewer."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    return min(usable, int(given)) if given.isdigit() and int(given) else usable
