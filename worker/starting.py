"""How a supervisor starts its workers, and a worker its supervisor: detached, their output appended to their log."""

from __future__ import annotations

import os
import subprocess

from .launcher import command, detached
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
    argv = [assignment.python, "-m", "worker", "encode", "--root", str(folder.root)]
    argv += ["--host", assignment.host, "--slot", spec.slot]
    environment = {**os.environ, **dict.fromkeys(THREADS, str(spec.threads)), **ALWAYS}
    if spec.device == "cuda":
        environment[GPU] = spec.gpu or ""
    return detached(argv, folder.log(spec.slot), folder.root, environment)


def start_supervisor(folder: HostFolder, host: str, python: str) -> subprocess.Popen[bytes]:
    """The supervisor of a host, as the launch starts it; without what its worker was given. Raises OSError."""
    environment = {key: value for key, value in os.environ.items() if key not in (*THREADS, GPU)}
    return detached(command(folder, host, python), folder.log(f"host_{host}"), folder.root, environment)
