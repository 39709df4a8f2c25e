"""How the execution of a notebook ended, in words: what was ended by whom.

Two processes may be killed: the kernel, and the one in which papermill drives it. What is said of it comes from exit
codes, never from the last line that happened to be printed: that may be any warning.
"""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.escape import safe_text

KERNEL_LINE = re.compile(r"^kernel ended: (-?\d+|unknown)$", re.M)
RAISED = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Timeout)\b.*")
NOISE = ("warn", "Warning", "Kernel is running over TCP")
GROUPS = Path("/proc/self/cgroup")
EVENTS = ("/sys/fs/cgroup{}/memory.events", "/sys/fs/cgroup/memory{}/memory.oom_control")


@dataclass(frozen=True)
class Ended:
    """The end of the process that drove a notebook: its exit code, what it printed, kills for memory meanwhile."""

    code: int
    printed: str
    memory_kills: int = 0


def killed(ended: Ended) -> str:
    """What died: `kernel`, or `driver` of the notebook; nothing when neither did."""
    if KERNEL_LINE.search(ended.printed):
        return "kernel"
    return "driver" if ended.code < 0 else ""


def words(ended: Ended) -> str:
    """Why an execution with this exit code does not count."""
    kernel = KERNEL_LINE.search(ended.printed)
    if kernel:
        return f"the kernel died: {_cause(kernel.group(1), ended)}"
    if ended.code < 0:
        return f"the process that executes the notebook died: {_cause(str(ended.code), ended)}"
    lines = [line.strip() for line in ended.printed.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line)]
    plain = [line for line in lines if not any(word in line for word in NOISE)]
    last = (raised or plain or ["it printed nothing"])[-1]
    return f"papermill ended with exit code {ended.code}: {safe_text(last, 500)}"


def _cause(code: str, ended: Ended) -> str:
    if code == "unknown":
        return "how it ended is not known"
    if int(code) >= 0:
        return f"it ended by itself with exit code {code}"
    name = signal.Signals(-int(code)).name if -int(code) in {s.value for s in signal.Signals} else f"signal {code[1:]}"
    if name != "SIGKILL":
        return f"ended by {name}"
    if ended.memory_kills > 0:
        return "killed (SIGKILL) by the system's memory killer: it is counted there; use less memory on this machine"
    return "killed (SIGKILL): the system's memory killer, or a person"


def memory_kills() -> int:
    """How many processes of our group the system killed for memory so far; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in GROUPS.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(",") or (number == "0" and not controllers):
                for form in EVENTS:
                    with suppress(OSError):
                        counted = re.search(r"^oom_kill (\d+)$", Path(form.format(path)).read_text(), re.M)
                        if counted:
                            return int(counted.group(1))
    return 0
