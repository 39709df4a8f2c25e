"""Rows drawn by a seed, and the bound that follows from a sample without a bad row."""

from __future__ import annotations

from math import comb

import pytest

from runbook_lib.result import sampling


def test_the_seed_follows_from_all_parts_in_any_order_and_from_the_random_bytes() -> None:
    one = sampling.seed(["a", "b"], b"0")
    assert one == sampling.seed(["b", "a"], b"0")
    assert (
        len({one, sampling.seed(["a", "c"], b"0"), sampling.seed(["a", "b"], b"1"), sampling.seed(["ab"], b"0")}) == 4
    )
    assert sampling.commitment(["a", "b"]) == sampling.commitment(["b", "a"]) != sampling.commitment(["a"])


def test_a_draw_has_no_row_twice_and_is_the_same_again() -> None:
    drawn = sampling.draw("seed", 1000, 100)
    assert len(set(drawn)) == 100 and set(drawn) <= set(range(1000))
    assert drawn == sampling.draw("seed", 1000, 100) != sampling.draw("other", 1000, 100)
    assert sampling.draw("seed", 1000, 50) == drawn[:50]
    assert sorted(sampling.draw("seed", 7, 100)) == list(range(7))


def test_every_row_is_as_likely_as_any_other() -> None:
    times = [0] * 20
    for number in range(2000):
        for row in sampling.draw(str(number), 20, 5):
            times[row] += 1
    assert all(400 < each < 600 for each in times)  # 500 expected, sd 19


@pytest.mark.parametrize(("drawn", "percent"), [(64, 4.572), (299, 0.996), (1000, 0.298), (2995, 0.099)])
def test_the_bound_is_that_of_the_table(drawn: int, percent: float) -> None:
    assert 100 * sampling.most_bad(250_000, drawn) / 250_000 == pytest.approx(percent, abs=0.001)


@pytest.mark.parametrize(("rows", "drawn"), [(10, 3), (60, 20), (200, 100), (50, 50), (5, 1), (30, 29)])
def test_the_bound_is_exact(rows: int, drawn: int) -> None:
    bad = sampling.most_bad(rows, drawn)

    def none(bad: int) -> float:
        return comb(rows - bad, drawn) / comb(rows, drawn)

    assert none(bad) > 0.05 or bad == 0
    assert bad == rows - drawn or none(bad + 1) <= 0.05
