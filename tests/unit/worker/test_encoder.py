"""Texts in, vectors out: with the real all-MiniLM-L6-v2, held against the library's own encode."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from vectors import cosines, vectors_of

torch = pytest.importorskip("torch")

from worker import encode  # noqa: E402
from worker.encoder import Encoder, RowError, is_out_of_memory  # noqa: E402
from worker.layout import HostFolder  # noqa: E402

PASSAGES = Path(__file__).parents[4] / "shared" / "data" / "wiki_passages.jsonl"
WORDS = ["river", "stone", "über", "東京", "kernel", "🚀", "of", "and", "the", "quickly", "1984", "naïve"]
WORDS += ["--", "(see)", "Ωmega", "don't", "मानव", "gemma\t\n", "...", "x"]


def made_texts(rows: int) -> list[str]:
    """Texts from one word to more than the model reads, most of them short, and a few odd ones."""
    draw = random.Random(11)
    odd = ["", " ", "\n\n", "a", "?" * 700, "\x00\x01", "e\u0301" * 40, "👩\u200d🚀" * 30, "\u202eevil", "A" * 120]
    odd += [" ".join(draw.choices(WORDS, k=k)) for k in (80, 120, 200, 400)]
    return odd + [" ".join(draw.choices(WORDS, k=int(2 ** draw.uniform(0, 6)))) for _ in range(rows - len(odd))]


def passages(rows: int) -> list[str]:
    """Real passages, where they are at hand."""
    if not PASSAGES.exists():
        return []
    with PASSAGES.open(encoding="utf-8") as file:
        short = (text for line in file if len(text := json.loads(line)["text"]) < 200)  # two cores, not a cluster
        return list(itertools.islice(short, rows))


@pytest.fixture(scope="session")
def loaded(mini_lm: Path) -> Encoder:
    return Encoder(mini_lm, "cpu", "float32", None, 1)  # one thread: the machine is shared


@pytest.fixture
def encoder(loaded: Encoder) -> Iterator[Encoder]:
    """The loaded model, as if fresh."""
    yield loaded
    loaded.model.max_seq_length = loaded.max_tokens = 256
    loaded.out_of_memory, loaded._calm = 0, 0
    loaded._row_cap = loaded.row_limit = loaded._float32 = None


Forward = Callable[..., np.ndarray]


def forward_of(encoder: Encoder) -> Forward:
    """How it computes a batch of texts, now."""
    start = encoder._start
    return lambda model, texts: start(model, texts, encoder.texts.features(model, texts))()


def put_instead(monkeypatch: pytest.MonkeyPatch, encoder: Encoder, instead: Forward) -> None:
    """Have each batch computed so."""

    def start(model: object, texts: list[str], features: object) -> Callable[[], np.ndarray]:
        found = instead(model, texts)
        return lambda: found

    monkeypatch.setattr(encoder, "_start", start)


@pytest.fixture
def forward(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], None]], list[int]]:
    """Puts something before each computation of a batch; gives the list that the batches' sizes go to."""

    def put(before: Callable[[list[str]], None]) -> list[int]:
        sizes: list[int] = []
        own = forward_of(encoder)

        def instead(model: object, texts: list[str]) -> np.ndarray:
            sizes.append(len(texts))
            before(texts)
            found: np.ndarray = own(model, texts)
            return found

        put_instead(monkeypatch, encoder, instead)
        return sizes

    return put


# ------------------------------------------------------------------------------------------------ the same vectors


def test_vectors_equal_the_librarys_own_in_the_order_of_the_rows(encoder: Encoder) -> None:
    texts = made_texts(200) + passages(300)
    ours = vectors_of(encoder, texts)
    theirs = encoder.model.encode(texts, batch_size=32)
    assert ours.dtype == np.float32 and ours.shape == (len(texts), 384)
    assert cosines(ours, theirs).min() >= 1 - 1e-6
    assert np.abs(ours - theirs).max() < 2e-6
    assert not encoder.bad_rows(ours)
    lengths = encoder.lengths(texts)
    assert encoder.padding(lengths, texts)["padded_tokens"] <= 1.15 * sum(encoder.cut(lengths, texts))


