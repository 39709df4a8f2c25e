"""Texts tokenized once: how many tokens each has, and the tokens that are read of it, for the batches that follow.

The library tokenizes a text where it makes a batch, and its length has to be known before, to make batches at all. What
is kept here is given to the model only where it is, number by number, what the library itself makes of built-in texts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import torch

TOGETHER = 64  # texts that are tokenized in one go: another thread's turn comes after these
LONG = 40_000  # words of the longest text of the check: for a limit above this there is no check, so nothing is kept
WORDS = ["bridge", "river", "1984", "the", "of", "stone,", "über", "東京", "don't", "(see)", "[SEP]", "<pad>", "</s>"]

Features = dict[str, Any]


class Lengths(list[int]):
    """Tokens of each text before it is cut, and, where they are kept, those that are read of each."""

    def __init__(self, lengths: Sequence[int], read: Sequence[np.ndarray | None] = ()):
        super().__init__(lengths)
        self.read = list(read) or [None] * len(lengths)


class Once:
    """One reader of texts whose tokens are kept: its tokenizer, its limit, and what the library adds to a batch."""

    def __init__(self, tokenizer: Any, limit: int | None, collate: Callable[[Any], Features] | None):
        """`collate` makes the one row of a packed batch of [{"input_ids": [...]}]; None where batches are padded."""
        self._fast = tokenizer.backend_tokenizer
        self._limit, self._collate = limit, collate
        self._side, self._cut_from = tokenizer.padding_side, tokenizer.truncation_side
        self._padding = int(tokenizer.pad_token_id or 0)
        self._specials = int(self._fast.num_special_tokens_to_add(False))
        self._names: list[str] = []  # of the features of a padded batch
        self._more: Features = {}  # what is the same for each batch

    def tokens(self, texts: Sequence[str], lock: threading.Lock) -> Lengths:
        """The texts' tokens, special ones included. The lock is held for a few texts at a time."""
        lengths: list[int] = []
        read: list[np.ndarray | None] = []
        for start in range(0, len(texts), TOGETHER):
            with lock:
                self._set()
                some = self._fast.encode_batch_fast([str(text) for text in texts[start : start + TOGETHER]])
            for text in some:
                rest = text.overflowing
                lengths.append(len(text) + sum(len(piece) - self._specials for piece in rest))
                read.append(np.asarray(text.ids, np.int64))
        return Lengths(lengths, read)

    def _set(self) -> None:
        """Have it cut texts at the limit and pad none, as the library last had it do otherwise."""
        if self._fast.padding is not None:
            self._fast.no_padding()
        wanted = self._limit and {
            "max_length": self._limit,
            "stride": 0,
            "strategy": "longest_first",
            "direction": self._cut_from,
        }
        if self._fast.truncation != (wanted or None):
            if wanted:
                self._fast.enable_truncation(**wanted)
            else:
                self._fast.no_truncation()

    def features(self, read: Sequence[np.ndarray]) -> Features:
        """What the model is given for texts of these tokens."""
        if self._collate:
            return {**self._more, **self._collate([{"input_ids": tokens.tolist()} for tokens in read])}
        width = max(map(len, read))
        tokens = torch.full((len(read), width), self._padding)
        there = torch.zeros((len(read), width), dtype=torch.int64)
        for i, text in enumerate(read):
            place = slice(width - len(text), width) if self._side == "left" else slice(len(text))
            tokens[i, place] = torch.from_numpy(text)
            there[i, place] = 1
        features = {"input_ids": tokens, "attention_mask": there, "token_type_ids": torch.zeros_like(tokens)}
        return {**self._more, **{name: features[name] for name in self._names}}

    def is_as(
        self, library: Callable[[list[str]], Features], count: Callable[[list[str]], list[int]], like: str
    ) -> bool:
        """Whether features and lengths are the library's own, for built-in texts: `like`, of its kind, and more."""
        if (self._limit or 0) > LONG:
            return False
        texts = _texts(2 * (self._limit or 200), like)
        for batch in (texts, texts[1:4], texts[-1:]):
            expected = library(batch)
            self._names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in expected]
            if batch is texts:
                self._more = {name: value for name, value in expected.items() if not isinstance(value, torch.Tensor)}
            lengths = self.tokens(batch, threading.Lock())
            if list(lengths) != list(count(batch)) or not _same(self.features([*map(_known, lengths.read)]), expected):
                return False
        return True


def _texts(longest: int, like: str) -> list[str]:
    """Short texts and one of more than `longest` tokens, all of the kind of `like`, and beginning with it."""
    whole = " ".join(WORDS * (1 + longest // len(WORDS)))
    texts = ["a", "", " ".join(WORDS), "one of some words", " two\n\tlines ", whole]
    return [type(like)(like + text) for text in texts]


def _known(tokens: np.ndarray | None) -> np.ndarray:
    assert tokens is not None
    return tokens


def _same(ours: Features, theirs: Features) -> bool:
    """Whether two batches have the same features, of the same types, with the same values."""
    return ours.keys() == theirs.keys() and all(_alike(ours[name], theirs[name]) for name in ours)


def _alike(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return isinstance(ours, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    return bool(type(ours) is type(theirs) and ours == theirs)
