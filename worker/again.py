"""Which rows are computed a second time, how near their two vectors must be, and any norm to 1. Standard library only.

Both follow from the plan and the corpus alone: the same part has the same rows after a restart, and when a neighbour
computes it; who holds a part against its record finds the rows that it must have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .rows import Range

# One row of so many at most, but for the first part of a shard: a slot shows early what it does.
EVERY = 200
TWO = 400  # parts of so many rows have two

# The least cosine of a row's vector to that of the processor in float32. Measured on a processor, as 1 - cosine:
# float32 4e-13, float16 1.4e-6, bfloat16 9.6e-5, and 3.4e-3 in articles of 2,048 tokens. The rest is room.
COSINE = {"float32": 1 - 1e-5, "float16": 0.999, "bfloat16": 0.98}
# How far a norm may be from 1 where the model's last module normalises: the rounding of the dtype, with room.
NORM_BOUND = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}


def chosen(run_id: str, rows: Range, grid: int, part_rows: int, sizes: Sequence[int]) -> list[int]:
    """The rows of a part that are computed again, in order; most small parts have none.

    In turn the shortest, any, the longest, any: half of them at the ends, where a device is most likely to be wrong.
    `grid`: where the parts of this shard are cut from; `sizes`: of each row, the bytes of its line in the corpus.
    """
    start, stop = rows
    number, step = (start - grid) // part_rows, -(-EVERY // part_rows)
    if number % step:
        return []
    turn = _draw(run_id, "turn", grid) + number // step
    by_size = sorted(range(start, stop), key=lambda row: (sizes[row - start], row))
    drawn = start + _draw(run_id, "row", start) % (stop - start)
    turns = by_size[0], drawn, by_size[-1], drawn
    return sorted({turns[2 * turn % 4], drawn} if part_rows >= TWO else {turns[turn % 4]})


def _draw(run_id: str, what: str, row: int) -> int:
    """A number that the run's random id and a row decide."""
    return int.from_bytes(hashlib.sha256(f"{run_id}/{what}/{row}".encode()).digest()[:8], "big")
