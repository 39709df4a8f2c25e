"""A numbered corpus: every document has its row, its text as encoded and its fingerprint, once and for all.

It is a folder of plain files, which `numbering` wrote and everything else reads:

    corpus/
        texts.jsonl        one line a row: {"row": 17, "text": "as encoded"}; documents, then questions
        articles.jsonl     one line a document: row, id, title, url
        questions.jsonl    one line a question: row and its own fields
        fingerprints.npy   uint8 (rows, 16): the first 128 bits of the sha256 of each text as encoded
        offsets.npy        int64 (rows + 1): where each line of texts.jsonl starts
        corpus.json        the commit, written last: what the corpus is, with the sha256 of the other files
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from worker.escape import safe_text
from worker.files import sha256_file

from .. import records
from ..errors import CorpusError, DataError
from ..records import Written
from . import sources
from .formats.source import shown
from .inspection import Fields
from .questions import Question

FORMAT = 1
Line = TypeVar("Line")

FILES = ("texts.jsonl", "articles.jsonl", "questions.jsonl", "fingerprints.npy", "offsets.npy")


class Article(TypedDict, total=False):
    """A document without its text: a line of articles.jsonl."""

    row: int
    id: str | int
    title: str
    url: str


@dataclass(frozen=True)
class SourceFile:
    """The file that was numbered."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FieldNames:
    """What the source calls a document's fields."""

    id: str
    title: str
    text: str
    url: str


@dataclass(frozen=True)
class CorpusFile:
    """corpus.json. `questions_sha256` is of their file; earlier versions did not record it."""

    format: int
    source: SourceFile
    documents: int
    questions: int
    fingerprint: str
    fields: FieldNames
    accept: tuple[str, ...]
    template: str
    question_template: str
    notes: tuple[str, ...]
    characters: dict[str, int]
    files: dict[str, Written]
    questions_sha256: str | None = None


