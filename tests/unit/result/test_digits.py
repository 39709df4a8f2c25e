"""Digits: rows of 16 bits or fewer are seen in every row, also normalised afterwards; rows of float32 never."""

from __future__ import annotations

import numpy as np
import pytest

from runbook_lib.result import digits


def vectors(dim: int = 384, rows: int = 400) -> np.ndarray:
    found = np.random.default_rng(5).normal(size=(rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def unit(found: np.ndarray) -> np.ndarray:
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def bfloat16(v: np.ndarray) -> np.ndarray:
    return (v.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def float16(v: np.ndarray) -> np.ndarray:
    return v.astype(np.float16).astype(np.float32)


def int8(v: np.ndarray) -> np.ndarray:
    scale = np.abs(v).max(axis=1, keepdims=True) / 127
    return (np.round(v / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("dim", [64, 384, 768])
def test_float32_is_never_taken_for_less(dim):
    v = vectors(dim, 4000)
    for clean in (v, 2 * v, np.maximum(v, 0), unit(v + 1e-3 * v[::-1])):
        assert not digits.coarse(clean).any() and not digits.scaled(clean).any()


@pytest.mark.parametrize(("cast", "dims"), [(bfloat16, (64, 384)), (float16, (256, 384)), (int8, (128, 384))])
def test_every_row_of_fewer_digits_is_seen_also_when_it_was_normalised_after(cast, dims):
    for dim in dims:
        v = cast(vectors(dim))
        assert digits.scaled(unit(v)).all()
        assert digits.coarse(v).all() or cast is int8


def test_rows_of_zeros_or_of_few_numbers_say_nothing():
    v = np.zeros((3, 384), np.float32)
    v[1, :8], v[2, :200] = 0.5, np.random.default_rng(1).normal(size=200)
    assert not digits.scaled(v).any() and not digits.scaled(vectors(8)).any()
