"""Which text a vector belongs to, by words alone: what is wrong comes lowest, what is right raises no word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import memory
import numpy as np
import pytest

from runbook_lib.result import content_fit, misfits
from runbook_lib.result.content_fit import Scores
from runbook_lib.result.manifest import MergedPart
from runbook_lib.result.survey import header

ROWS, DIM, PART = 600, 32, 30
RANGES = [(start, start + PART) for start in range(0, ROWS, PART)]
PARTS = [MergedPart(f"part {a}", "0", "cluster0_gpu0", "one", 1, (a, b)) for a, b in RANGES]


def language(seed: int, rows: int = ROWS) -> tuple[list[str], np.ndarray]:
    """Texts of made-up words, and vectors that follow from the words, with noise: a model that nobody has."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnoprstuvz"), 6)) for _ in range(400)]
    meaning = rng.normal(size=(len(words), DIM))
    chosen = [rng.choice(len(words), 25) for _ in range(rows)]
    vectors = np.stack([meaning[each].sum(axis=0) for each in chosen])
    vectors += 0.4 * np.linalg.norm(vectors, axis=1).mean() / np.sqrt(DIM) * rng.normal(size=vectors.shape) + 3.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [" ".join(words[word] for word in each) for each in chosen], vectors.astype(np.float32)


def scored(folder: Path, texts: list[str], vectors: np.ndarray) -> Scores:
    path = folder / "embeddings.npy"
    np.save(path, vectors)
    mean = np.nan_to_num(vectors).mean(axis=0)
    scores = content_fit.score(lambda: iter(texts), path, header(path), mean, 1000)
    assert scores is not None
    return scores


@pytest.fixture(params=[1, 2, 3])
def clean(request: pytest.FixtureRequest) -> tuple[list[str], np.ndarray]:
    return language(request.param)


def test_a_clean_run_has_no_misfit_and_says_how_well_it_would_tell(clean, tmp_path: Path) -> None:
    scores = scored(tmp_path, *clean)
    shown = misfits.described(scores)
    assert misfits.parts(scores, PARTS) == []
    assert shown.rows == ROWS and shown.median > 0.5 and shown.power_other > 0.95
    assert len(shown.lowest) == misfits.LOOKED_AT and list(shown.lowest_scores) == sorted(shown.lowest_scores)


def test_two_rows_that_changed_places_are_the_lowest(clean, tmp_path: Path) -> None:
    texts, vectors = clean
    vectors[[50, 400]] = vectors[[400, 50]]
    scores = scored(tmp_path, texts, vectors)
    assert {50, 400} <= set(content_fit.lowest(scores, 20))


