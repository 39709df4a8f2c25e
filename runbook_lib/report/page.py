"""The pieces of the report's page as HTML. Text from outside is escaped here, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ..run.checks import MARKS
from ..show.markup import Markup, tag, text

COLOURS = {"ok": "good", "warning": "warn", "FAILED": "bad", "fault": "bad", "recovery": "good"}
SHAPES = {**MARKS, "fault": "✗", "recovery": "↻", "act": "▸"}
MISSING = Markup('<span class="missing">missing</span>')


def block(key: str, title: str, content: Markup, level: int = 2) -> Markup:
    """Return a section of the page, labelled by its heading."""
    head = tag(f"h{level}", text(title), id=f"{key}-title")
    return tag("section", head, content, id=key, aria_labelledby=f"{key}-title")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Markup]], fixed: bool = False) -> Markup:
    """Return a table; the first cell of a row is its header. `fixed`: the same column widths in all such tables.

    On a narrow screen each cell stands on a line of its own behind its column's name (`data-head`).
    """
    head = tag("tr", *(tag("th", text(name), scope="col") for name in heads))
    body = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(tag("td", cell, data_head=head) for cell, head in zip(others, heads[1:], strict=False)),
        )
        for first, *others in rows
    ]
    captions = [tag("caption", text(caption))] if caption else []
    style = "data fixed" if fixed else "data"
    return tag("div", tag("table", *captions, tag("thead", head), tag("tbody", *body), class_=style), class_="scroll")


def mark(word: str) -> Markup:
    """Return a verdict as a shape and a word, with a colour."""
    return tag("span", text(SHAPES.get(word, "")), Markup(" "), text(word), class_=f"mark {COLOURS.get(word, '')}")


def words(value: object, limit: int = 1500) -> Markup:
    """Return any value as text with its line ends."""
    return tag("span", text(value, limit), class_="words")


def fold(summary: Markup, content: Markup, opened: bool = False) -> Markup:
    """Return content that a click on the summary opens."""
    return tag("details", tag("summary", summary), tag("div", content), open=opened)


def mono(value: object) -> Markup:
    """Return any value in a monospaced font."""
    return tag("span", text(value), class_="mono")


def at_utc(when: datetime | None) -> str:
    """Return a time in UTC, the same for every reader."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if when else "–"


def size(number: int | None) -> Markup:
    """Return an exact number of bytes, and also MB for large numbers."""
    if number is None:
        return MISSING
    return text(f"{number / 1e6:,.2f} MB ({number:,.0f} bytes)" if number >= 1e6 else f"{number:,.0f} bytes")
