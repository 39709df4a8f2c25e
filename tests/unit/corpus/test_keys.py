"""Rows of two corpora matched by keys, bucket by bucket: the same as a dictionary finds, whatever the sizes."""

import numpy as np
import pytest

from runbook_lib.corpus import keys


def by_a_dictionary(wanted, among):
    firsts = {}
    for row, key in enumerate(among):
        firsts.setdefault(key.tobytes(), row)
    return [firsts.get(key.tobytes(), keys.NONE) for key in wanted]


def some(rows, pool, seed):
    return pool[np.random.default_rng(seed).integers(0, len(pool), rows)] if rows else np.zeros((0, 16), np.uint8)


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
@pytest.mark.parametrize("others", [0, 1, 7, 1000])
def test_the_first_row_of_each_key_is_found_over_many_small_buckets(tmp_path, monkeypatch, rows, others):
    monkeypatch.setattr(keys, "BUCKET_ROWS", 64)
    monkeypatch.setattr(keys, "BLOCK_ROWS", 100)
    pool = np.random.default_rng(1).integers(0, 256, (300, 16), dtype=np.uint8)
    wanted, among = some(rows, pool[:200], 2), some(others, pool[100:], 3)
    out = np.zeros(rows, np.int64)
    keys.first_rows(wanted, among, out, tmp_path)
    assert out.tolist() == by_a_dictionary(wanted, among)
    assert list(tmp_path.iterdir()) == [], "no scratch file is left"


def test_all_sixteen_bytes_of_a_key_count_also_zeros_at_its_end(tmp_path):
    wanted = np.zeros((4, 16), np.uint8)
    wanted[1, 15], wanted[2, 0], wanted[3, :2] = 1, 1, (1, 1)
    out = np.zeros(4, np.int64)
    keys.first_rows(wanted, wanted[::-1].copy(), out, tmp_path)
    assert out.tolist() == [3, 2, 1, 0]


def test_a_number_and_its_digits_are_two_ids():
    assert len({keys.id_key(7), keys.id_key("7"), keys.id_key(70)}) == 3
    assert keys.id_key("\ud800") == keys.id_key("\ud800"), "half a surrogate pair is an id too"
