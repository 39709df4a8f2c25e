"""The map: a point for each document where its vector says, and titles that stay data whatever is in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import made_up
import numpy as np
import pytest

from runbook_lib import cli
from runbook_lib.afterwards import corpus_map, finished
from runbook_lib.errors import DataError
from runbook_lib.result import parts

HOSTILE = '</script><script>window.hacked = 1</script>\u2028<img src=x onerror="window.hacked = 1">\x1b[31m\u202e'


def published(folder: Path, title: str, documents: int = 60) -> made_up.MadeUp:
    texts = made_up.documents(documents)
    texts[3]["title"], texts[4]["title"] = title, ""
    made = made_up.run_folder(folder, texts=texts, dim=16, accept=("missing_title",))
    made.commit_all()
    made_up.published(made.run)
    return made


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[made_up.MadeUp]:
    """A run of 60 documents with a result; one title is hostile, one is empty."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    yield published(tmp_path, HOSTILE)


def content(page: Path) -> dict:
    """What the page holds, as its script reads it."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)


def points(page: Path) -> np.ndarray:
    return np.frombuffer(base64.b64decode(content(page)["points"]), "<u2").reshape(-1, 2).astype(float)


def test_each_document_stands_where_the_two_strongest_directions_say(done: made_up.MadeUp, tmp_path: Path) -> None:
    result = finished.load(done.run)
    made = corpus_map.write(result, tmp_path / "map.html")
    placed = points(made.path)
    vectors = np.concatenate([result.vectors, result.questions]).astype(np.float64)
    centred = vectors - result.vectors.mean(axis=0)
    axes = np.linalg.svd(centred[:60], full_matrices=False)[2][:2]
    expected = centred @ axes.T
    assert placed.shape == (61, 2)
    for column in range(2):
        assert abs(np.corrcoef(placed[:, column], expected[:, column])[0, 1]) > 0.9999
    values = np.linalg.svd(centred[:60], compute_uv=False) ** 2
    assert f"{100 * values[:2].sum() / values.sum():.1f} % of all variance" in made.about


def test_titles_are_data_and_only_the_pages_own_script_may_run(done: made_up.MadeUp, tmp_path: Path) -> None:
    page = corpus_map.write(finished.load(done.run), tmp_path / "map.html").path
    text = page.read_text()
    assert len(re.findall(r"<script", text)) == 2 and "<img" not in text
    titles = content(page)["titles"]
    assert titles[3].startswith("</script><script>window.hacked") and "\x1b" not in titles[3]
    assert not {"\u2028", "\u202e"} & set(text)
    assert titles[4].startswith(done.corpus.text(4)[:20])  # a document without a title shows its text
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert not re.search(r"https?:|//[a-z]", re.sub(r"<script type.*?</script>", "", text, flags=re.DOTALL))


def test_questions_have_their_nearest_documents(done: made_up.MadeUp, tmp_path: Path) -> None:
    result = finished.load(done.run)
    (asked,) = content(corpus_map.write(result, tmp_path / "map.html").path)["questions"]
    best = result.nearest(result.questions[0], 3)
    assert [row for row, _ in asked["nearest"]] == [found.row for found in best]
    assert [cosine for _, cosine in asked["nearest"]] == pytest.approx([found.cosine for found in best], abs=1e-4)


def test_a_map_is_written_beside_the_result_and_replaces_nothing(done: made_up.MadeUp) -> None:
    assert cli.main(["map", str(done.run.folder)]) == 0
    target = done.run.profile.output.folder / f"{done.run.name}-map.html"
    assert target.is_file() and not list(done.run.folder.rglob("*map.html"))
    assert cli.main(["map", str(done.run.folder)]) == 1


def test_the_same_vectors_give_the_same_page(done: made_up.MadeUp, tmp_path: Path) -> None:
    result = finished.load(done.run)
    pages = [corpus_map.write(result, tmp_path / name).path.read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_a_changed_byte_of_the_matrix_gives_no_map(done: made_up.MadeUp, tmp_path: Path) -> None:
    file = done.run.merged / "embeddings.npy"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DataError, match="sha256"):
        corpus_map.write(finished.load(done.run), tmp_path / "map.html")
    assert not (tmp_path / "map.html").exists()


@pytest.mark.parametrize("vectors", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.array([[1e30, 0], [-1e30, 1]])])
def test_points_that_cannot_be_told_apart_stand_in_the_square_all_the_same(vectors: np.ndarray) -> None:
    steps = corpus_map._steps(vectors.astype(np.float32))
    assert steps.dtype == np.dtype("<u2") and steps.shape == vectors.shape


def test_umap_that_is_not_installed_is_said_with_the_command(
    done: made_up.MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_map.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -e '\.\[map\]'"):
        corpus_map.write(finished.load(done.run), tmp_path / "map.html", "umap")


@pytest.mark.process
def test_umap_keeps_neighbours_together(tmp_path: Path) -> None:
    """In a process of its own: numba compiles for a minute of processor time, once."""
    umap = pytest.importorskip("umap")
    draw = np.random.default_rng(2)
    centres = np.eye(8, dtype=np.float32)[:3]
    vectors = np.concatenate([centre + 0.05 * draw.standard_normal((40, 8)) for centre in centres]).astype(np.float32)
    placed = corpus_map._umap(vectors)
    assert umap and placed.shape == (120, 2)
    groups = placed.reshape(3, 40, 2)
    own = max(float(np.linalg.norm(group - group.mean(axis=0), axis=1).mean()) for group in groups)
    apart = min(
        float(np.linalg.norm(groups[i].mean(axis=0) - groups[j].mean(axis=0))) for i in range(3) for j in range(i)
    )
    assert apart > 2 * own
