"""Which process is which: a pid alone may be somebody else's tomorrow, so pid + start time + boot id name one.

Standard library only. Only processes that a run recorded, or that hold a lock of its folder, are ever signalled, and
only while all three still agree.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Identity = dict[str, Any]


def boot_id() -> str:
    """A text that changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        if sys.platform == "darwin":
            done = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, timeout=10)
            return done.stdout.strip()
        return ""


def start_time(pid: int) -> str | None:
    """When `pid` began, in the machine's own terms; None for no such process or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return _start_time_by_ps(pid) if not Path("/proc/self/stat").exists() else None
    except (ProcessLookupError, PermissionError):
        return None
    # The command name may hold blanks and brackets; what follows the last bracket is fixed (proc(5)).
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _start_time_by_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, env={"LC_ALL": "C"}
    )
    state, _, began = done.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else " ".join(began.split())


def identify(pid: int) -> Identity:
    """The record that names the process `pid` for as long as it lives."""
    return {"pid": pid, "start": start_time(pid), "boot": boot_id()}


def alive(identity: Mapping[str, Any] | None) -> bool:
    """True while exactly the recorded process runs."""
    if not isinstance(identity, Mapping) or not isinstance(identity.get("pid"), int) or not identity.get("start"):
        return False
    return identity.get("boot") == boot_id() and start_time(identity["pid"]) == identity["start"]


def running(root: str, host: str) -> list[dict[str, Any]]:
    """What runs for a host of a run, whatever became of its reports: {"verb": supervise or encode, "process"} each.

    A process of this account counts when its command line says so word for word, and it has a lock of that very folder
    open: whoever only looks alike has none. Empty where the system has no /proc.
    """
    locks = set()
    for path in Path(root, "progress").glob("*.lock"):
        with contextlib.suppress(OSError):
            locks.add((path.stat().st_dev, path.stat().st_ino))
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            identity = identify(int(entry.name))  # before its words: should they be another's, it is not signalled
            words = (entry / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
            at = words.index("worker") if "worker" in words else 0
            verb = "".join(words[at + 1 : at + 2])
            told = [words[at - 1], *words[at + 2 : at + 6]] == ["-m", "--root", root, "--host", host]
            if told and verb in ("supervise", "encode") and _has_open(entry, locks):
                found.append({"verb": verb, "process": identity})
    return found


def _has_open(entry: Path, files: set[tuple[int, int]]) -> bool:
    for number in (entry / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (number.stat().st_dev, number.stat().st_ino) in files:
                return True
    return False


def send(identity: Mapping[str, Any], signum: int) -> bool:
    """Signal the recorded process and nobody else; False when it is gone, or not ours to signal.

    With a pidfd (Linux 5.3) there is no moment in which the pid could be given to another process.
    """
    if not alive(identity):
        return False
    try:
        fd = os.pidfd_open(identity["pid"])
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # no such call in this Python, or older kernel, or forbidden in this container
        return _kill(identity, signum)
    try:
        if not alive(identity):
            return False
        signal.pidfd_send_signal(fd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def _kill(identity: Mapping[str, Any], signum: int) -> bool:
    try:
        os.kill(identity["pid"], signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def stop(identity: Mapping[str, Any], grace_s: float = 10.0) -> bool:
    """Ask the recorded process to end, then end it; True when it is gone."""
    if not send(identity, signal.SIGTERM):
        return not alive(identity)
    if _gone(identity, grace_s):
        return True
    send(identity, signal.SIGKILL)
    return _gone(identity, 5.0)


def _gone(identity: Mapping[str, Any], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not alive(identity):
            return True
        time.sleep(0.05)
    return not alive(identity)
