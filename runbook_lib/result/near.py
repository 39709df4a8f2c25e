"""Nearly equal vectors of different texts: copies with a little noise, or a cache that answered for another text.

Every row, in one pass. Rows on the same side of 64 random planes are held against each other. Two vectors of cosine
1 - 1e-5 are on the same side of all of them in 91 of 100 cases, in one of three such sets in 999 of 1,000; of cosine
1 - 5e-4 in 89 of 100. Others are hardly ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .survey import blocks, header, some_rows, unit

NEAR, CLOSE = 1e-5, 5e-4  # 1 - cosine: told; and worth a look where a row does not fit its text
PLANES, SETS = 64, 3
TOGETHER = 64  # rows on the same side that are held against each other; of more, neighbours in order only
MOST = 2_000  # pairs that are kept


def pairs(matrix: Path, fingerprints: np.ndarray, within: float = NEAR) -> list[tuple[int, int]]:
    """Return pairs of rows, in order, whose vectors are as near as `within` and whose texts' fingerprints differ."""
    shape = header(matrix)
    planes = np.random.default_rng(1).normal(size=(shape.dim, SETS * PLANES)).astype(np.float32)
    sides = np.zeros((shape.rows, SETS), np.uint64)
    there = np.zeros(shape.rows, bool)
    for low, block in blocks(matrix, shape, 4096):
        directions = unit(block)
        bits = np.packbits(directions @ planes > 0, axis=1)
        sides[low : low + len(block)] = np.ascontiguousarray(bits).view(np.uint64)
        there[low : low + len(block)] = np.isfinite(directions).all(axis=1) & (directions != 0).any(axis=1)
    found: set[tuple[int, int]] = set()
    for number in range(SETS):
        for group in _together(sides[:, number], there):
            found.update(_near(group, matrix, fingerprints, within))
            if len(found) >= MOST:
                return sorted(found)
    return sorted(found)


def _together(sides: np.ndarray, there: np.ndarray) -> list[np.ndarray]:
    """Return groups of two rows or more that are on the same sides."""
    rows = np.flatnonzero(there)
    order = rows[np.argsort(sides[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(sides[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def _near(group: np.ndarray, matrix: Path, fingerprints: np.ndarray, within: float) -> list[tuple[int, int]]:
    rows = np.sort(group)
    if (fingerprints[rows] == fingerprints[rows[0]]).all():
        return []
    vectors = unit(some_rows(matrix, header(matrix), rows.tolist()))
    if len(rows) > TOGETHER:
        cosines = np.einsum("ij,ij->i", vectors[1:], vectors[:-1], dtype=np.float64)
        places = [(i, i + 1) for i in np.flatnonzero(cosines > 1 - within)]
    else:
        i, j = np.nonzero(np.triu(vectors.astype(np.float64) @ vectors.T.astype(np.float64) > 1 - within, 1))
        places = list(zip(i, j, strict=True))
    return [(int(rows[a]), int(rows[b])) for a, b in places if (fingerprints[rows[a]] != fingerprints[rows[b]]).any()]