@dataclass(frozen=True)
class Corpus:
    """A numbered corpus: documents are rows [0, documents), questions are rows [documents, rows)."""

    folder: Path
    documents: int
    questions: int
    fingerprint: str
    source_bytes: int
    source_sha256: str
    fields: Fields
    template: str
    question_template: str
    notes: tuple[str, ...]
    characters: dict[str, int]
    files: dict[str, Written]
    questions_sha256: str | None = None  # of their file; not recorded by earlier versions

    @property
    def rows(self) -> int:
        """Documents and questions together."""
        return self.documents + self.questions

    @property
    def text_bytes(self) -> int:
        """The size of all rows as they are sent to the hosts."""
        return self.files["texts.jsonl"].bytes

    @property
    def texts_path(self) -> Path:
        """One line a row: row and text as encoded."""
        return self.folder / "texts.jsonl"

    @property
    def articles_path(self) -> Path:
        """One line a document: row, id, title, url."""
        return self.folder / "articles.jsonl"

    @property
    def fingerprints_path(self) -> Path:
        """The fingerprints of all rows."""
        return self.folder / "fingerprints.npy"

    @property
    def offsets_path(self) -> Path:
        """Where each line of texts.jsonl starts."""
        return self.folder / "offsets.npy"

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        """The fingerprints, (rows, 16), read from the disk when they are used."""
        return self._array(self.fingerprints_path, np.uint8, (self.rows, 16))

    def offsets(self) -> npt.NDArray[np.int64]:
        """The offset of each row's line in texts.jsonl, and the end: (rows + 1)."""
        return self._array(self.offsets_path, np.int64, (self.rows + 1,))

    def articles(self) -> Iterator[Article]:
        """The documents without their texts, in order."""
        return _json_records(Article, self.articles_path)

    def row_names(self, rows: Iterable[int]) -> dict[int, str]:
        """Return row -> its name for a person: number, title and id."""
        wanted, names = set(rows), {}
        for row, article in enumerate(self.articles() if wanted else ()):
            if row in wanted:
                title, key = str(article.get("title") or "")[:80], str(article.get("id") or "")[:80]
                names[row] = safe_text(f"row {row} (title '{title}', id '{key}')", 300)
        return {row: names.get(row, f"row {row}") for row in sorted(wanted)}

    def questions_list(self) -> list[Question]:
        """The questions, in order."""
        return list(_json_records(Question, self.folder / "questions.jsonl"))

    def copy_rows(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the lines of rows [start, stop) in pieces of at most 1 MiB: a shard file is cut in constant memory."""
        if not 0 <= start <= stop <= self.rows:
            raise DataError(f"{self.texts_path}: rows [{start}, {stop}) asked for, it has [0, {self.rows})")
        offsets = self.offsets()
        return self._bytes(int(offsets[start]), int(offsets[stop]))

    def text(self, row: int) -> str:
        """The text of one row, as encoded."""
        return next(self.texts([row]))

    def texts(self, rows: Iterable[int]) -> Iterator[str]:
        """The texts of these rows, as encoded, in the order asked for."""
        for row in rows:
            line = b"".join(self.copy_rows(row, row + 1))
            try:
                record = json.loads(line)
                if record["row"] != row:
                    raise ValueError(f"it says row {record['row']}")
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(self.texts_path, f"the line of row {row} is not its record: {error}") from None
            yield record["text"]

    def source_unchanged(self, path: Path) -> bool:
        """True when `path`, one file or several, holds exactly the bytes that were numbered."""
        try:
            files = sources.find(path)
            return files.bytes() == self.source_bytes and files.sha256() == self.source_sha256
        except (OSError, CorpusError):
            return False

    def questions_unchanged(self, path: Path | None) -> bool:
        """True when `path` holds exactly the questions that were numbered."""
        if path is None or self.questions_sha256 is None:  # an earlier version did not record it
            return (path is not None) == bool(self.questions)
        return path.is_file() and sha256_file(path) == self.questions_sha256

    def _bytes(self, start: int, stop: int) -> Iterator[bytes]:
        with self.texts_path.open("rb") as file:
            file.seek(start)
            while start < stop:
                chunk = file.read(min(2**20, stop - start))
                if not chunk:
                    raise _damaged(self.texts_path, f"it ends at byte {start}, expected {stop}")
                start += len(chunk)
                yield chunk

    def _array(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from None
        if values.dtype != dtype or values.shape != shape:
            raise _damaged(path, f"{values.dtype} {values.shape}, expected {np.dtype(dtype)} {shape}")
        return values


def load(folder: Path) -> Corpus:
    """The corpus that was numbered into `folder`; the files must be there in their recorded sizes."""
    path = folder / "corpus.json"
    try:
        record = records.read(CorpusFile, path)
    except DataError as error:
        raise _damaged(path, f"not the record of a corpus: {error}") from None
    if record is None:
        raise _damaged(path, "there is no such file: no corpus was numbered here")
    if record.format != FORMAT:
        raise _damaged(path, f"not the record of a corpus: format {record.format}, expected {FORMAT}")
    corpus = _corpus(folder, record)
    for name in FILES:
        if name not in corpus.files:
            raise _damaged(path, f"it does not mention {name}")
        file = folder / name
        expected = corpus.files[name].bytes
        size = file.stat().st_size if file.is_file() else "no such file"
        if size != expected:
            raise _damaged(file, f"size {size}, expected {expected}")
    return corpus


def row_names(folder: Path, rows: Iterable[int]) -> dict[int, str]:
    """Return row -> its name for a person; only its number where the corpus in `folder` is damaged."""
    rows = sorted(rows)
    try:
        return load(folder).row_names(rows)
    except (OSError, DataError):
        return {row: f"row {row}" for row in rows}


def _corpus(folder: Path, record: CorpusFile) -> Corpus:
    names = record.fields
    return Corpus(
        folder=folder,
        documents=record.documents,
        questions=record.questions,
        fingerprint=record.fingerprint,
        source_bytes=record.source.bytes,
        source_sha256=record.source.sha256,
        fields=Fields(names.id, names.title, names.text, names.url, frozenset(record.accept)),
        template=record.template,
        question_template=record.question_template,
        notes=record.notes,
        characters=record.characters,
        files=record.files,
        questions_sha256=record.questions_sha256,
    )


def _json_records(kind: type[Line], path: Path) -> Iterator[Line]:
    """Yield the lines of a file that this module wrote, whose size was checked."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise _damaged(path, f"line {number}: {error}") from None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{shown(path, 500)}: {shown(why, 300)}. Next: remove the folder {path.parent.name}, run again.")
