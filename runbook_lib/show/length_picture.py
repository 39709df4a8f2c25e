"""A picture of how long the documents are, in tokens, against what the model reads of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.bins import BINS, edge

from ..phases.promise import Promise
from .drawing import WIDTH, Picture, calm, figure_of, label, nothing, picture_of
from .markup import AMBER, BLUE, RED
from .words import many

if TYPE_CHECKING:
    from .drawing import Axes


def token_lengths(made: Promise) -> Picture:
    """Draw how many documents have how many tokens; those longer than the model's limit in another colour."""
    figure = figure_of(WIDTH, 1.9)
    axes = figure.subplots()
    found, limit = made.lengths, made.limit or made.chunk_tokens
    if found is None:
        calm(axes, "Tokens of a document")
        nothing(axes, "no host counted tokens")
        return picture_of(figure, "Tokens of a document: no host counted them.")
    _draw(axes, found.bins, limit)
    of = "all documents" if found.exact else f"{found.texts:,} documents drawn at random"
    calm(axes, f"Tokens of a document, of {of}")
    label(axes, "tokens, each bar wider than the one before it", "documents")
    read = f"the model reads {limit:,}" if limit else "the model reads all"
    share = f"{100 * found.share_cut:.2f} % of them are cut, {100 * found.tokens_cut:.2f} % of all tokens are not read"
    if made.chunk_tokens:
        read = f"chunks of at most {made.chunk_tokens:,}"
        share = f"{100 * found.in_chunks / found.texts:.2f} % of them are read in several"
    size = f"{found.tokens / found.texts:,.0f} in the mean, {found.longest:,} at most"
    return picture_of(figure, f"Tokens of {of}: {size}; {read}: {share if limit else 'none is cut'}.")


def _draw(axes: Axes, bins: tuple[int, ...], limit: int | None) -> None:
    used = [number for number in range(BINS) if bins[number]]
    first, last = min(used), max(used)
    shown = range(first, last + 1)
    for number in shown:
        long = limit is not None and edge(number) > limit
        axes.bar(number + 0.5, bins[number], width=0.92, color=AMBER if long else BLUE, linewidth=0)
    step = max(1, len(shown) // 14)
    axes.set_xticks([*shown][::step], [f"{edge(number):,}" for number in shown][::step])
    if limit is not None and edge(first) < limit < edge(min(last + 1, BINS - 1)):
        at = _place(limit)
        axes.axvline(at, color=RED, linewidth=1.2)
        top = max(bins)
        axes.text(at + 0.08, top, f"the model reads {many(limit, 'token')}", color=RED, fontsize=8, va="top")


def _place(tokens: int) -> float:
    """Where a number of tokens stands on the axis of bins."""
    number = max(n for n in range(BINS) if edge(n) <= tokens)
    width = edge(number + 1) - edge(number)
    return number + min(1.0, (tokens - edge(number)) / width)
