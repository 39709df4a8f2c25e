"""Rows with the same text whose vectors differ: one of the two is wrong, and computing it again says which."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .audited import distance
from .survey import equal_rows, header, some_rows

GROUPS, TOGETHER = 5_000, 64  # of equal texts that are looked at, and rows of one


def differing(matrix: Path, fingerprints: np.ndarray, within: float, most: int) -> list[int]:
    """Return rows whose vector is further than `within` from that of the first row with the same text, each after it.

    `fingerprints`: of the texts, uint8 (rows, 16). At most so many rows are returned.
    """
    keys = np.ascontiguousarray(fingerprints[:, :8]).view(np.int64)[:, 0]
    shape, found = header(matrix), list[int]()
    for group in equal_rows(keys)[:GROUPS]:
        rows = group[:TOGETHER]
        if (fingerprints[rows] != fingerprints[rows[0]]).any():
            continue  # the same first half only
        first, *others = some_rows(matrix, shape, rows).astype(np.float64)
        for row, vector in zip(rows[1:], others, strict=True):
            off = distance(vector, first)
            if off is None or not off <= within:
                found += [rows[0], row]
        if len(found) >= most:
            break
    return list(dict.fromkeys(found))[:most]
