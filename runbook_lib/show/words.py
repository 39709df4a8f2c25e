"""Numbers and names in words, one line each. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from worker.escape import safe_text

BLOCKS = "▁▂▃▄▅▆▇█"


def one_line(value: object, limit: int = 300) -> str:
    """Return any value as one line for a terminal."""
    return " ".join(safe_text(str(value), limit).split())


def many(count: float, what: str) -> str:
    """Return a number with its noun: `1 question`, `10 questions`."""
    return f"{count:,.0f} {what}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a time in words, rounded: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def exactly(seconds: float | None) -> str:
    """Return a time in words, to the second: `40 s`, `1 min 51 s`, `2 h 05 min 03 s`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min {left:02d} s"


def clock_time(at: float) -> str:
    """Return a time of this machine's clock, at the seconds `at` of the epoch: `14:05`, another day `Thu 14:05`."""
    when, now = datetime.fromtimestamp(at), datetime.now()
    return f"{when:%H:%M}" if when.date() == now.date() else f"{when:%a %H:%M}"


def moment(at: datetime) -> str:
    """Return a time in UTC, and beside it by this machine's clock where that is another one."""
    here = at.astimezone()
    beside = f" ({here:%H:%M} here)" if here.utcoffset() else ""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC{beside}"


def percent(done: int, of: int) -> str:
    """Return a share in percent; it is 100 % only if everything is done."""
    share = 100.0 if done >= of else min(99.9, 100 * done / of)
    return f"{share:.1f} %"


def rate(value: float | None) -> str:
    """Return rows a second, with a useful number of digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def spark(values: Sequence[float]) -> str:
    """Return a line of blocks, scaled from zero to the largest value; empty without values above zero."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * (len(BLOCKS) - 1) + 0.5))] for value in values)
