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

EVERY = 64  # lines; of each such one it is kept where it begins
MOST_TOKENS = 2**31 - 1
FINGERPRINT_ROWS = 2**16  # fingerprints that are read at a time


class MergedArticle(Article, total=False):
    """A line of the merged articles: the corpus's record and the fields that the encoding adds."""

    tokens: int
    truncated: bool
    chunks: int  # that it was read in; only in the result of a run with too_long: chunk
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
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    cut: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    chunks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # 0 where long texts are cut
    titled: dict[str, list[int]] = field(default_factory=dict)  # the rows of each title that was asked for
    offsets: array[int] = field(default_factory=lambda: array("q"))  # where every 64th line begins

    def articles(self, rows: Collection[int]) -> dict[int, MergedArticle]:
        """Return some articles by row; an empty one if the row has no readable line."""
        articles: dict[int, MergedArticle] = {}
        with self.path.open("rb") as file:
            for row in sorted(set(rows)):
                line = b""
                if row < self.lines:
                    file.seek(self.offsets[row // EVERY])
                    for _ in range(row % EVERY + 1):
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


def _count(value: object) -> int:
    return max(0, min(value, MOST_TOKENS)) if isinstance(value, int) else 0


def merged_lines(path: Path) -> Iterator[MergedArticle | None]:
    """Yield the lines of merged articles in order; None for one that is no record. Raises OSError."""
    with path.open("rb") as file:
        yield from map(_parse, file)


def _lines(path: Path, audit: Audit) -> Iterator[MergedArticle | None]:
    at = 0
    with path.open("rb") as file:
        for line in file:
            if audit.lines % EVERY == 0:
                audit.offsets.append(at)
            audit.lines += 1
            at += len(line)
            yield _parse(line)


def _hexadecimal(corpus: Corpus, rows: int) -> Iterator[str]:
    """The fingerprints of the corpus's first rows, as a line of the articles has them."""
    fingerprints = corpus.fingerprints()
    for low in range(0, rows, FINGERPRINT_ROWS):
        block = fingerprints[low : min(rows, low + FINGERPRINT_ROWS)].tobytes().hex()
        for at in range(0, len(block), 2 * FINGERPRINT_BYTES):
            yield block[at : at + 2 * FINGERPRINT_BYTES]


def audit(path: Path, corpus: Corpus, wanted_titles: Collection[str] = ()) -> Audit:
    """Compare the articles at `path` with the corpus, in one pass. Raises OSError."""
    result = Audit(path)
    result.titled = {title: [] for title in wanted_titles}
    rows = corpus.documents
    tokens, cut, chunks = np.zeros(rows, np.int32), np.zeros(rows, np.bool_), np.zeros(rows, np.int32)
    fingerprints = _hexadecimal(corpus, rows)
    documents = iter(corpus.articles())
    for row, article in enumerate(_lines(path, result)):
        if row >= rows:
            continue  # counted in `lines`
        document, fingerprint = next(documents, Article()), next(fingerprints)
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
        tokens[row], chunks[row] = _count(article.get("tokens")), _count(article.get("chunks"))
        cut[row] = article.get("truncated") is True
        if article.get("fingerprint") != fingerprint:
            result.other_text.append(row)
    result.tokens, result.cut, result.chunks = tokens, cut, chunks
    return result
