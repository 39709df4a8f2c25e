"""A corpus of some documents of another one, numbered anew, with all of its questions; in constant memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from worker.files import make_folder, read_json, sync_folder, write_json

from ..records import Written, as_json
from .corpus import Article, Corpus, load
from .formats.whole_file import WholeFile
from .keys import Rows

NAMES = ("texts.jsonl", "articles.jsonl", "questions.jsonl", "fingerprints.npy", "offsets.npy")

Blocks = Callable[[], Iterator[Rows]]  # gives ascending document rows, block by block


def write(whole: Corpus, chosen: Blocks, documents: int, folder: Path) -> Corpus:
    """Write the corpus of the `documents` rows that `chosen` gives, and of all questions, into `folder`.

    Its record, written last, is that of `whole` but for the numbers of rows, the fingerprint and the files.
    """
    make_folder(folder)
    (folder / "corpus.json").unlink(missing_ok=True)
    sync_folder(folder)
    rows = documents + whole.questions
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(contextlib.closing(WholeFile(folder / name))) for name in NAMES}
        files["fingerprints.npy"].write(_head("|u1", (rows, 16)))
        files["offsets.npy"].write(_head("<i8", (rows + 1,)))
        fingerprint = _write_rows(whole, chosen, files)
        _write_articles(whole, chosen, files["articles.jsonl"])
        for number, question in enumerate(whole.questions_list()):
            files["questions.jsonl"].write(_line({**question, "row": documents + number}))
        written = {name: file.commit() for name, file in files.items()}
    _commit(whole, documents, fingerprint, written, folder)
    return load(folder)


def _commit(whole: Corpus, documents: int, fingerprint: str, files: dict[str, Written], folder: Path) -> None:
    record = read_json(whole.folder / "corpus.json") or {}
    changed = {"documents": documents, "fingerprint": fingerprint, "files": as_json(files)}
    write_json(folder / "corpus.json", {**record, **changed})


def _head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue()


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _write_rows(whole: Corpus, chosen: Blocks, files: dict[str, WholeFile]) -> str:
    """Write texts, fingerprints and offsets of the chosen rows and the questions; return the corpus's fingerprint."""
    offsets, prints = whole.offsets(), whole.fingerprints()
    digest, number, end = hashlib.sha256(), 0, 0
    files["offsets.npy"].write(np.int64(0).tobytes())
    with whole.texts_path.open("rb") as texts:
        for rows in itertools.chain(chosen(), [np.arange(whole.documents, whole.rows)]):
            ends = np.zeros(len(rows), "<i8")
            for place, row in enumerate(rows.tolist()):
                texts.seek(int(offsets[row]))
                line = texts.read(int(offsets[row + 1] - offsets[row]))
                own = b'{"row": %d' % number + line[line.index(b",") :]  # the text's bytes stay as they are
                files["texts.jsonl"].write(own)
                number, end = number + 1, end + len(own)
                ends[place] = end
            block = prints[rows].tobytes()
            digest.update(block)
            files["fingerprints.npy"].write(block)
            files["offsets.npy"].write(ends.tobytes())
    return digest.hexdigest()


def _write_articles(whole: Corpus, chosen: Blocks, file: WholeFile) -> None:
    wanted = (row for rows in chosen() for row in rows.tolist())
    number, row = 0, next(wanted, None)
    for article in whole.articles():
        if article["row"] == row:
            file.write(_line(Article(**{**article, "row": number})))
            number, row = number + 1, next(wanted, None)
