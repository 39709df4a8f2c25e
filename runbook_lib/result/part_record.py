"""What the record of a part must state: every field of the type and size that the worker writes, and nothing odd."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from worker.layout import HOST_NAME, SLOT_NAME

from ..hosts.bounds import is_count, is_number, problem

SHA256 = re.compile(r"[0-9a-f]{64}")
# The lists of a record with one entry a row: dropped where many parts are held at once.
PER_ROW = ("fingerprints", "tokens", "truncated", "norms")
ROW_BYTES, SHARED_BYTES = 256, 2**20  # more has no record: a row takes about 100, the rest holds two prompts
TOKENS = 10**12
LIMITS = ("max_tokens", "model_max_tokens")  # as used, and the model's own
SECONDS = 1e12


def size_limit(rows: int) -> int:
    """The most bytes that a record of so many rows may have."""
    return SHARED_BYTES + ROW_BYTES * rows


def not_stated(record: dict[str, Any], start: int, stop: int) -> list[str]:
    """What the record of rows [start, stop) lacks or states as what cannot be, in words."""
    rows = stop - start
    stated: dict[str, bool] = {
        f"rows {start}-{stop} as in its name": all(is_count(record.get(key)) for key in ("start", "stop"))
        and (record["start"], record["stop"]) == (start, stop)
        and rows > 0,
        "a sha256": _is_text(record.get("sha256"), SHA256),
        "a size in bytes": is_count(record.get("bytes")),
        "a dim": is_count(record.get("dim")) and record["dim"] > 0,
        "a slot": _is_text(record.get("slot"), SLOT_NAME),
        "a host": _is_text(record.get("host"), HOST_NAME),
        "a model": isinstance(record.get("model"), dict),
        "an epoch, or none": record.get("epoch") is None or is_count(record["epoch"], 10**9),
        "seconds, or none": record.get("seconds") is None or is_number(record["seconds"], SECONDS),
        # Some tokenizers say 10^30 for "no limit".
        "a limit of tokens, or none": all(record.get(key) is None or is_count(record[key], 10**40) for key in LIMITS),
        "tokens, norm, fingerprint and truncation of every row": _row_by_row(record, start, stop),
    }
    others = {key: value for key, value in record.items() if key not in (*PER_ROW, "redone_float32", *LIMITS)}
    odd = problem(others)
    return [what for what, holds in stated.items() if not holds] + ([f"only what can be kept: {odd}"] if odd else [])


def _is_text(value: object, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _row_by_row(record: dict[str, Any], start: int, stop: int) -> bool:
    """Whether the lists that go row by row are of the right length and kind."""

    def one_each(key: str, is_one: Callable[[object], bool]) -> bool:
        found = record.get(key)
        return isinstance(found, list) and len(found) == stop - start and all(map(is_one, found))

    return (
        one_each("norms", lambda norm: is_number(norm, 1e30))
        and one_each("tokens", lambda tokens: is_count(tokens, TOKENS))
        and one_each("fingerprints", lambda text: isinstance(text, str) or text is None)
        and all(_are_rows(record.get(key), start, stop) for key in ("truncated", "redone_float32"))
    )


def _are_rows(value: object, start: int, stop: int) -> bool:
    """Whether these are rows of [start, stop), each once, in order."""
    if not isinstance(value, list) or not all(is_count(row) and start <= row < stop for row in value):
        return False
    return all(row < after for row, after in itertools.pairwise(value))
