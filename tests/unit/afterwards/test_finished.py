"""A finished run is loaded, searched by a vector, and written for other tools; one that was changed is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import made_up
import numpy as np
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

import runbook_lib
from runbook_lib import cli
from runbook_lib.afterwards import export, finished
from runbook_lib.errors import DataError
from runbook_lib.result import parts


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[made_up.MadeUp]:
    """A run of 60 documents with a result."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path, count=60, dim=16)
    made.commit_all()
    made_up.published(made.run)
    yield made


def vectors(made: made_up.MadeUp) -> np.ndarray:
    return made.vectors[: made.plan.documents]


def test_rows_documents_questions_and_texts_are_those_of_the_run(done: made_up.MadeUp) -> None:
    result = runbook_lib.load(done.run.folder)
    assert (result.vectors == vectors(done)).all() and result.vectors.dtype == np.float32
    assert not result.vectors.flags.writeable
    documents = list(result.documents())
    assert [each["row"] for each in documents] == list(range(60))
    assert result.table()["title"] == [each["title"] for each in documents]
    assert result.questions.shape == (1, 16)
    assert (result.questions == done.vectors[60:]).all()
    assert result.texts([3, 1]) == [done.corpus.text(3), done.corpus.text(1)]


def test_the_nearest_are_those_of_all_cosines(done: made_up.MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    result = finished.load(done.run)
    monkeypatch.setattr(finished, "BLOCK_BYTES", 4 * 16 * 7)  # several blocks, the last one short
    asked = np.random.default_rng(5).standard_normal(16).astype(np.float32) * 9
    cosines = vectors(done) @ asked / np.linalg.norm(asked) / np.linalg.norm(vectors(done), axis=1)
    found = result.nearest(asked, 7)
    assert [each.row for each in found] == np.argsort(-cosines, kind="stable")[:7].tolist()
    assert [each.cosine for each in found] == pytest.approx(sorted(cosines, reverse=True)[:7], abs=1e-6)
    assert found[0].document["row"] == found[0].row
    assert [each.row for each in result.nearest(vectors(done)[41], 1)] == [41]
    assert len(result.nearest(asked, 1000)) == 60


@pytest.mark.parametrize("wrong", [np.zeros(16), np.full(16, np.nan), np.ones(15), np.ones((2, 16))])
def test_a_vector_that_points_nowhere_or_has_another_width_is_refused(done: made_up.MadeUp, wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="searching"):
        finished.load(done.run).nearest(wrong)


def test_a_run_without_a_result_and_one_whose_files_were_cut_are_refused(tmp_path: Path, done: made_up.MadeUp) -> None:
    (tmp_path / "other").mkdir()
    unfinished = made_up.run_folder(tmp_path / "other", count=4)
    with pytest.raises(DataError, match=r"has no result yet.*runbook run"):
        finished.load(unfinished.run)
    with pytest.raises(DataError, match="no run 'nowhere'"):
        runbook_lib.load("nowhere")
    file = done.run.merged / "articles.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"articles.jsonl: expected .* bytes.*runbook verify"):
        finished.load(done.run)


@pytest.mark.parametrize("dtype", export.DTYPES)
@pytest.mark.parametrize("form", export.FORMS)
def test_every_form_holds_every_row_in_order(done: made_up.MadeUp, tmp_path: Path, form: str, dtype: str) -> None:
    shown: list[tuple[int, int]] = []
    made = export.export(
        finished.load(done.run), form, tmp_path / "out", dtype, on_rows=lambda n, of: shown.append((n, of))
    )
    expected = vectors(done).astype(dtype)
    assert shown[-1] == (60, 60) and (made.loss is None) == (dtype == "float32")
    if form == "npy":
        assert (np.load(made.path) == expected).all() and np.load(made.path).dtype == expected.dtype
        return
    if form == "safetensors":
        assert (load_file(made.path)["vectors"] == expected).all()
        return
    path = made.path if form == "parquet" else made.path / "data" / "train-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(path)
    assert (np.stack(table["vector"].to_numpy()) == expected).all()
    assert table["row"].to_pylist() == list(range(60))
    assert table["title"].to_pylist() == [each["title"] for each in done.corpus.articles()]
    assert table["id"].to_pylist() == [str(each["id"]) for each in done.corpus.articles()]  # mixed
    assert table.schema.metadata[b"runbook.run"].decode() == done.run.name


def test_texts_come_along_when_asked_for(done: made_up.MadeUp, tmp_path: Path) -> None:
    made = export.export(finished.load(done.run), "parquet", tmp_path / "out.parquet", texts=True)
    assert pyarrow.parquet.read_table(made.path)["text"].to_pylist() == list(done.corpus.texts(range(60)))


def test_a_folder_for_datasets_has_shards_a_card_and_croissant(
    done: made_up.MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS", 8)
    monkeypatch.setattr(export, "SHARD_BYTES", 16 * 4 * 8 * 2)
    made = export.export(finished.load(done.run), "hf", tmp_path / "data")
    shards = sorted((made.path / "data").iterdir())
    assert [shard.name for shard in shards] == [f"train-{k:05d}-of-00004.parquet" for k in range(4)]
    rows = [row for shard in shards for row in pyarrow.parquet.read_table(shard)["row"].to_pylist()]
    assert rows == list(range(60))
    card = (made.path / "README.md").read_text()
    assert card.startswith("---\n") and "data/*.parquet" in card and done.plan.model.name in card
    told = json.loads((made.path / "croissant.json").read_text())
    assert [each["@type"] for each in told["distribution"]] == ["cr:FileObject"] * 4 + ["cr:FileSet"]
    assert {each["name"] for each in told["recordSet"][0]["field"]} >= {"row", "id", "title", "vector"}


def test_a_matrix_that_was_changed_leaves_nothing_behind(done: made_up.MadeUp, tmp_path: Path) -> None:
    path = done.run.merged / "embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    for form in export.FORMS:
        with pytest.raises(DataError, match=r"expected sha256 .*runbook verify"):
            export.export(finished.load(done.run), form, tmp_path / "out" / form)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_there_is_not_written_over(done: made_up.MadeUp, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "link"):
        with pytest.raises(DataError, match="such a file already"):
            export.export(finished.load(done.run), "npy", tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_an_interrupted_export_left_is_replaced(done: made_up.MadeUp, tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "half").write_text("half")
    assert export.export(finished.load(done.run), "npy", tmp_path / "out").path.is_file()
    assert not (tmp_path / ".out.part").exists()


def test_what_float16_costs_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    rng = np.random.default_rng(0)
    close = 1.0 + rng.standard_normal((81, 16)).astype(np.float32) * 1e-4  # nearer to each other than float16 can tell
    made = made_up.run_folder(tmp_path, count=80, dim=16, made=close / np.linalg.norm(close, axis=1, keepdims=True))
    made.commit_all()
    made_up.published(made.run)
    loss = export.export(finished.load(made.run), "npy", tmp_path / "out", "float16").loss
    assert loss is not None and loss.recall < 0.9 and loss.lowest_cosine > 0.999
    assert "recall@10" in str(loss)


@pytest.mark.parametrize(("ids", "kind"), [([1, 2**64 - 1], "uint64"), ([1, -2], "int64"), (["a", 2], "string")])
def test_ids_keep_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[object], kind: str) -> None:
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    texts = [{"id": each, "title": "T", "text": f"text {each}"} for each in ids]
    made = made_up.run_folder(tmp_path, texts=texts, slots=1)
    made.commit_all()
    made_up.published(made.run)
    table = pyarrow.parquet.read_table(export.export(finished.load(made.run), "parquet", tmp_path / "out").path)
    assert str(table["id"].type) == kind
    assert table["id"].to_pylist() == [str(each) if kind == "string" else each for each in ids]


def test_the_commands_list_and_export(
    done: made_up.MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list"]) == 0
    assert f"{done.run.name}  " in (out := capsys.readouterr().out) and "60 documents" in out
    assert cli.main(["export", done.run.name, "--to", "npy", "--float16"]) == 0
    out = capsys.readouterr().out
    assert f"embeddings/{done.run.name}_float16.npy: 60 documents" in out and "what float16 costs: recall@10" in out
    assert cli.main(["export", done.run.name, "--to", "npy", "--float16"]) == 1
    (tmp_path / "empty").mkdir()
    assert cli.main(["list", "empty"]) == 0
    assert "no runs in" in capsys.readouterr().out
    (done.run.folder / "plan.json").write_text("{")
    assert cli.main(["list"]) == 0
    assert "cannot be read" in capsys.readouterr().out
