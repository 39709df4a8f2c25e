"""Which rows are computed a second time: by the plan alone, few, and half of them the shortest and longest."""

from __future__ import annotations

import pytest

from worker import again
from worker.rows import planned_parts


def chosen(part: tuple[int, int], grid: int, part_rows: int, run_id: str = "run") -> list[int]:
    sizes = [100 + (row * 7919) % 1000 for row in range(*part)]
    return again.chosen(run_id, part, grid, part_rows, sizes)


@pytest.mark.parametrize("part_rows", [1, 7, 19, 199, 200, 201, 399, 400, 1024])
def test_it_is_at_most_one_row_of_two_hundred_and_the_first_part_has_one(part_rows: int) -> None:
    start, stop = 5000, 5000 + 20 * max(200, part_rows)
    parts = planned_parts(start, stop, part_rows)
    rows = [chosen(part, start, part_rows) for part in parts]
    assert rows[0] and all(low <= row < high for (low, high), each in zip(parts, rows, strict=True) for row in each)
    assert 0.35 <= sum(map(len, rows)) * again.EVERY / (stop - start) <= 1


@pytest.mark.parametrize("part_rows", [50, 250])
def test_the_ends_have_their_turn_and_the_others_too(part_rows: int) -> None:
    step = -(-again.EVERY // part_rows) * part_rows
    turns = []
    for low in range(0, 4 * step, step):
        part = low, low + part_rows
        sizes = [100 + (row * 7919) % 1000 for row in range(*part)]
        (row,) = chosen(part, 0, part_rows)
        turns.append({min(sizes): "shortest", max(sizes): "longest"}.get(sizes[row - low], "any"))
    assert {"shortest", "longest"} <= {*turns} and turns.count("any") >= 1
    assert turns.index("shortest") % 2 == turns.index("longest") % 2


def test_a_large_part_has_one_at_an_end_and_one_drawn() -> None:
    for number in range(8):
        part = 1000 * number, 1000 * (number + 1)
        sizes = [100 + (row * 7919) % 1009 for row in range(*part)]
        rows = again.chosen("run", part, 0, 1000, sizes)
        ends = {part[0] + sizes.index(min(sizes)), part[0] + sizes.index(max(sizes))}
        assert 1 <= len(rows) <= 2 and ends.intersection(rows)


def test_the_same_part_has_the_same_rows_and_another_run_others() -> None:
    parts = planned_parts(0, 100_000, 1000)
    mine = [chosen(part, 0, 1000) for part in parts]
    assert mine == [chosen(part, 0, 1000) for part in parts]
    assert mine != [chosen(part, 0, 1000, run_id="another") for part in parts]


def test_what_is_left_of_a_part_has_rows_of_its_own() -> None:
    """A part of which one row is given up is done in pieces: each of them is looked at."""
    assert all(10 <= row < 13 for row in chosen((10, 13), 0, 200))
    assert len(chosen((10, 13), 0, 200)) == 1


def test_of_rows_of_one_length_the_first_is_the_shortest_and_the_last_the_longest() -> None:
    found = {again.chosen(f"run {k}", (0, 9), 0, 9, [5] * 9)[0] for k in range(40)}
    assert {0, 8} <= found
