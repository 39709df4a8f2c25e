"""How much of a machine this account may use: what its control groups and limits leave of cores and memory.

In a container, a batch job or a slice of a shared machine, the machine's own figures are those of everybody together.
Standard library only.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

GROUPS, SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MOST = 2**62  # older control groups write a number near this where there is no limit


def cores(groups: Path = GROUPS, own: Path = SELF) -> int:
    """How many cores this process may use: those it may run on, fewer if its control groups give less time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [share for folder in _folders(groups, own, "cpu") if (share := _cpu(folder)) is not None]
    return max(1, min([allowed, *map(math.ceil, shares)]))


def machine_memory() -> int | None:
    """The memory of the machine in bytes; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def memory(groups: Path = GROUPS, own: Path = SELF) -> int | None:
    """How many bytes this process may use: the machine's, or less by its control groups or its own limit."""
    known = [size for folder in _folders(groups, own, "memory") if (size := _memory(folder)) is not None]
    known += [soft for soft, _ in (resource.getrlimit(resource.RLIMIT_AS),) if 0 < soft < MOST]
    return min([*known, *filter(None, [machine_memory()])], default=None)


def told(groups: Path = GROUPS, own: Path = SELF) -> str:
    """What is less than the whole machine, in words; empty where nothing is."""
    whole, may = os.cpu_count() or 1, cores(groups, own)
    words = [f"{may} of {whole} cores"] if may < whole else []
    total, usable = machine_memory(), memory(groups, own)
    if usable and total and usable < total:
        words.append(f"{usable / 2**30:.1f} of {total / 2**30:.1f} GiB of memory")
    return ", ".join(words)


def _folders(groups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of our control group and of all above it, which limit us too, in both versions of control groups."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        places = [groups] if not controllers else [groups / controller, groups / controllers]
        for place in places:
            path = place / name.lstrip("/")
            # Inside a container our name is often one of the machine outside; its root is then what we see.
            while path != place:
                yield path
                path = path.parent
            yield place


def _cpu(folder: Path) -> float | None:
    """The cores' worth of time that a control group gives; None for no limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    whole, part = _number(quota), _number(period)
    return whole / part if whole and part else None


def _memory(folder: Path) -> int | None:
    known = [_number(_read(folder / name)) for name in ("memory.max", "memory.limit_in_bytes")]
    return min((size for size in known if size is not None and size < MOST), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() and len(text) < 20 and int(text) else None
