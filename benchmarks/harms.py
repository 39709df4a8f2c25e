"""Kinds of harm, each a function that changes vectors, records or files as somebody or something would; for faults.py.

A host's harm is done before it hashes, so its records agree with it. `rows` says how many rows of a large run it meets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Vectors = np.ndarray
Do = Callable[[Vectors, np.random.Generator, slice], None]
ROW, PAIR, PART, SLOT = 1, 2, 1024, 15_625  # of 250,000 rows on 16 slots


@dataclass(frozen=True)
class Harm:
    """A kind of harm: what it is, how many rows of a large run it meets, what it does to (vectors, rng, part)."""

    name: str
    rows: int
    do: Do


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _two(rng: np.random.Generator, rows: int) -> list[int]:
    return [int(row) for row in rng.choice(rows, 2, replace=False)]


def swapped(v: Vectors, rng: np.random.Generator, part: slice) -> None:
    """Two rows anywhere changed places."""
    a, b = _two(rng, len(v))
    v[[a, b]] = v[[b, a]]


def neighbours(v: Vectors, rng: np.random.Generator, part: slice) -> None:
    """Two rows side by side changed places."""
    a = int(rng.integers(len(v) - 1))
    v[[a, a + 1]] = v[[a + 1, a]]


def copied(v: Vectors, rng: np.random.Generator, part: slice) -> None:
    """One row holds a copy of another's vector."""
    a, b = _two(rng, len(v))
    v[a] = v[b]


def near_copy(v: Vectors, rng: np.random.Generator, part: slice) -> None:
    """The same with a little noise, so that no two vectors are equal."""
    a, b = _two(rng, len(v))
    v[[a]] = _unit(v[[b]] + 1e-3 * rng.normal(size=(1, v.shape[1])))


def row(change: Callable[[Vectors, np.random.Generator], Vectors]) -> Do:
    """One row, changed."""

    def do(v: Vectors, rng: np.random.Generator, part: slice) -> None:
        at = int(rng.integers(len(v)))
        v[at] = change(v[at].copy(), rng)

    return do


