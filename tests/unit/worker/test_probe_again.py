"""The try of a device before a run: what it computes beside the processor, however texts are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker import again
from worker.encoder import Encoder
from worker.probe_again import compare


def documents(texts: Sequence[str]) -> list[str]:
    return [str(text) for text in texts]


def on_the_processor(folder: Path) -> Callable[[], Encoder]:
    return lambda: Encoder(folder, "cpu", "float32", None)


def on_a_device(folder: Path, dtype: str = "float32") -> Encoder:
    """An encoder that takes itself for one on a GPU; it computes here."""
    encoder = Encoder(folder, "cpu", dtype, None)
    encoder.device = "mps"
    return encoder


@pytest.mark.parametrize("pack", [True, False])
def test_on_a_processor_the_workers_batches_are_held_against_one_text_a_call(tiny_bert: Path, pack: bool) -> None:
    encoder = Encoder(tiny_bert, "cpu", "float32", None)
    assert not pack or encoder.pack() == ""
    found = compare(encoder, on_the_processor(tiny_bert), documents)
    assert set(found["cosine"]) == {"in the worker's batches"} and "error" not in found
    assert found["cosine"]["in the worker's batches"] >= 1 - 1e-9
    assert (found["rows"], found["tokens"]) == (32, encoder.max_tokens)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_is_tried_in_three_ways(tiny_bert: Path, dtype: str) -> None:
    found = compare(on_a_device(tiny_bert, dtype), on_the_processor(tiny_bert), documents)
    assert set(found["cosine"]) == {"in the worker's batches", "in one batch", "alone"}
    assert min(found["cosine"].values()) >= again.COSINE[dtype]


def test_texts_of_one_to_eight_words_and_one_of_full_length_are_in_it(tiny_bert: Path) -> None:
    encoder, seen = on_a_device(tiny_bert), list[str]()

    def filled(texts: Sequence[str]) -> list[str]:
        seen.extend(texts)
        return documents(texts)

    compare(encoder, on_the_processor(tiny_bert), filled)
    words = [len(text.split()) for text in seen]
    assert set(words[:-1]) == set(range(1, 9)) and len(set(seen)) == 32
    assert encoder.max_tokens is not None and words[-1] >= encoder.max_tokens


@pytest.mark.parametrize(
    ("entry", "way"),
    [("encode", "alone"), ("encode", "in the worker's batches"), ("as_the_library", "in one batch")],
)
def test_a_device_that_does_short_texts_wrong_is_seen(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, entry: str, way: str
) -> None:
    encoder = on_a_device(tiny_bert)
    right = getattr(encoder, entry)

    def wrong(texts: Sequence[str], *more: Any) -> Any:
        vectors = right(texts, *more)
        short = [i for i, text in enumerate(texts) if len(text.split()) == 5]
        vectors[short] = np.roll(vectors[short], 1, axis=1)
        return vectors

    monkeypatch.setattr(encoder, entry, wrong)
    found = compare(encoder, on_the_processor(tiny_bert), documents)
    assert found["cosine"][way] < 0.9


def test_what_a_device_raises_is_told_with_the_way(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = on_a_device(tiny_bert)

    def raises(texts: Sequence[str]) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(encoder, "as_the_library", raises)
    assert compare(encoder, on_the_processor(tiny_bert), documents)["error"] == "in one batch: RuntimeError: no memory"


def test_a_processor_that_cannot_do_it_is_told(tiny_bert: Path, tmp_path: Path) -> None:
    found = compare(on_a_device(tiny_bert), on_the_processor(tmp_path / "gone"), documents)
    assert found["error"].startswith("the processor cannot do it: ") and found["cosine"] == {}
