"""The file in the founding shape: a plain pickle to whoever loads it, made without holding it."""

import json
import pickle
import pickletools

import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.result import founding

ODD = ["", "café 東京 🦊", "a" * 255, "é" * 200, "long " * 20_000, "half \ud83d pair", "line\nbreak\0nul"]


def content(tmp_path, articles, dim=5):
    matrix = np.random.default_rng(0).normal(size=(len(articles), dim)).astype(np.float32)
    np.save(tmp_path / "embeddings.npy", matrix)
    lines = [json.dumps({"row": row, **article, "tokens": 7}) for row, article in enumerate(articles)]
    (tmp_path / "articles.jsonl").write_text("".join(line + "\n" for line in lines))
    made = founding.FoundingContent(
        tmp_path / "embeddings.npy",
        tmp_path / "articles.jsonl",
        len(articles),
        dim,
        "owner/model",
        "2025-11-14T15:52:34.123456+00:00",
    )
    return made, matrix


def articles(count):
    return [
        {"id": i * 10**i if i < 18 else f"id-{i}", "title": ODD[i % len(ODD)], "url": f"u{i}" if i % 2 else ""}
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 7, 1000, 2001])
def test_it_loads_as_the_dict_that_pickle_would_have_stored(tmp_path, count):
    given = articles(count)
    made, matrix = content(tmp_path, given)
    founding.save(tmp_path / "out" / "merged.pkl", made)
    naive = pickle.loads(
        pickle.dumps(
            {
                "embeddings": matrix,
                "articles": given,
                "total_articles": count,
                "embedding_dim": 5,
                "model": "owner/model",
                "timestamp": made.timestamp,
            },
            protocol=4,
        )
    )
    with (tmp_path / "out" / "merged.pkl").open("rb") as file:
        loaded = pickle.load(file)
    array, wanted = loaded.pop("embeddings"), naive.pop("embeddings")
    assert list(loaded) == list(naive)
    assert loaded == naive
    assert [type(article["id"]) for article in loaded["articles"]] == [type(article["id"]) for article in given]
    assert np.array_equal(array, wanted)
    assert (array.dtype, array.shape, array.flags.c_contiguous, array.flags.writeable) == (
        wanted.dtype, wanted.shape, True, True,
    )  # fmt: skip
    array[0, 0] = 1.0  # it owns its memory


def test_it_needs_only_the_three_names_that_numpy_itself_pickles(tmp_path):
    made, _ = content(tmp_path, articles(3))
    founding.save(tmp_path / "merged.pkl", made)
    texts, named = [], set()
    for opcode, argument, _ in pickletools.genops((tmp_path / "merged.pkl").read_bytes()):
        if isinstance(argument, str):
            texts.append(argument)
        if opcode.name == "STACK_GLOBAL":
            named.add(".".join(texts[-2:]))
    assert named == {"numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"}


def test_a_reader_holds_each_key_once(tmp_path):
    made, _ = content(tmp_path, articles(50))
    founding.save(tmp_path / "merged.pkl", made)
    loaded = pickle.loads((tmp_path / "merged.pkl").read_bytes())
    assert len({id(key) for article in loaded["articles"] for key in article}) == 3


def test_the_same_content_gives_the_same_bytes(tmp_path):
    made, _ = content(tmp_path, articles(20))
    stated = founding.save(tmp_path / "one.pkl", made)
    assert stated.bytes == (tmp_path / "one.pkl").stat().st_size
    assert founding.save(tmp_path / "two.pkl", made, stated.sha256) == stated
    assert founding.check(tmp_path / "one.pkl", made) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:200] + bytes([raw[200] ^ 1]) + raw[201:], "differs from the merged matrix and articles"),
        (lambda raw: raw[:-30], "ends at byte"),
        (lambda raw: raw + b"more", "goes on after its end"),
        (lambda raw: b"", "ends at byte 0"),
    ],
    ids=["bit flip", "cut", "longer", "empty"],
)  # fmt: skip
def test_any_changed_byte_is_found_without_unpickling(tmp_path, change, said):
    made, _ = content(tmp_path, articles(20))
    founding.save(tmp_path / "merged.pkl", made)
    (tmp_path / "merged.pkl").write_bytes(change((tmp_path / "merged.pkl").read_bytes()))
    assert said in founding.check(tmp_path / "merged.pkl", made)[0]


def test_a_missing_file_is_said(tmp_path):
    made, _ = content(tmp_path, articles(2))
    assert "no such file" in founding.check(tmp_path / "merged.pkl", made)[0]


def test_content_that_does_not_fit_together_leaves_no_file(tmp_path):
    made, _ = content(tmp_path, articles(3))
    made.articles.write_text("".join(made.articles.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match="expected 3 lines, found 2"):
        founding.save(tmp_path / "out" / "merged.pkl", made)
    made, _ = content(tmp_path, articles(3))
    with pytest.raises(DataError, match="what was to be written changed"):
        founding.save(tmp_path / "out" / "merged.pkl", made, "0" * 64)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_id_that_is_no_plain_value_is_refused(tmp_path):
    made, _ = content(tmp_path, [{"id": ["a"], "title": "t", "url": ""}])
    with pytest.raises(DataError, match="cannot stand in the merged file"):
        founding.save(tmp_path / "merged.pkl", made)
