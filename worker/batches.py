"""How the rows of a part are cut into batches: sorted by length, by a budget of tokens.

Batches of a fixed number of rows in corpus order pad articles 3.3-fold at a cut of 2,048 tokens. Rows sorted by length
hardly pad, and a budget keeps a batch in the cache of a CPU and in the memory of a GPU. The layout follows from the
rows of the part alone, so the same part has the same bytes whatever happened before.
"""

from __future__ import annotations

from collections.abc import Sequence

# A batch is closed rather than padded by more than this, so no part ever exceeds 1.02 padded tokens a real one.
PADDING_LIMIT = 1.02

# Tokens a batch may hold, padding included. On a CPU about 2,000 stay in the cache (measured: larger is slower).
TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` (tokens a row, after truncation) in batches, longest rows first.

    Longest first, so that running out of memory shows in the first batch. Ties keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    found: list[list[int]] = []
    current: list[int] = []
    width = real = 0
    for i in order:
        length = max(1, lengths[i])
        padded = (len(current) + 1) * width
        if current and (padded > budget or padded > PADDING_LIMIT * (real + length)):
            found.append(current)
            current = []
        if not current:
            width, real = length, 0
        current.append(i)
        real += length
    if current:
        found.append(current)
    return found


def rows_of(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` in batches that are one row of tokens each and pad nothing, longest texts first.

    A text longer than the budget is a row of its own. Ties keep their order.
    """
    found: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not found or lengths[i] > room:
            found.append([])
            room = budget
        found[-1].append(i)
        room -= max(1, lengths[i])
    return found


def padded_tokens(lengths: Sequence[int], layout: Sequence[Sequence[int]]) -> int:
    """How many token positions a layout computes, padding included."""
    return sum(len(batch) * max(max(1, lengths[i]) for i in batch) for batch in layout if batch)
