"""Texts tokenized once: the model is given what the library makes of them, or else the library makes it."""

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import odd_models as odd
import pytest
import torch

from worker.encoder import Encoder
from worker.texts import DOCUMENT, QUERY, Question
from worker.tokenizing import Lengths

TEXTS = [
    "",
    " ",
    "a",
    "one two three",
    "the river " * 300,  # more than is read
    "[SEP] [PAD] [CLS] <pad> </s>",
    "über 東京 \U0001f600 \u200b e\u0301",
    "don't stop (see page 4), please...",
    "x" * 900,
    "\n\n\tlines\r\nof text\x00",
]


@pytest.fixture(scope="module")
def encoder(mini_lm: Path) -> Encoder:
    return Encoder(mini_lm, "cpu", "float32", None, 1)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    tensors = {name for name, value in theirs.items() if isinstance(value, torch.Tensor)}
    return (
        ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in tensors)
        and all(ours[name] == theirs[name] for name in theirs.keys() - tensors)
    )


@pytest.mark.parametrize("packed", [False, True])
def test_lengths_and_features_are_the_librarys_own(mini_lm: Path, packed: bool) -> None:
    encoder = Encoder(mini_lm, "cpu", "float32", 64, 1)
    if packed:
        assert encoder.pack() == ""
    texts = encoder.texts
    assert set(texts._once) == {DOCUMENT, QUERY}
    lengths = encoder.lengths(TEXTS)
    assert isinstance(lengths, Lengths)
    assert list(lengths) == texts._count(TEXTS)
    for some in ([0], [3, 1], [4, 8, 2], range(len(TEXTS))):
        read = [lengths.read[i] for i in some]
        ours = texts.features(encoder.model, [TEXTS[i] for i in some], read)
        assert same(ours, texts._by_library(encoder.model, [TEXTS[i] for i in some]))


def test_vectors_are_the_same_bytes_whether_tokenized_once_or_twice(encoder: Encoder) -> None:
    lengths = encoder.lengths(TEXTS)
    once, twice = (encoder.encode(TEXTS, given, range(len(TEXTS))) for given in (lengths, [*lengths]))
    assert once.tobytes() == twice.tobytes()


def test_ahead_or_one_by_one_the_bytes_are_the_same(encoder: Encoder) -> None:
    """Also where memory runs out in the middle, and with questions among the documents."""
    texts = [*TEXTS * 5, *map(Question, TEXTS)]
    lengths = encoder.lengths(texts)
    calm = encoder.encode(texts, lengths, range(len(texts)))
    told: list[list[int]] = []
    encoder.ahead = True
    try:
        assert encoder.encode(texts, lengths, range(len(texts)), told.append).tobytes() == calm.tobytes()
    finally:
        encoder.ahead = False
    assert max(map(len, told)) > max(map(len, encoder.layout(lengths, texts)))
    assert set(itertools.chain(*told)) == set(range(len(texts)))


def test_memory_that_runs_out_ahead_halves_that_batch_only(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {i} " + "word " * i for i in range(60)]
    lengths = encoder.lengths(texts)
    expected = encoder.encode(texts, lengths, range(len(texts)))
    own, calls = encoder._start, itertools.count()

    def start(*given: Any) -> Any:
        if next(calls) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return own(*given)

    monkeypatch.setattr(encoder, "_start", start)
    monkeypatch.setattr(encoder, "ahead", True)
    found = encoder.encode(texts, lengths, range(len(texts)))
    assert encoder.out_of_memory == 1
    assert np.abs(found - expected).max() < 2e-6
    encoder.out_of_memory, encoder._row_cap = 0, None


def test_two_threads_tokenize_at_once_and_each_gets_its_own(encoder: Encoder) -> None:
    """The library tells a tokenizer how to cut and pad, and it holds that: one thread's turn must be whole."""
    expected = encoder.texts._count(TEXTS)
    wrong: list[Any] = []

    def tokenize() -> None:
        for _ in range(30):
            if list(encoder.lengths(TEXTS)) != expected:
                wrong.append("lengths")

    def ask() -> None:
        for _ in range(30):
            if encoder.texts.features(encoder.model, TEXTS)["input_ids"].shape != (len(TEXTS), 256):
                wrong.append("features")

    threads = [threading.Thread(target=target) for target in (tokenize, ask, tokenize)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("what", ["lower case", "another limit", "cut from the left", "other special tokens"])
def test_a_library_that_makes_something_else_of_a_text_is_left_to_do_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    own = encoder.model.preprocess

    def preprocess(texts: list[str], **more: Any) -> dict[str, Any]:
        if what == "lower case":
            return own([text.replace("river", "lake") for text in texts], **more)
        if what == "another limit":
            return own(texts, **{**more, "processing_kwargs": {"text": {"max_length": 200}}})
        features = own(texts, **more)
        if what == "cut from the left":
            features["input_ids"] = features["input_ids"].flip(1)
        else:
            features["input_ids"][:, 0] = 7
        return features

    monkeypatch.setattr(encoder.model, "preprocess", preprocess)
    assert encoder.texts._kept() == {}


@pytest.mark.parametrize("kind", odd.KINDS)
def test_whatever_kind_of_model_what_it_is_given_is_what_the_library_gives(kind: str, tmp_path: Path) -> None:
    encoder = Encoder(odd.build(kind, tmp_path / "model"), "cpu", "float32", None, 1)
    texts = encoder.texts
    if kind in ("static", "word vectors", "a bag of words", "a chat template"):  # only the library knows their batches
        assert texts._once == {}
    for as_kind in (str, Question):
        some = [as_kind(text) for text in ("river", "stone bridge <pad> river", "lake " * 90)]
        lengths = texts.tokens(some)
        assert list(lengths) == texts._count(some)
        ours = texts.features(encoder.model, some, lengths.read)
        assert same(ours, texts._by_library(encoder.model, some))
