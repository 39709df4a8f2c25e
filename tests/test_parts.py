"""Parts that came home: believed only when record, array, plan and corpus agree."""

import json

import made_up
import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.result import parts


@pytest.fixture
def made(tmp_path):
    return made_up.run_folder(tmp_path)


def problems(made, path):
    return parts.verify(parts.read(path), made.plan, made.corpus.fingerprints())


def test_a_part_as_a_worker_commits_it_has_no_problems(made):
    part = parts.read(made.commit_part(0, 4).with_suffix(".json"))
    assert (part.start, part.stop, part.rows, part.dim) == (0, 4, 4, made_up.DIM)
    assert parts.verify(part, made.plan, made.corpus.fingerprints()) == []


MODEL = {"name": "owner/model", "revision": "0" * 40, "digest": "1" * 64}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"run": "another"}, "run: expected"),
        ({"run_id": "f" * 32}, "run id: expected"),
        ({"run_id": None}, "run id: expected"),
        ({"corpus": "another"}, "corpus: expected"),
        ({"model": {**MODEL, "name": "x/y"}}, "model name: expected"),
        ({"model": {**MODEL, "revision": "main"}}, "model revision: expected"),
        ({"model": {**MODEL, "digest": "2" * 64}}, "model digest: expected"),
        ({"model": {}}, "model name: expected"),
        ({"dtype": "bfloat16"}, "dtype: expected"),
        ({"prompt": "{text}"}, "prompt: expected"),
        ({"question_prompt": "{text}"}, "question prompt: expected"),
        ({"dim": 9}, "dim: expected"),
        ({"fingerprints": ["0" * 32] * 4}, "fingerprints: the text of 4 rows is not the corpus's: rows 0, 1, 2, 3"),
        ({"fingerprints": ["z" * 32] * 4}, "fingerprints: not hexadecimal"),
        ({"fingerprints": [None] * 4}, "fingerprints: not hexadecimal"),
    ],
)
def test_a_part_of_something_else_is_named(made, changes, named):
    assert any(named in problem for problem in problems(made, made.commit_part(0, 4, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"start": 1},
        {"stop": 5},
        {"sha256": "short"},
        {"bytes": "many"},
        {"dim": True},
        {"dim": 0},
        {"slot": "../../slot"},
        {"host": None},
        {"model": "a name"},
        {"tokens": [1, 2, 3]},
        {"tokens": [1, 2, 3, -4]},
        {"truncated": [4]},
        {"redone_float32": 2},
        {"max_tokens": "all"},
        {"fingerprints": "abcd"},
    ],
)
def test_a_record_that_is_none_is_refused_on_reading(made, changes):
    path = made.commit_part(0, 4)
    made.change_record(path, **changes)
    with pytest.raises(DataError, match="does not state"):
        parts.read(path)


def test_a_missing_or_broken_record_is_refused_on_reading(made):
    path = made.commit_part(0, 4)
    path.with_suffix(".json").write_text('{"start": NaN}')
    with pytest.raises(DataError, match="cannot be read"):
        parts.read(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="no such record"):
        parts.read(path)


def test_rows_outside_the_plan_are_named(made):
    stray = made.commit_part(20, 24, np.zeros((4, made_up.DIM), np.float32), fingerprints=["0" * 32] * 4)
    assert problems(made, stray) == ["rows: 20-24 are not within the plan's 0-21"]


def test_a_flipped_bit_is_found(made):
    path = made.commit_part(0, 4)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert [problem.split(":")[0] for problem in problems(made, path)] == ["sha256"]


def test_a_cut_or_missing_array_is_found(made):
    path = made.commit_part(0, 4)
    path.write_bytes(path.read_bytes()[:-1])
    assert [problem.split(":")[0] for problem in problems(made, path)] == ["bytes"]
    path.unlink()
    assert problems(made, path) == ["array: there is a record but no .npy"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, made_up.DIM)),
        np.asfortranarray(np.zeros((4, made_up.DIM), np.float32)),
        np.zeros((made_up.DIM, 4), np.float32),
        np.zeros((4, made_up.DIM), ">f4"),
        np.array([[None] * made_up.DIM] * 4, dtype=object),
    ],
    ids=["float64", "fortran order", "transposed", "big endian", "pickled objects"],
)
def test_an_array_of_another_kind_is_found_though_its_sums_agree(made, array):
    path = made.commit_part(0, 4)
    np.save(path, array, allow_pickle=True)
    made.change_record(path, sha256=parts.sha256_file(path), bytes=path.stat().st_size)
    assert any(problem.startswith(("header:", "array:")) for problem in problems(made, path))


def test_overlapping_parts_give_each_row_once_and_the_first_wins(made):
    ranges = [(0, 8), (4, 12), (6, 10), (12, 21)]
    found = [parts.read(made.commit_part(*each)) for each in ranges]
    chosen = parts.cover(found[::-1], 21)
    assert [(part.start, low, high) for part, low, high in chosen] == [(0, 0, 8), (4, 8, 12), (12, 12, 21)]


def test_missing_rows_are_named_as_half_open_ranges(made):
    found = [parts.read(made.commit_part(0, 4)), parts.read(made.commit_part(8, 12))]
    with pytest.raises(DataError, match=r"13 of 21 rows have no vector yet: rows 4-8, rows 12-21; run again"):
        parts.cover(found, 21)


def test_a_message_names_ten_ranges_and_counts_the_rest():
    text = parts.describe([(2 * i, 2 * i + 1) for i in range(12)])
    assert text.endswith("rows 18-19 and 2 more")


def test_rows_are_read_from_the_middle_of_a_part_and_only_while_it_is_whole(made):
    path = made.commit_part(0, 8)
    part = parts.read(path)
    assert b"".join(parts.row_bytes((part, 3, 5))) == made.vectors[3:5].tobytes()
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match="changed while it was merged"):
        list(parts.row_bytes((part, 3, 5)))


def test_a_slim_part_keeps_what_is_not_of_single_rows(made):
    slim = parts.read(made.commit_part(0, 4)).slim()
    assert slim.record["seconds"] == 0.5
    assert not set(parts.PER_ROW) & slim.record.keys()
    assert json.dumps(slim.record)
