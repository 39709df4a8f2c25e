"""What the GPUs of this machine do, asked of their driver now and then."""

from __future__ import annotations

import threading
import time

from . import machine

GPU_S = 5.0


class GpuWatch(threading.Thread):
    """Asks the driver of this machine's GPUs now and then, so that no look has to start a process for it."""

    def __init__(self) -> None:
        super().__init__(name="GPUs", daemon=True)  # a driver that hangs must not hold up the supervisor
        self.text, self.at = "", 0.0

    def run(self) -> None:
        """Ask, and ask again."""
        while True:
            self.text, self.at = machine.gpu_sample(), time.time()
            time.sleep(GPU_S)
