"""Which rows have a value that an earlier row has, among very many: digests on the disk, sorted a share at a time.

A digest of 128 bits stands for the value, as a text's fingerprint does everywhere else. They are sorted by both halves,
so two values that agree in the first 64 bits only are told apart. Memory does not grow with the rows, unless most of
them have the same value.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .columns import Column

WIDTH = 16  # bytes of a digest
AT_ONCE = 2**22  # digests that are sorted at a time
PIECE_ROWS = 2**18

Rows = npt.NDArray[np.int64]


def digest(value: bytes) -> bytes:
    """The first 128 bits of the sha256 of a value."""
    return hashlib.sha256(value).digest()[:WIDTH]


class Repeats:
    """Takes a digest for each row, in order; tells which came before."""

    def __init__(self, folder: Path | None = None, at_once: int = AT_ONCE) -> None:
        self._column, self._at_once = Column(folder), at_once

    def __len__(self) -> int:
        return self._column.bytes // WIDTH

    def add(self, digest: bytes) -> None:
        """Add the digest of the next row."""
        self._column.append(digest)

    def groups(self) -> Iterator[Rows]:
        """Yield the rows of each value that several rows have, ascending; in no order of the values."""
        for rows, begins in self._shares():
            firsts = np.flatnonzero(begins)
            sizes = np.diff(np.append(firsts, len(rows)))
            for first, size in zip(firsts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
                yield rows[first : first + size]

    def later(self, most: int) -> tuple[int, list[tuple[int, int]]]:
        """Return how many rows have the value of an earlier one, and the first `most` of them: (row, the first row)."""
        count, named = 0, list[tuple[int, int]]()
        for rows, begins in self._shares():
            later = np.flatnonzero(~begins)
            count += len(later)
            if len(later):
                firsts = np.flatnonzero(begins)
                of_first = rows[firsts[np.cumsum(begins)[later] - 1]]
                least = np.argsort(rows[later], kind="stable")[:most]
                pairs = zip(rows[later][least].tolist(), of_first[least].tolist(), strict=True)
                named = heapq.nsmallest(most, [*named, *pairs])
        return count, named

    def close(self) -> None:
        """Give memory and disk back."""
        self._column.close()

    def _shares(self) -> Iterator[tuple[Rows, npt.NDArray[np.bool_]]]:
        """Yield the rows of a share of all values, equal ones side by side, and whether each is the first of its value.

        A value lies in one share, by its first half: so each share can be sorted alone.
        """
        shares = max(1, -(-len(self) // self._at_once))
        for share in range(shares):
            halves, rows = self._of_share(share, shares)
            order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal ones stay in the order of their rows
            halves = halves[order]
            begins = np.ones(len(order), np.bool_)
            begins[1:] = (halves[1:] != halves[:-1]).any(axis=1)
            yield rows[order], begins

    def _of_share(self, share: int, shares: int) -> tuple[npt.NDArray[np.uint64], Rows]:
        found, rows, at = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], 0
        for piece in self._column.pieces(WIDTH * PIECE_ROWS):
            halves = np.frombuffer(piece, np.uint64).reshape(-1, 2)
            here = np.flatnonzero(halves[:, 0] % np.uint64(shares) == share)
            found.append(halves[here])
            rows.append(at + here)
            at += len(halves)
        return np.concatenate(found), np.concatenate(rows)
