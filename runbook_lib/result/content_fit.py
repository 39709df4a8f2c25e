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


# The first row of a block, its directions about the mean, its texts -> what the regression without each row predicts,
# times a number above 0.
Predict = Callable[[int, np.ndarray, Sequence[str]], np.ndarray]


def score(texts: Texts, matrix: Path, shape: Header, mean: np.ndarray, characters: int) -> Scores | None:
    """Return the scores of all rows of the matrix at `matrix`, in two passes over texts and vectors; None for few rows.

    `mean`: of the directions of all rows. Reads `characters` of each text: about what the model reads. Raises OSError.
    """
    if shape.rows < FEWEST:
        return None
    mean = mean.astype(np.float32)
    predict = (_by_rows if shape.rows <= FEATURES else _by_words)(texts, matrix, shape, mean, characters)
    found = [np.full(shape.rows, np.nan, np.float32) for _ in range(4)]
    last: tuple[np.ndarray, np.ndarray] | None = None
    for low, block, some in _together(texts, matrix, shape):
        truths = _about(block, mean)
        guesses = predict(low, truths, some)
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


def _about(block: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the directions of some rows about the mean; zeros for a row without a direction."""
    norms = norms_of(block)
    truths: np.ndarray = unit(block, norms) - mean
    truths[~has_direction(norms)] = 0.0
    return truths


# ----------------------------------------------------------------------------------------------------------- fitting


def _by_words(texts: Texts, matrix: Path, shape: Header, mean: np.ndarray, characters: int) -> Predict:
    """Fit on evenly spaced rows by the normal equations of the words: memory of FEATURES squared, whatever the rows."""
    fitted = np.zeros(shape.rows, np.bool_)
    fitted[np.linspace(0, shape.rows - 1, min(shape.rows, FITTED)).astype(np.int64)] = True
    words, truths = _sample(texts, matrix, shape, fitted, mean, (characters, FEATURES))
    idf = _idf(words)
    gram, cross = np.zeros((FEATURES, FEATURES), np.float32), np.zeros((FEATURES, shape.dim), np.float32)
    for at in range(0, len(words), BLOCK):
        x = _weighted(words[at : at + BLOCK], idf)
        gram += x.T @ x
        cross += x.T @ truths[at : at + BLOCK]
    some = np.linspace(0, len(words) - 1, TRIED).astype(np.int64)
    tried, these = _weighted(words[some], idf), truths[some]
    del words, truths

    def left_out(ridge: float) -> float:
        inverse = _inverse(gram, ridge)
        return _mean_cosine(_without_itself(tried @ (inverse @ cross), these, _leverage(tried, inverse)), these)

    inverse = _inverse(gram, max(RIDGES, key=left_out))
    weights: np.ndarray = inverse @ cross

    def predict(low: int, block: np.ndarray, some: Sequence[str]) -> np.ndarray:
        x = _weighted(counts(some, characters, FEATURES), idf)
        guesses: np.ndarray = x @ weights
        here = np.flatnonzero(fitted[low : low + len(block)])
        guesses[here] = _without_itself(guesses[here], block[here], _leverage(x[here], inverse))
        return guesses

    return predict


def _by_rows(texts: Texts, matrix: Path, shape: Header, mean: np.ndarray, characters: int) -> Predict:
    """Fit on all rows, of which there are few, by their products with each other; more words cost nothing here."""
    every = np.ones(shape.rows, np.bool_)
    words, truths = _sample(texts, matrix, shape, every, mean, (characters, FEATURES_OF_FEW))
    products = _products(words, _idf(words))

    def left_out(ridge: float) -> np.ndarray:
        inverse = _inverse(products, ridge)
        guesses: np.ndarray = truths - (inverse @ truths) / inverse.diagonal()[:, None]
        guesses[products.diagonal() == 0.0] = 0.0  # no words
        return guesses

    guesses = left_out(max(RIDGES, key=lambda ridge: _mean_cosine(left_out(ridge), truths)))
    return lambda low, block, some: guesses[low : low + len(block)]


def _sample(
    texts: Texts, matrix: Path, shape: Header, wanted: np.ndarray, mean: np.ndarray, read: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of words, at most 255 each, and directions about the mean of the wanted rows.

    `read`: as for `counts`.
    """
    rows = int(wanted.sum())
    words, truths, at = np.zeros((rows, read[1]), np.uint8), np.zeros((rows, shape.dim), np.float32), 0
    for low, block, some in _together(texts, matrix, shape):
        here = np.flatnonzero(wanted[low : low + len(block)])
        if len(here):
            words[at : at + len(here)] = np.minimum(counts([some[i] for i in here], *read), 255)
            truths[at : at + len(here)] = _about(block[here], mean)
            at += len(here)
    return words, truths


def _idf(words: np.ndarray) -> np.ndarray:
    """Return how telling each word is: the logarithm of the share of texts without it, (features,)."""
    found: np.ndarray = np.log((len(words) + 1) / (np.count_nonzero(words, axis=0) + 1)).astype(np.float32)
    return found


def _weighted(words: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return tf-idf of length 1, float32; zeros for a text without words."""
    x = np.log1p(words, dtype=np.float32) * idf
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    weighted: np.ndarray = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return weighted


def _products(words: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return the product of each row's tf-idf with each other row's, (rows, rows), from some words at a time."""
    products = np.zeros((len(words), len(words)), np.float32)
    for low in range(0, len(idf), FEATURES // 2):
        x = np.log1p(words[:, low : low + FEATURES // 2], dtype=np.float32) * idf[low : low + FEATURES // 2]
        products += x @ x.T
    norms = np.sqrt(products.diagonal())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    products *= scale
    products *= scale[:, None]
    return products


def _inverse(gram: np.ndarray, ridge: float) -> np.ndarray:
    regular = gram.copy()
    regular.flat[:: len(gram) + 1] += ridge
    return _inverse_of(regular)


def _inverse_of(a: np.ndarray) -> np.ndarray:
    """Return the inverse of a positive definite matrix, by halves: LAPACK's own would hold it five times more."""
    half = len(a) // 2
    if half < BLOCK:
        small: np.ndarray = np.linalg.inv(a)
        return small
    first, inverse = _inverse_of(a[:half, :half]), np.empty_like(a)
    across = first @ a[:half, half:]
    inverse[half:, half:] = _inverse_of(a[half:, half:] - a[half:, :half] @ across)
    inverse[:half, half:] = -across @ inverse[half:, half:]
    inverse[half:, :half] = inverse[:half, half:].T
    inverse[:half, :half] = first - inverse[:half, half:] @ across.T
    return inverse


def _leverage(x: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return how much each fitted row has to say in its own prediction, between 0 and 1."""
    found: np.ndarray = np.einsum("ij,ij->i", x @ inverse, x)
    return found


def _without_itself(guesses: np.ndarray, truths: np.ndarray, leverage: np.ndarray) -> np.ndarray:
    """Return what the regression without each row itself would have predicted, times a number above 0."""
    left: np.ndarray = guesses - leverage[:, None] * truths
    return left


def _mean_cosine(guesses: np.ndarray, truths: np.ndarray) -> float:
    found = _cosines(guesses, truths)
    return float(np.nanmean(found)) if np.isfinite(found).any() else -1.0


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


def exchanged(scores: Scores, pairs: int) -> list[int]:
    """Return the rows of neighbours that would fit better with each other's vector, those with the most to gain first.

    Two rows of one article that changed places still fit fairly well, and yet each fits the other's vector better.
    """
    own, gain = scores.own, np.zeros(max(0, len(scores.own) - 1), np.float32)
    gain[:] = scores.after[:-1] + scores.before[1:] - own[:-1] - own[1:]
    order = np.argsort(-np.nan_to_num(gain, nan=-np.inf), kind="stable")[:pairs]
    return list(dict.fromkeys(row for low in order.tolist() if gain[low] > 0 for row in (low, low + 1)))


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
