"""The documents of a corpus file, in their order; a file with one that cannot be taken is refused as a whole."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import CorpusError
from .findings import ACCEPTABLE, FIXES, NAMED, counted
from .formats.readers import open_source
from .formats.source import Source, refusal, shown
from .inspection import Document, Fields, Inspection

_HOPELESS = 1000  # documents without a field, after which the rest of the file is not read
_ENOUGH = 20_000  # problems, after which the same


def _size(document: Document) -> int:
    """The characters of a document, and an allowance for the document itself."""
    return 16 + len(document.text) + len(document.title) + len(document.url)


def _out_of_proportion(source: Source, rows: int) -> CorpusError:
    size = source.path.stat().st_size
    reason = f"its first {rows:,} documents have over {source.room // 2**20} MiB of text, in a file of {size:,} bytes"
    return refusal(source.path, f"{reason}: out of proportion", "save it as JSON lines, each text in its place")


def read_documents(
    path: Path, fields: Fields, expected: int | None = None, *, notes: list[str], scratch: Path | None = None
) -> Iterator[Document]:
    """Yield the documents of a file in order; after the last one, `notes` gets what is unusual.

    After the first problem no more documents are yielded, but the file is read to its end and all problems are raised
    there: the documents yielded before count only when no error follows. A gzip is unpacked in the folder `scratch`.
    """
    with (
        contextlib.closing(Inspection(fields, scratch)) as inspection,
        open_source(path, fields.names.values(), scratch) as source,
    ):
        if source.columns is not None:
            inspection.names = list(source.columns)
            given = [key for key, name in fields.names.items() if name in source.columns]
            _check_fields(path, fields, source.columns, given)
        rows = 0
        room, whole = source.room, True
        for place, item in source.items:
            document = inspection.document(rows, place, item)
            rows += 1
            if document is not None and not inspection.findings.problems:
                room -= _size(document)
                if room < 0:
                    raise _out_of_proportion(source, rows)
                yield document
            elif rows >= _HOPELESS and "text" not in inspection.given:
                whole = False  # the profile names the wrong field, or these are no documents
                break
            elif inspection.findings.problems.total() >= _ENOUGH:
                whole = False
                break
        conclusion = _conclude(inspection, source, rows, expected, whole)
    notes.extend(conclusion)


def _conclude(inspection: Inspection, source: Source, rows: int, expected: int | None, whole: bool) -> list[str]:
    """Return the notes of a file that was read, whole or in part; raise when it cannot be taken."""
    inspection.conclude()
    findings, path = inspection.findings, source.path
    if rows == 0:
        raise refusal(path, "no documents", "name the file with them in corpus.path")
    if len(inspection.types) == 1 and inspection.types.total() == rows:
        kind = next(iter(inspection.types))
        more = "" if whole else "over "
        raise refusal(path, f"a list of {more}{rows:,} items of type {kind}; expected dicts", FIXES["not_a_dict"])
    if inspection.names:
        _check_fields(path, inspection.fields, source.columns or inspection.names, inspection.given)
    if whole and expected is not None and rows != expected:
        findings.problem("count", "count", f"{counted(rows, 'document')} found, {expected:,} expected")
    if "id" not in inspection.given:  # a file without ids is no oddity; a few documents without are
        findings.places.pop("no_id", None)
    notes = [*source.notes, *findings.notes(), *([] if whole else [f"reading stopped after {rows:,} documents"])]
    if findings.problems:
        raise findings.refusal(path, rows, "document", notes)
    return notes


def _check_fields(path: Path, fields: Fields, names: Collection[str], given: Collection[str]) -> None:
    """Refuse a file where no document has a field that the profile names or that every document needs."""
    needed = {"text"} if "missing_title" in fields.accept else {"text", "title"}
    wanted = {key: name for key, name in fields.names.items() if key not in given and (key in needed or name != key)}
    if not wanted:
        return
    lacking = " and ".join(f'no field "{shown(name)}"' for name in wanted.values())
    listed = ", ".join(f'"{shown(name)}"' for name in itertools.islice(names, NAMED))
    keys = " and ".join(f"corpus.{key}" for key in wanted)
    fix = f"set {keys} in the profile to the names that the file uses"
    if set(wanted) == {"title"}:
        fix += f", or corpus.accept: [missing_title] ({ACCEPTABLE['missing_title']})"
    if len(names) == 1 and any(mark in next(iter(names)) for mark in ";\t|"):
        fix = f"save the file with commas between the columns, or {fix}"
    raise refusal(path, f"{lacking}; the fields found are {listed}", fix)
