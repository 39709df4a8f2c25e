"""One pass over a matrix that finds everything about its rows: norms, bad rows, equal rows, geometry, nearest rows.

Reads piece by piece. It keeps a norm and a hash for each row; the other memory depends on the dimension only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from . import digits
from .array_file import ITEM_BYTES

BLOCK_BYTES = 8 * 2**20
BLOCK_ROWS = 2**20
NEAREST = 5
# Equal vectors have equal scores only up to rounding: a document is ahead of another only if better by more than this.
TIE = 1e-6
# A shorter vector has no direction that float32 can represent.
SHORTEST = 1e-30


@dataclass(frozen=True)
class Header:
    """The header of a .npy file; `bytes` is its size."""

    rows: int
    dim: int
    bytes: int


@dataclass(frozen=True)
class Questions:
    """Unit vectors (questions, dim), and for each the cosine that a document must exceed to rank before its answer."""

    vectors: np.ndarray
    answer_cosines: np.ndarray


@dataclass(frozen=True)
class Survey:
    """The findings of the pass. Cosines, moments and nearest rows ignore rows without a direction."""

    sha256: str
    norms: np.ndarray  # float64, one for each row; not finite if the row is not
    constant: list[int]
    coarse: list[int]  # rows whose every number has no more digits than 16 bits hold
    scaled: list[int]  # rows whose numbers are such numbers times a factor
    hashes: np.ndarray  # int64, one for each row: valid in this process only
    directions: int  # number of rows with a direction
    mean: np.ndarray  # of the unit vectors
    covariance: np.ndarray  # of the unit vectors
    nearest: np.ndarray  # rows (questions, up to 5), best first; -1 if there are fewer rows
    cosines: np.ndarray
    ahead: np.ndarray  # for each question, how many documents rank before its answer
    beside: np.ndarray  # as `nearest`, for each direction that was given
    beside_cosines: np.ndarray
    sample: np.ndarray  # the unit vectors of the requested rows


def header(path: Path) -> Header:
    """Read the shape of a .npy file of float32 in C order. Raises DataError for another file or a wrong size."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: only the header is looked at
        size = path.stat().st_size
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy file: {error}") from None
    if array.dtype.str != "<f4" or array.ndim != 2 or not array.flags.c_contiguous:
        raise DataError(f"{path}: expected float32 in rows, found {array.dtype} {array.shape}")
    rows, dim = array.shape
    before = size - rows * dim * ITEM_BYTES
    if before != array.offset:
        raise DataError(f"{path}: {before - array.offset} bytes too many for {rows} x {dim}")
    return Header(rows, dim, before)


def _read(file: BinaryIO, rows: int, dim: int) -> np.ndarray:
    raw = file.read(rows * dim * ITEM_BYTES)
    return np.frombuffer(raw, "<f4").reshape(-1, dim)


