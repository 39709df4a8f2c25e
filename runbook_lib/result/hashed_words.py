"""Texts as counts of hashed words and pieces of them, many texts at once: for a look at vectors without a model.

A word is a run of letters and digits of any script; four letters in a row count too, so that forms of a word are alike.
Scripts that put no space between words (Chinese, Japanese, Thai and their like) are read as pairs of characters. A hash
is a polynomial over the characters, taken from running sums, so no word is ever a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

PIECE = 4  # letters
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_MIX = np.uint64(0xD6E8FEB86659FD93)
LETTER, DENSE = 1, 2
# Kana and ideographs, Thai to Myanmar, Khmer, ideographs of the higher planes.
_DENSE = ((0x3040, 0x3100), (0x3400, 0xA000), (0x0E00, 0x10A0), (0x1780, 0x1800), (0xF900, 0xFB00), (0x20000, 0x32000))


@cache
def _kinds() -> np.ndarray:
    """Return for each code point whether it is part of a word, and whether its script has no spaces."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    for low, high in _DENSE:
        kinds[low:high] *= DENSE
    return kinds


def _powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    with np.errstate(over="ignore"):
        product: np.ndarray = np.multiply.accumulate(powers)
    return product


def _buckets(hashes: np.ndarray, features: int) -> np.ndarray:
    mixed = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    buckets: np.ndarray = (mixed >> np.uint64(65 - features.bit_length())).astype(np.int64)
    return buckets


def counts(texts: Sequence[str], characters: int, features: int) -> np.ndarray:
    """Return how often each hashed word or piece is in each text: float32 (texts, features).

    `features` is a power of two. Reads so many `characters` of each text.
    """
    read = [text[:characters].lower() for text in texts]
    raw = "\n".join(read).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, "<u4")
    if not len(codes):
        return np.zeros((len(texts), features), np.float32)
    begins = np.cumsum([0, *(len(text) + 1 for text in read[:-1])])
    kinds = _kinds()[codes]
    of_texts = np.repeat(np.arange(len(texts)), np.diff([*begins, len(codes)]))
    places = []
    for at, hashes in (*_words(codes, kinds == LETTER), _pairs(codes, kinds == DENSE)):
        places.append(of_texts[at] * features + _buckets(hashes, features))
    totals = np.bincount(np.concatenate(places), minlength=len(texts) * features)
    return totals.astype(np.float32).reshape(-1, features)


def _words(codes: np.ndarray, letters: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield where each run of letters begins, with its hash; then each piece of one."""
    edges = np.diff(letters.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    apart = np.cumsum(~letters)
    pieces = np.flatnonzero(letters[: 1 - PIECE] & letters[PIECE - 1 :] & (apart[: 1 - PIECE] == apart[PIECE - 1 :]))
    inverse = _powers(_INVERSE, len(codes))
    with np.errstate(over="ignore"):
        sums = np.concatenate([[np.uint64(0)], np.cumsum(codes * _powers(_BASE, len(codes)))])
        yield begins, (sums[ends] - sums[begins]) * inverse[begins]
        yield pieces, (sums[pieces + PIECE] - sums[pieces]) * inverse[pieces] + _MIX


def _pairs(codes: np.ndarray, dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where two characters of a script without spaces stand side by side, and a hash of each such pair."""
    at = np.flatnonzero(dense[:-1] & dense[1:])
    wide = codes.astype(np.uint64)
    with np.errstate(over="ignore"):
        return at, wide[at] * np.uint64(_BASE) + wide[at + 1] * np.uint64(_INVERSE)
