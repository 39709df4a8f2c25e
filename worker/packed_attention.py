"""Attention within each text of one flat row of tokens, as transformers asks for attention.

Torch's own function computes it, a text or neighbours of one length at a time. What it does not know it refuses: a
padded batch, for which no mask is made, would be computed without one and nothing would show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

STEP = 128  # queries of a window at a time: more would compute what the window hides
TOGETHER = 64  # tokens of neighbours of one length that are attended to in one call
FLAT = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
# What attention may be told beside its own arguments without another result.
HARMLESS = {*FLAT, "position_ids", "use_cache", "return_dict", "deterministic"}
HARMLESS |= {"output_attentions", "output_hidden_states"}


class NotPacked(ValueError):
    """What our attention does not compute: nothing is given rather than something wrong."""


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of one flat row, as transformers asks for it.

    `query` (1, heads, tokens, width), `key` and `value` with as many heads or fewer; `cu_seq_lens_q`: where the texts
    begin, and the end. A window hides what is so many tokens away or more. `position_bias` (1, heads, n, n) is
    relative, so that of the first tokens is that of every text. Gives (1, tokens, heads, width). Raises NotPacked.
    """
    unknown = sorted(name for name, given in others.items() if name not in HARMLESS and given is not None)
    if attention_mask is not None or dropout or unknown:
        raise NotPacked(f"attention with {', '.join(unknown) or 'a mask or dropout'}")
    if cu_seq_lens_q is None or query.shape[0] != 1:
        raise NotPacked(f"attention over a padded batch of {query.shape[0]}")
    bounds = cu_seq_lens_q.tolist()
    if bounds[0] or not bounds[-1] == query.shape[2] == key.shape[2] == value.shape[2]:
        raise NotPacked(f"attention over {query.shape[2]} tokens and {key.shape[2]} keys, of texts with {bounds[-1]}")
    CALLS.note(sliding_window)
    causal = _is_causal(module, is_causal)
    result = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for start, length, count in _groups(bounds, position_bias is not None):
        some = [_texts(each[0], start, length, count) for each in (query, key, value)]
        within = _within(some[0], some[1], some[2], scaling, causal, sliding_window, position_bias)
        result[0, start : start + length * count] = within.transpose(1, 2).flatten(0, 1)
    return result, None


def _texts(row: torch.Tensor, start: int, length: int, count: int) -> torch.Tensor:
    """`count` texts of a row (heads, tokens, width) as (count, heads, length, width), without a copy."""
    texts = row[:, start : start + length * count].view(row.shape[0], count, length, row.shape[2])
    return texts.transpose(0, 1)


def _is_causal(module: Any, is_causal: bool | None) -> bool:
    """Whether a token sees only those before it; a model turned into an encoder says so in its configuration only."""
    if getattr(getattr(module, "config", None), "is_causal", None) is False:
        return False
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _groups(bounds: Sequence[int], alone: bool) -> Iterator[tuple[int, int, int]]:
    """(start, length, count): texts one by one, or neighbours of one length together where they are short."""
    start = count = length = 0
    for low, high in zip(bounds, bounds[1:]):
        if count and not alone and high - low == length and (count + 1) * length <= TOGETHER:
            count += 1
            continue
        if count:
            yield start, length, count
        start, length, count = low, high - low, 1
    if count:
        yield start, length, count


def _within(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    causal: bool,
    window: int | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of texts of one length, (texts, heads, length, width) each, by torch's own function."""
    length = query.shape[2]
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    cuts = window is not None and length > window
    if bias is None and not cuts:
        return scaled_dot_product_attention(query, key, value, is_causal=causal, **options)
    if bias is not None:
        if cuts:
            raise NotPacked("attention with a bias and a window")
        bias = bias[:, :, :length, :length]
        if causal:
            bias = bias.masked_fill(~_band(0, length, length, length, True), float("-inf"))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, **options)
    assert window is not None
    pieces = []
    for first in range(0, length, STEP):
        last = min(first + STEP, length)
        low, high = max(0, first - window + 1), last if causal else min(length, last + window - 1)
        band = _band(first - low, last - first, high - low, window, causal)
        some = key[:, :, low:high], value[:, :, low:high]
        pieces.append(scaled_dot_product_attention(query[:, :, first:last], *some, attn_mask=band, **options))
    return torch.cat(pieces, 2)


@functools.lru_cache(maxsize=64)
def _band(offset: int, rows: int, columns: int, window: int, causal: bool) -> torch.Tensor:
    """Which keys each query sees, bool (rows, columns); the first query stands at the key `offset`."""
    distance = torch.arange(offset, offset + rows)[:, None] - torch.arange(columns)
    return (distance < window) & (distance >= 0 if causal else distance > -window)


@dataclass
class _Calls:
    """How often our attention was called, and the longest window that it was given: what a model really does."""

    count: int = 0
    window: int = 0

    def note(self, window: int | None) -> None:
        self.count, self.window = self.count + 1, max(self.window, window or 0)


CALLS = _Calls()
