"""Row ranges: half-open, [start, stop), of rows numbered once by the corpus. Pure."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
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


class Covered:
    """The rows that some ranges cover, which may overlap and be in any order: sorted once, for many questions.

    The rows of `beside` are covered too: what all share is sorted once, not once for each who adds a little to it.
    """

    def __init__(self, ranges: Iterable[Sequence[int]], beside: Covered | None = None):
        self._ranges = joined(each for each in ranges if each[0] < each[1])
        self._stops = [stop for _, stop in self._ranges]
        self._beside = beside

    @classmethod
    def of(cls, ranges: Covered | Iterable[Sequence[int]]) -> Covered:
        """These ranges, sorted unless they are already."""
        return ranges if isinstance(ranges, Covered) else cls(ranges)

    def missing(self, start: int, stop: int) -> list[Range]:
        """The parts of [start, stop) that are not covered."""
        gaps = []
        at, place = start, bisect_right(self._stops, start)
        while at < stop and place < len(self._ranges):
            low, high = self._ranges[place]
            if low > at:
                gaps.append((at, min(low, stop)))
            at, place = high, place + 1
        if at < stop:
            gaps.append((at, stop))
        if self._beside is None:
            return gaps
        return [gap for low, high in gaps for gap in self._beside.missing(low, high)]


def missing(start: int, stop: int, have: Iterable[Sequence[int]]) -> list[Range]:
    """The parts of [start, stop) that no range of `have` covers; for many questions, make one `Covered`."""
    return Covered(have).missing(start, stop)


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
