"""Vectors held against vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # importing it needs torch
    from worker.encoder import Encoder


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each row of `a` with the same row of `b`, in double precision."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def vectors_of(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """The vectors of texts whose rows are counted from 100."""
    return encoder.encode(texts, encoder.lengths(texts), range(100, 100 + len(texts)))
