"""Nearly equal vectors: every copy is found, whatever lies between, unless the texts are equal; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from runbook_lib.result import near


def saved(folder, vectors):
    path = folder / "m.npy"
    np.save(path, np.ascontiguousarray(vectors, np.float32))
    return path


def made(rows=3000, dim=64):
    found = np.random.default_rng(3).normal(size=(rows, dim)).astype(np.float32)
    prints = np.random.default_rng(4).integers(0, 256, (rows, 16)).astype(np.uint8)
    return found / np.linalg.norm(found, axis=1, keepdims=True), prints


@pytest.mark.parametrize("noise", [0.0, 1e-3, 3e-3])
def test_copies_are_found_with_or_without_noise(tmp_path, noise):
    vectors, prints = made()
    copies = [(5 + 7 * i, 2900 - 3 * i) for i in range(100)]
    for a, b in copies:
        step = np.random.default_rng(a).normal(size=64)
        vectors[b] = vectors[a] + noise * step / np.linalg.norm(step)
    found = near.pairs(saved(tmp_path, vectors), prints)
    assert set(found) <= {tuple(sorted(each)) for each in copies} and len(found) >= 99
    prints[[b for _, b in copies]] = prints[[a for a, _ in copies]]
    assert near.pairs(saved(tmp_path, vectors), prints) == []


def test_copies_with_more_noise_are_found_where_they_are_asked_for(tmp_path):
    vectors, prints = made()
    copies = [(5 + 7 * i, 2900 - 3 * i) for i in range(100)]
    for a, b in copies:
        step = np.random.default_rng(a).normal(size=64)
        vectors[b] = vectors[a] + 0.02 * step / np.linalg.norm(step)  # 1 - cosine is 2e-4
    path = saved(tmp_path, vectors)
    found = near.pairs(path, prints, near.CLOSE)
    assert set(found) <= {tuple(sorted(each)) for each in copies} and len(found) >= 90
    assert near.pairs(path, prints) == []


def test_neighbours_in_meaning_are_no_copies_and_bad_rows_do_no_harm(tmp_path):
    vectors, prints = made()
    vectors[1::2] = vectors[::2] + 0.05 * vectors[1::2]
    vectors[[0, 2]] = np.nan
    vectors[[4, 6]] = 0
    assert near.pairs(saved(tmp_path, vectors), prints) == []


def test_many_equal_ones_end_in_time(tmp_path):
    vectors, prints = made(500)
    vectors[:] = vectors[0]
    assert len(near.pairs(saved(tmp_path, vectors), prints)) == 499
