"""Text from elsewhere (a host, a corpus, an error) made safe to print. Pure."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def safe_text(text: str, limit: int = 2000) -> str:
    """`text` for a terminal, a log or a page: control, bidirectional and unpaired characters shown as escapes.

    Newline and tab stay; zero-width joiners stay, because emoji and several scripts need them.
    """
    out = []
    for char in text[:limit]:
        if char in "\n\t\u200c\u200d" or unicodedata.category(char) not in _HIDDEN:
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) > 0xFF else f"\\x{ord(char):02x}")
    return "".join(out) + ("…" if len(text) > limit else "")
