"""The JSON of a host's answer, parsed only if it has a limited number of values: 64 MB of `[],` would take 1.7 GB."""

from __future__ import annotations

import json
import math
from typing import Any

from ...corpus.formats.json_size import holds_more

# A reading has a list for every part, a listing one for every file: at most 200,000 of either.
LISTS = 2**18  # lists and objects: the largest takes 232 bytes
VALUES = 2**21


class TooManyValues(ValueError):
    """It is JSON, with more values than any answer has."""


def read(raw: bytes) -> Any:
    """Parse `raw`. Raises ValueError for what is not an answer, RecursionError for endless nesting."""
    if holds_more(raw, LISTS, VALUES):
        raise TooManyValues("more values than any answer has")
    return json.loads(raw, parse_constant=_refuse, parse_float=_finite)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number too large for a float")
    return value
