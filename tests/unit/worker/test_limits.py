"""What of a machine an account may use, by its control groups of both kinds and its own limits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from worker import limits

GIB = 2**30


def tree(tmp_path: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""
    groups = tmp_path / "cgroup"
    groups.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "self").write_text(own)
    return groups, tmp_path / "self"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores and 256 GiB."""
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(limits.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(limits, "machine_memory", lambda: 256 * GIB)


@pytest.mark.parametrize(
    ("files", "own", "cores", "gib"),
    [
        ({}, "0::/a/b\n", 64, 256),
        ({"a/b/cpu.max": "400000 100000", "a/memory.max": str(8 * GIB)}, "0::/a/b\n", 4, 8),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, "0::/a/b\n", 3, 256),  # of one above
        ({"cpu.max": "50000 100000", "memory.max": "max"}, "0::/\n", 1, 256),  # a container's own root
        ({"cpu.max": "200000 100000"}, "0::/not/seen/here\n", 2, 256),
        ({"a/cpu.max": "nonsense", "a/memory.max": ""}, "0::/a\n", 64, 256),
        (
            {
                "cpu/job/cpu.cfs_quota_us": "800000",
                "cpu/job/cpu.cfs_period_us": "100000",
                "memory/job/memory.limit_in_bytes": str(16 * GIB),
            },
            "4:memory:/job\n3:cpu,cpuacct:/job\n",
            8,
            16,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            "4:memory:/\n3:cpu:/\n",
            64,
            256,
        ),
    ],
)
@pytest.mark.usefixtures("many")
def test_control_groups_of_both_kinds_and_those_above_count(
    tmp_path: Path, files: dict[str, str], own: str, cores: int, gib: int
) -> None:
    places = tree(tmp_path, own, files)
    assert limits.cores(*places) == cores
    assert limits.memory(*places) == gib * GIB
    said = limits.told(*places)
    assert (f"{cores} of 64 cores" in said) == (cores < 64)
    assert (f"{gib}.0 of 256.0 GiB of memory" in said) == (gib < 256)


@pytest.mark.usefixtures("many")
def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    places = tmp_path / "no", tmp_path / "none"
    assert (limits.cores(*places), limits.memory(*places), limits.told(*places)) == (64, 256 * GIB, "")


@pytest.mark.process
def test_a_limit_of_the_shell_and_fewer_processors_are_told() -> None:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors, and a system that can lend one of them")
    code = (
        "import os, resource\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({GIB}, {resource.RLIM_INFINITY}))\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from worker import limits\n"
        "print(limits.cores(), limits.memory(), limits.told())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"1 {GIB} 1 of {os.cpu_count()} cores, 1.0 of ")
