"""What narrower numbers cost a search: measured on the vectors themselves, some of which look for their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..result.survey import blocks, unit
from .finished import Finished

PROBES, NEAREST = 200, 10
ROWS = 8192  # at a time


@dataclass(frozen=True)
class Loss:
    """What a narrower number costs: of the ten nearest rows of `probes` rows, the share found; the lowest cosine."""

    probes: int
    recall: float
    lowest_cosine: float

    def __str__(self) -> str:
        return f"recall@{NEAREST} {self.recall:.4f} on {self.probes} rows, lowest cosine {self.lowest_cosine:.7f}"


def measured(result: Finished) -> Loss:
    """Return what float16 costs these vectors: some rows, spread evenly, search all others in both."""
    shape = result.shape
    rows = np.unique(np.linspace(0, shape.rows - 1, min(PROBES, shape.rows)).astype(np.int64))
    wide = np.stack([result.vectors[row] for row in rows])
    both = [_nearest(result, unit(wide), np.float32), _nearest(result, unit(_half(wide)), np.float16)]
    found = sum(len({*one} & {*other}) for one, other in zip(*both, strict=True))
    lowest = float((unit(wide) * unit(_half(wide))).sum(axis=1).min())
    return Loss(len(rows), found / max(1, both[0].size), min(1.0, lowest))


def _half(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float16).astype(np.float32)


def _nearest(result: Finished, asked: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the NEAREST rows of each of some directions, (asked, NEAREST): itself among them."""
    keep = min(NEAREST, result.shape.rows)
    rows, cosines = np.zeros((len(asked), 0), np.int64), np.zeros((len(asked), 0), np.float32)
    for low, block in blocks(result.merged.embeddings, result.shape, ROWS):
        scores = asked @ unit(block if dtype == np.float32 else _half(block)).T
        cosines = np.concatenate([cosines, scores], axis=1)
        here = np.broadcast_to(low + np.arange(len(block)), scores.shape)
        rows = np.concatenate([rows, here], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :keep]
        cosines, rows = np.take_along_axis(cosines, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return rows
