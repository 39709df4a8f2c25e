"""Output in any encoding: characters that it lacks are spelt, and nothing stops for them."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import Any, TextIO

NAME = "runbook.spelt"
PYTHONS_OWN = ("strict", "backslashreplace")  # of standard output, and of standard error
SPELT = {
    "✓": "ok", "✗": "FAILED", "✕": "x", "✔": "ok", "…": "...", "→": "->", "⇢": "->", "←": "<-", "·": "-", "•": "*",
    "–": "-",
    "—": "-", "×": "x", "○": "o", "◌": "o", "▶": ">", "▸": ">", "■": "#", "▼": "v", "‖": "||", "↻": "@", "≥": ">=",
    "≤": "<=", "’": "'", "‘": "'", "“": '"', "”": '"', "━": "-", "─": "-", "│": "|", "█": "#", "╸": "-", "╺": "-",
    "µ": "u", "°": " deg",
}  # fmt: skip


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell what cannot be encoded: our signs by the table, letters without their marks, others by their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_one, error.object[error.start : error.end])), error.end


def _one(letter: str) -> str:
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
    return SPELT.get(letter) or plain or f"\\u{ord(letter):04x}"


def spell_for(*streams: TextIO | Any) -> None:
    """Let these streams spell what their encoding lacks; one that is none of Python's own stays as it is."""
    codecs.register_error(NAME, _spell)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and getattr(stream, "errors", "") in PYTHONS_OWN:
            reconfigure(errors=NAME)


def spell() -> None:
    """Do so for this process's own output."""
    spell_for(sys.stdout, sys.stderr)
