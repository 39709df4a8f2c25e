"""Titles: whose document is found, how many are nearer, and which titles are asked at all."""

from __future__ import annotations

import numpy as np
import pytest

from runbook_lib.phases import meaning
from runbook_lib.run.checks import Checks


class Corpus:
    def articles(self):
        return iter([{"title": title} for title in ("a", "b", " ", None, "a", "c")])


def test_each_title_is_asked_once_in_the_order_of_the_draw():
    assert meaning.titles_of(Corpus(), [5, 4, 3, 2, 1, 0]) == {5: "c", 1: "b", 0: "a"}


@pytest.mark.parametrize(("noise", "warn"), [(0.0, False), (30.0, True)])
def test_the_place_of_each_document_is_counted(tmp_path, noise, warn):
    vectors = np.random.default_rng(1).normal(size=(200, 32)).astype(np.float32)
    np.save(tmp_path / "m.npy", vectors)
    asked = {row: vectors[row] + noise * np.random.default_rng(row).normal(size=32) for row in range(0, 200, 10)}
    found = meaning.places(tmp_path / "m.npy", asked)
    for row, place in found.items():
        cosines = vectors @ asked[row] / np.linalg.norm(vectors, axis=1)
        assert place == (cosines > cosines[row] + 1e-6).sum()
    checks = Checks("a")
    meaning.tell(checks, tmp_path / "m.npy", asked, 200)
    assert checks.ok and checks.items[0].warn is warn and "of 20 titles, of 200 documents" in checks.items[0].seen
    checks = Checks("a")
    meaning.tell(checks, tmp_path / "m.npy", dict(list(asked.items())[:5]), 200)
    assert not checks.items
