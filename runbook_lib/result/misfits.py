"""What the content fit says of a run: its figures, its power, and the parts that plainly hold other rows' vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .content_fit import Scores, lowest, power
from .figures import FitFigures, rounded
from .manifest import MergedPart

LOOKED_AT = 50  # rows that fit least, computed again first
PAIRS = 10  # of neighbours that would fit better exchanged, computed again first
LOW = 0.3  # of the run's median: a row below is computed again also when an archive is verified
PLAIN = 0.35  # of the run's median: a whole part below it holds other vectors than its texts'
FEWEST = 8  # rows of a part that has a mean worth speaking of
APART = 4.0  # standard errors
WEAK = 0.2  # a median below: words tell too little of these vectors


@dataclass(frozen=True)
class Misfit:
    """A part whose vectors plainly do not fit its texts, why, and the rows in it that fit least."""

    part: MergedPart
    why: str
    rows: tuple[int, ...]


def described(scores: Scores) -> FitFigures:
    """Return the figures of a fit, rounded so that another machine finds the same."""
    known = scores.own[np.isfinite(scores.own)]
    if not len(known):
        return FitFigures(0, None, None, None, None, (), ())
    by_other, by_neighbour = power(scores, LOOKED_AT)
    rows = lowest(scores, LOOKED_AT)
    return FitFigures(
        rows=len(known),
        median=rounded(float(np.median(known)), 3),
        first_percent=rounded(float(np.quantile(known, 0.01)), 3),
        power_other=round(by_other, 3),
        power_neighbour=round(by_neighbour, 3),
        lowest=tuple(rows),
        lowest_scores=tuple(round(float(scores.own[row]), 3) for row in rows),
    )


def suspects(scores: Scores) -> list[int]:
    """Return the rows whose fit is far below the run's usual one, the lowest first."""
    known = scores.own[np.isfinite(scores.own)]
    usual = float(np.median(known)) if len(known) else 0.0
    limit = LOW * usual if usual >= WEAK else -1.0
    return [row for row in lowest(scores, LOOKED_AT) if scores.own[row] < limit]


def parts(scores: Scores, merged: Sequence[MergedPart]) -> list[Misfit]:
    """Return the parts that plainly do not fit; what they hold has to be computed again before it is believed."""
    known = scores.own[np.isfinite(scores.own)]
    if len(known) < FEWEST or float(np.median(known)) < WEAK:
        return []
    usual, spread = float(np.median(known)), float(known.std())
    found = []
    for part in merged:
        low, high = part.rows or (0, 0)
        high = min(high, len(scores.own))
        own = scores.own[low:high]
        if np.isfinite(own).sum() < FEWEST:
            continue
        if why := _why(scores, low, high, usual, spread):
            rows = low + np.argsort(own, kind="stable")[:3]
            found.append(Misfit(part, why, tuple(int(row) for row in rows)))
    return found


def _why(scores: Scores, low: int, high: int, usual: float, spread: float) -> str:
    own, after, before = (
        float(np.nanmean(values))
        for values in (scores.own[low:high], scores.after[low : high - 1], scores.before[low + 1 : high])
    )
    error = spread / float(np.sqrt(high - low))
    if max(after, before) > max(own + APART * error, usual / 2) and own < 0.75 * usual:
        return (
            f"its vectors fit better one row {'on' if after > before else 'back'} ({max(after, before):.2f}, {own:.2f})"
        )
    if own < PLAIN * usual and usual - own > APART * error:
        return f"its vectors do not fit its texts ({own:.2f}, usual {usual:.2f})"
    return ""
