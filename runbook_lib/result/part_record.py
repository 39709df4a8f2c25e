"""The record of a downloaded part: every field as the worker writes it, for every row, and nothing strange in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from worker.fields import WireError, refuse
from worker.wire import PartRecord

from ..hosts.bounds import problem

ROW_BYTES, SHARED_BYTES = 256, 2**20  # limits: a row takes about 100 bytes, the rest holds two prompts
# Fields that have their own size check.
BY_ROW = ("fingerprints", "tokens", "truncated", "norms", "redone_float32", "chunks")
UNBOUNDED = (*BY_ROW, "max_tokens", "model_max_tokens", "chunk_tokens")


def size_limit(rows: int) -> int:
    """Return how many bytes a record of this many rows may have."""
    return SHARED_BYTES + ROW_BYTES * rows


def parsed(value: dict[str, Any], start: int, stop: int) -> PartRecord:
    """Parse the record of rows [start, stop). Raises WireError if it is invalid or of other rows."""
    record = PartRecord.from_json(value)
    if (record.start, record.stop) != (start, stop) or not start < stop:
        raise refuse("", "rows", f"{record.start}-{record.stop}", f"{start}-{stop} as in its name")
    _row_by_row(record, start, stop)
    if odd := problem({key: each for key, each in value.items() if key not in UNBOUNDED}):
        raise WireError(f"only what can be kept: {odd}")
    return record


def _row_by_row(record: PartRecord, start: int, stop: int) -> None:
    for name in ("fingerprints", "tokens", "norms"):
        if len(getattr(record, name)) != stop - start:
            raise refuse("", name, getattr(record, name), f"one of each of {stop - start} rows")
    if record.chunks is not None and len(record.chunks) != stop - start:
        raise refuse("", "chunks", record.chunks, f"one of each of {stop - start} rows")
    for name in ("truncated", "redone_float32"):
        if not _are_rows(getattr(record, name), start, stop):
            raise refuse("", name, getattr(record, name), f"rows of {start}-{stop}, each once, in order")
    if not _are_rows([each.row for each in record.again or ()], start, stop):
        raise refuse("", "again", record.again, f"rows of {start}-{stop}, each once, in order")


def _are_rows(rows: Sequence[int], start: int, stop: int) -> bool:
    return all(start <= row < stop for row in rows) and all(row < after for row, after in itertools.pairwise(rows))
