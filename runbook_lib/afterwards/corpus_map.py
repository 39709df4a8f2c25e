"""A map of a result: one page that needs no network, with a point for each document and its title under the pointer.

Two numbers a document: by principal components (numpy), or by UMAP (McInnes, Healy and Melville 2018) where it is
installed. Titles come from strangers: they are data in the page, which its script sets as text, and a policy in its
head lets no other script run. The only door to umap.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.escape import safe_text
from worker.files import make_folder, write_atomic

from ..errors import DataError
from ..result import whole as wholes
from ..result.survey import blocks, has_direction, norms_of, unit
from ..run.disk import explain_disk_errors
from .finished import ROWS, Finished, checked_blocks

METHODS = ("pca", "umap")
TITLE, ID = 120, 60  # characters
NEAREST = 3  # documents of each question
FIRST_DIMS = 50  # of principal components, before UMAP: its neighbours are the same and found faster
SEED = 0
STEPS = 65535  # of a coordinate in the page
HERE = Path(__file__).parent

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Mapped:
    """A map that was written; `about`: how it was made, in a sentence."""

    path: Path
    bytes: int
    about: str


@explain_disk_errors("writing the map")
def write(
    result: Finished, target: Path | None = None, method: str = "pca", on_rows: OnRows = lambda done: None
) -> Mapped:
    """Write the page and return where. Raises DataError if the target is there, or UMAP is wanted and not installed."""
    if method not in METHODS:
        raise DataError(f"map: expected one of {', '.join(METHODS)}, found {safe_text(method, 40)}")
    if method == "umap" and importlib.util.find_spec("umap") is None:
        raise DataError("map --by umap: umap-learn is not installed here. Next: pip install -e '.[map]', or --by pca")
    target = (target or result.run.profile.output.folder / f"{result.run.name}-map.html").absolute()
    if target.exists() or target.is_symlink():
        raise DataError(f"{target}: there is such a file already. Next: take it away, or give another name (--out)")
    placed, about = _placed(result, method, on_rows)
    page = _page(_content(result, placed, about))
    make_folder(target.parent)
    write_atomic(target, page, 0o644)
    return Mapped(target, len(page), about)


# ------------------------------------------------------------------------------------------------------ two numbers


def _placed(result: Finished, method: str, on_rows: OnRows) -> tuple[np.ndarray, str]:
    """Return float32 (documents + questions, 2), and how they were made in words."""
    wanted = 2 if method == "pca" else min(FIRST_DIMS, result.manifest.dim)
    mean, axes, share = _axes(result, wanted, on_rows)
    reduced = np.concatenate(
        [
            *(
                (block.astype(np.float32) - mean) @ axes
                for _, block in blocks(result.merged.embeddings, result.shape, ROWS)
            ),
            (result.questions - mean) @ axes,
        ]
    ).astype(np.float32)
    count = f"{result.manifest.documents:,} documents by {result.manifest.model.name}"
    if method == "pca":
        return reduced, (
            f"{count}; the two directions in which they differ most (principal components), which hold "
            f"{100 * share:.1f} % of all variance: what lies near may be far in the others"
        )
    return _umap(
        reduced
    ), f"{count}, by UMAP: neighbours are kept near each other, distances between groups mean little"


def _axes(result: Finished, wanted: int, on_rows: OnRows) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean (dim,), the first axes (dim, wanted), and their share of the variance.

    Every byte of the matrix is checked on the way. Memory does not grow with the rows.
    """
    dim = result.manifest.dim
    total, products, rows = np.zeros(dim), np.zeros((dim, dim)), 0
    for block in checked_blocks(result, on_rows):
        exact = np.nan_to_num(block.astype(np.float64), posinf=0.0, neginf=0.0)
        total += exact.sum(axis=0)
        products += exact.T @ exact
        rows += len(block)
    mean = total / max(1, rows)
    values, vectors = np.linalg.eigh(products / max(1, rows) - np.outer(mean, mean))
    order = np.argsort(values)[::-1][:wanted]
    axes = vectors[:, order]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)  # else the sign is chance
    share = float(values[order][:2].sum() / values.sum()) if values.sum() > 0 else 1.0
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    return mean.astype(np.float32), axes.astype(np.float32), share


