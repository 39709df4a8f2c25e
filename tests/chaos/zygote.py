"""Starts drivers: real processes, forked from one that has the library imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Ordered:
    """One process that was asked for: its pid, and its exit status once it ended."""

    do: str
    pid: int = 0
    status: int | None = None
    started: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class Zygote:
    """The one process that forks the others, and what it tells of them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver"], cwd=ROOT, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._lock, self._orders = threading.Lock(), dict[int, Ordered]()
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def order(self, folder: Path, do: str, *words: str, broken: str = "-") -> Ordered:
        """Have a process started, and wait until it is."""
        made = Ordered(do)
        with self._lock:
            number = len(self._orders)
            self._orders[number] = made
            value: dict[str, Any] = {"id": number, "do": do, "words": words, "folder": str(folder), "broken": broken}
            assert self._process.stdin
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        if not made.started.wait(300):
            raise RuntimeError("the process that starts drivers does not answer")
        return made

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            word, *numbers = line.split()
            if word == "ready":
                self._ready.set()
                continue
            made = self._orders[int(numbers[0])]
            if word == "started":
                made.pid = int(numbers[1])
                made.started.set()
            else:
                made.status = int(numbers[1])
                made.over.set()

    def wait_ready(self) -> None:
        """Until the library is imported."""
        if not self._ready.wait(300):
            raise RuntimeError("the process that starts drivers does not come up")

    def close(self) -> None:
        """End it and what it forked."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
