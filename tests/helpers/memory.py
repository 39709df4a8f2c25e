"""The peak of this process's own memory, for programs that tests start."""

import resource
import sys
from pathlib import Path


def peak_mib() -> int:
    """Peak resident memory in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss also counts the parent before the exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 1024)
