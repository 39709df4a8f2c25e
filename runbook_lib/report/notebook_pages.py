"""Executed notebooks as HTML fragments for the report. The only door to nbconvert, which is loaded when first needed.

All HTML of cells and outputs is cleaned with a list of allowed elements: no script, no style sheet, no image from
elsewhere; other markup is shown as text. (We replace nbconvert's own cleaner, which would show headings and pictures
as markup.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..show.markup import Markup
from . import notebook_file


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TAGS = _set("""
    a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr
    i img kbd li ol p pre progress s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var
""")
ATTRIBUTES = {
    "a": ("href", "title"),
    "abbr": ("title",),
    "img": ("alt", "width", "height"),
    "ol": ("start",),
    "progress": ("max", "value"),
    "td": ("colspan", "rowspan"),
    "th": ("colspan", "rowspan", "scope"),
}
EVERYWHERE = ("class", "style", "aria-label")
PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,")
PROPERTIES = _set("""
    accent-color background-color border border-bottom border-collapse border-left border-radius color font-family
    font-size font-variant-numeric font-weight height line-height margin margin-bottom max-height max-width opacity
    overflow padding padding-bottom padding-left padding-right padding-top text-align vertical-align white-space width
""")


def _allowed(tag: str, name: str, value: str) -> bool:
    """Return whether an attribute is allowed; ids are not, because those of four notebooks could be equal."""
    if tag == "img" and name == "src":
        return value.startswith(PICTURES)
    return name in EVERYWHERE or name in ATTRIBUTES.get(tag, ())


def clean(markup: object) -> str:
    """Clean `markup`: keep allowed elements, and show everything else as text."""
    import bleach  # type: ignore[import-untyped]
    from bleach.css_sanitizer import CSSSanitizer  # type: ignore[import-untyped]

    given = markup.decode() if isinstance(markup, bytes) else str(markup)
    cleaned: str = bleach.clean(
        given,
        tags=TAGS,
        attributes=_allowed,
        protocols=("http", "https", "mailto", "data"),
        css_sanitizer=CSSSanitizer(allowed_css_properties=PROPERTIES, allowed_svg_properties=()),
    )
    return cleaned


def fragment(path: Path, prefix: str) -> tuple[Markup, int]:
    """Return the cells of an executed notebook as HTML, and their number. Cell ids begin with `prefix`.

    Raises ValueError if the file is not a notebook.
    """
    notebook = notebook_file.read(path)
    from nbconvert import HTMLExporter

    notebook.metadata.pop("widgets", None)  # with them nbconvert would load a script from the network
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{prefix}-{number}"
        for output in cell.get("outputs", []):
            _plain(output)
    exporter = HTMLExporter(
        template_name="basic",
        embed_images=True,
        require_js_url="",
        mathjax_url="",
        sanitize_html=True,
        exclude_anchor_links=True,
    )
    exporter.register_filter("clean_html", clean)
    body, _ = exporter.from_notebook_node(notebook)
    return Markup(body), len(notebook.cells)  # cleaned by `clean`


def _plain(output: Any) -> None:
    """Keep only those formats of an output that a page without scripts can show."""
    data = output.get("data")
    if data is not None:
        for kind in set(data) - {"text/html", "text/markdown", "text/plain", "image/png", "image/jpeg"}:
            del data[kind]
    if output.get("metadata"):
        output["metadata"] = {}  # `isolated` would need a frame