def rows(change: Callable[[Vectors, np.random.Generator], Vectors], whole: bool = False) -> Do:
    """A part, or (`whole`) all of a slot, which is half of the run here, changed."""

    def do(v: Vectors, rng: np.random.Generator, part: slice) -> None:
        at = slice(0, len(v) // 2) if whole else part
        v[at] = change(v[at].copy(), rng)

    return do


def exchanged(v: Vectors, rng: np.random.Generator, part: slice) -> None:
    """Two parts changed places."""
    size = part.stop - part.start
    other = (part.start + len(v) // 2) % (len(v) - size)
    there = slice(other, other + size)
    v[part], v[there] = v[there].copy(), v[part].copy()


def _flip_sign(v: Vectors, rng: np.random.Generator) -> Vectors:
    v[int(rng.integers(len(v)))] *= -1
    return v


def _bit(v: Vectors, rng: np.random.Generator) -> Vectors:
    bits = v.view(np.uint32)
    bits[int(rng.integers(len(v)))] ^= np.uint32(1 << int(rng.integers(12, 22)))
    return v


def _masked(mask: int) -> Callable[[Vectors, np.random.Generator], Vectors]:
    return lambda v, rng: (v.view(np.uint32) & np.uint32(mask)).view(np.float32)


def _int8(v: Vectors, rng: np.random.Generator) -> Vectors:
    scale = np.abs(v).max(axis=1, keepdims=True) / 127
    return _unit(np.round(v / scale) * scale)


def _noise(size: float) -> Callable[[Vectors, np.random.Generator], Vectors]:
    return lambda v, rng: _unit(v + size * rng.normal(size=v.shape) / np.sqrt(v.shape[1]))


def _lazy(v: Vectors, rng: np.random.Generator) -> Vectors:
    half = len(v) // 2
    v[half : 2 * half] = v[:half]
    return v


def _tail(v: Vectors, rng: np.random.Generator) -> Vectors:
    v[:, -v.shape[1] // 4 :] = 0
    return _unit(v)


def _two_dims(v: Vectors, rng: np.random.Generator) -> Vectors:
    a, b = _two(rng, v.shape[1])
    v[:, [a, b]] = v[:, [b, a]]
    return v


def _one_sign(v: Vectors, rng: np.random.Generator) -> Vectors:
    v[:, int(rng.integers(v.shape[1]))] *= -1
    return v


def _other_order(v: Vectors, rng: np.random.Generator) -> Vectors:
    return v[:, rng.permutation(v.shape[1])]


HOST = (
    Harm("two rows swapped", PAIR, swapped),
    Harm("two neighbours swapped", PAIR, neighbours),
    Harm("a row copied over another", ROW, copied),
    Harm("a near-copy of another row", ROW, near_copy),
    Harm("a row random", ROW, row(lambda v, rng: _unit(rng.normal(size=(1, len(v))))[0])),
    Harm("a row's sign turned", ROW, row(lambda v, rng: -v)),
    Harm("one value's sign turned", ROW, row(_flip_sign)),
    Harm("one bit flipped", ROW, row(_bit)),
    Harm("a row NaN", ROW, row(lambda v, rng: v * np.nan)),
    Harm("a row zeros", ROW, row(lambda v, rng: v * 0)),
    Harm("a row constant", ROW, row(lambda v, rng: np.full_like(v, len(v) ** -0.5))),
    Harm("a row half as long", ROW, row(lambda v, rng: v / 2)),
    Harm("a part shifted on", PART, rows(lambda v, rng: np.roll(v, 1, axis=0))),
    Harm("a part shifted back", PART, rows(lambda v, rng: np.roll(v, -1, axis=0))),
    Harm("a part shuffled", PART, rows(lambda v, rng: v[rng.permutation(len(v))])),
    Harm("a part reversed", PART, rows(lambda v, rng: v[::-1])),
    Harm("two parts exchanged", 2 * PART, exchanged),
    Harm("a part random", PART, rows(lambda v, rng: _unit(rng.normal(size=v.shape)))),
    Harm("a part's signs turned", PART, rows(lambda v, rng: -v)),
    Harm("a part's second half a copy of its first", PART // 2, rows(_lazy)),
    Harm("a part one vector", PART, rows(lambda v, rng: np.repeat(v[:1], len(v), axis=0))),
    Harm("two dimensions exchanged in a part", PART, rows(_two_dims)),
    Harm("one dimension's sign turned in a part", PART, rows(_one_sign)),
    Harm("noise of 1 % in a part", PART, rows(_noise(1e-2))),
    Harm("a part's last dimensions zeros", PART, rows(_tail)),
    Harm("a part in bfloat16", PART, rows(_masked(0xFFFF0000))),
    Harm("a part in float16", PART, rows(_masked(0xFFFFE000))),
    Harm("a slot in bfloat16, normalised after", SLOT, rows(lambda v, r: _unit(_masked(0xFFFF0000)(v, r)), whole=True)),
    Harm("a slot in 8 bits", SLOT, rows(_int8, whole=True)),
    Harm("a slot with noise of 1 %", SLOT, rows(_noise(1e-2), whole=True)),
    Harm("a slot with noise of 0.3 % (about a weight's bit)", SLOT, rows(_noise(3e-3), whole=True)),
    Harm("a slot turned a little (another pooling)", SLOT, rows(_noise(3e-1), whole=True)),
    Harm("a slot's dimensions in another order", SLOT, rows(_other_order, whole=True)),
    Harm("a slot shifted on", SLOT, rows(lambda v, rng: np.roll(v, 1, axis=0), whole=True)),
    Harm("harmless: noise of 0.05 % (TF32)", 0, rows(_noise(5e-4), whole=True)),
)
