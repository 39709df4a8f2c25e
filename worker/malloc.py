"""Have this process keep the memory that it frees: the next batch takes it again.

glibc maps every block above 32 MiB anew and gives it back at once, so each use of one costs a fault a page: a layer of
a wide model took three times as long. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Names and numbers of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
MOST = 2**31 - 1  # bytes at the end of the heap that are free and are kept: the highest number it takes


def keep() -> bool:
    """Do so from now on; where it is not Linux with glibc nothing happens, and it says so."""
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: musl has no such function
        if sys.platform == "linux":
            mallopt = ctypes.CDLL(None).mallopt
            return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST))
    return False
