"""A few documents and those nearest to each: for a person to look at. Nothing is failed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .articles import Audit
from .retrieval import Neighbour
from .sampling import draw
from .survey import Header, Survey, some_rows, unit

CHOSEN, SHOWN = 6, 3


@dataclass(frozen=True)
class Beside:
    """A document, and the documents nearest to it, best first."""

    row: int
    title: str | None
    nearest: tuple[Neighbour, ...]


def chosen(plan: str, documents: int) -> list[int]:
    """Return the rows to look at; they follow from the plan's digest, so that nobody picks fine ones."""
    return sorted(draw(plan, documents, CHOSEN))


def directions(matrix: Path, shape: Header, rows: Sequence[int]) -> np.ndarray:
    """Return the unit vectors of rows, float32 (rows, dim)."""
    return unit(some_rows(matrix, shape, rows))


def figures(rows: Sequence[int], survey: Survey, audit: Audit) -> tuple[Beside, ...]:
    """Return the chosen documents with their nearest, from a survey that was given their directions."""
    titles = audit.articles([*rows, *(int(row) for row in survey.beside.ravel() if row >= 0)])
    found = []
    for place, row in enumerate(rows):
        pairs = zip(survey.beside[place].tolist(), survey.beside_cosines[place].tolist(), strict=True)
        nearest = [
            Neighbour(other, titles[other].get("title"), round(cosine, 6))
            for other, cosine in pairs
            if other >= 0 and other != row and np.isfinite(cosine)
        ]
        found.append(Beside(row, titles[row].get("title"), tuple(nearest[:SHOWN])))
    return tuple(found)
