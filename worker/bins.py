"""Bins of token counts: few numbers tell how long the texts of a corpus are. Standard library only."""

from __future__ import annotations

BINS, GROWS = 48, 1.25  # each bin is wider than the one before it; the last one is from 36,000 tokens on


def edge(number: int) -> int:
    """The least length of a bin, in tokens."""
    return int(GROWS**number) + number - 1 if number else 0


def bin_of(tokens: int) -> int:
    """The bin of a length: the last one whose edge is not above it."""
    number = 0
    while number + 1 < BINS and tokens >= edge(number + 1):
        number += 1
    return number
