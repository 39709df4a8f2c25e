"""Rows whose norm is unlike the others': a bit that flipped shows. They are computed again; nothing is failed by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .survey import BLOCK_ROWS, blocks, header, norms_of

MOST = 20  # rows, the furthest first
DEVIATIONS = 20.0  # robust ones
LEAST = 2e-7  # of the median: nearer than this is the rounding of float32


def rows(matrix: Path) -> list[int]:
    """Return the rows of a matrix whose norm stands out, the furthest first. Reads it once, 8 bytes a row are kept."""
    shape = header(matrix)
    norms = np.zeros(shape.rows)
    for low, block in blocks(matrix, shape, 4096):
        norms[low : low + len(block)] = norms_of(block)
    some = norms[:: 1 + len(norms) // BLOCK_ROWS]
    some = some[np.isfinite(some)]
    if not len(some):
        return []
    middle = float(np.median(some))
    deviation = 1.4826 * float(np.median(np.abs(some - middle)))
    apart = np.nan_to_num(np.abs(norms - middle), nan=np.inf)
    far = np.flatnonzero(apart > max(DEVIATIONS * deviation, LEAST * middle))
    found: list[int] = far[np.argsort(-apart[far], kind="stable")][:MOST].tolist()
    return found
