"""Meaning: does a document's title find the document? Said for a sample, and never a verdict.

The sample are documents that the audit computes again at the same time: their vectors are this machine's own, up to its
tolerance, or it says so. Their titles are asked as questions, and each one's place among all documents is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..corpus.corpus import Corpus
from ..corpus.prompt import as_encoded
from ..result.survey import blocks, header, some_rows, unit
from ..run.checks import Checks
from ..run.plan import Plan

NAME = "titles find their documents"
SAMPLED, FEWEST, AMONG = 50, 10, 10


def titles_of(corpus: Corpus, rows: list[int]) -> dict[int, str]:
    """Return row -> title of the first rows that have one, each title once, at most so many as are asked."""
    wanted, by_row, titles = set(rows), dict[int, str](), set[str]()
    for row, article in enumerate(corpus.articles()):
        title = (article.get("title") or "").strip() if row in wanted else ""
        if title and title not in titles:
            titles.add(title)
            by_row[row] = title
    return dict([(row, by_row[row]) for row in rows if row in by_row][:SAMPLED])


def places(matrix: Path, asked: Mapping[int, np.ndarray]) -> dict[int, int]:
    """Return row -> how many documents are nearer to the vector that was asked for it, float (dim,)."""
    shape, rows = header(matrix), list(asked)
    directions = unit(np.array([asked[row] for row in rows], np.float32))
    own = np.einsum("ij,ij->i", unit(some_rows(matrix, shape, rows)), directions)
    nearer = np.zeros(len(rows), np.int64)
    for low, block in blocks(matrix, shape, 4096):
        scores = unit(block) @ directions.T
        for place, row in enumerate(rows):
            if low <= row < low + len(block):
                scores[row - low, place] = -np.inf
        nearer += (scores > own).sum(axis=0)
    return dict(zip(rows, nearer.tolist(), strict=True))


def asked(plan: Plan, titles: Mapping[int, str]) -> list[tuple[str, bool]]:
    """Return the titles as they are computed, each as a question."""
    return [(as_encoded(plan.question_prompt, title), True) for title in titles.values()]


def tell(checks: Checks, matrix: Path, vectors: Mapping[int, np.ndarray], documents: int) -> None:
    """Add the check of titles, row -> the title's vector; none where there are few."""
    if len(vectors) < FEWEST:
        return
    ranks = np.array(list(places(matrix, vectors).values()))
    first, ten, titles = int((ranks == 0).sum()), int((ranks < AMONG).sum()), len(ranks)
    seen = f"first for {first}, among the first {AMONG} for {ten} of {titles} titles, of {documents:,} documents"
    few = 2 * ten < titles
    remedy = "read some: titles that say little, another language than the model's, or wrong prompts show here"
    checks.add(NAME, True, seen, "half among the first 10 (a rule of thumb)", remedy if few else "", warn=few)