def blocks(path: Path, shape: Header, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Read the matrix in blocks of at most `rows` rows, each with its first row; mapped pages would use memory."""
    with path.open("rb") as file:
        file.seek(shape.bytes)
        for low in range(0, shape.rows, rows):
            yield low, _read(file, min(rows, shape.rows - low), shape.dim)


def some_rows(path: Path, shape: Header, rows: Sequence[int]) -> np.ndarray:
    """Read some rows of the matrix, in the given order."""
    vectors = np.zeros((len(rows), shape.dim), np.float32)
    with path.open("rb") as file:
        for place, row in enumerate(rows):
            file.seek(shape.bytes + row * shape.dim * ITEM_BYTES)
            vectors[place] = _read(file, 1, shape.dim)[0]
    return vectors


def norms_of(vectors: np.ndarray) -> np.ndarray:
    """Return Euclidean norms in float64: no float32 row can overflow it."""
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore"):
        norms: np.ndarray = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return norms


def has_direction(norms: np.ndarray) -> np.ndarray:
    """Return which rows have a direction: not zero, NaN or infinite."""
    good: np.ndarray = np.isfinite(norms) & (norms > SHORTEST)
    return good


def unit(vectors: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """Return the directions of the rows; zeros for a row without one."""
    norms = norms_of(vectors) if norms is None else norms
    good = has_direction(norms)
    scale = np.zeros(len(norms), np.float32)
    np.divide(1.0, norms, out=scale, where=good, casting="same_kind")
    with np.errstate(invalid="ignore"):
        directions: np.ndarray = vectors * scale[:, None]
    directions[~good] = 0.0
    return directions


class _Nearest:
    """The nearest rows for each question so far."""

    def __init__(self, questions: Questions):
        asked = len(questions.vectors)
        self.questions = questions
        self.rows = np.full((asked, NEAREST), -1, np.int64)
        self.cosines = np.full((asked, NEAREST), -np.inf, np.float32)
        self.ahead = np.zeros(asked, np.int64)

    def add(self, low: int, directions: np.ndarray, good: np.ndarray) -> None:
        if not len(self.rows):
            return
        scores = self.questions.vectors @ directions.T
        scores[:, ~good] = -np.inf
        self.ahead += (scores > self.questions.answer_cosines[:, None] + TIE).sum(axis=1)
        keep = min(NEAREST, scores.shape[1])
        best = np.argpartition(-scores, keep - 1, axis=1)[:, :keep]
        cosines = np.concatenate([self.cosines, np.take_along_axis(scores, best, axis=1)], axis=1)
        rows = np.concatenate([self.rows, low + best], axis=1)
        order = np.lexsort((rows, -cosines), axis=1)[:, :NEAREST]
        self.cosines, self.rows = np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _hashes(block: np.ndarray) -> np.ndarray:
    # 64 bits of SipHash: among a million rows, two different ones look equal in one of ten million runs (a warning).
    return np.fromiter((hash(row.tobytes()) for row in block), np.int64, len(block))


def survey(
    path: Path, shape: Header, questions: Questions, sample: Sequence[int], directions: np.ndarray | None = None
) -> Survey:
    """Read the matrix at `path` once. `sample`: ascending rows whose directions are kept.

    `directions`: unit vectors, float32 (any, dim), whose nearest rows are found too.
    """
    rows, dim = shape.rows, shape.dim
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(shape.bytes))
    norms, hashes = np.zeros(rows), np.zeros(rows, np.int64)
    total, second = np.zeros(dim), np.zeros((dim, dim))
    constant: list[int] = []
    coarse: list[int] = []
    scaled: list[int] = []
    directions_seen = 0
    nearest, kept = _Nearest(questions), np.zeros((len(sample), dim), np.float32)
    others = np.zeros((0, dim), np.float32) if directions is None else directions
    beside = _Nearest(Questions(others, np.full(len(others), np.inf)))
    wanted = np.asarray(sample, np.int64)
    widest = max(dim, len(questions.vectors), 1)
    for low, block in blocks(path, shape, max(1, BLOCK_BYTES // (ITEM_BYTES * widest))):
        high = low + len(block)
        digest.update(block.data)
        norms[low:high] = norms_of(block)
        hashes[low:high] = _hashes(block)
        constant += (low + np.flatnonzero((block == block[:, :1]).all(axis=1))).tolist() if dim > 1 else []
        coarse += (low + np.flatnonzero(digits.coarse(block))).tolist()
        scaled += (low + np.flatnonzero(digits.scaled(block))).tolist()
        good = has_direction(norms[low:high])
        units = unit(block, norms[low:high])
        directions_seen += int(good.sum())
        total += units.sum(axis=0, dtype=np.float64)
        second += units.T @ units
        nearest.add(low, units, good)
        beside.add(low, units, good)
        here = (wanted >= low) & (wanted < high)
        kept[here] = units[wanted[here] - low]
    mean = total / max(1, directions_seen)
    return Survey(
        sha256=digest.hexdigest(),
        norms=norms,
        constant=constant,
        coarse=coarse,
        scaled=scaled,
        hashes=hashes,
        directions=directions_seen,
        mean=mean,
        covariance=second / max(1, directions_seen) - np.outer(mean, mean),
        nearest=nearest.rows,
        cosines=nearest.cosines,
        ahead=nearest.ahead,
        beside=beside.rows,
        beside_cosines=beside.cosines,
        sample=kept,
    )


def rows_where(values: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> list[int]:
    """Return the rows whose value passes `test`, which gets a block at a time: no second array of all rows is made."""
    blocks = range(0, len(values), BLOCK_ROWS)
    return [row for low in blocks for row in (low + np.flatnonzero(test(values[low : low + BLOCK_ROWS]))).tolist()]


def equal_rows(hashes: np.ndarray, at_once: int = BLOCK_ROWS) -> list[list[int]]:
    """Return groups of rows with byte-identical vectors; rows ascending, groups by their first row.

    About `at_once` hashes are sorted at a time: equal ones have the same rest, and so lie in the same share.
    """
    shares = max(1, -(-len(hashes) // at_once))
    groups: list[list[int]] = []
    for share in range(shares):
        rows = np.array(rows_where(hashes, lambda block, share=share: block % shares == share), np.int64)  # type: ignore[misc]
        if len(rows):
            groups += _equal(rows, hashes[rows])
    return sorted(groups)


def _equal(rows: np.ndarray, hashes: np.ndarray) -> list[list[int]]:
    order = np.argsort(hashes, kind="stable")
    rows, hashes = rows[order], hashes[order]
    starts = np.concatenate([[0], np.flatnonzero(hashes[1:] != hashes[:-1]) + 1, [len(hashes)]])
    several = np.flatnonzero(np.diff(starts) > 1)
    return [rows[starts[at] : starts[at + 1]].tolist() for at in several.tolist()]


@dataclass(frozen=True)
class Geometry:
    """The distribution of the directions: None with too few rows."""

    mean_cosine: float | None  # of two different rows
    top_share: float | None  # of the variance, in its strongest direction
    effective_rank: float | None  # exp of the entropy of the variance's shares: number of used directions
    axes: np.ndarray  # (2, dim): the two strongest directions, signed so that the largest entry is positive
    shares: tuple[float, ...]  # of the variance, of the axes


def geometry(survey: Survey) -> Geometry:
    """Return mean cosine, spread and principal axes from the moments of a survey."""
    dim, n = len(survey.mean), survey.directions
    if n < 2:
        return Geometry(None, None, None, np.zeros((2, dim)), (0.0, 0.0))
    summed = float(np.dot(survey.mean, survey.mean)) * n * n
    mean_cosine = (summed - n) / (n * (n - 1))
    values, vectors = np.linalg.eigh(survey.covariance)
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1].T
    axes = np.zeros((2, dim))
    axes[: min(2, dim)] = vectors[:2]
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) < 0, -1.0, 1.0)
    spread = float(values.sum())
    if spread < 1e-9:  # all rows point the same way
        return Geometry(mean_cosine, None, None, axes, (0.0, 0.0))
    shares = values / spread
    used = shares[shares > 0]
    rank = float(np.exp(-(used * np.log(used)).sum()))
    return Geometry(mean_cosine, float(shares[0]), rank, axes, tuple(float(share) for share in shares[:2]))
