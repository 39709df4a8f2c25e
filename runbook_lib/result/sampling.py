"""Drawing rows that nobody could know before, and what a sample without a bad row says of the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

LEVEL = 0.05  # the chance that the bound does not hold
NONCE_BYTES = 32


def commitment(parts: Iterable[str]) -> str:
    """Return the sha256 of the sorted digests of all parts: it is fixed when they are home, and not before."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(parts)).encode()).hexdigest()


def seed(parts: Iterable[str], nonce: bytes) -> str:
    """Return the seed that follows from all parts and from random bytes drawn after them."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(parts)).encode() + nonce).hexdigest()


def draw(seed: str, rows: int, count: int) -> list[int]:
    """Return `count` different rows of `rows`, each as likely as any other, in the order drawn; all of them if fewer.

    The same on every machine and in every version: each is a sha256 of the seed and a number.
    """
    chosen: dict[int, None] = {}
    number = 0
    while len(chosen) < min(count, rows):
        digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        chosen[int.from_bytes(digest, "big") % rows] = None
        number += 1
    return list(chosen)


def most_bad(rows: int, drawn: int) -> int:
    """Return how many of `rows` may be bad at most, at 95 %, if none of `drawn` rows (without repeats) is.

    Hypergeometric and exact: the largest number with which a sample without a bad row is no rarer than 1 in 20.
    """
    low, high = 0, rows - drawn
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _log_none(rows, middle, drawn) > math.log(LEVEL) else (low, middle - 1)
    return low


def _log_none(rows: int, bad: int, drawn: int) -> float:
    """Return the logarithm of the chance that none of `drawn` rows is one of `bad`."""

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    return log_choose(rows - bad, drawn) - log_choose(rows, drawn)
