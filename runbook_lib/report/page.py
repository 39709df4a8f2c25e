"""The pieces of the report's page as HTML. What comes from outside is escaped here, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ..result import facts
from ..run.checks import MARKS
from ..show.markup import text

COLOURS = {"ok": "good", "warning": "warn", "FAILED": "bad", "fault": "bad", "recovery": "good"}
SHAPES = {**MARKS, "fault": "✗", "recovery": "↻", "act": "▸"}
MISSING = '<span class="missing">missing</span>'


def block(key: str, title: str, content: str, level: int = 2) -> str:
    """A section of the page that its heading names."""
    head = f'<h{level} id="{key}-title">{text(title)}</h{level}>'
    return f'<section id="{key}" aria-labelledby="{key}-title">{head}{content}</section>'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], fixed: bool = False) -> str:
    """A table of cells that are HTML already; the first names its row. `fixed`: columns as in other such tables."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if place == 0 else f"<td>{cell}</td>" for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    told = f"<caption>{text(caption)}</caption>" if caption else ""
    table = f"{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="data{" fixed" if fixed else ""}">{table}</table></div>'


def mark(word: str) -> str:
    """A verdict as a shape and a word, then in colour."""
    return f'<span class="mark {COLOURS.get(word, "")}">{SHAPES.get(word, "")} {text(word)}</span>'


def words(value: object, limit: int = 1500) -> str:
    """Any value as text, with its line ends."""
    return f'<span class="words">{text(value, limit)}</span>'


def fold(summary: str, content: str, opened: bool = False) -> str:
    """What is shown when asked for; a heading line that is HTML already."""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary><div>{content}</div></details>"


def mono(value: object) -> str:
    """Any value in letters of one width."""
    return f'<span class="mono">{text(value)}</span>'


def at_utc(when: datetime | None) -> str:
    """A moment, the same for every reader."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if when else "–"


def size(value: object) -> str:
    """A number of bytes, exact, and in MB where that reads better."""
    number = facts.number(value)
    if number is None:
        return MISSING
    return f"{number / 1e6:,.2f} MB ({number:,.0f} bytes)" if number >= 1e6 else f"{number:,.0f} bytes"
