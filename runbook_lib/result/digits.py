"""Rows that were computed in 16 bits or fewer, told by the digits of their numbers: of every row, exactly, for nothing.

Numbers of 16 bits end in zeros. Where they were normalised afterwards they do not, but a factor changes no two equal
mantissas into different ones: float32 has eight million of them, bfloat16 128, float16 1,024, and 8 bits fewer still.
"""

from __future__ import annotations

import numpy as np

# The bits of a float32 that float16 does not have; bfloat16 has even fewer.
LOW_BITS, MANTISSA = np.uint32(0x1FFF), np.uint32(0x007FFFFF)
LOOKED_AT, FEWEST = 256, 64  # numbers of a row; with fewer, equal mantissas say too little
# Equal ones among them that chance does not explain: of 256 in float32 one in 250 rows has a pair, in float16 30 are.
EQUAL, EQUAL_SHARE = 3, 0.05


def coarse(block: np.ndarray) -> np.ndarray:
    """Return which rows of float32 (rows, dim) have numbers that all end in zeros, and are not mostly zero."""
    ends_in_zeros = ~((block.view("<u4") & LOW_BITS) != 0).any(axis=1)
    rows: np.ndarray = ends_in_zeros & ((block != 0).sum(axis=1) > block.shape[1] // 2) & (block.shape[1] > 1)
    return rows


def scaled(block: np.ndarray) -> np.ndarray:
    """Return which rows of float32 (rows, dim) have far too many equal mantissas: coarse numbers times a factor."""
    some = np.ascontiguousarray(block[:, :LOOKED_AT])
    if some.shape[1] < FEWEST:
        return np.zeros(len(block), bool)
    there = some != 0
    mantissas = np.where(there, some.view("<u4") & MANTISSA, np.arange(some.shape[1], dtype=np.uint32) | ~MANTISSA)
    mantissas.sort(axis=1)
    equal = (mantissas[:, 1:] == mantissas[:, :-1]).sum(axis=1)
    numbers = there.sum(axis=1)
    rows: np.ndarray = (numbers >= FEWEST) & (equal > np.maximum(EQUAL, EQUAL_SHARE * numbers))
    return rows
