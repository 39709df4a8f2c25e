"""Long documents in chunks: the mean of the chunks' vectors, by whichever way it is computed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from vectors import cosines, vectors_of

torch = pytest.importorskip("torch")

from worker.chunked import ChunkedEncoder  # noqa: E402
from worker.chunks import counts  # noqa: E402
from worker.encoder import Encoder  # noqa: E402
from worker.loading import make  # noqa: E402
from worker.processor import answer  # noqa: E402
from worker.texts import DOCUMENT, Question  # noqa: E402

LIMIT = 32
PROMPT = {DOCUMENT: "p: {text}"}
WORDS = ["river", "stone", "bridge", "lake", "1984", "iron", "sonnet", "comet"]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> ChunkedEncoder:
    return ChunkedEncoder(tiny_bert, "cpu", "float32", LIMIT, 1, PROMPT)


@pytest.fixture(scope="module")
def plain(tiny_bert: Path) -> Encoder:
    return Encoder(tiny_bert, "cpu", "float32", LIMIT, 1, PROMPT)


def texts(rows: int, longest: int = 60) -> list[str]:
    draw = random.Random(3)
    return [f"p: {' '.join(draw.choices(WORDS, k=draw.randint(1, longest)))}" for _ in range(rows)]


def by_hand(plain: Encoder, chunks: list[str]) -> np.ndarray:
    """The vector that chunks stand for, computed one by one, (dim,)."""
    vectors = np.concatenate([vectors_of(plain, [chunk]) for chunk in chunks]).astype(np.float64)
    tokens = [len(plain.model.tokenizer(chunk)["input_ids"]) for chunk in chunks]
    whole = (vectors * np.array(tokens)[:, None]).sum(axis=0) / sum(tokens)
    found: np.ndarray = whole / np.linalg.norm(whole)
    return found


def test_a_long_document_has_the_normalised_mean_of_its_chunks_weighted_with_their_tokens(
    encoder: ChunkedEncoder, plain: Encoder
) -> None:
    some = texts(40)
    lengths = encoder.lengths(some)
    vectors = encoder.encode(some, lengths, range(40))
    assert 3 < len(lengths.chunks) < 40 and max(counts(lengths) or []) > 4
    for i, text in enumerate(some):
        expected = by_hand(plain, lengths.chunks[i].texts if i in lengths.chunks else [text])
        assert np.abs(vectors[i] - expected).max() < 1e-6
    assert not encoder.bad_rows(vectors) and encoder.cut(lengths, some) == list(lengths)


def test_a_document_of_one_chunk_and_a_question_are_as_without(encoder: ChunkedEncoder, plain: Encoder) -> None:
    some = [text for text in texts(60, 6) if plain.lengths([text])[0] <= LIMIT]
    some += [Question("river " * 40)]
    assert len(some) > 5 and counts(encoder.lengths(some)) == [1] * len(some)
    assert vectors_of(encoder, some).tobytes() == vectors_of(plain, some).tobytes()
    assert encoder.cut(encoder.lengths(some), some)[-1] == LIMIT


@pytest.mark.parametrize("packed", [False, True])
def test_all_ways_of_computing_it_agree(tiny_bert: Path, packed: bool) -> None:
    encoder = make(tiny_bert, "cpu", "float32", None, LIMIT, 1, PROMPT)
    assert not packed or encoder.pack() == ""
    some = texts(24)
    vectors = vectors_of(encoder, some)
    assert cosines(vectors, encoder.as_the_library(some)).min() >= 1 - 1e-6
    alone = np.array([answer(encoder, text).vector for text in some])
    assert cosines(vectors, alone).min() >= 1 - 1e-6
    again = np.zeros_like(vectors)
    assert encoder.redo(some, range(24), again) == {}
    assert cosines(vectors, again).min() >= 1 - 1e-6


def test_an_answer_says_how_many_chunks_there_are(encoder: ChunkedEncoder, plain: Encoder) -> None:
    long = f"p: {'river ' * 40}"
    assert answer(encoder, long).chunks == len(encoder.lengths([long]).chunks[0].texts) > 1
    assert answer(encoder, "p: river").chunks == 1 and answer(plain, "p: river").chunks is None


def test_what_is_laid_out_together_is_laid_out_so_alone_and_has_the_same_bytes(encoder: ChunkedEncoder) -> None:
    some = texts(40)
    lengths = encoder.lengths(some)
    layout, vectors = encoder.layout(lengths, some), encoder.encode(some, lengths, range(40))
    assert sorted(i for batch in layout for i in batch) == list(range(40))
    long = [batch for batch in layout if batch[0] in lengths.chunks]
    assert len(long) < len(lengths.chunks), "no two long documents are computed together"
    for batch in layout:
        own, sizes = [some[i] for i in batch], [lengths[i] for i in batch]  # a plain list, as a doubled batch has it
        if batch in long:
            assert encoder.layout(sizes, own) == [list(range(len(batch)))]
        if encoder.layout(sizes, own) == [list(range(len(batch)))]:
            assert encoder.encode(own, sizes, [-1] * len(own)).tobytes() == vectors[batch].tobytes()


def test_rows_are_told_once_each_before_their_chunks_are_computed(encoder: ChunkedEncoder) -> None:
    some, told = texts(12), list[list[int]]()
    encoder.encode(some, encoder.lengths(some), range(100, 112), told.append)
    assert {row for rows in told for row in rows} == set(range(100, 112))
    assert all(len(rows) == len(set(rows)) for rows in told)


def test_padding_counts_the_tokens_of_the_chunks(encoder: ChunkedEncoder) -> None:
    some = texts(24)
    lengths = encoder.lengths(some)
    read = sum(sum(lengths.chunks[i].lengths) if i in lengths.chunks else n for i, n in enumerate(lengths))
    padding = encoder.padding(lengths, some)
    assert padding["real_tokens"] == read <= padding["padded_tokens"]
    unknown = encoder.padding(list(lengths), some)
    assert unknown["real_tokens"] >= sum(lengths)


def test_a_bad_chunk_is_not_hidden_by_the_mean(encoder: ChunkedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    some, own = texts(12), Encoder.encode

    def spoiled(self: Encoder, chunks: list[str], *rest: object) -> np.ndarray:
        found: np.ndarray = own(self, chunks, *rest)  # type: ignore[arg-type]
        if len(chunks) > len(set(rest[1])):  # type: ignore[arg-type]  # chunks of long documents: more than rows
            found[-1] *= 0.5
        return found

    monkeypatch.setattr(Encoder, "encode", spoiled)
    bad = encoder.bad_rows(encoder.encode(some, encoder.lengths(some), range(12)))
    assert bad and set(bad) <= set(encoder.lengths(some).chunks)


def test_a_model_that_reads_less_than_a_chunk_may_have_is_refused_with_what_to_set(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"chunks of 100 tokens .* the model reads 64: set model.max_tokens: 64"):
        ChunkedEncoder(tiny_bert, "cpu", "float32", 100)
