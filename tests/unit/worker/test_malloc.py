"""Memory that is freed is kept, where the system's library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Blocks of 48 MiB, one after the other; the first one may cost its pages in any case.
SCRIPT = """
import resource, sys
from worker import malloc
kept = malloc.keep() if sys.argv[1] == "keep" else False
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(48 << 20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults[1:]))
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_large_block_is_mapped_once_and_not_at_each_use() -> None:
    """Unless the system's pages are huge: then it hardly costs a fault either way."""
    found = {}
    for how in ("keep", "as it is"):
        argv = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
        kept, faults = done.stdout.split()
        assert kept == str(how == "keep")
        found[how] = int(faults)
    assert found["keep"] <= 16
    assert found["as it is"] > found["keep"]
