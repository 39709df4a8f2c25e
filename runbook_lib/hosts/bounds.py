"""Limits on a JSON value from another machine: what is larger is not read, shown or kept."""

from __future__ import annotations

import math
from typing import Any

DEPTH = 8
ENTRIES = 4096  # of one list or object
CHARACTERS = 2**18  # of one text
NUMBER = 2**63


def problem(value: Any, depth: int = DEPTH) -> str | float:
    """Return what is too large in a value or not JSON: in words, or the number itself; empty if nothing is."""
    if depth == 0:
        return "nested too deep"
    if isinstance(value, (dict, list)):
        return _inside(value, depth)
    if isinstance(value, str):
        return f"{len(value)} characters" if len(value) > CHARACTERS else ""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        return "" if abs(value) < NUMBER and math.isfinite(value) else value
    return f"a {type(value).__name__}"


def _inside(value: dict[Any, Any] | list[Any], depth: int) -> str | float:
    if len(value) > ENTRIES:
        return f"{len(value)} entries"
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    for item in inner:
        if reason := problem(item, depth - 1):
            return reason
    return ""
