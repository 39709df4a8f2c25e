"""What a device takes while it works: the power of a GPU, as nvidia-smi tells it, and the memory of a process."""

from __future__ import annotations

import resource
import sys
import threading
from types import TracebackType

from .machine import SAMPLE_FIELDS, gpu_sample

EVERY_S = 0.3
ASK_S = 5.0


class Draw:
    """The power of one GPU between entering and leaving. Its driver tells a mean of the last second or so.

    So the first half of what is heard counts for nothing: it is of the time before.
    """

    def __init__(self, gpu: str):
        """`gpu`: its UUID; empty for none."""
        self._gpu = gpu
        self._heard: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Draw:
        if self._gpu:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._gpu:
            self._thread.join(ASK_S)

    @property
    def watts(self) -> float:
        """The mean power; 0 where it is not told."""
        late = self._heard[len(self._heard) // 2 :]
        return round(sum(late) / len(late), 1) if late else 0.0

    def _listen(self) -> None:
        while not self._over.is_set():
            if (watts := power_of(self._gpu, gpu_sample(ASK_S))) is not None:
                self._heard.append(watts)
            self._over.wait(EVERY_S)


def power_of(gpu: str, lines: str) -> float | None:
    """The watts of a GPU in the lines of a sample; None where it is not among them, or its driver does not tell."""
    for line in lines.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(SAMPLE_FIELDS) and values[0] == gpu:
            try:
                watts = float(values[SAMPLE_FIELDS.index("power.draw")])
            except ValueError:
                return None
            return watts if 0 < watts < 1e5 else None
    return None


def process_bytes() -> int:
    """The most memory that this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