def test_a_row_has_the_same_vector_in_any_company(encoder: Encoder) -> None:
    texts = made_texts(30)
    together = vectors_of(encoder, texts)
    backwards = vectors_of(encoder, texts[::-1])[::-1]
    assert cosines(together, backwards).min() >= 1 - 1e-6


def test_the_same_part_has_the_same_bytes(encoder: Encoder) -> None:
    texts = made_texts(30)
    assert vectors_of(encoder, texts).tobytes() == vectors_of(encoder, texts).tobytes()


def test_before_each_batch_its_rows_are_told(encoder: Encoder) -> None:
    texts = ["one", "two words", "three words here"] * 5
    told: list[list[int]] = []
    encoder.encode(texts, encoder.lengths(texts), range(50, 65), told.append)
    assert sorted(row for rows in told for row in rows) == list(range(50, 65))


# ------------------------------------------------------------------------------------------------------ truncation


@pytest.mark.parametrize("words", [253, 254, 255, 256])
def test_tokens_are_counted_before_the_cut(encoder: Encoder, words: int) -> None:
    """Two special tokens come with every text."""
    text = "river " * words
    tokens = encoder.lengths([text])
    assert tokens == [words + 2]
    assert encoder.cut(tokens, [text]) == [min(256, words + 2)]
    read = encoder.model.preprocess([text])["input_ids"].shape[1]
    assert read == encoder.cut(tokens, [text])[0]


@pytest.mark.parametrize(("words", "truncated"), [(253, []), (254, []), (255, [7]), (256, [7])])
def test_a_row_cut_by_one_token_is_on_record(
    encoder: Encoder, tmp_path: Path, words: int, truncated: list[int]
) -> None:
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    _, record = encode.encode_part(encoder, ["river " * words, "short"], 7, suspects, lambda rows: None)
    assert (record.tokens, record.truncated) == ((words + 2, 3), tuple(truncated))


@pytest.mark.parametrize(("asked", "used"), [(16, 16), (256, 256), (4096, 256), (None, 256)])
def test_fewer_tokens_than_the_model_reads_may_be_asked_for(mini_lm: Path, asked: int | None, used: int) -> None:
    encoder = Encoder(mini_lm, "cpu", "float32", asked)
    assert encoder.max_tokens == used
    read = encoder.model.preprocess(["river " * 300])["input_ids"].shape[1]
    assert read == used == encoder.cut([302], ["river"])[0]


def test_a_cut_changes_the_vector_of_a_longer_text_only(mini_lm: Path, encoder: Encoder) -> None:
    texts = ["river stone", "stone " * 14 + "river " * 100, "stone " * 14]
    full, cut = vectors_of(encoder, texts), vectors_of(Encoder(mini_lm, "cpu", "float32", 16), texts)
    assert cosines(full, cut)[[0, 2]].min() >= 1 - 1e-6 > cosines(full, cut)[1]
    assert cosines(cut[1:2], cut[2:3])[0] >= 1 - 1e-6


