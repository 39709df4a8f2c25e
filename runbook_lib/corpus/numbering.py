"""Numbers a corpus: every document gets its row, its text as encoded and its fingerprint, once and for all.

The source is read once, whatever its format, and written as the plain files that `corpus` describes. Row i is document
i of the source. Nothing is dropped or moved: a file with a document that cannot be taken is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from worker.files import make_folder, sha256_file, sync_folder, write_atomic, write_json

from .. import records
from ..errors import DataError
from ..records import Written
from . import sources
from .columns import Column
from .corpus import FILES, FORMAT, Corpus, CorpusFile, FieldNames, SourceFile, load
from .documents import read_documents
from .formats.source import refusal, shown
from .formats.whole_file import WholeFile
from .inspection import Document, Fields
from .lengths import Lengths
from .prompt import as_encoded, check_template
from .questions import read_questions

_INT64 = struct.Struct("<q")
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def build(
    path: Path,
    fields: Fields,
    expected: int | None,
    questions_path: Path | None,
    template: str,
    question_template: str,
    folder: Path,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Corpus:
    """Number a corpus into `folder` and return it; no file gets its final name unless all documents can be taken.

    `on_progress` gets the number of documents read so far. `expected` is the count that the profile asserts, if any.
    """
    check_template("model.prompt", template)
    check_template("model.question_prompt", question_template)
    try:
        make_folder(folder)
        with contextlib.ExitStack() as stack:
            texts, articles, asked_file = (
                stack.enter_context(contextlib.closing(WholeFile(folder / name))) for name in FILES[:3]
            )
            files = sources.find(path)
            before = files.state(), _state(questions_path)
            notes: list[str] = []
            questions = read_questions(questions_path, notes=notes)
            rows = stack.enter_context(contextlib.closing(_Rows(texts, folder)))
            documents = read_documents(path, fields, expected, notes=notes, scratch=folder)
            lengths = _write_documents(documents, template, rows, articles, on_progress)
            for question in questions:
                row = rows.add(as_encoded(question_template, question["question"]))
                asked_file.write(_json({"row": row} | question) + b"\n")
            source = SourceFile(shown(path, 4096), files.bytes(), files.sha256())
            questions_sha256 = sha256_file(questions_path) if questions_path else None
            if (sources.find(path).state(), _state(questions_path)) != before:
                raise refusal(path, "it, or the questions, changed while it was read", "run again")
            written = _commit_files(folder, [texts, articles, asked_file], rows)
            record = CorpusFile(
                format=FORMAT,
                source=source,
                questions_sha256=questions_sha256,
                documents=lengths.texts,
                questions=len(questions),
                fingerprint=rows.fingerprint.hexdigest(),
                fields=FieldNames(**fields.names),
                accept=tuple(sorted(fields.accept)),
                template=template,
                question_template=question_template,
                notes=tuple(notes),
                characters=lengths.statistics(),
                files=written,
            )
            write_json(folder / "corpus.json", {**records.plain(record), "questions_sha256": questions_sha256})
    except OSError as error:
        what = f"numbering {shown(path, 500)} into {shown(folder, 500)}: {error.strerror or error}"
        raise DataError(f"{what}. Next: look at that disk (room, rights), then run again.") from error
    return load(folder)


def _state(path: Path | None) -> tuple[int, int, int] | None:
    """Return values that differ after a file changed; None for a missing file, which its reader reports."""
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _write_documents(
    documents: Iterable[Document],
    template: str,
    rows: _Rows,
    articles: WholeFile,
    on_progress: Callable[[int], None],
) -> Lengths:
    """Write every document to its row; return how long the texts are."""
    lengths = Lengths()
    for document in documents:
        row = rows.add(as_encoded(template, document.text, document.title))
        article = {"row": row, "id": document.id, "title": document.title, "url": document.url}
        articles.write(_json(article) + b"\n")
        lengths.add(len(document.text))
        if lengths.texts % 1000 == 0:
            on_progress(lengths.texts)
    on_progress(lengths.texts)
    return lengths


def _commit_files(folder: Path, outputs: list[WholeFile], rows: _Rows) -> dict[str, Written]:
    """Give the files their names; until corpus.json is written the folder holds no corpus, not even an earlier one."""
    (folder / "corpus.json").unlink(missing_ok=True)
    sync_folder(folder)
    files = {output.path.name: output.commit() for output in outputs}
    arrays = {
        "fingerprints.npy": rows.fingerprints.npy(np.uint8, (rows.count, 16)),
        "offsets.npy": rows.offsets.npy(np.int64, (rows.count + 1,)),
    }
    for name, chunks in arrays.items():
        files[name] = Written(write_atomic(folder / name, chunks), (folder / name).stat().st_size)
    return files


def _json(value: object) -> bytes:
    return _ENCODE(value).encode()


class _Rows:
    """The rows of texts.jsonl as they are numbered: a line, a fingerprint and an offset each."""

    def __init__(self, output: WholeFile, folder: Path) -> None:
        self.output = output
        self.count = 0
        self.fingerprint = hashlib.sha256()  # of all fingerprints
        self.fingerprints, self.offsets = Column(folder), Column(folder)
        self.offsets.append(_INT64.pack(0))

    def add(self, text: str) -> int:
        """Append a text as encoded and return its row."""
        row = self.count
        self.output.write(b'{"row": %d, "text": %b}\n' % (row, _json(text)))
        fingerprint = hashlib.sha256(text.encode()).digest()[:16]  # layout.fingerprint, as bytes
        self.fingerprint.update(fingerprint)
        self.fingerprints.append(fingerprint)
        self.offsets.append(_INT64.pack(self.output.bytes))
        self.count += 1
        return row

    def close(self) -> None:
        """Give memory and disk back."""
        self.fingerprints.close()
        self.offsets.close()
