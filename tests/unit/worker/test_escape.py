"""What is shown of texts that others wrote."""

from __future__ import annotations

import unicodedata

import pytest

from worker.escape import safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\x00", "a\\x0d\nb\\x00"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("\ud800 half", "\\ud800 half"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("👩\u200d🚀 नमस्ते", "👩\u200d🚀 नमस्ते"),
        ("\U000e0041", "\\ue0041"),
    ],
)
def test_what_could_mislead_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_safe_text_of_any_character_can_be_printed() -> None:
    every = "".join(map(chr, range(0x3000))) + "\ud800\udfff\ufeff\ufff9"
    safe = safe_text(every, limit=len(every))
    safe.encode()
    assert not {c for c in safe if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}


def test_long_text_is_cut_and_says_so() -> None:
    assert safe_text("a" * 3000) == "a" * 2000 + "…"
