"""Batches without padding on a CPU: many texts in one row of tokens, through the library's own modules.

Every linear layer and norm works token by token, so a row of many texts costs what its tokens cost and nothing for
padding; only attention must know where a text ends, and that is ours. Not every model can be asked so (one that mixes
neighbouring tokens elsewhere would mix texts), and what a library says of itself is wrong both ways: so a model is
packed only where its parts are known (`why_not`), where its layers really called our attention, and where built-in
texts in one row have the vectors that they have one a call (`self_check`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from .texts import DOCUMENT, KINDS, QUERY, Question

if TYPE_CHECKING:
    from .text_model import TextModel

NAME = "packed_by_runbook"  # of our attention, among those of transformers
STEP = 128  # queries of a window at a time: more would compute what the window hides
TOGETHER = 64  # tokens of neighbours of one length that are attended to in one call

# A longer window would need a text for its check that takes longer than padding costs.
LONGEST_WINDOW = 1000
# 1 - cosine to the same text alone: faults give 8e-4 and more, rounding 5e-11 and less.
ALIKE = 1e-7
SAME_NORM = 1e-3

MODULES = "sentence_transformers.sentence_transformer.modules"
READER = "sentence_transformers.base.modules.transformer.Transformer"
LATER = {
    "sentence_transformers.base.modules.dense.Dense",
    "sentence_transformers.base.modules.normalize.Normalize",
    f"{MODULES}.pooling.Pooling",
    f"{MODULES}.layer_norm.LayerNorm",
    f"{MODULES}.dropout.Dropout",
}
FLAT = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
# What attention may be told beside its own arguments without another result.
HARMLESS = {*FLAT, "position_ids", "use_cache", "return_dict", "deterministic"}
HARMLESS |= {"output_attentions", "output_hidden_states"}

WORDS = ["bridge", "river", "lamp", "1984", "the", "of", "stone,", "über", "東京", "don't", "quickly", "iron", "(see)"]
WORDS += ["window", "a", "garden", "winter", "letter"]
SIZES = (1, 2, 2, 60, 5, 9, 9, 9, 17, 30)  # words of the texts of the check; the one more is longer than a window


class NotPacked(ValueError):
    """What our attention does not compute: nothing is given rather than something wrong."""


# ---------------------------------------------------------------------------------------------------------- attention


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


# ------------------------------------------------------------------------------------------------------ one flat row


def one_row(padding: int | None) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
    """What makes one row of tokenized texts, each {"input_ids": [...]}, with where each begins and its positions.

    `padding`: the padding token's number where positions count from the one behind it, and a padding token that is
    written in a text has none of its own; None where they count from 0.
    """

    def collate(texts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        lengths = [len(text["input_ids"]) for text in texts]
        if not all(lengths):
            raise NotPacked("a text of no tokens")
        tokens = torch.tensor([token for text in texts for token in text["input_ids"]])
        sizes = torch.tensor(lengths)
        bounds = torch.zeros(len(texts) + 1, dtype=torch.int32)
        bounds[1:] = sizes.cumsum(0)
        counted = torch.ones_like(tokens) if padding is None else (tokens != padding).long()
        sums = counted.cumsum(0)
        before = (sums - counted)[bounds[:-1].long()].repeat_interleave(sizes)
        positions = sums - before - 1 if padding is None else (sums - before) * counted + padding
        longest = max(lengths)
        return {
            "input_ids": tokens[None],
            "position_ids": positions[None],
            "seq_idx": torch.arange(len(texts), dtype=torch.int32).repeat_interleave(sizes)[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }

    return collate


# ------------------------------------------------------------------------------------------------------ on, and off


def why_not(model: Any) -> str:
    """Why a model's parts cannot be packed; empty where they may be, and `self_check` has the last word."""
    reader, *later = model
    pools = [module for module in later if _name(module).endswith(".Pooling")]
    old = not hasattr(reader, "_infer_flatten_position_offset")
    if (kind := _name(reader)) != READER:
        return f"its texts are read by {kind.rpartition('.')[2]}"
    if others := [_name(module).rpartition(".")[2] for module in later if _name(module) not in LATER]:
        return f"it has a module {others[0]}"
    if old or not all(hasattr(pool, "_forward_flattened") for pool in pools):
        return "its version of sentence-transformers is too old"
    if not pools:
        return "it has no pooling"
    if (reader.backend, reader.transformer_task) != ("torch", "feature-extraction"):
        return f"it is of the backend {reader.backend} for {reader.transformer_task}"
    if methods := {ways["method"] for ways in reader.modality_config.values()} - {"forward"}:
        return f"it is asked through {min(methods)}"
    if getattr(reader, "query_expansion", None) is not None:
        return "it expands questions"
    return ""


