"""The documents of a corpus file, in their order; a file with one that cannot be taken is refused as a whole."""

from __future__ import annotations

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
    """The characters of a document, and what each takes besides."""
    return 16 + len(document.text) + len(document.title) + len(document.url)


def _out_of_proportion(source: Source, rows: int) -> CorpusError:
    size = source.path.stat().st_size
    seen = f"its first {rows:,} documents have over {source.room // 2**20} MiB of text, in a file of {size:,} bytes"
    return refusal(source.path, f"{seen}: out of proportion", "save it as JSON lines, each text in its place")


def read_documents(
    path: Path, fields: Fields, expected: int | None = None, *, notes: list[str], scratch: Path | None = None
) -> Iterator[Document]:
    """The documents of a file in their order; `notes` receives what is unusual, when the last was given.

    After the first problem no more documents come, but the file is read on, and all problems are raised at its end:
    what was given before counts only when no error follows. A gzip is unpacked in the folder `scratch`.
    """
    inspection = Inspection(fields)
    with open_source(path, fields.names.values(), scratch) as source:
        if source.columns is not None:
            inspection.names = list(source.columns)
            given = [key for key, name in fields.names.items() if name in source.columns]
            _check_fields(path, fields, source.columns, given)
        rows = 0
        room, whole = source.room, True
        for place, item in source.items:
            document = inspection.document(rows, place, item)
            rows += 1
            if document is not None and not inspection.found.problems:
                room -= _size(document)
                if room < 0:
                    raise _out_of_proportion(source, rows)
                yield document
            elif rows >= _HOPELESS and "text" not in inspection.seen:
                whole = False  # the profile names the wrong field, or these are no documents
                break
            elif inspection.found.problems.total() >= _ENOUGH:
                whole = False
                break
        said = _conclude(inspection, source, rows, expected, whole)
    notes.extend(said)


def _conclude(inspection: Inspection, source: Source, rows: int, expected: int | None, whole: bool) -> list[str]:
    """The notes of a file that was read to its end, or so far; raises where it cannot be taken."""
    found, path = inspection.found, source.path
    if rows == 0:
        raise refusal(path, "no documents", "name the file with them in corpus.path")
    if len(inspection.types) == 1 and inspection.types.total() == rows:
        kind = next(iter(inspection.types))
        more = "" if whole else "over "
        raise refusal(path, f"a list of {more}{rows:,} items of type {kind}; expected dicts", FIXES["not_a_dict"])
    if inspection.names:
        _check_fields(path, inspection.fields, source.columns or inspection.names, inspection.seen)
    if whole and expected is not None and rows != expected:
        found.problem("count", "count", f"{counted(rows, 'document')} found, {expected:,} expected")
    if "id" not in inspection.seen:  # a file without ids is no oddity; a few documents without are
        found.places.pop("no_id", None)
    notes = [*source.notes, *found.notes(), *([] if whole else [f"reading stopped after {rows:,} documents"])]
    if found.problems:
        raise found.refusal(path, rows, "document", notes)
    return notes


def _check_fields(path: Path, fields: Fields, names: Collection[str], seen: Collection[str]) -> None:
    """Refuse a file that nowhere has a field which the profile names or every document needs."""
    needed = {"text"} if "missing_title" in fields.accept else {"text", "title"}
    wanted = {key: name for key, name in fields.names.items() if key not in seen and (key in needed or name != key)}
    if not wanted:
        return
    lacking = " and ".join(f'no field "{shown(name)}"' for name in wanted.values())
    found = ", ".join(f'"{shown(name)}"' for name in itertools.islice(names, NAMED))
    keys = " and ".join(f"corpus.{key}" for key in wanted)
    fix = f"set {keys} in the profile to the names that the file uses"
    if set(wanted) == {"title"}:
        fix += f", or corpus.accept: [missing_title] ({ACCEPTABLE['missing_title']})"
    if len(names) == 1 and any(mark in next(iter(names)) for mark in ";\t|"):
        fix = f"save the file with commas between the columns, or {fix}"
    raise refusal(path, f"{lacking}; the fields found are {found}", fix)
