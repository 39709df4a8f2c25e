"""How the rows of a part are cut into batches: sorted by length, by a budget of tokens.

Batches of a fixed number of rows in corpus order pad articles 3.3-fold at a cut of 2,048 tokens. Rows sorted by length
hardly pad, and a budget keeps a batch in the memory of a GPU and its steps small on a CPU. The layout follows from the
rows of the part alone, so the same part has the same bytes whatever happened before.
"""

from __future__ import annotations

from collections.abc import Sequence

# On a GPU a batch is closed rather than padded by more than this, so no part exceeds 1.02 padded tokens a real one.
PADDING_LIMIT = 1.02

# On a CPU a batch costs as much as so many tokens more, whatever is in it. A limit instead made batches of three rows
# where a part is small: rows of one length are rare in it.
BATCH_COST = 48

# Tokens a batch may hold, padding included. On a CPU larger ones are slower (measured): their layers need blocks of
# memory so large that the system maps them anew each time.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536, "mps": 8192, "xpu": 8192}

# On a GPU that compiles a graph for each new shape, and keeps its memory, shapes are few: widths are multiples of this,
# and the scores of attention, rows x heads x width x width numbers of 4 bytes, stay below what it can address.
WIDTH, SCORE_BYTES = 64, 2**31


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` (tokens a row, after truncation) in batches, longest rows first.

    Longest first, so that running out of memory shows in the first batch. Ties keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    layout: list[list[int]] = []
    current: list[int] = []
    width = real = 0
    for i in order:
        length = max(1, lengths[i])
        padded = (len(current) + 1) * width
        if current and (padded > budget or padded > PADDING_LIMIT * (real + length)):
            layout.append(current)
            current = []
        if not current:
            width, real = length, 0
        current.append(i)
        real += length
    if current:
        layout.append(current)
    return layout


def cheapest(lengths: Sequence[int], budget: int, batch_cost: int = BATCH_COST) -> list[list[int]]:
    """The same with the lowest sum of padded tokens and `batch_cost` a batch, whatever the padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    cost, begins = [0.0] + [float("inf")] * len(order), [0] * (len(order) + 1)
    for start, first in enumerate(order):
        width = max(1, lengths[first])
        for stop in range(start + 1, len(order) + 1):
            rows = stop - start
            # A row so much shorter is never worth its padding: another batch for it and all behind it is cheaper.
            if rows > 1 and (rows * width > budget or width - lengths[order[stop - 1]] > batch_cost):
                break
            if (total := cost[start] + rows * width + batch_cost) < cost[stop]:
                cost[stop], begins[stop] = total, start
    layout: list[list[int]] = []
    stop = len(order)
    while stop:
        layout.append(order[begins[stop] : stop])
        stop = begins[stop]
    return layout[::-1]


def rows_of(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` in batches that are one row of tokens each and pad nothing, longest texts first.

    A text longer than the budget is a row of its own. Ties keep their order.
    """
    layout: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens = max(1, lengths[i])
        if not layout or tokens > room:
            layout.append([])
            room = budget
        layout[-1].append(i)
        room -= tokens
    return layout


def few_shapes(lengths: Sequence[int], budget: int, heads: int) -> list[list[int]]:
    """Positions of `lengths` in batches of few shapes, longest rows first: each is to be padded to `wide` of its rows.

    All rows of a batch have one width, and their number is a power of two. Ties keep their order.
    """
    by_width: dict[int, list[int]] = {}
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        by_width.setdefault(wide(lengths[i]), []).append(i)
    layout: list[list[int]] = []
    for width, positions in by_width.items():
        most = min(budget // width, (SCORE_BYTES - 1) // (4 * heads * width * width))
        while positions:
            rows = 1 << (max(1, min(most, len(positions))).bit_length() - 1)
            layout.append(positions[:rows])
            positions = positions[rows:]
    return layout


def wide(tokens: int) -> int:
    """The width that so many tokens are padded to where shapes are few."""
    return -(-max(1, tokens) // WIDTH) * WIDTH


def padded_tokens(lengths: Sequence[int], layout: Sequence[Sequence[int]]) -> int:
    """How many token positions a layout computes, padding included."""
    return sum(len(batch) * max(max(1, lengths[i]) for i in batch) for batch in layout if batch)
