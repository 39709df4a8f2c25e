"""What is looked at in every row without the model: whether words fit their vectors, and near copies of other texts.

Neither fails anything: the rows that it names are computed again first, and that decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..result import content_fit, misfits, near, texts_again
from ..result.content_fit import Scores
from ..result.misfits import Misfit
from ..result.parts import first_few
from ..result.survey import blocks, header, some_rows, unit
from ..run.checks import Checks
from .subject import Subject

FIT = "vectors fit their texts"
NEAR, COPIES = "no near copies of other texts", 20  # pairs that are computed again


def fit(subject: Subject) -> Scores | None:
    """Return the content fit of every document; None where there are too few. Raises DataError and OSError."""
    shape = header(subject.merged.embeddings)
    mean = _mean(subject.merged.embeddings)
    return content_fit.score(
        lambda: texts_again.texts(subject.corpus), subject.merged.embeddings, shape, mean, subject.characters()
    )


def _mean(matrix: Path) -> np.ndarray:
    """Return the mean of all directions, (dim,)."""
    shape = header(matrix)
    total = np.zeros(shape.dim)
    for _, block in blocks(matrix, shape, 4096):
        total += unit(block).sum(axis=0, dtype=np.float64)
    return total / max(1, shape.rows)


def tell_fit(checks: Checks, scores: Scores | None, found: Sequence[Misfit]) -> None:
    """Add the check of the content fit: it never fails, because what is computed again decides."""
    if scores is None:
        checks.add(FIT, True, f"too few documents to learn from, {content_fit.FEWEST} are needed")
        return
    shown = misfits.described(scores)
    lowest = f"lowest row {shown.lowest[0]} with {shown.lowest_scores[0]:.2f}" if shown.lowest else "none has a score"
    words = f"{shown.rows} documents, median {shown.median or 0:.2f}, {lowest}"
    if shown.power_other is not None and shown.power_neighbour is not None:
        words += (
            f"; of rows with another's vector {shown.power_other:.0%} would be among the {misfits.LOOKED_AT} lowest, "
            f"with their neighbour's {shown.power_neighbour:.0%}"
        )
    plain = "; ".join(f"{each.part.name} of {each.part.slot} on {each.part.host}: {each.why}" for each in found[:10])
    remedy = "rows of these parts are computed again below where that is possible: it decides"
    checks.add(FIT, True, f"{plain}; {words}" if plain else words, "", remedy if plain else "", warn=bool(plain))


def tell_near(checks: Checks, subject: Subject, scores: Scores | None = None) -> list[int]:
    """Add the check of nearly equal vectors; return some of their rows, which are computed again.

    Vectors that are equal in every bit are another check's business, and are computed again too. Of many pairs those
    come first in which a row fits its text least: documents may be alike, and then both fit.
    """
    matrix, prints = subject.merged.embeddings, subject.corpus.fingerprints()[: subject.corpus.documents]
    found = near.pairs(matrix, prints, near.CLOSE)
    apart = _nearly_equal(matrix, found)
    named = f"{len(apart)} pairs of different texts: rows {first_few([f'{a} and {b}' for a, b in apart])}"
    good = f"no two of different texts nearer than {near.NEAR:g}, unless they are equal"
    remedy = "read these documents: texts that read the same are harmless; where that is possible, the audit decides"
    checks.add(NEAR, True, named if apart else good, "none", remedy if apart else "", warn=bool(apart))
    if scores is not None:
        found.sort(key=lambda pair: float(np.nan_to_num(scores.own[list(pair)], nan=1.0).min()))
    return list(dict.fromkeys(row for pair in found[:COPIES] for row in pair))


def _nearly_equal(matrix: Path, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs that are nearer than is told of, but for those that are equal in every bit."""
    found = []
    for pair in pairs:
        vectors = some_rows(matrix, header(matrix), pair)
        one, two = unit(vectors).astype(np.float64)
        if vectors[0].tobytes() != vectors[1].tobytes() and one @ two > 1 - near.NEAR:
            found.append(pair)
    return found
