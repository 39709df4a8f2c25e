"""What narrower numbers cost a search: measured on the vectors themselves, some of which look for their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .survey import Header, blocks, some_rows, unit

PROBES, NEAREST = 200, 10
ROWS = 8192  # at a time

Vectors = np.ndarray  # float32, (rows, dim)


@dataclass(frozen=True)
class Loss:
    """What a narrower number costs: the share found of the ten nearest rows of `probes` rows; the lowest cosine of all.

    `recall`: None where there is only one row.
    """

    probes: int
    recall: float | None
    lowest_cosine: float

    def __str__(self) -> str:
        recall = "" if self.recall is None else f"recall@{NEAREST} {self.recall:.4f} on {self.probes} rows, "
        return f"{recall}lowest cosine {self.lowest_cosine:.7f}"


def half(vectors: Vectors) -> Vectors:
    """Return the vectors as they are read back from float16; a number that is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return vectors.astype(np.float16).astype(np.float32)


def measured(path: Path, shape: Header, narrow: Callable[[Vectors], Vectors]) -> Loss:
    """Return what `narrow` costs a matrix: some of its rows, spread evenly, search all others in both forms."""
    probes = np.unique(np.linspace(0, shape.rows - 1, min(PROBES, shape.rows)).astype(np.int64))
    asked, keep = some_rows(path, shape, probes.tolist()), min(NEAREST, shape.rows - 1)
    before, after = _Nearest(unit(asked), probes, keep), _Nearest(unit(narrow(asked)), probes, keep)
    lowest = 1.0
    for low, block in blocks(path, shape, ROWS):
        exact, narrowed = unit(block), unit(narrow(block))
        before.take(low, exact)
        after.take(low, narrowed)
        lowest = min(lowest, float(np.einsum("ij,ij->i", exact, narrowed, dtype=np.float64).min()))
    shared = sum(len({*one} & {*other}) for one, other in zip(before.rows.tolist(), after.rows.tolist(), strict=True))
    return Loss(len(probes), shared / (keep * len(probes)) if keep else None, lowest)


class _Nearest:
    """The `keep` rows nearest to each of some directions so far, (asked, keep); none is its own neighbour."""

    def __init__(self, asked: np.ndarray, own: np.ndarray, keep: int):
        self._asked, self._own, self._keep = asked, own, keep
        self.rows, self._cosines = np.zeros((len(asked), 0), np.int64), np.zeros((len(asked), 0), np.float32)

    def take(self, low: int, directions: np.ndarray) -> None:
        """Take over the rows from `low` on."""
        scores = self._asked @ directions.T
        here = low + np.arange(len(directions))
        scores[self._own[:, None] == here] = -np.inf
        cosines = np.concatenate([self._cosines, scores], axis=1)
        rows = np.concatenate([self.rows, np.broadcast_to(here, scores.shape)], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : self._keep]
        self._cosines, self.rows = np.take_along_axis(cosines, best, axis=1), np.take_along_axis(rows, best, axis=1)
