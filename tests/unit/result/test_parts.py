"""Parts that came home: believed only when record, array, plan and corpus agree."""

import json
from dataclasses import replace

import made_up
import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.result import parts
from worker.files import sha256_file


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
        ({"batching": "packed"}, "batches: expected 'padded', found 'packed'"),
        ({"prompt": "{text}"}, "prompt: expected"),
        ({"question_prompt": "{text}"}, "question prompt: expected"),
        ({"dim": 9}, "dim: expected"),
        ({"format": 0}, "format: expected"),
        ({"normalises": False}, "normalises: expected"),
        ({"max_tokens": 256}, "max_tokens: expected 16, found 256"),
        ({"max_tokens": 5}, "max_tokens: expected 16, found 5"),
        ({"max_tokens": None}, "max_tokens: expected 16, found None"),
        ({"model_max_tokens": 8}, "max_tokens: expected 8, found 16"),
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
        {"start": False},
        {"stop": 4.0},
        {"bytes": 2**70},
        {"dim": 8.0},
        {"slot": "cluster0_gpu0\n"},
        {"tokens": [1, 2, 3, True]},
        {"tokens": [1, 2, 3, 10**400]},
        {"truncated": [2, 1]},
        {"truncated": [1, 1]},
        {"redone_float32": [[1]]},
        {"norms": [1.0, 1.0, 1.0, -1.0]},
        {"norms": [1, 1, 1, 10**400]},
        {"fingerprints": [["0" * 32]] * 4},
        {"seconds": 10**400},
        {"seconds": "long"},
        {"epoch": [1]},
        {"epoch": "1\ud800"},
        {"device": "x" * 2**19},
        {"torch": json.loads("[" * 900 + "]" * 900)},
        {"model": {"name": json.loads("[" * 900 + "]" * 900)}},
        {"more": list(range(5000))},
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
    made.change_record(path, sha256=sha256_file(path), bytes=path.stat().st_size)
    assert any(problem.startswith(("header:", "array:")) for problem in problems(made, path))


