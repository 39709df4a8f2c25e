"""Content fit: does each vector belong to its text? For every row, without the model.

The words of a text predict its vector: a ridge regression from hashed words (tf-idf), fitted on rows of the run itself.
Each row is predicted without itself (leave-one-out, in closed form), and its score is the cosine of prediction and
vector, both about the mean. A row that holds another row's vector scores about 0; a clean row of a text corpus 0.7.

The score says which row a vector belongs to, not how well it was computed: it is blind to another dtype or pooling. And
it is no verdict: rare words score low too. The lowest rows are computed again first, which decides (`phases/audit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .hashed_words import counts
from .survey import Header, blocks, has_direction, norms_of, unit

FITTED = 8_192  # rows that the regression is fitted on, evenly spaced; more gain little
BLOCK = 256
TRIED = 1_024  # rows that the strength of the ridge is chosen by
FEATURES, FEATURES_OF_FEW = 2048, 8192  # more where the rows are fewer than the first number: it costs nothing there
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
FEWEST = 40  # rows; with fewer nothing can be fitted

Texts = Callable[[], Iterator[str | None]]  # opens the texts of all rows, in order


@dataclass(frozen=True)
class Scores:
    """The cosine of each row's prediction with its own vector, and with three others; float32 (rows,), NaN if none.

    `after` is the vector of the next row, `before` of the one before, `other` of a row elsewhere.
    """

    own: np.ndarray
    after: np.ndarray
    before: np.ndarray
    other: np.ndarray


@dataclass(frozen=True)
class _Model:
    """The regression: weights of words, and what leave-one-out needs of the rows that were fitted."""

    idf: np.ndarray  # (features,)
    mean: np.ndarray  # of all directions, (dim,)
    weights: np.ndarray  # (features, dim)
    axes: np.ndarray  # (features, k): the leverage of a fitted row x is the squared length of x @ axes
    fitted: np.ndarray  # (rows,) of bool


def score(texts: Texts, matrix: Path, shape: Header, mean: np.ndarray, characters: int) -> Scores | None:
    """Return the scores of all rows of the matrix at `matrix`, in two passes over texts and vectors; None for few rows.

    `mean`: of the directions of all rows. Reads `characters` of each text: about what the model reads. Raises OSError.
    """
    if shape.rows < FEWEST:
        return None
    model = _fit(texts, matrix, shape, mean.astype(np.float32), characters)
    found = [np.full(shape.rows, np.nan, np.float32) for _ in range(4)]
    last: tuple[np.ndarray, np.ndarray] | None = None
    for low, block, some in _together(texts, matrix, shape):
        guesses, truths = _predicted(model, low, block, counts(some, characters, len(model.idf)))
        high, turned = low + len(block), np.roll(truths, len(block) // 2, axis=0)
        found[0][low:high], found[3][low:high] = _cosines(guesses, truths), _cosines(guesses, turned)
        found[1][low : high - 1] = _cosines(guesses[:-1], truths[1:])
        found[2][low + 1 : high] = _cosines(guesses[1:], truths[:-1])
        if last is not None:
            found[1][low - 1], found[2][low] = _cosines(last[0], truths[:1])[0], _cosines(guesses[:1], last[1])[0]
        last = guesses[-1:], truths[-1:]
    return Scores(*found)


def _together(texts: Texts, matrix: Path, shape: Header) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    """Yield blocks of vectors with the texts of their rows; a text that cannot be read is empty."""
    stream = texts()
    for low, block in blocks(matrix, shape, BLOCK):
        yield low, block, [next(stream, None) or "" for _ in range(len(block))]


# ----------------------------------------------------------------------------------------------------------- fitting


def _fit(texts: Texts, matrix: Path, shape: Header, mean: np.ndarray, characters: int) -> _Model:
    fitted = np.zeros(shape.rows, np.bool_)
    fitted[np.linspace(0, shape.rows - 1, min(shape.rows, FITTED)).astype(np.int64)] = True
    features = FEATURES if shape.rows > FEATURES else FEATURES_OF_FEW
    words, truths = _sample(texts, matrix, shape, fitted, (characters, features))
    truths -= mean * (truths != 0).any(axis=1, keepdims=True)
    idf = np.log((len(words) + 1) / ((words > 0).sum(axis=0) + 1)).astype(np.float32)
    pieces = [(words[at : at + BLOCK], truths[at : at + BLOCK]) for at in range(0, len(words), BLOCK)]
    cross = sum(_weighted(some, idf).T @ these for some, these in pieces)
    values, vectors = _spectrum([some for some, _ in pieces], idf)
    onto = vectors.T @ cross
    some = np.linspace(0, len(words) - 1, min(len(words), TRIED)).astype(np.int64)
    turned = _weighted(words[some], idf) @ vectors
    ridge = max(RIDGES, key=lambda ridge: _left_out(turned, truths[some], onto, values + ridge))
    weights = (vectors / (values + ridge)) @ onto
    return _Model(idf, mean, weights.astype(np.float32), vectors / np.sqrt(values + ridge), fitted)


def _spectrum(pieces: Sequence[np.ndarray], idf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the words' products (k,) and their directions (features, k), both float32."""
    if sum(map(len, pieces)) > len(idf):
        gram = np.zeros((len(idf), len(idf)), np.float32)
        for piece in pieces:
            x = _weighted(piece, idf)
            gram += x.T @ x
        values, vectors = np.linalg.eigh(gram)
        return np.maximum(values, 0.0), vectors
    x = np.concatenate([_weighted(piece, idf) for piece in pieces])  # few rows: their own products are fewer
    values, rows = np.linalg.eigh(x @ x.T)
    kept = values > 1e-4
    return values[kept], (x.T @ rows[:, kept]) / np.sqrt(values[kept])


