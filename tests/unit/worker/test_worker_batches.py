"""How the rows of a part are cut into batches."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from worker.batches import PADDING_LIMIT, TOKEN_BUDGET, batches, padded_tokens

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


def test_no_row_is_no_batch() -> None:
    assert batches([], 2048) == []
    assert padded_tokens([], []) == 0


def test_a_row_above_the_budget_stands_alone() -> None:
    assert batches([10, 5000, 10], 2048) == [[1], [0, 2]]


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
