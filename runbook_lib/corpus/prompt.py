"""The text as encoded: a prompt's template, filled."""

from __future__ import annotations

import re

from ..errors import ProfileError
from .characters import SURROGATES
from .formats.source import shown

_HOLES = re.compile(r"(\{title\}|\{text\})")


def as_encoded(template: str, text: str, title: str = "") -> str:
    """The text that a model is given: `template` with `{text}` and `{title}` replaced, an empty title by `none`.

    Literally and once: braces in a text or a title stay what they are.
    """
    filled = {"{text}": text, "{title}": title or "none"}
    return "".join(filled.get(piece, piece) for piece in _HOLES.split(template))


def check_template(name: str, template: str) -> None:
    """Refuse a prompt that has no place for the text, or cannot be written down."""
    if "{text}" not in template:
        raise ProfileError(f'{name}: the prompt "{shown(template)}" has no place for the text; put {{text}} into it')
    if SURROGATES.search(template):
        raise ProfileError(f"{name}: the prompt holds half a surrogate pair; write it as UTF-8")
