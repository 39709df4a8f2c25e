"""Building blocks of a page: text made safe for HTML, a bar, a badge, a table, and the colours they share.

Only inline styles, because JupyterLab drops style sheets of a notebook it does not trust. A bar is a <progress> with
its numbers beside it, a badge is a shape and a word: nothing is told by colour alone.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from worker.escape import safe_text

BLUE, GREEN, AMBER, RED, GREY, PURPLE = "#0969da", "#1a7f37", "#9a6700", "#cf222e", "#59636e", "#8250df"
INK = "color:var(--jp-ui-font-color1,inherit)"
MUTED = "color:var(--jp-ui-font-color1,inherit);opacity:.8"
LINE = "1px solid var(--jp-border-color2,#8c959f)"
CELL = "padding:1px 10px 1px 0;text-align:left;vertical-align:middle;white-space:nowrap;background-color:transparent"
WIDE = CELL.replace("nowrap", "normal;min-width:11em")
NUMBER = f"{CELL};text-align:right;font-variant-numeric:tabular-nums"


def text(value: object, limit: int = 300) -> str:
    """Any value for a page: markup shown as text, control characters as escapes."""
    return html.escape(safe_text(str(value), limit))


def badge(word: str, shape: str, colour: str) -> str:
    """A word on a coloured ground with a shape before it."""
    style = f"background-color:{colour};color:#ffffff;border-radius:9px;padding:0 8px;font-size:90%;white-space:nowrap"
    return f'<span style="{style}">{shape} {text(word, 40)}</span>'


def bar(done: int, of: int, label: str, width: str = "9em") -> str:
    """A bar for the eye; its numbers stand beside it."""
    style = f"width:{width};height:.8em;vertical-align:middle;accent-color:{GREEN if done >= of else BLUE}"
    value = f'max="{max(1, of)}" value="{min(done, of)}"'
    return f'<progress {value} aria-label="{text(label)}" style="{style}"></progress>'


def table(caption: str, heads: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """A table with a caption and column headers; `heads` are (title, style)."""
    head = "".join(f'<th scope="col" style="{style};{MUTED};font-weight:normal">{text(t)}</th>' for t, style in heads)
    return (
        f'<table style="border-collapse:collapse;margin:0;font-size:inherit;{INK}">'
        f'<caption style="text-align:left;padding:2px 0;{MUTED}">{text(caption)}</caption>'
        f'<thead><tr style="border-bottom:{LINE}">{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
