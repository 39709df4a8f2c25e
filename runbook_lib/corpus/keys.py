"""Rows of two corpora matched by 16-byte keys (fingerprints, digests of ids), in memory that does not grow with them.

Keys are spread over buckets by their first bytes, and one bucket at a time is sorted: equal keys are in one bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
BUCKET_ROWS = 2**19  # about as many keys are sorted at a time
BLOCK_ROWS = 2**18  # keys read at a time
NONE = -1

Keys = npt.NDArray[np.uint8]  # (rows, 16), perhaps a file that is read as it is used
Rows = npt.NDArray[np.int64]


def id_key(value: str | int) -> bytes:
    """Return the key of a document's id: 7 and "7" are two ids."""
    text = f"{type(value).__name__} {value}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def blocks(rows: int) -> Iterator[slice]:
    """Yield [0, rows) in slices of at most BLOCK_ROWS."""
    for low in range(0, rows, BLOCK_ROWS):
        yield slice(low, min(low + BLOCK_ROWS, rows))


def first_rows(keys: Keys, among: Keys, out: Rows, scratch: Path) -> None:
    """Write for each of `keys` the first row of `among` that has this key, or -1, into `out` (rows,).

    `scratch`: a folder for two files of 8 bytes a key, which are removed again.
    """
    count = max(1, -(-max(len(keys), len(among)) // BUCKET_ROWS))
    own, others = (_grouped(each, count, scratch / name) for each, name in ((keys, "own"), (among, "among")))
    for bucket in range(count):
        rows, there = own.rows(bucket), others.rows(bucket)
        values, places = np.unique(_values(among, there), return_index=True)
        if not len(values):
            out[rows] = NONE
            continue
        wanted = _values(keys, rows)
        at = np.searchsorted(values, wanted)
        at[at == len(values)] = 0
        out[rows] = np.where(values[at] == wanted, there[places[at]], NONE)
    for group in (own, others):
        group.path.unlink()


@dataclass(frozen=True)
class _Grouped:
    """Row numbers in a file, bucket after bucket, ascending in each."""

    path: Path
    order: Rows
    starts: Rows

    def rows(self, bucket: int) -> Rows:
        """Return the rows of a bucket."""
        return np.asarray(self.order[self.starts[bucket] : self.starts[bucket + 1]])


def _grouped(keys: Keys, count: int, path: Path) -> _Grouped:
    """Sort the row numbers by the bucket of their keys, in two passes over the keys."""
    sizes = np.zeros(count, np.int64)
    for part in blocks(len(keys)):
        sizes += np.bincount(_buckets(keys[part], count), minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    order = np.lib.format.open_memmap(path, mode="w+", dtype="<i8", shape=(len(keys),))
    next_place = starts[:-1].copy()
    for part in blocks(len(keys)):
        bucket = _buckets(keys[part], count)
        by, found = np.argsort(bucket, kind="stable"), np.bincount(bucket, minlength=count)
        within = np.arange(len(by)) - np.repeat(np.cumsum(found) - found, found)
        order[next_place[bucket[by]] + within] = part.start + by
        next_place += found
    return _Grouped(path, order, starts)


def _buckets(keys: Keys, count: int) -> Rows:
    """Return the bucket of each key."""
    return (np.ascontiguousarray(keys[:, :4]).view(">u4").ravel() % count).astype(np.int64)


def _values(keys: Keys, rows: Rows) -> npt.NDArray[np.bytes_]:
    """Return the keys of these rows as values that can be sorted: all 16 bytes count, as all have the same length."""
    return np.ascontiguousarray(keys[rows]).view("S16").ravel()
