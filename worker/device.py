"""What differs by kind of device: cpu, cuda (NVIDIA), mps (Apple's GPUs), xpu (Intel's). Standard library only.

mps and xpu were never run on hardware by who wrote this: what is here follows from their documentation and from known
faults. So every device is held against the processor beside it (`again.py`).
"""

from __future__ import annotations

import glob
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from . import machine
from .batches import TOKEN_BUDGET

KINDS = ("cuda", "mps", "xpu", "cpu")
NEW = ("mps", "xpu")  # one GPU with one memory, so one process; its shapes are few
INTEL = "0x8086"  # the vendor of a graphics card, as Linux names it
RENDER_NODES = "/sys/class/drm/renderD*/device/vendor"
# Of a process that is to compute on the processor alone.
NO_GPU = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), "")

# Of a process that computes there. On mps memory ends with an error that says so, instead of in swap; an operator that
# is not there is an error with its name, not a slow way around; and no faster mathematics that are less exact.
SET: Mapping[str, Mapping[str, str]] = {
    "mps": {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "1.0", "PYTORCH_MPS_LOW_WATERMARK_RATIO": "0.9"}
}
UNSET: Mapping[str, Sequence[str]] = {"mps": ("PYTORCH_MPS_FAST_MATH", "PYTORCH_ENABLE_MPS_FALLBACK")}

# What a driver writes into the worker's log and goes on, perhaps with old data in place of what it did not compute.
COMPLAINT = re.compile(r"command buffer (was aborted|exited with error status)", re.IGNORECASE)
ABORT = re.compile(r"failed assertion|" + COMPLAINT.pattern, re.IGNORECASE)  # its last words, where it ends the process
LOG_BYTES, LAST_BYTES = 2**20, 2**13  # that are looked through, from the end


def kind(device: str) -> str:
    """The kind of a device that torch names, such as cuda:0."""
    return device.split(":")[0]


def budget(device: str) -> int:
    """Tokens that a batch on this device may hold, padding included."""
    return TOKEN_BUDGET[kind(device)]


def settle(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that computes on a device, from those of another one."""
    kept = {key: value for key, value in environment.items() if key not in UNSET.get(kind(device), ())}
    return {**kept, **SET.get(kind(device), {})}


def there() -> str:
    """The kind of device that this machine has, by what is installed: nothing is tried, and torch is not imported."""
    if machine.nvidia_smi():
        return "cuda"
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else "cpu"  # cpu also for a Python that is translated from x86
    return "xpu" if _torch_for_intel() and _intel_card() else "cpu"


def _torch_for_intel() -> bool:
    """Whether the torch of this Python was built for Intel's GPUs, by its version."""
    try:
        return metadata.version("torch").endswith("+xpu")
    except metadata.PackageNotFoundError:
        return False


def _intel_card() -> bool:
    return any(Path(node).read_text(errors="replace").strip() == INTEL for node in glob.glob(RENDER_NODES))  # noqa: PTH207


class Complaints:
    """What the driver of a device wrote into a worker's log, since the last look. Only mps goes on after it."""

    def __init__(self, log: Path, device: str):
        self._log = log if kind(device) == "mps" else None
        self._at = _size(log)

    def look(self) -> str:
        """The first such line; empty where there is none."""
        if self._log is None:
            return ""
        before, self._at = self._at, _size(self._log)
        return complaint(self._log, before)


def last_words(log: Path) -> str:
    """What a driver said that ended the process of this log; empty where it said nothing."""
    return complaint(log, max(0, _size(log) - LAST_BYTES), ABORT)


def complaint(log: Path, start: int = 0, words: re.Pattern[str] = COMPLAINT) -> str:
    """The first line of a driver's complaint in a log from a byte on, looked for near its end; empty without one."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, _size(log) - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:500] for line in lines if words.search(line)), "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
