"""The figures of a validation, ready for JSON: what pictures and the report are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .articles import Audit
from .survey import Geometry, Header, Survey

BINS = 40
PROJECTED = 5000
# Norms of a model that normalises differ in the eighth digit: a histogram narrower than this would show rounding only.
NARROWEST = 1e-6
ROWS_NAMED = 10


def rounded(value: float | None, digits: int = 6) -> float | None:
    """`value` with so many significant digits; None for what JSON cannot say (NaN, infinity)."""
    return float(f"{value:.{digits}g}") if value is not None and np.isfinite(value) else None


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Counts in equal bins from the least to the greatest value, finite ones only."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"edges": [], "counts": []}
    low, high = float(values.min()), float(values.max())
    if high - low < NARROWEST:
        middle = (low + high) / 2
        low, high = middle - NARROWEST / 2, middle + NARROWEST / 2
    counts, edges = np.histogram(values, BINS, (low, high))
    return {"edges": [rounded(float(edge), 12) for edge in edges], "counts": counts.tolist()}


def _spread(values: np.ndarray, digits: int) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    if not len(values):
        return {"min": None, "max": None, "mean": None, "sd": None}
    measures = {"min": values.min(), "max": values.max(), "mean": values.mean(), "sd": values.std()}
    return {name: rounded(float(value), digits) for name, value in measures.items()}


def norms(values: np.ndarray) -> dict[str, Any]:
    """min, max, mean, sd and a histogram of the rows' norms."""
    return {**_spread(values, 9), "histogram": histogram(values)}


def lengths(audit: Audit, stated: dict[str, Any]) -> dict[str, Any]:
    """Tokens a document, and how much of them the model never read. `stated` is the manifest's sum over documents."""
    tokens = audit.tokens.astype(np.float64)
    return {
        **_spread(tokens, 6),
        "median": rounded(float(np.median(tokens))) if len(tokens) else None,
        "tokens": int(audit.tokens.sum()),
        "truncated_rows": int(audit.cut.sum()),
        "truncated_share": rounded(float(audit.cut.mean())) if len(audit.cut) else None,
        "tokens_cut": stated.get("tokens_cut"),
        "share_cut": stated.get("share_cut"),
        "histogram": histogram(tokens),
    }


def geometry(lie: Geometry) -> dict[str, Any]:
    """Mean cosine, share of the strongest direction and effective rank; None where there are too few rows."""
    return {
        "mean_cosine": rounded(lie.mean_cosine),
        "top_share": rounded(lie.top_share),
        "effective_rank": rounded(lie.effective_rank, 4),
    }


def duplicates(groups: Sequence[Sequence[int]], fingerprints: np.ndarray, audit: Audit) -> dict[str, Any]:
    """Equal vectors, and what explains each group: an equal text, or texts that the model read only up to its limit.

    `fingerprints` are the corpus's, uint8 (rows, 16).
    """
    by_text = by_cut = 0
    unexplained: list[list[int]] = []
    for group in groups:
        if (fingerprints[group] == fingerprints[group[0]]).all():
            by_text += 1
        elif audit.cut[group].all():
            by_cut += 1
        else:
            unexplained.append(list(group))
    return {
        "groups": len(groups),
        "rows": sum(map(len, groups)),
        "explained_by_text": by_text,
        "explained_by_cut": by_cut,
        "unexplained": len(unexplained),
        "unexplained_rows": [group[:ROWS_NAMED] for group in unexplained[:ROWS_NAMED]],
    }


def sample(shape: Header) -> list[int]:
    """The rows that a projection shows: evenly spaced, at most 5,000."""
    rows: list[int] = np.linspace(0, shape.rows - 1, min(shape.rows, PROJECTED)).astype(np.int64).tolist()
    return rows


def projection(
    found: Survey, lie: Geometry, rows: Sequence[int], audit: Audit, questions: np.ndarray, texts: Sequence[str]
) -> dict[str, Any]:
    """The documents' two strongest directions as x and y: documents [x, y, row, title, tokens] (tokens: as
    many as were read), questions [x, y, question].
    """

    def placed(vectors: np.ndarray) -> list[list[float]]:
        return [[round(float(x), 5), round(float(y), 5)] for x, y in (vectors - found.mean) @ lie.axes.T]

    articles = audit.articles(rows)
    return {
        "shares": [rounded(share) for share in lie.shares],
        "documents": [
            [x, y, row, articles[row].get("title"), articles[row].get("tokens")]
            for (x, y), row in zip(placed(found.sample), rows, strict=True)
        ],
        "questions": [[x, y, text] for (x, y), text in zip(placed(questions), texts, strict=True)],
    }
