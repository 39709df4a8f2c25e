"""The merged articles, line by line: is each one the corpus's document of that row, and how long is it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from ..corpus.corpus import Article, Corpus
from .parts import FINGERPRINT_BYTES


class MergedArticle(Article, total=False):
    """A line of the merged articles: the corpus's record and the fields that the encoding adds."""

    tokens: int
    truncated: bool
    fingerprint: str
    computed_by: str  # the run that computed the vector; only in the result of a run with --since


@dataclass
class Audit:
    """The findings of one pass over the articles: rows with a fault, and arrays with one number for each row."""

    path: Path
    lines: int = 0
    out_of_place: list[int] = field(default_factory=list)  # the line of this row holds something else
    unlike_corpus: list[int] = field(default_factory=list)  # id, title or url is not the corpus's
    untitled: list[int] = field(default_factory=list)
    other_text: list[int] = field(default_factory=list)  # encoded from a text that is not the corpus's
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    cut: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    titled: dict[str, list[int]] = field(default_factory=dict)  # the rows of each title that was asked for
    offsets: array[int] = field(default_factory=lambda: array("q"))

    def articles(self, rows: Collection[int]) -> dict[int, MergedArticle]:
        """Return some articles by row; an empty one if the row has no readable line."""
        articles: dict[int, MergedArticle] = {}
        with self.path.open("rb") as file:
            for row in sorted(set(rows)):
                line = b""
                if row < len(self.offsets):
                    file.seek(self.offsets[row])
                    line = file.readline()
                articles[row] = _parse(line) or {}
        return articles


def _parse(line: bytes) -> MergedArticle | None:
    """Parse a line; the audit compares every field with the corpus."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast(MergedArticle, value) if isinstance(value, dict) else None


def merged_lines(path: Path) -> Iterator[MergedArticle | None]:
    """Yield the lines of merged articles in order; None for one that is no record. Raises OSError."""
    with path.open("rb") as file:
        yield from map(_parse, file)


def _lines(path: Path, audit: Audit) -> Iterator[MergedArticle | None]:
    at = 0
    with path.open("rb") as file:
        for line in file:
            audit.offsets.append(at)
            audit.lines += 1
            at += len(line)
            yield _parse(line)


def audit(path: Path, corpus: Corpus, wanted_titles: Collection[str] = ()) -> Audit:
    """Compare the articles at `path` with the corpus, in one pass. Raises OSError."""
    result = Audit(path)
    result.titled = {title: [] for title in wanted_titles}
    rows = corpus.documents
    tokens, cut = np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    fingerprints = corpus.fingerprints()[:rows].tobytes()
    documents = iter(corpus.articles())
    for row, article in enumerate(_lines(path, result)):
        if row >= rows:
            continue  # counted in `lines`
        document = next(documents, Article())
        if article is None or article.get("row") != row:
            result.out_of_place.append(row)
            continue
        title = article.get("title")
        if (article.get("id"), title, article.get("url")) != (
            document.get("id"),
            document.get("title"),
            document.get("url"),
        ):
            result.unlike_corpus.append(row)
        if not title:
            result.untitled.append(row)
        elif isinstance(title, str) and title in result.titled:
            result.titled[title].append(row)
        if isinstance(article.get("tokens"), int):
            tokens[row] = article["tokens"]
        cut[row] = article.get("truncated") is True
        at = row * FINGERPRINT_BYTES
        if article.get("fingerprint") != fingerprints[at : at + FINGERPRINT_BYTES].hex():
            result.other_text.append(row)
    result.tokens, result.cut = tokens, cut
    return result