def as_file(header: bytes, rows: bytes = bytes(4 * 4 * made_up.DIM), version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with any header."""
    size = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + header + rows


def said(text: str, width: int = 118) -> bytes:
    return text.encode("latin-1").ljust(width - 1) + b"\n"


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8), }"
FILES = {
    "an empty ZIP": b"PK\x05\x06" + bytes(18),
    "a ZIP with an array": b"PK\x03\x04" + bytes(400),
    "a pickle": b"\x80\x04]." + bytes(200),
    "nothing": b"",
    "half a magic": b"\x93NUM",
    "magic alone": b"\x93NUMPY\x01\x00",
    "version 2": as_file(said(GOOD), version=b"\x02\x00"),
    "version 3": as_file(said(GOOD), version=b"\x03\x00"),
    "bytes behind the rows": as_file(said(GOOD)) + b"\0" * 4,
    "a row behind the rows": as_file(said(GOOD)) + bytes(4 * made_up.DIM),
    "a row too few": as_file(said(GOOD), bytes(3 * 4 * made_up.DIM)),
    "a byte too few": as_file(said(GOOD))[:-1],
    "a header that ends behind the file": b"\x93NUMPY\x01\x00\xff\xff" + said(GOOD),
    "a header of 60,000 bytes": as_file(said(GOOD, 60_000)),
    "a header without its line end": as_file(said(GOOD)[:-1] + b" "),
    "words behind the header": as_file(said(GOOD + " # more")),
    "keys in another order": as_file(said("{'shape': (4, 8), 'descr': '<f4', 'fortran_order': False, }")),
    "a key given twice": as_file(said(GOOD[:-2] + ", 'shape': (4, 8), }")),
    "the same bytes as 2 x 16": as_file(said(GOOD.replace("(4, 8)", "(2, 16)"))),
    "the same bytes as 8 x 4": as_file(said(GOOD.replace("(4, 8)", "(8, 4)"))),
    "one dimension": as_file(said(GOOD.replace("(4, 8)", "(32,)"))),
    "three dimensions": as_file(said(GOOD.replace("(4, 8)", "(4, 8, 1)"))),
    "a shape with signs": as_file(said(GOOD.replace("(4, 8)", "(+4, 8)"))),
    "a shape of endless digits": as_file(said(GOOD.replace("(4, 8)", f"({'0' * 90}4, 8)"), 400)),
    "int32": as_file(said(GOOD.replace("<f4", "<i4"))),
    "native float": as_file(said(GOOD.replace("<f4", "=f4"))),
    "a record of one field": as_file(said(GOOD.replace("'<f4'", "[('a', '<f4')]"))),
    "Fortran order": as_file(said(GOOD.replace("False", "True"))),
    "an expression": as_file(said(GOOD.replace("False", "0"))),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_array_of_exactly_these_rows_is_refused_and_never_copied(made, what):
    path = made.commit_part(0, 4)
    path.write_bytes(FILES[what])
    made.change_record(path, sha256=sha256_file(path), bytes=len(FILES[what]))
    (problem,) = problems(made, path)
    assert problem.startswith(("header: expected", "size: expected")), problem
    with pytest.raises(DataError, match="changed while it was merged"):
        list(parts.row_bytes((parts.read(path), 0, 4)))


def test_arrays_of_every_numpy_are_read_whatever_blanks_fill_their_header(made):
    path = made.commit_part(0, 4)
    rows = path.read_bytes()[-4 * 4 * made_up.DIM :]
    for width in (len(GOOD) + 1, 70, 118, 246, 1000):
        path.write_bytes(as_file(said(GOOD, width), rows))
        made.change_record(path, sha256=sha256_file(path), bytes=path.stat().st_size)
        assert problems(made, path) == []
        assert b"".join(parts.row_bytes((parts.read(path), 1, 3))) == made.vectors[1:3].tobytes()


def test_a_record_far_larger_than_its_rows_need_is_not_read(made):
    path = made.commit_part(0, 4)
    path.with_suffix(".json").write_text('{"x": [' + "[]," * 2**20 + "[]]}")
    with pytest.raises(DataError, match="larger than"):
        parts.read(path)


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
    slim = parts.read(made.commit_part(0, 4)).without_row_data()
    assert slim.record.seconds == 0.5
    assert not any(getattr(slim.record, name) for name in ("fingerprints", "tokens", "truncated", "norms"))
    assert json.dumps(slim.record.to_json())


def test_a_part_cut_where_the_model_itself_ends_is_this_runs(tmp_path):
    made = made_up.run_folder(tmp_path)
    own = replace(made.plan, max_tokens=None)
    part = parts.read(made.commit_part(0, 4, max_tokens=512, model_max_tokens=512))
    assert parts.verify(part, own, made.corpus.fingerprints()) == []
    assert "max_tokens: expected 16, found 512" in parts.verify(part, made.plan, made.corpus.fingerprints())
    short = parts.read(made.commit_part(4, 8, max_tokens=16, model_max_tokens=512))
    assert "max_tokens: expected 512, found 16" in parts.verify(short, own, made.corpus.fingerprints())


@pytest.mark.parametrize(
    ("said", "slot"),
    [
        ({"host": "elsewhere"}, "cluster0_gpu0"),  # a slot of the plan is on the plan's host
        ({"slot": "cluster0_gpu1"}, "cluster0_gpu1"),  # which helped its neighbour
        ({"slot": "cluster9_gpu9", "host": "elsewhere"}, "cluster0_gpu0"),  # whose rows these are
    ],
)
def test_slot_and_host_are_the_plans_whatever_a_part_says(made, said, slot):
    part = parts.with_plan_slot(parts.read(made.commit_part(0, 4, **said)), made.plan)
    assert (part.slot, part.host) == (slot, "here")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda array: array * np.float32("nan"), "4 are not as their record says: row 0 has norm nan"),
        (lambda array: array * np.float32("inf"), "row 0 has norm"),
        (lambda array: array * 0, "4 are not as their record says: row 0 has norm 0,"),
        (lambda array: np.concatenate([array[:3], array[3:] / 2]), "1 are not as their record says: row 3 has norm"),
        (lambda array: np.concatenate([array[:3], array[3:] * 1.00001]), "row 3"),
    ],
    ids=["nan", "infinity", "zeros", "a half", "a little longer"],
)
def test_vectors_that_are_not_as_long_as_their_record_says_are_found_though_its_sums_agree(made, change, named):
    path = made.commit_part(0, 4)
    np.save(path, change(np.load(path)).astype(np.float32))
    made.change_record(path, sha256=sha256_file(path), bytes=path.stat().st_size)
    (problem,) = problems(made, path)
    assert named in problem


def test_vectors_are_looked_at_piece_by_piece(made, monkeypatch):
    """One row at a time, or half a row: the same is found."""
    path = made.commit_part(0, 4)
    array = np.load(path)
    array[2] *= 2
    np.save(path, array)
    made.change_record(path, sha256=sha256_file(path), bytes=path.stat().st_size)
    for size in (1, 4 * made_up.DIM, 8 * made_up.DIM, 2**20):
        monkeypatch.setattr(parts, "PIECE_BYTES", size)
        (problem,) = problems(made, path)
        assert "vectors: 1 are not as their record says: row 2" in problem
