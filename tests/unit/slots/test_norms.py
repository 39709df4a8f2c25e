"""Norms of very many rows as a histogram: as good as a list for a picture, and never larger than its bins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runbook_lib.slots.norms import FINE, Norms

MADE = np.random.default_rng(3)
CASES = {
    "unit": 1 + MADE.normal(size=20_000) * 1e-8,
    "not unit": MADE.gamma(9.0, 2.0, 20_000),
    "one is far away": np.append(1 + MADE.normal(size=20_000) * 1e-8, 7.5),
    "one is huge": np.append(MADE.gamma(9.0, 2.0, 500), 1e300),
}


@pytest.mark.parametrize("case", CASES)
def test_the_histogram_is_that_of_the_list_but_for_norms_at_the_edge_of_a_bar(case: str) -> None:
    values, norms = CASES[case], Norms()
    for piece in np.array_split(values, 37):
        norms.add(piece.tolist())
    low, high = float(values.min()), float(values.max())
    room = max(0.0, 2e-7 - (high - low)) / 2
    wanted, edges = np.histogram(values, 40, (low - room, high + room))
    counts, found = norms.histogram(40, 2e-7)
    assert np.allclose(found, edges, rtol=1e-12) and counts.sum() == len(values) == len(norms)
    assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= len(values) / 100
    assert (norms.min, norms.max) == (low, high) and norms.mean == pytest.approx(float(values.mean()))
    assert len(norms._counts) <= FINE + 1 and norms.bad == 0


def test_a_bad_norm_is_counted_and_one_of_zero_is_drawn() -> None:
    norms = Norms([1.0, 0.0, math.nan, math.inf, -1.0, 0.5])
    assert (norms.rows, norms.bad, norms.min, norms.max) == (6, 4, 0.0, 1.0)
    counts, edges = norms.histogram(2, 0.0)
    assert counts.tolist() == [1, 2] and edges.tolist() == [0.0, 0.5, 1.0]


def test_without_a_norm_there_is_no_bar_and_equal_norms_are_one() -> None:
    assert [len(each) for each in Norms([math.nan]).histogram(40, 2e-7)] == [0, 0]
    counts, _ = Norms([1.0] * 7).histogram(40, 2e-7)
    assert counts.sum() == counts.max() == 7


def test_a_copy_stays_as_it_was() -> None:
    norms = Norms([1.0, 0.5])
    before = norms.copy()
    norms.add([9.0] * 3)
    assert list(before) == [1.0, 0.5] and (len(before), before.max) == (2, 1.0)
    assert len(norms) == 5 and norms.max == 9.0