def _name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


class Packing:
    """A model whose batches are one row each while it is on, and as it was before while it is off."""

    def __init__(self, model: Any):
        self.reader = model[0]
        self.model = self.reader.model
        offset = self.reader._infer_flatten_position_offset()
        self._collate = one_row(offset - 1 if offset else None)
        self._before: dict[str, Any] = {}
        self._attentions: list[tuple[Any, str]] = []
        self._row = _Row()

    def on(self) -> None:
        """Have batches packed. Raises what transformers raises of a model that cannot be given an attention."""
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, attention)
        reader = self.reader
        names = ("data_collator", "model_forward_params", "_flatten_position_offset", "can_flatten_inputs")
        self._before = {name: getattr(reader, name, None) for name in names}
        self._attentions = [(each, each._attn_implementation) for each in _configs(self.model)]
        if type(self.model).__name__ == "MPNetModel":
            _patch_mpnet(self.model, self._row)
            self.model.config._attn_implementation_internal = NAME
        else:
            self.model.set_attn_implementation(NAME)
        if reader.model_forward_params is not None:
            reader.model_forward_params = {*reader.model_forward_params, *FLAT, "position_ids"}
        reader.data_collator, reader._flatten_position_offset = self._collate, 0
        reader.can_flatten_inputs = True

    def off(self) -> None:
        """Have batches padded again."""
        for name, value in self._before.items():
            setattr(self.reader, name, value)
        for config, own in self._attentions:
            config._attn_implementation_internal = own
        for module in self.model.modules():
            for name in ("forward", "compute_position_bias"):
                if getattr(vars(module).get(name), "func", None) in PATCHES:
                    delattr(module, name)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Off meanwhile."""
        self.off()
        try:
            yield
        finally:
            self.on()


def _configs(model: Any) -> list[Any]:
    """Every configuration in which a model or one in it looks up its attention, once."""
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    configs = [each for each in configs if hasattr(each, "_attn_implementation_internal")]
    return list({id(each): each for each in configs}.values())


# ------------------------------------------------------------------------------------------------------------- MPNet


class _Row:
    """Where the texts of the present row begin: MPNet hands nothing down to its layers."""

    bounds: torch.Tensor | None = None


def _patch_mpnet(model: Any, row: _Row) -> None:
    """Give an MPNetModel, whose attention transformers does not let one choose, ours."""
    model.forward = functools.partial(_mpnet_forward, model, row)
    model.encoder.compute_position_bias = functools.partial(_mpnet_bias, model.encoder, row)
    for layer in model.encoder.layer:
        layer.attention.attn.forward = functools.partial(_mpnet_attention, layer.attention.attn, row)


def _mpnet_forward(model: Any, row: _Row, *given: Any, cu_seq_lens_q: Any = None, **named: Any) -> Any:
    row.bounds = cu_seq_lens_q
    return type(model).forward(model, *given, **named)


def _mpnet_bias(encoder: Any, row: _Row, hidden: torch.Tensor) -> torch.Tensor:
    """The bias of the longest text, float32 (1, heads, tokens, tokens): it is relative, so it is that of every text."""
    longest = hidden.shape[1] if row.bounds is None else int(row.bounds.diff().max())
    bias: torch.Tensor = type(encoder).compute_position_bias(encoder, hidden[:, :longest])
    return bias


def _mpnet_attention(
    module: Any,
    row: _Row,
    hidden: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor]:
    shape = (*hidden.shape[:-1], -1, module.attention_head_size)
    query, key, value = (each(hidden).view(shape).transpose(1, 2) for each in (module.q, module.k, module.v))
    given = {"is_causal": False, "position_bias": position_bias, "cu_seq_lens_q": row.bounds, **others}
    result, _ = attention(module, query, key, value, attention_mask, **given)
    return (module.o(result.flatten(2)),)


PATCHES = (_mpnet_forward, _mpnet_bias, _mpnet_attention)


# ------------------------------------------------------------------------------------------------------------- check


def self_check(packing: Packing, texts: TextModel, budget: int) -> str:
    """Why a model may not be packed, by what it does with built-in texts; empty where it may, and then it is on.

    A row longer than the model has positions, or than `budget` tokens, is held against the same texts one a call.
    """
    try:
        return _looked_at(packing, texts, budget)
    except Exception as error:  # whatever it is, a batch would have met it
        packing.off()
        return f"packed it raises {type(error).__name__}: {error}"[:300]


def _looked_at(packing: Packing, texts: TextModel, budget: int) -> str:
    window = _window_of(packing, texts)
    if window is None:
        return "its layers have an attention of their own"
    limits = [texts.limits[kind] for kind in KINDS]
    if window > LONGEST_WINDOW and any(limit is None or limit > window for limit in limits):
        return f"its windows of {window:,} tokens are too long to be tried"
    rows = [_texts_of(packing, texts, DOCUMENT, 2 * window)]
    if len(set(texts.prompts.values())) > 1 or len(set(limits)) > 1:
        rows.append(_texts_of(packing, texts, QUERY, 0)[:5])
    alone = [np.concatenate([_vectors(texts, [text]) for text in row]) for row in rows]
    positions = getattr(packing.model.config, "max_position_embeddings", None) or budget
    rows[0], alone[0] = _longer(texts, rows[0], alone[0], min(positions, budget) if positions > 0 else budget)
    packing.on()
    for row, expected in zip(rows, alone):
        away = _away(_vectors(texts, row), expected)
        if not away < ALIKE:
            packing.off()
            return f"packed its vectors are others: 1 - cosine {away:.1g}, expected less than {ALIKE:g}"
    return ""


def _window_of(packing: Packing, texts: TextModel) -> int | None:
    """The longest window of the layers that call our attention, 0 for none; None where nothing calls it."""
    packing.on()
    CALLS.count = CALLS.window = 0
    _vectors(texts, [f"{texts.prompts[DOCUMENT] or ''}{WORDS[0]}"])
    packing.off()
    return CALLS.window if CALLS.count else None


def _texts_of(packing: Packing, texts: TextModel, kind: str, longest: int) -> list[str]:
    """The texts of the check, one of at least `longest` tokens, one with the tokenizer's own words written out."""
    special = getattr(getattr(packing.reader, "tokenizer", None), "all_special_tokens", [])
    plain = [" ".join(WORDS[(5 * i + 3 * j) % len(WORDS)] for j in range(size)) for i, size in enumerate(SIZES)]
    plain[4] = " ".join(f"{WORDS[i % len(WORDS)]} {token}" for i, token in enumerate(special)) or plain[4]
    plain.append(" ".join(WORDS[7 * j % len(WORDS)] for j in range(max(longest, SIZES[-1]))))
    kind_of_text = Question if kind == QUERY else str
    return [kind_of_text(f"{texts.prompts[kind] or ''}{text}") for text in plain]


def _longer(texts: TextModel, row: list[str], alone: Any, tokens: int) -> tuple[list[str], Any]:
    """The same texts, and short ones of them again until they have more than so many tokens, and their vectors."""
    limit = texts.limits[DOCUMENT]
    lengths = [min(n, limit or n) for n in texts.tokens(row)]
    chosen = list(range(len(row)))
    while sum(lengths[i] for i in chosen) <= tokens:
        chosen += range(len(SIZES))
    return [row[i] for i in chosen], alone[chosen]


def _vectors(texts: TextModel, some: Sequence[str]) -> Any:
    with torch.inference_mode():
        return texts.vectors(texts.model, some).double().numpy()


def _away(vectors: Any, expected: Any) -> float:
    """The largest 1 - cosine of two rows; as if opposite where one has no direction or is not as long."""
    norms, wanted = np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1)
    with np.errstate(all="ignore"):
        away = 1 - (vectors * expected).sum(axis=1) / (norms * wanted)
        alike = np.isfinite(away) & (np.abs(norms / wanted - 1) <= SAME_NORM)
    return float(np.where(alike, away, 2.0).max())
