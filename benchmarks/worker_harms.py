"""Kinds of wrong workers, each a function from texts to vectors by the real encoder, done wrong; for faults.py.

`late`: right at first, wrong from the tenth part on. The names say what a machine or its libraries do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Vectors = np.ndarray
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Wrong:
    """A kind: its name, and what it makes of texts, given the right `encode` and the encoder itself."""

    name: str
    do: Callable[[Encode, Any, Sequence[str]], Vectors]


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def of_texts(change: Callable[[str], str]) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """The right vectors of changed texts."""
    return lambda encode, encoder, texts: encode([change(text) for text in texts])


def of_vectors(change: Callable[[Vectors], Vectors]) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """Changed vectors of the right texts."""
    return lambda encode, encoder, texts: change(encode(texts).copy())


def cut_at(tokens: int) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """Texts cut elsewhere than the plan says."""

    def do(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
        before, encoder.model.max_seq_length = encoder.model.max_seq_length, tokens
        try:
            return np.asarray(encoder.as_the_library(texts), np.float32)
        finally:
            encoder.model.max_seq_length = before

    return do


def weights(layer: int, change: Callable[[Any], None]) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """Other weights in one layer."""

    def do(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
        weight = encoder.model[0].auto_model.encoder.layer[layer].output.dense.weight
        before = weight.data.clone()
        try:
            change(weight.data)
            return encode(texts)
        finally:
            weight.data.copy_(before)

    return do


def pooling(mode: str) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """Another way from tokens to one vector: the first token's, or the largest of each dimension."""

    def do(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
        found = encoder.model.encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
        made = [t[0] if mode == "first" else t.max(dim=0).values for t in found]
        return unit(np.stack([vector.float().numpy() for vector in made]))

    return do


def _bit(weight: Any) -> None:
    import torch

    if weight.dtype == torch.float32:
        weight.view(torch.int32)[7, 11] ^= 1 << 23
    else:
        weight.view(torch.int16)[7, 11] ^= 1 << 7


def _nudged(weight: Any) -> None:
    import torch

    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    weight.add_((noise * weight.float().std() * 0.02).to(weight.dtype))


def skipped(layer: int) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """One layer left out."""

    def do(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
        stack = encoder.model[0].auto_model.encoder
        before = stack.layer
        try:
            stack.layer = type(before)([each for place, each in enumerate(before) if place != layer])
            return encode(texts)
        finally:
            stack.layer = before

    return do


def the_end(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
    """Of a text that is too long the end is read, not the beginning."""
    tokenizer = encoder.model.tokenizer
    before, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    try:
        return np.asarray(encoder.as_the_library(texts), np.float32)
    finally:
        tokenizer.truncation_side = before


def long_only(characters: int) -> Callable[[Encode, Any, Sequence[str]], Vectors]:
    """Noise in the vectors of long texts only."""

    def do(encode: Encode, encoder: Any, texts: Sequence[str]) -> Vectors:
        vectors, rng = encode(texts).copy(), np.random.default_rng(4)
        long = [row for row, text in enumerate(texts) if len(text) > characters]
        vectors[long] += 0.003 * rng.normal(size=(len(long), vectors.shape[1]))
        return unit(vectors)

    return do


def _one_layer(weight: Any) -> None:
    weight.neg_()


def _in_batches(vectors: Vectors) -> Vectors:
    for start in range(0, len(vectors), 8):
        vectors[start : start + 8] = np.roll(vectors[start : start + 8], 1, axis=0)
    return vectors


def _cached(vectors: Vectors) -> Vectors:
    vectors[25::50] = vectors[24::50][: len(vectors[25::50])]
    return vectors


def _nan_to_zero(vectors: Vectors) -> Vectors:
    vectors[:, ::97] = 0
    return unit(vectors)


def _wrong_end(vectors: Vectors) -> Vectors:
    """As many numbers, from the other end of a longer vector: here the first third is taken from the last."""
    third = vectors.shape[1] // 3
    return unit(np.concatenate([vectors[:, -third:], vectors[:, :-third]], axis=1))


def _as(mask: int) -> Callable[[Vectors], Vectors]:
    return lambda v: unit((v.view(np.uint32) & np.uint32(mask)).view(np.float32))


def _noise(vectors: Vectors) -> Vectors:
    noise = np.random.default_rng(3).normal(size=vectors.shape)
    return np.asarray(noise / np.linalg.norm(noise, axis=1, keepdims=True))


def _tf32(vectors: Vectors) -> Vectors:
    return unit(vectors + 6e-4 * _noise(vectors))


WRONG = (
    Wrong("pooling by the first token", pooling("first")),
    Wrong("pooling by the maximum", pooling("max")),
    Wrong("one layer's weights with the other sign", weights(3, _one_layer)),
    Wrong("one bit of one weight's exponent", weights(3, _bit)),
    Wrong("one layer left out", skipped(2)),
    Wrong("other weights in one layer (a stale adapter)", weights(4, _nudged)),
    Wrong("a tokenizer that takes accents off letters (NFD)", of_texts(lambda t: unicodedata.normalize("NFD", t))),
    Wrong("texts without their last sentence", of_texts(lambda t: t.rstrip(". ").rpartition(". ")[0] or t)),
    Wrong("a text's end read, not its beginning", the_end),
    Wrong("noise of 6 % on texts of over 1,000 characters", long_only(1000)),
    Wrong("noise of 0.3 % in every vector", of_vectors(lambda v: unit(v + 0.003 * _noise(v)))),
    Wrong("a tokenizer that makes letters small", of_texts(str.lower)),
    Wrong("a tokenizer that drops what is not ASCII", of_texts(lambda t: t.encode("ascii", "ignore").decode() or "a")),
    Wrong("a prompt before each text", of_texts(lambda t: f"passage: {t}")),
    Wrong("the first word lost (a prompt dropped)", of_texts(lambda t: t.partition(" ")[2] or t)),
    Wrong("cut at 128 tokens instead of 256", cut_at(128)),
    Wrong("cut at 512 tokens instead of 256", cut_at(512)),
    Wrong("rows of a batch in another order", of_vectors(_in_batches)),
    Wrong("every 50th row from a cache, of another text", of_vectors(_cached)),
    Wrong("NaN turned into 0 in some dimensions", of_vectors(_nan_to_zero)),
    Wrong("dimensions taken from the wrong end", of_vectors(_wrong_end)),
    Wrong("normalisation left out", of_vectors(lambda v: (v * 5.3).astype(np.float32))),
    Wrong("computed in bfloat16, normalised after", of_vectors(_as(0xFFFF0000))),
    Wrong("computed in float16, normalised after", of_vectors(_as(0xFFFFE000))),
    Wrong("harmless: TF32 in its products", of_vectors(_tf32)),
)  # fmt: skip
