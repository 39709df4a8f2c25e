"""An audit as it is kept: which rows were computed again, how far off each is, and what follows for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import sampling
from .figures import AuditFigures

HERE = "on this machine's processor in float32"
ELSEWHERE = "on other slots of the run than those that did them, in its dtype"


@dataclass(frozen=True)
class AuditedRow:
    """A row that was computed again: why it was, how far off it is (None: no vector, see `error`), its tokens then.

    `chunks`: in how many it was read then; None where long texts are cut.
    """

    row: int
    uniform: bool
    distance: float | None = None
    tokens: int | None = None
    error: str = ""
    chunks: int | None = None


@dataclass(frozen=True)
class Audit:
    """`report/audit.json`. `seed` follows from `parts`, the sum over all digests, and the random `nonce`."""

    parts: str
    nonce: str
    seed: str
    tolerance: float
    rows: tuple[AuditedRow, ...]
    where: str = HERE


def distance(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Return half the squared distance of two vectors, as a share of the second's squared length; None if that is 0."""
    size = float(theirs @ theirs)
    if len(ours) != len(theirs) or not np.isfinite(size) or size <= 0.0:
        return None
    apart = ours.astype(np.float64) - theirs
    return float(apart @ apart) / size / 2.0


def wrong_rows(audit: Audit) -> list[tuple[int, str]]:
    """Return the rows that are off by more than the tolerance, and how far in words."""
    far = {each.row: each.distance for each in audit.rows if each.distance is not None}
    return [(row, f"row {row} is off by {off:.2g}") for row, off in far.items() if not off <= audit.tolerance]


def figures_of(audit: Audit, rows: int) -> AuditFigures:
    """Return what follows from the rows of an audit, among so many rows."""
    known = [each for each in audit.rows if each.distance is not None]
    uniform = [each for each in known if each.uniform]
    wrong = len(wrong_rows(audit))
    furthest = max((each.distance for each in known if each.distance is not None), default=None)
    return AuditFigures(
        uniform=len(uniform),
        lowest=len({each.row for each in known} - {each.row for each in uniform}),
        wrong=wrong,
        furthest=float(f"{furthest:.2g}") if furthest is not None else None,
        tolerance=float(f"{audit.tolerance:.2g}"),
        share_at_most=None if wrong or not uniform else sampling.most_bad(rows, len(uniform)) / rows,
        seed=audit.seed,
        where=audit.where,
    )


def in_words(shown: AuditFigures, rows: int) -> str:
    """Return what an audit says, with its bound."""
    done = [f"{shown.uniform:,} of {rows:,} rows drawn by seed {shown.seed[:12]}"] if shown.uniform else []
    done += [f"{shown.lowest} further ones that stand out or stand for a part"] if shown.lowest else []
    done_words = f"{' and '.join(done) or 'none'}, furthest {shown.furthest or 0:.2g}"
    if shown.share_at_most is None:
        return f"{done_words}; {shown.wrong or 'none'} off by more than {shown.tolerance:.2g}"
    bound = "no row" if not shown.share_at_most else f"at most {percent(shown.share_at_most)} of all rows"
    return f"{done_words}; {bound} off by more than {shown.tolerance:.2g} (95 %)"


def percent(share: float) -> str:
    """Return a share in percent, rounded up in its second digit: a bound may not look smaller than it is."""
    digits = 2 if share < 0.1 else 1
    return f"{np.ceil(share * 100 * 10**digits - 1e-9) / 10**digits:.{digits}f} %"
