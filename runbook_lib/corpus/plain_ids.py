"""Ids that a table holds as another plain kind than text or whole numbers: decimals, times, UUIDs."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from uuid import UUID

_EXACT_FLOAT = 2**53  # whole numbers up to here are exact as floats, which tables make of ids with gaps


def plain_id(value: object) -> object:
    """Return an id as text or a whole number where it is one in another form, None where it is no number (NaN).

    Anything else comes back as it is: whether it is an id is for the caller to say.
    """
    if type(value) is float:
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) <= _EXACT_FLOAT else value
    if type(value) is Decimal:
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, date | time):  # a datetime is a date too
        return value.isoformat()
    return str(value) if type(value) is UUID else value
