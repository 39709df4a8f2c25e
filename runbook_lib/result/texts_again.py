"""The texts hashed again: a fingerprint in a record is a claim, and only the text itself can bear it out."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ..corpus.corpus import Corpus
from ..corpus.documents import read_documents
from ..corpus.prompt import as_encoded
from ..errors import DataError
from ..run.checks import Checks
from .parts import FINGERPRINT_BYTES, first_few

NAME = "every text has its fingerprint"
SOURCE = "every document as in its source"
REMEDY = "restore the run's corpus folder from a backup; from other texts other vectors follow"


def texts(corpus: Corpus) -> Iterator[str | None]:
    """Yield every row's text as encoded, in order; None for a line that is not its row's. Raises OSError."""
    with corpus.texts_path.open("rb") as file:
        for row, line in enumerate(file):
            yield _text(row, line)


def _text(row: int, line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = record.get("text") if isinstance(record, dict) and record.get("row") == row else None
    return text if isinstance(text, str) else None


def check(checks: Checks, corpus: Corpus) -> None:
    """Hash every text of the corpus again, and all fingerprints together, and hold them against what was recorded."""
    wrong, rows = [], 0
    prints = corpus.fingerprints().tobytes()
    for row, text in enumerate(texts(corpus)):
        at, rows = row * FINGERPRINT_BYTES, row + 1
        if text is None or _fingerprint(text) != prints[at : at + FINGERPRINT_BYTES]:
            wrong.append(row)
    problems = [f"{len(wrong)} rows with another one: {first_few(wrong)}"] if wrong else []
    problems += [] if rows == corpus.rows else [f"{rows} texts, expected {corpus.rows}"]
    if hashlib.sha256(prints).hexdigest() != corpus.fingerprint:
        problems.append("the fingerprints together are not the corpus's")
    checks.add(NAME, not problems, "; ".join(problems) or f"{rows} texts hashed", "", REMEDY)


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:FINGERPRINT_BYTES]


def check_source(checks: Checks, corpus: Corpus, source: Path) -> None:
    """Read the documents of `source` again: the same texts, ids, titles and urls, in the same rows."""
    try:
        wrong, rows = _unlike_source(corpus, source)
    except (DataError, OSError) as error:
        checks.add(SOURCE, False, error, "", "name the file that the run was made from")
        return
    problems = [f"{len(wrong)} rows differ from {source}: {first_few(wrong)}"] if wrong else []
    problems += [] if rows == corpus.documents else [f"{rows} documents in {source}, expected {corpus.documents}"]
    same = "the very file" if corpus.source_unchanged(source) else "another file with the same documents"
    good = f"{rows} documents of {source} ({same})"
    remedy = "name the file that the run was made from, or have the run made again from this one"
    checks.add(SOURCE, not problems, "; ".join(problems) or good, "", remedy)


def _unlike_source(corpus: Corpus, source: Path) -> tuple[list[int], int]:
    wrong, rows = [], 0
    prints = corpus.fingerprints()[: corpus.documents].tobytes()
    with tempfile.TemporaryDirectory() as scratch:
        documents = read_documents(source, corpus.fields, notes=[], scratch=Path(scratch))
        for row, (document, article) in enumerate(zip_longest(documents, corpus.articles())):
            if document is None:
                break
            rows = row + 1
            at = row * FINGERPRINT_BYTES
            text = as_encoded(corpus.template, document.text, document.title)
            same = article is not None and all(
                article.get(key) == getattr(document, key) for key in ("id", "title", "url")
            )
            if not same or _fingerprint(text) != prints[at : at + FINGERPRINT_BYTES]:
                wrong.append(row)
    return wrong, rows
