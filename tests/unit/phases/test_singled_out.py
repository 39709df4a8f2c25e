"""Rows that an audit computes again for what they are: odd norms, questions, and one of each part."""

from __future__ import annotations

import made_up
import numpy as np
import pytest

from runbook_lib.phases import merge, singled_out, words_fit
from runbook_lib.phases.subject import Subject
from runbook_lib.result import odd_norms, twins
from runbook_lib.result.content_fit import Scores
from runbook_lib.result.merged import Merged
from runbook_lib.run.checks import Checks


@pytest.fixture
def subject(tmp_path):
    made = made_up.run_folder(tmp_path, questions=["one?", "two?"])
    made.commit_all()
    merge.merge(made.run)
    return Subject.of(made.run, Merged(made.run.candidate))


def test_rows_whose_norm_is_a_little_off_are_named_the_furthest_first(tmp_path):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    np.save(tmp_path / "a.npy", vectors)
    assert odd_norms.rows(tmp_path / "a.npy") == []
    vectors[7] *= 1 + 3e-6
    vectors[2900] *= np.nan
    vectors[40] *= 0.9
    np.save(tmp_path / "a.npy", vectors)
    assert odd_norms.rows(tmp_path / "a.npy") == [2900, 40, 7]
    np.save(tmp_path / "a.npy", vectors * rng.uniform(1, 2, size=(3000, 1)).astype(np.float32))
    assert odd_norms.rows(tmp_path / "a.npy") == [2900]  # of a model that does not normalise


def test_equal_texts_whose_vectors_differ_are_named_with_the_first_of_them(tmp_path):
    vectors = np.random.default_rng(2).normal(size=(200, 32)).astype(np.float32)
    prints = np.random.default_rng(3).integers(0, 256, (200, 16)).astype(np.uint8)
    for rows in ([3, 90, 150], [7, 8], [20, 30]):
        vectors[rows], prints[rows] = vectors[rows[0]], prints[rows[0]]
    prints[30, 8:] += 1  # alike in half of their fingerprint only
    vectors[30] *= -1
    np.save(tmp_path / "a.npy", vectors)
    assert twins.differing(tmp_path / "a.npy", prints, 1e-6, 20) == []
    vectors[90] += 0.01
    vectors[8] = np.nan
    np.save(tmp_path / "a.npy", vectors)
    assert twins.differing(tmp_path / "a.npy", prints, 1e-6, 20) == [3, 90, 7, 8]
    assert twins.differing(tmp_path / "a.npy", prints, 1e-6, 2) == [3, 90]


def test_the_questions_are_among_the_first(subject):
    documents = subject.corpus.documents
    assert singled_out.first(subject, None, ()) == [documents, documents + 1]


def test_each_part_is_looked_at_by_a_row_that_follows_from_the_seed(subject):
    places = [part.rows for part in subject.manifest.parts]
    seen = [singled_out.of_each_part(subject, f"{number}") for number in range(400)]
    for rows in seen:
        assert len(rows) == len(places)
        assert all(sum(low <= row < high for row in rows) == 1 for low, high in places)
    assert seen[0] == singled_out.of_each_part(subject, "0") and seen[0] != seen[1]
    sizes = np.diff(subject.corpus.offsets())
    for place, (low, high) in enumerate(sorted(places)):
        often = np.bincount([sorted(rows)[place] - low for rows in seen], minlength=high - low)
        assert often.all() and often.argmax() == sizes[low:high].argmax(), "each row may be it; the longest more often"


def test_of_many_near_pairs_that_comes_first_in_which_a_row_fits_its_text_least(subject, monkeypatch):
    found = [(0, 1), (2, 3), (12, 13)]
    monkeypatch.setattr(words_fit.near, "pairs", lambda matrix, prints, within: list(found))
    monkeypatch.setattr(words_fit, "COPIES", 1)
    own = np.full(subject.corpus.documents, 0.7)
    own[13], own[2] = -0.1, np.nan
    scores = Scores(own, own, own, own)
    assert words_fit.tell_near(Checks("a"), subject, scores) == [12, 13]
    assert words_fit.tell_near(Checks("a"), subject) == [0, 1]
