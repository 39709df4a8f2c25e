"""The text as encoded: a prompt's template, filled."""

from __future__ import annotations

import re

from ..errors import ProfileError
from .characters import SURROGATES
from .formats.source import shown

_HOLES = re.compile(r"(\{title\}|\{text\})")


def as_encoded(template: str, text: str, title: str = "") -> str:
    """Return the text that the model gets: `template` with `{text}` and `{title}` replaced, an empty title by `none`.

    Replaced literally and once: braces in a text or a title stay as they are.
    """
    filled = {"{text}": text, "{title}": title or "none"}
    return "".join(filled.get(piece, piece) for piece in _HOLES.split(template))


def check_template(name: str, template: str) -> None:
    """Refuse a prompt without a place for the text, or one that cannot be written as UTF-8."""
    if "{text}" not in template:
        raise ProfileError(f'{name}: the prompt "{shown(template)}" has no place for the text; put {{text}} into it')
    if SURROGATES.search(template):
        raise ProfileError(f"{name}: the prompt holds half a surrogate pair; write it as UTF-8")
