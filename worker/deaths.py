"""Why a process ended: its exit code or signal in words, and whether the system's memory killer was at work.

A kill is told as what it is: it may have been a person. Out of memory is said only where the system says so.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from . import commands
from .process import ended_by

DMESG_S = 5.0
JUST_NOW_S = 10.0


def reason_for(code: int | None, full: bool = False, by_memory: str = "") -> str:
    """An exit code in words; None is a worker that was not our child.

    `full`: it ended for a full disk, and could not write so. `by_memory`: how the system says that it killed it.
    """
    if code is None:
        return "ended (taken over from an earlier supervisor: exit code not known)"
    if full:
        return f"disk full: its last words could not be written either (exit code {code})"
    if code == -signal.SIGKILL:
        if by_memory:
            return f"killed (SIGKILL) by the system's memory killer: out of memory ({by_memory})"
        return "killed (SIGKILL): the system's memory killer, or a person"
    return ended_by(code)


def memory_kills() -> int | None:
    """How many processes of our control group the system killed for its memory; None where it does not say."""
    for path in _memory_files():
        try:
            match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if match:
            return int(match.group(1))
    return None


def _memory_files() -> list[Path]:
    """Where our control group counts them, in both versions of control groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    paths = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            paths.append(Path(f"/sys/fs/cgroup{name}/memory.events"))
        elif "memory" in controllers.split(","):
            paths.append(Path(f"/sys/fs/cgroup/memory{name}/memory.oom_control"))
    return [*paths, Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")]


def named_by_the_kernel(pid: int) -> bool:
    """Whether the kernel's log says that it killed this process for memory; False where it may not be read."""
    try:
        done = commands.ask(["dmesg"], DMESG_S)
    except OSError:
        return False
    return bool(re.search(rf"out of memory: Killed process {pid}\b", done.stdout, re.IGNORECASE))


class MemoryWatch:
    """Whether the system's memory killer was at work when a worker of this host was killed.

    `look` is called again and again: only a kill that the system counted just now explains a death, and only one.
    """

    def __init__(self) -> None:
        self._count = memory_kills()
        self._kills: list[float] = []

    def look(self) -> None:
        """Take note of what the system counts."""
        now, before = memory_kills(), self._count
        if now is not None and before is not None:
            self._kills += [time.monotonic()] * (now - before)
        self._count = now

    def killed(self, pid: int) -> str:
        """How the system says that it killed `pid` for memory; empty where it does not."""
        self.look()
        self._kills = [at for at in self._kills if time.monotonic() - at < JUST_NOW_S]
        if self._kills:
            self._kills.pop()
            return "its control group counts one more such kill"
        return "the kernel's log says so" if named_by_the_kernel(pid) else ""
