"""Which process is which: a pid alone may be somebody else's tomorrow, so pid + start time + boot id name one.

Standard library only. Only processes that a run recorded are ever signalled, and only while all three still agree.
"""

from __future__ import annotations

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
