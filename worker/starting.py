"""How a supervisor starts its workers, and a worker its supervisor: detached, their output appended to their log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import make_folder, open_private
from .layout import HostFolder
from .wire import Assignment, SlotSpec

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
GPU = "CUDA_VISIBLE_DEVICES"
ALWAYS = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",  # the model was sent: nothing is to be looked up
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def start_worker(folder: HostFolder, assignment: Assignment, spec: SlotSpec) -> subprocess.Popen[bytes]:
    """The worker of a slot, with its GPU and its threads. Raises OSError."""
    command = [assignment.python, "-m", "worker", "encode", "--root", str(folder.root)]
    command += ["--host", assignment.host, "--slot", spec.slot]
    environment = {**os.environ, **dict.fromkeys(THREADS, str(spec.threads)), **ALWAYS}
    if spec.device == "cuda":
        environment[GPU] = spec.gpu or ""
    return _start(command, folder.root, environment, folder.log(spec.slot))


def start_supervisor(folder: HostFolder, host: str, python: str) -> subprocess.Popen[bytes]:
    """The supervisor of a host, as the launch starts it; without what its worker was given. Raises OSError."""
    command = [python, "-m", "worker", "supervise", "--root", str(folder.root), "--host", host]
    environment = {key: value for key, value in os.environ.items() if key not in (*THREADS, GPU)}
    return _start(command, folder.root, environment, folder.log(f"host_{host}"))


def _start(command: Sequence[str], root: Path, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    make_folder(log.parent, 0o700)
    with open_private(log, os.O_APPEND) as out:
        return subprocess.Popen(
            list(command),
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
