"""Rows of the result of a run with --since: from the earlier matrix, or from the parts of this run; block by block."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..corpus import keys
from ..corpus.keys import Rows
from .array_file import ITEM_BYTES
from .parts import Part, Piece
from .whole import Whole

BLOCK_BYTES = 8 * 2**20
TOKENS = 2**40  # a length is packed below it, the chunks above it


class RowRecord(NamedTuple):
    """What is known of a row. `chunks`: 0 where long texts are cut; `limit`: tokens that are read; None: all."""

    row: int
    tokens: int
    cut: bool
    chunks: int
    fingerprint: str
    limit: int | None


def packed(tokens: int, cut: bool, chunks: int) -> int:
    """Return tokens, whether they were cut, and chunks as one number: 2 * tokens + cut where there are no chunks."""
    return chunks * TOKENS + 2 * tokens + cut


def unpacked(length: int) -> tuple[int, bool, int]:
    """Return what was packed: tokens, cut, chunks."""
    return length % TOKENS // 2, bool(length % 2), length // TOKENS


def blocks(whole: Whole, dim: int) -> Iterator[tuple[int, Rows]]:
    """Yield (first document, where the vectors are) for all documents, block by block."""
    take, step = whole.take(), max(1, BLOCK_BYTES // (dim * ITEM_BYTES))
    for low in range(0, whole.documents, step):
        yield low, np.asarray(take[low : low + step])


def vectors(take: Rows, before: np.ndarray, parts: WorkRows) -> np.ndarray:
    """Return the vectors (rows, dim) that `take` names; `before` is the earlier matrix."""
    taken = take >= 0
    found = np.empty((len(take), before.shape[1]), "<f4")
    found[taken] = before[take[taken]]
    found[~taken] = parts.vectors(-1 - take[~taken])
    return found


class WorkRows:
    """The vectors of work rows, by their number, from the pieces of parts that hold them."""

    def __init__(self, pieces: Sequence[Piece]):
        self._pieces = sorted(pieces, key=lambda piece: piece[1])
        self._starts = [low for _, low, _ in self._pieces]
        self._open: tuple[int, np.ndarray] | None = None

    def vectors(self, rows: Rows) -> np.ndarray:
        """Return the vectors of these rows, (rows, dim), in the order asked for."""
        places = np.asarray([bisect_right(self._starts, row) - 1 for row in rows.tolist()], np.int64)
        found = np.empty((len(rows), self._pieces[0][0].dim if self._pieces else 0), "<f4")
        for place in np.unique(places).tolist():
            here = places == place
            part = self._pieces[place][0]
            found[here] = self._array(place, part)[rows[here] - part.start]
        return found

    def _array(self, place: int, part: Part) -> np.ndarray:
        """Return a part's array, mapped; the last one stays open."""
        if self._open is None or self._open[0] != place:
            self._open = place, np.load(part.path, mmap_mode="r", allow_pickle=False)
        return self._open[1]


def records(whole: Whole, work: Iterator[RowRecord]) -> Iterator[RowRecord]:
    """Return the record of each document in order: of a taken one as it was recorded, else that of its work row.

    `work`: the records of all work rows; 8 bytes of each are kept.
    """
    lengths, limit = array("q"), None
    for record in work:
        lengths.append(packed(record.tokens, record.cut, record.chunks))
        limit = record.limit
    own = np.frombuffer(lengths, np.int64)
    prints, take, before = whole.corpus.fingerprints(), whole.take(), whole.lengths()
    for part in keys.blocks(whole.documents):
        rows = take[part]
        found = np.where(rows >= 0, before[part], own[np.where(rows < 0, -1 - rows, 0)])
        for row, length, text in zip(range(part.start, part.stop), found.tolist(), prints[part], strict=True):
            yield RowRecord(row, *unpacked(length), text.tobytes().hex(), limit)