def test_monstrous_texts_are_read_to_the_cut(encoder: Encoder) -> None:
    texts = ["Lorem ipsum dolor. " * (2**21 // 19), "z" * 200_000, "short"]
    lengths = encoder.lengths(texts)
    vectors = encoder.encode(texts, lengths, [0, 1, 2])
    assert lengths[0] > 300_000
    assert not encoder.bad_rows(vectors)
    beginnings = [text[:5000] for text in texts[:1]] + texts[1:]  # of a longer text nothing is read
    assert cosines(vectors, encoder.model.encode(beginnings)).min() >= 1 - 1e-6


# --------------------------------------------------------------------------------------------------- out of memory

MEMORY_ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def above(rows: int, error: Exception) -> Callable[[list[str]], None]:
    """Fails for batches of more rows."""

    def fail(texts: list[str]) -> None:
        if len(texts) > rows:
            raise error

    return fail


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: str(error)[:24])
@pytest.mark.parametrize("rows", [1, 3])
def test_out_of_memory_makes_batches_smaller_and_vectors_the_same(
    encoder: Encoder, forward: Callable[..., list[int]], error: Exception, rows: int
) -> None:
    texts = ["a few words in a row", "of about one length"] * 12
    expected = vectors_of(encoder, texts)
    sizes = forward(above(rows, error))
    assert cosines(vectors_of(encoder, texts), expected).min() >= 1 - 1e-6
    assert encoder.out_of_memory == sum(size > rows for size in sizes) > 0
    assert max(sizes[encoder.out_of_memory :]) <= rows  # it halves down once, and stays there


def test_out_of_memory_is_on_the_parts_record(
    encoder: Encoder, forward: Callable[..., list[int]], tmp_path: Path
) -> None:
    forward(above(4, MEMORY_ERRORS[0]))
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    _, record = encode.encode_part(encoder, ["a text"] * 16, 0, suspects, lambda rows: None)
    assert record.out_of_memory == encoder.out_of_memory == 2


def test_batches_grow_back_when_memory_is_free_again(encoder: Encoder, forward: Callable[..., list[int]]) -> None:
    short = [True]

    def fail(texts: list[str]) -> None:
        if short[0] and len(texts) > 1:
            raise MEMORY_ERRORS[0]

    sizes = forward(fail)
    vectors_of(encoder, ["a text"] * 8)
    assert encoder._row_cap == 1
    short[0] = False
    while sizes[-1] < 8 and len(sizes) < 200:
        vectors_of(encoder, ["a text"] * 8)
    assert sizes[-1] == 8
    assert encoder.out_of_memory == 3


def test_a_limit_of_rows_never_grows(encoder: Encoder, forward: Callable[..., list[int]]) -> None:
    sizes = forward(lambda texts: None)
    encoder._row_cap = 1
    encoder.row_limit = 2
    for _ in range(12):
        vectors_of(encoder, ["word"] * 5)
    assert max(sizes) == 2


def test_a_row_too_large_for_the_device_is_named(encoder: Encoder, forward: Callable[..., list[int]]) -> None:
    def fail(texts: list[str]) -> None:
        if any("giant" in text for text in texts):
            raise MEMORY_ERRORS[0]

    forward(fail)
    with pytest.raises(RowError, match="row 102: out of memory even alone: CUDA out of memory") as caught:
        vectors_of(encoder, ["a text", "a text", "a giant", "a text"])
    assert caught.value.row == 102


def test_no_row_is_blamed_when_a_neighbour_holds_all_memory(
    encoder: Encoder, forward: Callable[..., list[int]]
) -> None:
    """Else a neighbour on the GPU would have the whole corpus given up, row by row."""
    forward(above(0, MEMORY_ERRORS[0]))
    with pytest.raises(RuntimeError, match="even for one word"):
        vectors_of(encoder, ["a text"] * 4)


def test_any_other_error_is_not_taken_for_a_lack_of_memory(encoder: Encoder, forward: Callable[..., list[int]]) -> None:
    assert not is_out_of_memory(ValueError("out of memory"))
    sizes = forward(above(0, RuntimeError("CUDA error: device-side assert triggered")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        vectors_of(encoder, ["a text"] * 4)
    assert sizes == [4]


# ----------------------------------------------------------------------------------------------------- bad vectors

SPOILT: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("NaN or infinity", lambda vector: vector * np.nan),
    ("NaN or infinity", lambda vector: np.full_like(vector, np.inf)),
    ("a vector of zeros", lambda vector: vector * 0),
    ("norm 1.001, but the model normalises", lambda vector: vector * np.float32(1.001)),
    ("norm 0.5", lambda vector: vector / 2),
]


@pytest.fixture
def spoil(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Spoils the vectors of texts with `bad` in them: the first time only, or always."""

    def put(change: Callable[[np.ndarray], np.ndarray], always: bool) -> None:
        own = forward_of(encoder)

        def instead(model: object, texts: list[str]) -> np.ndarray:
            vectors: np.ndarray = own(model, texts)
            for i, text in enumerate(texts):
                if "bad" in text and (always or len(texts) > 1):
                    vectors[i] = change(vectors[i])
            return vectors

        put_instead(monkeypatch, encoder, instead)

    return put


TEXTS = ["a good text", "a bad text", "another good text"] + ["more of them"] * 7


@pytest.mark.parametrize(("reason", "change"), SPOILT, ids=[reason for reason, _ in SPOILT])
def test_a_bad_vector_is_computed_again(
    encoder: Encoder,
    spoil: Callable[..., None],
    tmp_path: Path,
    reason: str,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    expected = vectors_of(encoder, TEXTS)
    spoil(change, always=False)
    assert list(encoder.bad_rows(vectors_of(encoder, TEXTS))) == [1]
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    vectors, record = encode.encode_part(encoder, TEXTS, 40, suspects, lambda rows: None)
    assert cosines(vectors, expected).min() >= 1 - 1e-6
    assert record.redone_float32 == (41,)


@pytest.mark.parametrize(("reason", "change"), SPOILT, ids=[reason for reason, _ in SPOILT])
def test_a_vector_that_stays_bad_names_its_row_and_reason(
    encoder: Encoder,
    spoil: Callable[..., None],
    tmp_path: Path,
    reason: str,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    spoil(change, always=True)
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    with pytest.raises(RowError, match=rf"row 41: {reason}.*, also in float32") as caught:
        encode.encode_part(encoder, TEXTS, 40, suspects, lambda rows: None)
    assert caught.value.row == 41


def test_a_broken_model_is_not_blamed_on_its_rows(encoder: Encoder, spoil: Callable[..., None], tmp_path: Path) -> None:
    spoil(lambda vector: vector * np.nan, always=True)
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    with pytest.raises(RuntimeError, match="the model or the device"):
        encode.encode_part(encoder, ["a bad text"] * 10, 0, suspects, lambda rows: None)


def test_a_redo_without_memory_names_its_row(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = forward_of(encoder)

    def instead(model: object, texts: list[str]) -> np.ndarray:
        if texts == ["a bad text"]:
            raise MEMORY_ERRORS[0]
        vectors: np.ndarray = own(model, texts)
        vectors[[i for i, text in enumerate(texts) if "bad" in text]] = np.nan
        return vectors

    put_instead(monkeypatch, encoder, instead)
    suspects = encode.Suspects(HostFolder(tmp_path), "cluster0_gpu0")
    with pytest.raises(RowError, match="row 1: NaN or infinity in the vector, and redoing it ran out of memory"):
        encode.encode_part(encoder, TEXTS, 0, suspects, lambda rows: None)


def test_a_model_that_does_not_normalise_may_give_any_length(encoder: Encoder) -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0]], np.float32)
    encoder.normalises = False
    try:
        assert encoder.bad_rows(vectors) == {1: "a vector of zeros", 2: "NaN or infinity in the vector"}
    finally:
        encoder.normalises = True


def test_an_older_library_that_only_knows_tokenize_is_served_too(encoder: Encoder) -> None:
    """Python 3.9 hosts have sentence-transformers 5.1 at most."""

    class Older:
        tokenize = staticmethod(encoder.model.preprocess)

        def __call__(self, features: dict[str, object], task: str) -> object:
            return encoder.model(features, task=task)

    found = encoder._forward(Older(), ["a text"])
    assert cosines(found, vectors_of(encoder, ["a text"]))[0] >= 1 - 1e-6


def test_probe_tells_what_the_model_gives(mini_lm: Path) -> None:
    from worker.probe import probe

    found = probe(mini_lm, "cpu", "float32")
    assert (found["dim"], found["bad"], found["normalises"], found["max_tokens"]) == (384, "", True, 256)
    assert abs(found["norm"] - 1) < 1e-5
