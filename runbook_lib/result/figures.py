"""The figures of a validation, as stored in validation.json: the source of the pictures and the report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from worker.escape import safe_text

from .. import records
from ..records import Json
from .articles import Audit
from .manifest import Tally
from .neighbours import Beside
from .retrieval import Retrieval
from .survey import BLOCK_ROWS, Geometry, Header, Survey

BINS = 40
PROJECTED = 5000
# Norms of a model that normalises differ in the eighth digit: a histogram narrower than this would show rounding only.
NARROWEST = 1e-6
ROWS_NAMED = 10

Point: TypeAlias = tuple[float | int | str | None, ...]


@dataclass(frozen=True)
class Histogram:
    """`counts` in equal bins between `edges` (one more than counts); both empty if no value is finite."""

    edges: tuple[float | None, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Norms:
    """The distribution of the rows' norms; None if none is finite."""

    min: float | None
    max: float | None
    mean: float | None
    sd: float | None
    histogram: Histogram


@dataclass(frozen=True)
class Lengths:
    """Tokens for each document; the number of cut documents, and of tokens that the model never read."""

    min: float | None
    max: float | None
    mean: float | None
    sd: float | None
    median: float | None
    tokens: int
    truncated_rows: int
    truncated_share: float | None
    tokens_cut: int
    share_cut: float
    histogram: Histogram


@dataclass(frozen=True)
class GeometryFigures:
    """Mean cosine, share of the strongest direction and effective rank; None with too few rows."""

    mean_cosine: float | None
    top_share: float | None
    effective_rank: float | None


@dataclass(frozen=True)
class Duplicates:
    """Groups of equal vectors, by their explanation; for unexplained groups also the first rows."""

    groups: int
    rows: int
    explained_by_text: int
    explained_by_cut: int
    unexplained: int
    unexplained_rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Projection:
    """The documents along their two strongest directions, x and y, and the share of the variance of each.

    A document is (x, y, row, title, tokens that were read); a question is (x, y, question).
    """

    shares: tuple[float | None, ...]
    documents: tuple[Point, ...]
    questions: tuple[Point, ...]


@dataclass(frozen=True)
class FitFigures:
    """How well words predict the vectors (`content_fit`): of how many rows, cosines, and the rows that fit least.

    `power_other`: how likely a row would be among the lowest with a vector from elsewhere; `power_neighbour`: with the
    next row's. Both were measured on this run.
    """

    rows: int
    median: float | None
    first_percent: float | None
    power_other: float | None
    power_neighbour: float | None
    lowest: tuple[int, ...]
    lowest_scores: tuple[float, ...]


@dataclass(frozen=True)
class AuditFigures:
    """The rows that were computed again after all parts were home (`report/audit.json` has each).

    `uniform` of them were drawn from all rows; `lowest` are the others: those that fit their texts least, have an odd
    norm or a near copy, questions, and one of each part.
    `share_at_most`: of all rows, this share may be off by more than the tolerance, at 95 %; None if one was found.
    """

    uniform: int
    lowest: int
    wrong: int
    furthest: float | None
    tolerance: float
    share_at_most: float | None
    seed: str
    where: str


@dataclass(frozen=True)
class Figures:
    """All figures; None for an unknown one. Before a merge all are unknown."""

    documents: int | None = None
    questions: int | None = None
    dim: int | None = None
    model: str | None = None
    dtype: str | None = None
    normalises: bool | None = None
    norm_bound: float | None = None
    lengths: Lengths | None = None
    norms: Norms | None = None
    geometry: GeometryFigures | None = None
    duplicates: Duplicates | None = None
    retrieval: Retrieval | None = None
    projection: Projection | None = None
    neighbours: tuple[Beside, ...] | None = None
    fit: FitFigures | None = None
    audit: AuditFigures | None = None

    def as_json(self) -> dict[str, Json]:
        """Return the figures as JSON for validation.json."""
        return {**records.plain(self), **({"norm_bound": self.norm_bound} if self.documents is not None else {})}


@dataclass(frozen=True)
class _File:
    figures: Figures = Figures()


def read(path: Path) -> Figures | None:
    """Read the figures in a validation.json; return None if the file does not exist. Raises DataError."""
    file = records.read(_File, path)
    return file.figures if file else None


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Round `value` to this many significant digits; None for values that JSON does not have (NaN, infinity)."""
    return float(f"{value:.{digits}g}") if value is not None and np.isfinite(value) else None


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """The finite values, a block at a time, as float64."""
    for low in range(0, len(values), BLOCK_ROWS):
        block = values[low : low + BLOCK_ROWS].astype(np.float64)
        yield block[np.isfinite(block)]


def _ends(values: np.ndarray) -> tuple[float, float] | None:
    blocks = [(float(block.min()), float(block.max())) for block in _blocks(values) if len(block)]
    return (min(low for low, _ in blocks), max(high for _, high in blocks)) if blocks else None


def histogram(values: np.ndarray) -> Histogram:
    """Count the finite values in equal bins from the least to the greatest."""
    ends = _ends(values)
    if ends is None:
        return Histogram((), ())
    low, high = ends
    if high - low < NARROWEST:
        middle = (low + high) / 2
        low, high = middle - NARROWEST / 2, middle + NARROWEST / 2
    counted = [np.histogram(block, BINS, (low, high)) for block in _blocks(values)]
    counts = np.sum([counts for counts, _ in counted], axis=0)
    return Histogram(tuple(rounded(float(edge), 12) for edge in counted[0][1]), tuple(counts.tolist()))


def _spread(values: np.ndarray, digits: int) -> tuple[float | None, float | None, float | None, float | None]:
    """min, max, mean, sd."""
    ends = _ends(values)
    if ends is None:
        return None, None, None, None
    count = sum(map(len, _blocks(values)))
    mean = sum(float(block.sum()) for block in _blocks(values)) / count
    sd = np.sqrt(sum(float(((block - mean) ** 2).sum()) for block in _blocks(values)) / count)
    low, high, middle, wide = (rounded(float(v), digits) for v in (*ends, mean, sd))
    return low, high, middle, wide


def norms(values: np.ndarray) -> Norms:
    """Return the distribution of the rows' norms."""
    return Norms(*_spread(values, 9), histogram(values))


