"""The published matrix in other forms: every row where the index says, and what is lost beside it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import made_up
import numpy as np
import pytest

from runbook_lib import cli
from runbook_lib.afterwards import export, finished
from runbook_lib.errors import DataError
from runbook_lib.result import exports, survey
from runbook_lib.run import opening
from worker.files import sha256_file

ROWS, DIM = 403, 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = made_up.run_folder(tmp_path_factory.mktemp("export"), count=ROWS, dim=DIM, part_rows=50)
    made.commit_all()
    assert made_up.published(made.run).checks.ok
    return made


def loaded(folder, found):
    """The exported arrays by name; each file is as the index says."""
    index = json.loads((folder / exports.INDEX).read_text())
    assert {name: each["sha256"] for name, each in index["files"].items()} == {
        path.name: sha256_file(path) for path in folder.iterdir() if path.name != exports.INDEX
    }
    assert index["matrix_sha256"] == found.matrix_sha256 and index["documents"] == ROWS
    return {name: np.load(folder / name, allow_pickle=False) for name in index["files"]}


@pytest.mark.parametrize("count", [1, 2, 7, 403])
def test_shards_one_after_the_other_are_the_matrix(made, tmp_path, monkeypatch, count):
    monkeypatch.setattr(survey, "BLOCK_BYTES", 37 * DIM * 4)  # blocks end within shards, and shards within blocks
    found = exports.export(made.run, exports.SHARDS, tmp_path / "out", -(-ROWS * DIM * 4 // count))
    arrays = loaded(tmp_path / "out", found)
    assert next(iter(found.files)) == f"embeddings-00000-of-{count:05d}.npy" and len(found.files) == count
    assert np.array_equal(np.concatenate([arrays[name] for name in found.files]), made.vectors[:ROWS])
    ends = [each.rows for each in found.files.values()]
    assert ends[0][0] == 0 and ends[-1][1] == ROWS and all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    assert (found.recall_at_10, found.lowest_cosine, found.sampled) == (None, None, 0)


def test_float16_is_each_number_rounded(made, tmp_path):
    found = exports.export(made.run, exports.FLOAT16, tmp_path / "out")
    (array,) = loaded(tmp_path / "out", found).values()
    assert array.dtype == np.float16 and np.array_equal(array, made.vectors[:ROWS].astype(np.float16))
    assert found.lowest_cosine > 0.999999 and found.recall_at_10 > 0.99 and found.sampled == ROWS


def test_what_float16_loses_is_measured_in_one_way_whichever_form_it_is_in(made, tmp_path):
    lost = export.export(finished.load(made.run), "npy", tmp_path / "vectors.npy", "float16").loss
    found = exports.export(made.run, exports.FLOAT16, tmp_path / "out")
    assert (lost.recall, lost.lowest_cosine) == (found.recall_at_10, found.lowest_cosine)


def test_int8_is_a_scale_a_row_and_what_it_loses_is_measured(made, tmp_path):
    found = exports.export(made.run, exports.INT8, tmp_path / "out")
    arrays = loaded(tmp_path / "out", found)
    values, scales = arrays["embeddings.npy"], arrays["scales.npy"]
    assert (values.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (ROWS,))
    assert np.abs(values.astype(np.float32) * scales[:, None] - made.vectors[:ROWS]).max() <= scales.max() * 0.51
    assert 0.999 < found.lowest_cosine < 1 and 0.9 < found.recall_at_10 <= 1


def test_a_matrix_that_changed_since_it_was_published_is_not_exported(made, tmp_path):
    path = made.run.merged / "embeddings.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(DataError, match=r"embeddings\.npy: sha256 .* nothing was exported"):
            exports.export(made.run, exports.FLOAT16, tmp_path / "out")
    finally:
        path.write_bytes(good)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("there", ["a file", "a folder with a file"])
def test_nothing_that_is_there_is_written_over(made, tmp_path, there):
    path = tmp_path / "out"
    path.write_text("mine") if there == "a file" else (path.mkdir(), (path / "mine").touch())
    with pytest.raises(DataError, match="is there and not empty"):
        exports.export(made.run, exports.INT8, path)
    assert path.read_text() == "mine" if there == "a file" else [each.name for each in path.iterdir()] == ["mine"]


def test_a_run_without_a_published_result_and_an_unknown_form_are_refused(tmp_path):
    fresh = made_up.run_folder(tmp_path).run
    with pytest.raises(DataError, match="no published result yet"):
        exports.export(fresh, exports.INT8, tmp_path / "out")
    with pytest.raises(DataError, match="no export of kind 'csv'; there are: npy-float16"):
        exports.export(fresh, "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_lost_and_where_it_is(made, tmp_path, capsys, monkeypatch):
    out = replace(made.run.profile.output, folder=tmp_path)
    monkeypatch.setattr(opening, "find", lambda name: replace(made.run, profile=replace(made.run.profile, output=out)))
    assert cli.main(["export", made.run.name, "--to", "npy-int8"]) == 0
    said = capsys.readouterr().out
    assert f"{made.run.name}-npy-int8: 2 files, 403 x 16" in said and "recall@10 0.9" in said
