"""Values of very many rows: which repeat an earlier one, how long texts are, and a column that goes to the disk."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runbook_lib.corpus import columns
from runbook_lib.corpus.columns import Column
from runbook_lib.corpus.lengths import Lengths
from runbook_lib.corpus.repeats import Repeats, digest


def repeats(values: list[bytes], at_once: int, folder: Path | None = None) -> Repeats:
    found = Repeats(folder, at_once)
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize("at_once", [1, 3, 16, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_does_not_depend_on_how_many_are_sorted_at_a_time(at_once: int, seed: int) -> None:
    rng = random.Random(seed)
    values = [digest(b"%d" % rng.randrange(60)) for _ in range(rng.randrange(1, 150))]
    first: dict[bytes, int] = {}
    later = [(row, first[value]) for row, value in enumerate(values) if first.setdefault(value, row) != row]
    groups = sorted([row for row, each in enumerate(values) if each == value] for value in first)
    found = repeats(values, at_once)
    assert found.later(1000) == (len(later), later)
    assert found.later(4) == (len(later), later[:4])
    assert sorted(group.tolist() for group in found.groups()) == [group for group in groups if len(group) > 1]
    found.close()


def test_digests_that_agree_in_either_half_only_are_no_repeats() -> None:
    one, other = bytes(8), b"\xff" * 8
    values = [one + one, one + other, other + one, other + other, one + other]
    for at_once in (1, 2, 100):
        found = repeats(values, at_once)
        assert found.later(9) == (1, [(4, 1)])
        found.close()


def test_rows_that_all_have_one_value_and_no_rows_at_all() -> None:
    same, none = repeats([digest(b"x")] * 50, 7), repeats([], 7)
    assert same.later(2) == (49, [(1, 0), (2, 0)])
    assert [group.tolist() for group in same.groups()] == [list(range(50))]
    assert none.later(2) == (0, []) and list(none.groups()) == []
    same.close()
    none.close()


def test_a_column_that_went_to_the_disk_is_read_as_it_was_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(columns, "IN_MEMORY", 1000)
    monkeypatch.setattr(columns, "BUFFER", 64)
    column, values = Column(tmp_path), np.random.default_rng(1).integers(0, 2**62, 700)
    for at, value in enumerate(values.tolist()):
        column.append(struct.pack("<q", value))
        if at % 100 == 0:  # reading in between harms nothing
            assert b"".join(column.pieces(8 * 17)) == values[: at + 1].tobytes()
    saved = io.BytesIO()
    np.save(saved, values, allow_pickle=False)
    assert b"".join(column.npy(np.int64, (700,))) == saved.getvalue()
    assert list(tmp_path.iterdir()) == []  # a kill leaves nothing behind
    column.close()


@pytest.mark.parametrize("seed", range(20))
def test_lengths_are_as_numpy_has_them(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.randrange(1, rng.choice([3, 50, 10_000])) for _ in range(rng.randrange(1, 400))]
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    assert lengths.texts == len(values) and Counter(values).total() == len(values)
    assert lengths.statistics() == {
        "total": sum(values),
        "min": min(values),
        "median": int(np.median(values)),
        "p95": int(np.percentile(values, 95)),
        "max": max(values),
    }
