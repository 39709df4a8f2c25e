"""Row ranges: half-open, [start, stop), of rows numbered once by the corpus. Pure."""

from __future__ import annotations

import hashlib
from typing import Iterable, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

Range = tuple[int, int]


def fingerprint(text: str) -> str:
    """A document's fingerprint: the first 128 bits of the sha256 of its text as encoded, as 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def joined(ranges: Iterable[Sequence[int]]) -> list[Range]:
    """The same rows in as few ranges as can be, sorted: what is looked at many times is joined once."""
    joint: list[Range] = []
    for low, high in sorted((int(low), int(high)) for low, high in ranges):
        if joint and low <= joint[-1][1]:
            joint[-1] = (joint[-1][0], max(joint[-1][1], high))
        else:
            joint.append((low, high))
    return joint


def missing(start: int, stop: int, have: Iterable[Range]) -> list[Range]:
    """The parts of [start, stop) that no range of `have` covers; `have` may overlap and be in any order."""
    gaps = []
    at = start
    for low, high in sorted(have):
        if low >= stop:
            break
        if low >= high:
            continue
        if low > at:
            gaps.append((at, low))
        at = max(at, high)
    if at < stop:
        gaps.append((at, stop))
    return gaps


def planned_parts(start: int, stop: int, part_rows: int, grid: int | None = None) -> list[Range]:
    """The parts of [start, stop): cut every `part_rows` rows from `grid` on, where their first shard began (`start`).

    Fixed by the first plan, so that a restart, and a slot to which rows moved, meet the same boundaries.
    """
    grid = start if grid is None else grid
    first = grid + (start - grid) // part_rows * part_rows
    return [(max(low, start), min(low + part_rows, stop)) for low in range(first, stop, part_rows)]


def count(ranges: Iterable[Range]) -> int:
    """How many rows lie in ranges that do not overlap."""
    return sum(stop - start for start, stop in ranges)