def lengths(audit: Audit, stated: Tally) -> Lengths:
    """Return tokens for each document, and how many were not read. `stated`: the manifest's sum over documents."""
    tokens = audit.tokens
    return Lengths(
        *_spread(tokens, 6),
        median=rounded(float(np.median(tokens))) if len(tokens) else None,
        tokens=int(audit.tokens.sum(dtype=np.int64)),
        truncated_rows=int(audit.cut.sum()),
        truncated_share=rounded(float(audit.cut.mean())) if len(audit.cut) else None,
        tokens_cut=stated.tokens_cut,
        share_cut=stated.share_cut,
        histogram=histogram(tokens),
    )


def geometry(measured: Geometry) -> GeometryFigures:
    """Return the figures of the geometry, rounded."""
    return GeometryFigures(
        rounded(measured.mean_cosine), rounded(measured.top_share), rounded(measured.effective_rank, 4)
    )


def duplicates(groups: Sequence[Sequence[int]], fingerprints: np.ndarray, audit: Audit) -> Duplicates:
    """Count equal vectors by their explanation: equal texts, or texts that the model cut at its limit.

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
    return Duplicates(
        groups=len(groups),
        rows=sum(map(len, groups)),
        explained_by_text=by_text,
        explained_by_cut=by_cut,
        unexplained=len(unexplained),
        unexplained_rows=tuple(tuple(group[:ROWS_NAMED]) for group in unexplained[:ROWS_NAMED]),
    )


def sample(shape: Header) -> list[int]:
    """Return the rows that a projection shows: evenly spaced, at most 5,000."""
    rows: list[int] = np.linspace(0, shape.rows - 1, min(shape.rows, PROJECTED)).astype(np.int64).tolist()
    return rows


def projection(
    survey: Survey, geometry: Geometry, rows: Sequence[int], audit: Audit, questions: np.ndarray, texts: Sequence[str]
) -> Projection:
    """Place documents and questions along the documents' two strongest directions."""

    def placed(vectors: np.ndarray) -> list[list[float]]:
        return [[round(float(x), 5), round(float(y), 5)] for x, y in (vectors - survey.mean) @ geometry.axes.T]

    articles = audit.articles(rows)
    return Projection(
        shares=tuple(rounded(share) for share in geometry.shares),
        documents=tuple(
            (x, y, row, articles[row].get("title"), articles[row].get("tokens"))
            for (x, y), row in zip(placed(survey.sample), rows, strict=True)
        ),
        questions=tuple((x, y, text) for (x, y), text in zip(placed(questions), texts, strict=True)),
    )


# ------------------------------------------------------------------------------------------------------ held together

NEAR = 2e-5  # of a figure: another kind of machine sums in another order
NEAR_FIT = 0.02  # of the content fit, which solves equations in float32
# Points of a map turn with its axes where two of them are alike, near documents change places, and another version fits
# other rows: told, no fault.
TURNING = re.compile(
    r"projection\.(documents|questions)\[\d+\]\[[01]\]|retrieval\.questions\[\d+\]\.nearest.*"
    r"|neighbours\[\d+\]\.nearest.*|fit\..*"
)


def differences(stored: dict[str, Json], shown: Figures) -> tuple[list[str], list[str]]:
    """Return in words which stored figures differ from those that are found now, and which may do so elsewhere.

    A figure that an earlier version did not store is passed over.
    """
    wrong: list[str] = []
    turned: list[str] = []
    for where, was, now in _unlike(stored, {name: found for name, found in shown.as_json().items() if name in stored}):
        words = f"{where}: {safe_text(repr(was), 60)} is stored, {safe_text(repr(now), 60)} is found"
        (turned if TURNING.fullmatch(where) else wrong).append(words)
    return wrong, turned


def _unlike(was: Json, now: Json, where: str = "") -> Iterator[tuple[str, Json, Json]]:
    """Yield each place where two JSON values differ by more than rounding."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            at = f"{where}.{key}" if where else key
            if key in was and key in now:
                yield from _unlike(was[key], now[key], at)
            elif was.get(key) != now.get(key):
                yield at, was.get(key), now.get(key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for place, (one, two) in enumerate(zip(was, now, strict=True)):
            yield from _unlike(one, two, f"{where}[{place}]")
    elif was != now and not _near(was, now, NEAR_FIT if where.startswith("fit.") else NEAR):
        yield where, was, now


def _near(was: Json, now: Json, room: float) -> bool:
    """Whether two numbers, at least one of them a fraction, are equal but for rounding."""
    if not (isinstance(was, int | float) and isinstance(now, int | float)) or float not in (type(was), type(now)):
        return False
    return math.isclose(was, now, rel_tol=room, abs_tol=room)