def test_neighbours_of_one_article_that_changed_places_would_fit_better_exchanged(tmp_path: Path) -> None:
    texts, vectors = language(7)
    words, meaning = [text.split() for text in texts], dict[str, np.ndarray]()
    for row in range(1, ROWS, 2):  # two passages of an article share three words of five, and as much of their meaning
        words[row][:15] = words[row - 1][:15]
    rng = np.random.default_rng(8)
    for word in {word for some in words for word in some}:
        meaning[word] = rng.normal(size=DIM)
    vectors = np.stack([sum(meaning[word] for word in some) for some in words]) + 0.6 * rng.normal(size=(ROWS, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    texts = [" ".join(some) for some in words]
    clean = scored(tmp_path, texts, vectors)
    assert len(content_fit.exchanged(clean, 10)) <= 6
    harmed = range(20, 580, 56)
    for row in harmed:
        vectors[[row, row + 1]] = vectors[[row + 1, row]]
    found = content_fit.exchanged(scored(tmp_path, texts, vectors), len(harmed))
    assert sum({row, row + 1} <= {*found} for row in harmed) >= 8


HARM: dict[str, Callable[[np.ndarray], None]] = {
    "shifted on": lambda part: part.__setitem__(slice(None), np.roll(part, 1, axis=0)),
    "shifted back": lambda part: part.__setitem__(slice(None), np.roll(part, -1, axis=0)),
    "shuffled": lambda part: part.__setitem__(slice(None), part[np.random.default_rng(0).permutation(len(part))]),
    "signs turned": lambda part: part.__imul__(-1),
    "random": lambda part: part.__setitem__(slice(None), np.random.default_rng(0).normal(size=part.shape)),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_part_that_holds_other_vectors_is_named(clean, tmp_path: Path, harm: str) -> None:
    texts, vectors = clean
    HARM[harm](vectors[90:120])
    found = misfits.parts(scored(tmp_path, texts, vectors), PARTS)
    assert [each.part.name for each in found] == ["part 90"]
    assert ("one row" in found[0].why) == ("shifted" in harm)
    assert all(90 <= row < 120 for row in found[0].rows)


def test_two_parts_that_changed_places_are_named(clean, tmp_path: Path) -> None:
    texts, vectors = clean
    vectors[:30], vectors[300:330] = vectors[300:330].copy(), vectors[:30].copy()
    assert [each.part.name for each in misfits.parts(scored(tmp_path, texts, vectors), PARTS)] == ["part 0", "part 300"]


def test_large_and_small_runs_are_fitted_alike(tmp_path: Path) -> None:
    """More rows than features: other equations, the same meaning."""
    texts, vectors = language(4, content_fit.FEATURES + 500)
    vectors[[7, 2000]] = vectors[[2000, 7]]
    scores = scored(tmp_path, texts, vectors)
    assert {7, 2000} <= set(content_fit.lowest(scores, 20)) and float(np.nanmedian(scores.own)) > 0.6


def test_rows_beside_the_sample_are_scored_like_those_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_fit, "FITTED", 300)
    texts, vectors = language(5)
    scores = scored(tmp_path, texts, vectors)
    within = np.zeros(ROWS, np.bool_)
    within[np.linspace(0, ROWS - 1, 300).astype(int)] = True
    assert abs(np.nanmedian(scores.own[within]) - np.nanmedian(scores.own[~within])) < 0.05


def test_leave_one_out_is_what_a_fit_without_the_row_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the definition: fitted anew without the row, with the same weights of words."""
    monkeypatch.setattr(content_fit, "RIDGES", (1.0,))
    texts, vectors = language(6, 60)
    scores = scored(tmp_path, texts, vectors)
    words = content_fit.counts(texts, 1000, content_fit.FEATURES_OF_FEW)
    x = content_fit._weighted(words, np.log(61 / ((words > 0).sum(axis=0) + 1)).astype(np.float32)).astype(np.float64)
    y = vectors - vectors.mean(axis=0)
    for row in (0, 17, 59):
        others = np.arange(60) != row
        solved = np.linalg.solve(x[others] @ x[others].T + np.eye(59), y[others])
        guess = x[row] @ x[others].T @ solved
        cosine = guess @ y[row] / np.linalg.norm(guess) / np.linalg.norm(y[row])
        assert scores.own[row] == pytest.approx(cosine, abs=2e-3)


def test_a_row_without_a_direction_and_one_without_words_have_no_say(tmp_path: Path) -> None:
    texts, vectors = language(7)
    vectors[3], vectors[4], texts[5] = np.nan, 0.0, ""
    scores = scored(tmp_path, texts, vectors)
    assert np.isnan(scores.own[[3, 4, 5]]).all()
    assert np.isfinite(scores.own).sum() == ROWS - 3
    assert not {3, 4, 5} & set(content_fit.lowest(scores, ROWS))


def test_vectors_that_words_tell_nothing_of_give_no_suspect(tmp_path: Path) -> None:
    texts, vectors = language(8)
    scores = scored(tmp_path, texts, np.random.default_rng(8).normal(size=vectors.shape).astype(np.float32))
    assert misfits.parts(scores, PARTS) == [] and misfits.suspects(scores) == []
    assert misfits.described(scores).power_other < 0.3


def test_few_rows_have_no_scores(tmp_path: Path) -> None:
    texts, vectors = language(9, content_fit.FEWEST - 1)
    path = tmp_path / "embeddings.npy"
    np.save(path, vectors)
    assert content_fit.score(lambda: iter(texts), path, header(path), vectors.mean(axis=0), 1000) is None


@pytest.mark.process
@pytest.mark.parametrize("rows", [content_fit.FEATURES, 5 * content_fit.FEATURES])
def test_memory_is_that_of_a_few_matrices_of_words_whatever_the_rows(tmp_path: Path, rows: int) -> None:
    """64 MiB of counts at most, the directions of the rows that are fitted, and four matrices of words by words."""
    np.save(tmp_path / "embeddings.npy", np.random.default_rng(0).normal(size=(rows, 256)).astype(np.float32))
    code = (
        f"import sys; sys.path[:0] = [{str(Path(memory.__file__).parent)!r}]\n"
        "import memory, numpy as np; from pathlib import Path\n"
        "from runbook_lib.result import content_fit; from runbook_lib.result.survey import header\n"
        f"path = Path({str(tmp_path)!r}, 'embeddings.npy')\n"
        f"texts = [f'w{{n % 997}} w{{n % 31}}' for n in range({rows})]\n"
        "shape, some = header(path), np.ones((600, 600), np.float32) @ np.ones((600, 600), np.float32)\n"
        "before = memory.peak_mib()\n"
        "content_fit.score(lambda: iter(texts), path, shape, np.zeros(256), 100)\n"
        "print(memory.peak_mib() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150