def _sample(
    texts: Texts, matrix: Path, shape: Header, wanted: np.ndarray, read: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of words, at most 255 each, and directions of the wanted rows. `read`: as for `counts`."""
    rows = int(wanted.sum())
    words, truths, at = np.zeros((rows, read[1]), np.uint8), np.zeros((rows, shape.dim), np.float32), 0
    for low, block, some in _together(texts, matrix, shape):
        here = np.flatnonzero(wanted[low : low + len(block)])
        if len(here):
            words[at : at + len(here)] = np.minimum(counts([some[i] for i in here], *read), 255)
            truths[at : at + len(here)] = unit(block[here])
            at += len(here)
    return words, truths


def _weighted(words: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return tf-idf of length 1, float32; zeros for a text without words."""
    x = np.log1p(words, dtype=np.float32) * idf
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    weighted: np.ndarray = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return weighted


def _left_out(turned: np.ndarray, truths: np.ndarray, onto: np.ndarray, divisors: np.ndarray) -> float:
    """Return how well fitted rows are predicted without themselves, with one strength of the ridge."""
    guesses = turned @ (onto / divisors[:, None])
    leverage = np.square(turned) @ (1.0 / divisors)
    found = _cosines(_without_itself(guesses, truths, leverage), truths)
    return float(np.nanmean(found)) if np.isfinite(found).any() else -1.0


# -------------------------------------------------------------------------------------------------------- predicting


def _predicted(model: _Model, low: int, block: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return prediction and direction of a block's rows, about the mean; a row without a direction is zeros."""
    norms = norms_of(block)
    truths = unit(block, norms) - model.mean
    truths[~has_direction(norms)] = 0.0
    x = _weighted(words, model.idf)
    guesses = x @ model.weights
    here = np.flatnonzero(model.fitted[low : low + len(block)])
    leverage = np.square(x[here] @ model.axes).sum(axis=1)
    guesses[here] = _without_itself(guesses[here], truths[here], leverage)
    return guesses, truths


def _without_itself(guesses: np.ndarray, truths: np.ndarray, leverage: np.ndarray) -> np.ndarray:
    """Return what the regression without each row itself would have predicted, times a number above 0."""
    left: np.ndarray = guesses - leverage[:, None].astype(np.float32) * truths
    return left


def _cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    sums = np.einsum("ij,ij->i", ours, theirs)
    found: np.ndarray = np.divide(sums, sizes, out=np.full(len(sums), np.nan, np.float32), where=sizes > 1e-12)
    return found


# ------------------------------------------------------------------------------------------------------ what they say


def lowest(scores: Scores, count: int) -> list[int]:
    """Return the rows that fit their texts least, the least first; rows without a score are none."""
    order = np.argsort(scores.own, kind="stable")[:count]  # NaN come last
    return [int(row) for row in order if np.isfinite(scores.own[row])]


def _share_below(values: np.ndarray, threshold: float) -> float:
    known = values[np.isfinite(values)]
    return float((known < threshold).mean()) if len(known) else 0.0


def power(scores: Scores, audited: int) -> tuple[float, float]:
    """Return how likely a row is among the `audited` lowest if it holds a vector from elsewhere, or its neighbour's.

    Measured on this run: every row is held against the vector of another one on purpose.
    """
    known = np.sort(scores.own[np.isfinite(scores.own)])
    threshold = float(known[min(audited, len(known)) - 1]) if len(known) else -1.0
    return _share_below(scores.other, threshold), _share_below(scores.after, threshold)


def part_scores(scores: Scores, ranges: Sequence[tuple[int, int]]) -> list[tuple[float, float, float]]:
    """Return for each range of rows the mean score with the own vectors, with the next ones, and with those before."""

    def mean(values: np.ndarray) -> float:
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    return [(mean(scores.own[a:b]), mean(scores.after[a : b - 1]), mean(scores.before[a + 1 : b])) for a, b in ranges]
