"""Numbers and names in words a person would use, one line each. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from worker.escape import safe_text

BLOCKS = "▁▂▃▄▅▆▇█"


def one_line(value: object, limit: int = 300) -> str:
    """Any value for one line of a terminal."""
    return " ".join(safe_text(str(value), limit).split())


def many(count: float, what: str) -> str:
    """A number with its noun: `1 question`, `10 questions`."""
    return f"{count:,.0f} {what}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """A time in words a person would use: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def exactly(seconds: float | None) -> str:
    """A time that is over, to the second: `40 s`, `1 min 51 s`, `2 h 05 min 03 s`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min {left:02d} s"


def percent(done: int, of: int) -> str:
    """A share that says 100 % only when it is all."""
    share = 100.0 if done >= of else min(99.9, 100 * done / of)
    return f"{share:.1f} %"


def rate(value: float | None) -> str:
    """Rows a second, with as many digits as mean something."""
    if value is None:
        return "–"
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def spark(values: Sequence[float]) -> str:
    """A line of blocks as high as the values, from nothing to the largest; empty without any."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * (len(BLOCKS) - 1) + 0.5))] for value in values)
