"""HTML has its own type, `Markup`: functions that make HTML take and return it, and only `text` converts plain text.

So mypy finds a missing escape. Only inline styles, because JupyterLab removes style sheets from a notebook that it
does not trust. A bar is a <progress> with its numbers beside it, a badge is a shape and a word: no information is in
the colour alone. The only door to markupsafe.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from worker.escape import safe_text

__all__ = [
    "AMBER", "BLUE", "CELL", "GREEN", "GREY", "INK", "LINE", "MUTED", "NUMBER", "PURPLE", "RED", "WIDE", "Markup",
    "badge", "bar", "joined", "table", "tag", "text",
]  # fmt: skip

BLUE, GREEN, AMBER, RED, GREY, PURPLE = "#0969da", "#1a7f37", "#9a6700", "#cf222e", "#59636e", "#8250df"
INK = "color:var(--jp-ui-font-color1,inherit)"
MUTED = "color:var(--jp-ui-font-color1,inherit);opacity:.8"
LINE = "1px solid var(--jp-border-color2,#8c959f)"
CELL = "padding:1px 10px 1px 0;text-align:left;vertical-align:middle;white-space:nowrap;background-color:transparent"
WIDE = CELL.replace("nowrap", "normal;min-width:11em")
NUMBER = f"{CELL};text-align:right;font-variant-numeric:tabular-nums"
EMPTY = ("img", "meta")  # elements without content and closing tag


def text(value: object, limit: int = 300) -> Markup:
    """Convert any value to HTML: markup is shown as text, control characters as escapes."""
    return Markup(html.escape(safe_text(str(value), limit)))


def joined(parts: Iterable[Markup], between: Markup | None = None) -> Markup:
    """Join pieces of HTML."""
    return (between or Markup("")).join(parts)


def tag(name: str, /, *inside: Markup, **attributes: object) -> Markup:
    """Return an element. `class_` means class and `aria_label` aria-label; values that are not `Markup` are escaped.

    True adds an attribute without a value, False leaves it out.
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Markup(f"<{name}{written}>{''.join(inside)}{'' if name in EMPTY else f'</{name}>'}")


def _attribute(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{value if isinstance(value, Markup) else text(value, len(str(value)))}"'


def badge(word: str, shape: str, colour: str) -> Markup:
    """Return a word on a coloured background with a shape before it."""
    style = f"background-color:{colour};color:#ffffff;border-radius:9px;padding:0 8px;font-size:90%;white-space:nowrap"
    return tag("span", text(shape), Markup(" "), text(word, 40), style=style)


def bar(done: int, of: int, label: str, width: str = "9em") -> Markup:
    """Return a progress bar; its numbers are shown beside it."""
    style = f"width:{width};height:.8em;vertical-align:middle;accent-color:{GREEN if done >= of else BLUE}"
    return tag("progress", max=max(1, of), value=min(done, of), aria_label=text(label), style=style)


def table(caption: str, heads: Sequence[tuple[str, str]], rows: Iterable[Markup]) -> Markup:
    """Return a table with a caption and column headers; `heads` are (title, style)."""
    titles = [tag("th", text(t), scope="col", style=f"{style};{MUTED};font-weight:normal") for t, style in heads]
    return tag(
        "table",
        tag("caption", text(caption), style=f"text-align:left;padding:2px 0;{MUTED}"),
        tag("thead", tag("tr", *titles, style=f"border-bottom:{LINE}")),
        tag("tbody", *rows),
        style=f"border-collapse:collapse;margin:0;font-size:inherit;{INK}",
    )
