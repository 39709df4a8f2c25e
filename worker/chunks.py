"""A text of more tokens than a model reads, cut up into chunks that are each encoded with the text's own prompt.

Standard library only. The chunks one after the other are the whole text: no character is lost, none is read twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Callable

# Of its room a chunk is meant to fill so much: words are not all of the same number of tokens, and one token too many
# makes two chunks of one.
FILLED = 0.9
NEAR = 4  # a chunk ends after a blank where there is one in the last quarter of it, else anywhere

Count = Callable[[list[str]], Sequence[int]]


def around(template: str, text: str) -> tuple[str, str]:
    """What a document's prompt put before and after it: `template` holds {text}, and perhaps {title} before it."""
    before, _, after = template.partition("{text}")
    title = re.escape("{title}")
    found = re.match(re.escape(before).replace(title, "(?s:.*?)"), text)
    start = found.group() if found else ""
    ends = bool(after) and "{title}" not in after and text.endswith(after) and len(text) >= len(start) + len(after)
    return start, after if ends else ""


def cut_up(text: str, tokens: int, limit: int, template: str, count: Count) -> tuple[list[str], list[int]]:
    """The chunks of a text of so many tokens as they are encoded, and the tokens of each, special ones included.

    Each has at most `limit`, as long as one character has not more. A prompt that takes more than half of the room
    stands in the first chunk only.
    """
    before, after = around(template, text)
    own = count([before + after])[0]
    if 2 * own > limit:
        before, after, own = "", "", count([""])[0]
    pieces, lengths = [text[len(before) : len(text) - len(after)]], [tokens]
    while any(n > limit and len(piece) > 1 for piece, n in zip(pieces, lengths)):
        divided: list[str] = []
        for piece, n in zip(pieces, lengths):
            parts = math.ceil((n - own) / (FILLED * max(1, limit - own)))
            divided += _divided(piece, max(2, parts)) if n > limit else [piece]
        pieces = divided
        lengths = list(count([before + piece + after for piece in pieces]))
    return [before + piece + after for piece in pieces], lengths


def _divided(text: str, parts: int) -> list[str]:
    """A text in pieces of about one length, none of them empty."""
    reach = len(text) // parts // NEAR
    ends = [_after_blank(text, len(text) * k // parts, reach) for k in range(1, parts)]
    places = [0, *sorted({end for end in ends if 0 < end < len(text)}), len(text)]
    return [text[low:high] for low, high in zip(places, places[1:])]


def _after_blank(text: str, at: int, reach: int) -> int:
    """The place behind the last blank before `at`, not more than `reach` away; `at` where there is none."""
    return next((i for i in range(at, max(0, at - reach), -1) if text[i - 1].isspace()), at)


def counts(lengths: Any) -> list[int] | None:
    """In how many chunks each text is read, of what an encoder's `lengths` gave; None where texts are cut."""
    found: list[int] | None = getattr(lengths, "chunks_of_each", None)
    return found
