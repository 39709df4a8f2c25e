"""How many values a JSON text holds, counted before it is parsed: 64 MB of `[],` would take 1.7 GB."""

from __future__ import annotations

import re

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


def holds_more(raw: bytes, lists: int, values: int) -> bool:
    """Whether JSON has more lists and objects, or more values, than allowed; the inside of strings is not counted."""
    if not _passes(raw, lists, values):
        return False
    found_lists = found_values = at = 0
    for text in _TEXT.finditer(raw):  # nothing is copied
        found_lists += _lists(raw, at, text.start())
        found_values += raw.count(b",", at, text.start())
        at = text.end()
        if found_lists > lists or found_values > values:
            return True
    return found_lists + _lists(raw, at, len(raw)) > lists or found_values + raw.count(b",", at) > values


def _passes(raw: bytes, lists: int, values: int) -> bool:
    return _lists(raw, 0, len(raw)) > lists or raw.count(b",") > values


def _lists(raw: bytes, start: int, stop: int) -> int:
    return raw.count(b"[", start, stop) + raw.count(b"{", start, stop)
