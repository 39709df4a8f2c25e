"""Batches without padding on a CPU: many texts in one row of tokens, through the library's own modules.

Every linear layer and norm works token by token, so a row of many texts costs what its tokens cost and nothing for
padding; only attention must know where a text ends, and that is ours (`packed_attention`). Not every model can be asked
so (one that mixes neighbouring tokens elsewhere would mix texts), and what a library says of itself is wrong both ways:
so a model is packed only where its parts are known (`why_not`), and where `packing_check` has seen it do right.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import torch

from .packed_attention import FLAT, NotPacked, attention

NAME = "packed_by_runbook"  # of our attention, among those of transformers
MODULES = "sentence_transformers.sentence_transformer.modules"
READER = "sentence_transformers.base.modules.transformer.Transformer"
LATER = {
    "sentence_transformers.base.modules.dense.Dense",
    "sentence_transformers.base.modules.normalize.Normalize",
    f"{MODULES}.pooling.Pooling",
    f"{MODULES}.layer_norm.LayerNorm",
    f"{MODULES}.dropout.Dropout",
}


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
        self.collate = one_row(offset - 1 if offset else None)
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
        reader.data_collator, reader._flatten_position_offset = self.collate, 0
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
