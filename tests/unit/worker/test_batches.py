"""How the rows of a part are cut into batches."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.batches import BATCH_COST, PADDING_LIMIT, TOKEN_BUDGET, batches, cheapest, padded_tokens, rows_of

PASSAGES = Path(__file__).parents[4] / "shared" / "data" / "wiki_passages.jsonl"


def drawn(kind: str, rows: int, seed: int) -> list[int]:
    """Lengths of one kind, the same for the same seed."""
    draw = random.Random(seed)
    return {
        "even": lambda: [draw.randint(2, 2048) for _ in range(rows)],
        "short": lambda: [draw.randint(1, 12) for _ in range(rows)],
        "heavy tail": lambda: [min(2048, int(draw.paretovariate(1.1) * 20)) for _ in range(rows)],
        "two sizes": lambda: [draw.choice((1, 2048)) for _ in range(rows)],
        "just apart": lambda: [max(1, int(2048 / 1.021**i)) for i in range(rows)],
        "a staircase": lambda: list(range(1, rows + 1)),
        "all the same": lambda: [draw.randint(1, 500)] * rows,
        "one long among short": lambda: [2048] + [1] * (rows - 1),
        "nothing in them": lambda: [0] * rows,
    }[kind]()


KINDS = ["even", "short", "heavy tail", "two sizes", "just apart", "a staircase"]
KINDS += ["all the same", "one long among short", "nothing in them"]
CASES = [(kind, rows, seed) for kind in KINDS for rows, seed in ((1, 1), (2, 2), (40, 3), (1024, 4))]


def waste(lengths: list[int], layout: list[list[int]]) -> float:
    """Padded tokens over real ones; a row of no tokens is one all the same."""
    return padded_tokens(lengths, layout) / sum(max(1, n) for n in lengths)


@pytest.mark.parametrize(("kind", "rows", "seed"), CASES)
@pytest.mark.parametrize("budget", [64, TOKEN_BUDGET["cpu"], TOKEN_BUDGET["cuda"]])
def test_every_layout_keeps_its_promises(kind: str, rows: int, seed: int, budget: int) -> None:
    """Every position once, longest first, within the budget unless a row alone is not, and hardly any padding."""
    lengths = drawn(kind, rows, seed)
    layout = batches(lengths, budget)
    flat = [i for batch in layout for i in batch]
    assert sorted(flat) == list(range(rows))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in layout)
    assert waste(lengths, layout) <= PADDING_LIMIT == 1.02


def price(lengths: list[int], layout: list[list[int]]) -> int:
    return padded_tokens(lengths, layout) + BATCH_COST * len(layout)


@pytest.mark.parametrize(("kind", "rows", "seed"), CASES)
@pytest.mark.parametrize("budget", [64, TOKEN_BUDGET["cpu"]])
def test_the_cheapest_layout_keeps_its_promises(kind: str, rows: int, seed: int, budget: int) -> None:
    """Every position once, longest first, within the budget, and no layout that we know of costs less."""
    lengths = drawn(kind, rows, seed)
    layout = cheapest(lengths, budget)
    flat = [i for batch in layout for i in batch]
    assert flat == sorted(range(rows), key=lambda i: (-lengths[i], i))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in layout)
    full, alone = rows_of(lengths, budget), [[i] for i in range(rows)]
    within = [batch for batch in full if len(batch) * max(1, *(lengths[i] for i in batch), 1) <= budget]
    others = [batches(lengths, budget), alone, *([full] if within == full else [])]
    assert price(lengths, layout) <= min(price(lengths, other) for other in others)


def test_no_layout_at_all_costs_less_than_the_cheapest() -> None:
    """Of nine rows, held against every way to cut their order."""
    for seed in range(20):
        lengths = sorted((random.Random(seed).randint(1, 300) for _ in range(9)), reverse=True)
        least = min(price(lengths, cut) for cut in every_cut(list(range(9))) if fits(lengths, cut, 600))
        assert price(lengths, cheapest(lengths, 600)) == least


def every_cut(order: list[int]) -> Iterator[list[list[int]]]:
    for places in range(2 ** (len(order) - 1)):
        ends = [k + 1 for k in range(len(order) - 1) if places >> k & 1]
        yield [order[a:b] for a, b in zip([0, *ends], [*ends, len(order)], strict=True)]


def fits(lengths: list[int], layout: list[list[int]], budget: int) -> bool:
    return all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in layout)


@pytest.mark.parametrize("rows", [19, 32, 52])
def test_a_small_part_is_not_cut_into_batches_of_a_row_or_two(rows: int) -> None:
    lengths = [random.Random(k).randint(20, 220) for k in range(rows)]
    assert len(batches(lengths, 2048)) > rows / 2.5
    assert len(cheapest(lengths, 2048)) < rows / 3
    assert waste(lengths, cheapest(lengths, 2048)) < 1.15


@pytest.mark.parametrize(("kind", "rows", "seed"), CASES)
@pytest.mark.parametrize("budget", [64, TOKEN_BUDGET["cpu"]])
def test_rows_without_padding_are_full(kind: str, rows: int, seed: int, budget: int) -> None:
    """Every position once, longest first; the next text would not have fitted; one above the budget is alone."""
    lengths = drawn(kind, rows, seed)
    layout = rows_of(lengths, budget)
    assert [i for row in layout for i in row] == sorted(range(rows), key=lambda i: (-lengths[i], i))
    tokens = [sum(max(1, lengths[i]) for i in row) for row in layout]
    assert all(len(row) == 1 or n <= budget for row, n in zip(layout, tokens, strict=True))
    assert all(n + max(1, lengths[after[0]]) > budget for n, after in zip(tokens, layout[1:], strict=False))


def test_no_row_is_no_batch() -> None:
    assert batches([], 2048) == cheapest([], 2048) == rows_of([], 2048) == []
    assert padded_tokens([], []) == 0


def test_a_row_above_the_budget_stands_alone() -> None:
    assert batches([10, 5000, 10], 2048) == cheapest([10, 5000, 10], 2048) == rows_of([10, 5000, 10], 2048)
    assert rows_of([10, 5000, 10], 2048) == [[1], [0, 2]]


def test_a_full_budget_is_used_to_the_last_token() -> None:
    assert [len(batch) for batch in batches([256] * 17, 2048)] == [8, 8, 1]


def test_the_layout_follows_from_the_lengths_alone() -> None:
    lengths = drawn("even", 300, 9)
    assert batches(lengths, 2048) == batches(list(lengths), 2048)


def test_equal_lengths_keep_their_order() -> None:
    assert batches([7, 9, 7, 9], 7) == [[1], [3], [0], [2]]
    assert batches([7] * 5, 2048) == [[0, 1, 2, 3, 4]]


@pytest.mark.skipif(not PASSAGES.exists(), reason="no shared/data beside this repository")
@pytest.mark.parametrize("budget", sorted(TOKEN_BUDGET.values()))
@pytest.mark.parametrize("cut", [256, 2048])
def test_real_passages_hardly_pad(budget: int, cut: int) -> None:
    with PASSAGES.open(encoding="utf-8") as file:
        words = [len(json.loads(next(file))["text"].split()) for _ in range(2000)]
    lengths = [min(cut, 2 + int(1.3 * n)) for n in words]
    assert waste(lengths, batches(lengths, budget)) <= PADDING_LIMIT
