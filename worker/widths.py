"""Features of a batch padded to another width than the tokenizer gave them: where shapes are to be few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PADDED = ("input_ids", "attention_mask", "token_type_ids")


def widened(features: Mapping[str, Any], width: int, pad_token: int, left: bool) -> dict[str, Any]:
    """`features` with their tensors (rows, tokens) padded to `width` tokens; as they are where that is not safe.

    A mask must say what is padding, and no other tensor may hold a value a token.
    """
    ids = features.get("input_ids")
    shape: tuple[int, ...] = tuple(getattr(ids, "shape", ()))
    if len(shape) != 2 or shape[1] >= width or "attention_mask" not in features:
        return dict(features)
    tensors = {key: value for key, value in features.items() if tuple(getattr(value, "shape", ()))[:2] == shape}
    if not set(tensors) <= set(PADDED):
        return dict(features)
    fill = {"input_ids": pad_token}
    return {**features, **{key: _wide(value, width, fill.get(key, 0), left) for key, value in tensors.items()}}


def _wide(tensor: Any, width: int, fill: int, left: bool) -> Any:
    rows, tokens = tensor.shape
    wide = tensor.new_full((rows, width), fill)
    wide[:, width - tokens if left else 0 : width if left else tokens] = tensor
    return wide
