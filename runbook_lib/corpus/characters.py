"""Checks of a text's characters: anything visible, halves of characters, control characters, very long words."""

from __future__ import annotations

import re

LONG_WORD = 10_000  # characters
SURROGATES = re.compile(r"[\ud800-\udfff]")

# Blank, control, format and filler characters: a text of only these is invisible.
_VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\S+")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_NO_CONTROL = bytes(byte for byte in range(256) if (byte >= 32 and byte != 127) or byte in b"\t\n\r")


def is_visible(text: str) -> bool:
    """True when a person can see any of the text."""
    return _VISIBLE.search(text) is not None


def has_control(data: bytes) -> bool:
    """True where UTF-8 text holds a control character other than tab and line ends."""
    return bool(data.translate(None, _NO_CONTROL)) or (not data.isascii() and _C1.search(data) is not None)


def has_long_word(text: str) -> bool:
    """True for a word of over LONG_WORD characters; it fills a block of half that length, so blocks come first."""
    half = LONG_WORD // 2
    starts = range(0, len(text) - half + 1, half)
    if all(_SPACE.search(text, start, start + half) for start in starts):
        return False
    return any(word.end() - word.start() > LONG_WORD for word in _WORD.finditer(text))