def _umap(reduced: np.ndarray) -> np.ndarray:
    """Return float32 (rows, 2). The seed is fixed, so that the same vectors give the same map."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of the fixed seed, which are nothing to a person
        import umap

        neighbours = max(2, min(15, len(reduced) - 1))
        start = "spectral" if len(reduced) > neighbours + 2 else "random"
        reducer = umap.UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=SEED, init=start)
        placed: np.ndarray = reducer.fit_transform(reduced).astype(np.float32)
    return placed


# ---------------------------------------------------------------------------------------------------------- the page


def _content(result: Finished, placed: np.ndarray, about: str) -> dict[str, Any]:
    """Return the page's data; a document without a title shows the beginning of its text."""
    titles, ids = [], []
    for document in result.documents():
        titles.append(_line(document.get("title"), TITLE))
        ids.append(_line(document.get("id"), ID))
    untitled = [row for row, title in enumerate(titles) if not title]
    for low in range(0, len(untitled), ROWS):
        some = untitled[low : low + ROWS]
        for row, text in zip(some, _texts(result, some), strict=True):
            titles[row] = _line(text, TITLE)
    if all(key == str(row) for row, key in enumerate(ids)):
        ids = []  # row numbers stand in for ids
    return {
        "name": safe_text(result.run.name, 100),
        "about": safe_text(about, 400),
        "points": base64.b64encode(_steps(placed).tobytes()).decode(),
        "titles": titles,
        "ids": ids,
        "questions": [
            {"question": _line(words, 300), "nearest": near}
            for words, near in zip(_questions(result), _nearest(result), strict=True)
        ],
    }


def _questions(result: Finished) -> list[str]:
    """Return the words of each question; its number where the run's corpus is gone."""
    count = len(result.questions)
    with suppress(DataError):
        words = [str(question["question"]) for question in wholes.all_documents(result.run).questions_list()]
        if len(words) == count:
            return words
    return [f"question {number}" for number in range(1, count + 1)]


def _nearest(result: Finished) -> list[list[tuple[int, float]]]:
    """Return the rows nearest to each question with their cosines, all questions in one reading of the vectors."""
    asked = unit(result.questions, norms_of(result.questions))
    best: list[list[tuple[float, int]]] = [[] for _ in asked]
    for low, block in blocks(result.merged.embeddings, result.shape, ROWS) if len(asked) else ():
        norms = norms_of(block)
        scores = unit(block, norms) @ asked.T
        scores[~has_direction(norms)] = -np.inf
        for number, column in enumerate(scores.T):
            rows = np.argsort(-column, kind="stable")[:NEAREST]
            found = [(float(column[row]), low + int(row)) for row in rows if np.isfinite(column[row])]
            best[number] = sorted([*best[number], *found], key=lambda each: (-each[0], each[1]))[:NEAREST]
    return [[(row, round(cosine, 4)) for cosine, row in found] for found in best]


def _texts(result: Finished, rows: list[int]) -> list[str]:
    try:
        return result.texts(rows)
    except DataError:  # an archive without its texts: rows are named by their number
        return [""] * len(rows)


def _line(value: object, limit: int) -> str:
    return " ".join(safe_text("" if value is None else str(value), limit).split())


def _steps(placed: np.ndarray) -> np.ndarray:
    """Return coordinates as whole numbers, little-endian uint16 (rows, 2), in one square: no direction is stretched."""
    finite = np.where(np.isfinite(placed), placed, 0.0)
    low, high = finite.min(axis=0), finite.max(axis=0)
    size = float((high - low).max()) or 1.0
    middle = (high + low) / 2
    steps: np.ndarray = np.clip(np.rint(((finite - middle) / size + 0.5) * STEPS), 0, STEPS).astype("<u2")
    return steps


def _page(content: dict[str, Any]) -> bytes:
    """Return the page. In its data no character can end the element that holds it."""
    frame = (HERE / "map.html").read_text(encoding="utf-8")
    code = (HERE / "map.js").read_text(encoding="utf-8")
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        data = data.replace(char, f"\\u{ord(char):04x}")
    script = f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"
    before, _, rest = frame.replace("@SCRIPT@", script).partition("@DATA@")
    between, _, after = rest.partition("@CODE@")
    return "".join((before, data, between, code, after)).encode()
