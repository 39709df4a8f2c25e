"""Which processes a history has: found by the folder in their command line, signalled through a handle that cannot err.

Linux only, as /proc is. A decoy has that folder inside its name and not as an argument, so it is nobody's victim.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_decoys: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Process:
    """A worker or supervisor: its pid and the words it was started with."""

    pid: int
    words: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`encode`, `supervise` or `warm`."""
        return self.words[self.words.index("-m") + 2]

    def option(self, name: str) -> str:
        """The value of an option, such as --slot."""
        return self.words[self.words.index(name) + 1] if name in self.words else ""

    @property
    def place(self) -> Path:
        """The folder it works in."""
        return Path(self.option("--root"))


def words_of(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty for none, or a zombie."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")  # a forked worker's has room at its end
    except OSError:
        return ()
    return tuple(line.decode(errors="replace").split("\0")) if line else ()


def working_in(folder: Path) -> list[Process]:
    """The workers and supervisors of the hosts below `folder`, by pid."""
    mark, found = f"{folder}/", []
    for name in os.listdir("/proc"):  # noqa: PTH208  (asked a hundred times a history)
        if name.isdigit():
            words = words_of(int(name))
            if "--root" in words and "-m" in words and Process(0, words).option("--root").startswith(mark):
                found.append(Process(int(name), words))
    return sorted(found, key=lambda each: each.pid)


def ignores(process: Process, signum: int) -> bool:
    """Whether this process has said that it ignores a signal."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask.split()[1], 16) >> (signum - 1) & 1)


def signal_it(process: Process, signum: int) -> bool:
    """Signal this very process; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if words_of(process.pid) != process.words:
            return False
        signal.pidfd_send_signal(handle, signum)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def state_of(pid: int) -> str:
    """R, S, T, Z ...; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def start_of(pid: int) -> str:
    """When a process began, as /proc says it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def decoy(folder: Path) -> subprocess.Popen[bytes]:
    """Somebody else's process, which looks like a worker of ours to whoever goes by names."""
    made = subprocess.Popen(
        [f"python -m worker encode --root {folder}/", "3600"],
        executable=shutil.which("sleep"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _decoys.append(made)
    return made


def end_all(folder: Path) -> None:
    """End every process of all histories below a folder: somebody has had enough."""
    for child in _decoys:
        child.kill()
    for _ in range(3):  # supervisors start workers meanwhile
        for each in working_in(folder)[::-1]:
            end(each)


def end(process: Process) -> None:
    """End a left-over."""
    with contextlib.suppress(OSError):
        signal_it(process, signal.SIGKILL)
