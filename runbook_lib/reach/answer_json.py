"""The JSON of a host's answer, read only when what it unfolds to is bounded: 64 MB of `[],` would take 1.7 GB."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# A reading has a list for every part, a listing one for every file: at most 200,000 of either.
LISTS = 2**18  # lists and objects: the largest takes 232 bytes
VALUES = 2**21
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


class TooMany(ValueError):
    """It is JSON, and holds more than any answer."""


def read(raw: bytes) -> Any:
    """The value of `raw`. Raises ValueError (RecursionError where it is nested without end) for what is no answer."""
    if _is_large(raw) and _holds_many(raw):
        raise TooMany("more values than any answer has")
    return json.loads(raw, parse_constant=_refuse, parse_float=_finite)


def _is_large(raw: bytes) -> bool:
    return raw.count(b"[") + raw.count(b"{") > LISTS or raw.count(b",") > VALUES


def _holds_many(raw: bytes) -> bool:
    """Whether it is large also without what its texts hold; nothing is copied meanwhile."""
    lists = values = at = 0
    for text in _TEXT.finditer(raw):
        lists += raw.count(b"[", at, text.start()) + raw.count(b"{", at, text.start())
        values += raw.count(b",", at, text.start())
        at = text.end()
        if lists > LISTS or values > VALUES:
            return True
    lists += raw.count(b"[", at) + raw.count(b"{", at)
    return lists > LISTS or values + raw.count(b",", at) > VALUES


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number too large for a float")
    return value
