"""The documents of a corpus, in their order; one with a document that cannot be taken is refused as a whole."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CorpusError
from . import sources
from .findings import FIXES, NAMED, counted
from .formats.readers import open_source
from .formats.source import Source, refusal, shown
from .inspection import Document, Fields, Inspection

_HOPELESS = 1000  # documents without a field, after which the rest of the file is not read
_ID = re.compile(r"(^|[\W_])(id|key|uuid|doi|pmid)s?$|[a-z]Id$|^id|^(doc|document|article|page)_?no$", re.IGNORECASE)
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
    """Yield the documents of a corpus in order; after the last one, `notes` gets what is unusual.

    `path`: a file, or several (`sources.find`), read one after the other as if they were one. After the first problem
    no more documents are yielded, but the files are read to the end and all problems are raised there: the documents
    yielded before count only when no error follows. What is packed is unpacked in the folder `scratch`.
    """
    files = sources.find(path)
    reading = _Reading(path, expected, list(files.notes))
    with contextlib.closing(Inspection(fields, scratch)) as inspection:
        for file in files.files:
            with open_source(file, fields.names.values(), scratch) as source:
                if source.columns is not None:
                    _check_columns(inspection, source)
                yield from _documents(inspection, source, reading, "" if files.one else f"{files.name(file)}: ")
                if not files.one:
                    source.notes[:] = [f"{files.name(file)}: {note}" for note in source.notes]
                reading.notes += source.notes
                reading.columns = source.columns or reading.columns
            if not reading.whole:
                break
        conclusion = _conclude(inspection, reading)
    notes.extend(conclusion)


@dataclass
class _Reading:
    """How far a corpus was read. `whole`: to its end; `columns`: those of the last file whose format knows them."""

    path: Path
    expected: int | None
    notes: list[str]
    rows: int = 0
    whole: bool = True
    columns: tuple[str, ...] | None = None


def _check_columns(inspection: Inspection, source: Source) -> None:
    columns = source.columns or ()
    inspection.names = list(columns)
    given = [key for key, name in inspection.fields.names.items() if name in columns]
    _check_fields(source.path, inspection.fields, columns, given)


def _documents(inspection: Inspection, source: Source, reading: _Reading, prefix: str) -> Iterator[Document]:
    """Yield the documents of one file, up to the first problem; go on to its end, unless that is hopeless."""
    first, room, problems = reading.rows, source.room, inspection.findings.problems
    for place, item in source.items:
        document = inspection.document(reading.rows, prefix + place, item)
        reading.rows += 1
        if document is not None and not problems:
            room -= _size(document)
            if room < 0:
                raise _out_of_proportion(source, reading.rows - first)
            yield document
        elif reading.rows >= _HOPELESS and "text" not in inspection.given:
            reading.whole = False  # the profile names the wrong field, or these are no documents
            return
        elif problems.total() >= _ENOUGH:
            reading.whole = False
            return


def _conclude(inspection: Inspection, reading: _Reading) -> list[str]:
    """Return the notes of a corpus that was read, whole or in part; raise when it cannot be taken."""
    inspection.conclude()
    findings, path, rows = inspection.findings, reading.path, reading.rows
    if rows == 0:
        raise refusal(path, "no documents", "name the file with them in corpus.path")
    if len(inspection.types) == 1 and inspection.types.total() == rows:
        kind = next(iter(inspection.types))
        more = "" if reading.whole else "over "
        raise refusal(path, f"a list of {more}{rows:,} items of type {kind}; expected dicts", FIXES["not_a_dict"])
    if inspection.names and reading.columns is None and not inspection.strings:
        _check_fields(path, inspection.fields, inspection.names, inspection.given)
    if reading.whole and reading.expected is not None and rows != reading.expected:
        findings.problem("count", "count", f"{counted(rows, 'document')} found, {reading.expected:,} expected")
    notes = [*reading.notes, *_absent(inspection), *findings.notes()]
    notes += [] if reading.whole else [f"reading stopped after {rows:,} documents"]
    if findings.problems:
        raise findings.refusal(path, rows, "document", notes)
    return notes


def _absent(inspection: Inspection) -> list[str]:
    """Say what no document has, and what stands in for it."""
    if inspection.strings:
        inspection.findings.places.pop("no_id", None)
        return ["texts and nothing else: row numbers stand in for ids, titles are empty"]
    notes = []
    if "id" not in inspection.given:  # said once, not for each
        inspection.findings.places.pop("no_id", None)
        names = [name for name in inspection.names if name != inspection.fields.id]
        likely = [name for name in names if _ID.search(name)]
        listed = ", ".join(f'"{shown(name)}"' for name in (likely or names)[:NAMED])
        name = shown(inspection.fields.id)
        which = f"corpus.id may name one of {listed}" if likely else f"the fields are {listed}"
        notes.append(f'no document has an id ("{name}"): row numbers stand in; {which}')
    if inspection.untitled and "title" not in inspection.given:
        name = shown(inspection.fields.title)
        notes.append(f'no document has a title ("{name}"): titles are empty, and a prompt that shows titles says none')
    return notes


def _check_fields(path: Path, fields: Fields, names: Collection[str], given: Collection[str]) -> None:
    """Refuse a file where no document has a field that the profile names, or a text."""
    accepted = "missing_title" in fields.accept
    needed = {"text"} if "text" in given or accepted else {"text", "title"}  # if one has another name, so has the other
    wanted = {key: name for key, name in fields.names.items() if key not in given and (key in needed or name != key)}
    if not wanted:
        return
    lacking = " and ".join(f'no field "{shown(name)}"' for name in wanted.values())
    listed = ", ".join(f'"{shown(name)}"' for name in itertools.islice(names, NAMED))
    keys = " and ".join(f"corpus.{key}" for key in wanted)
    fix = f"set {keys} in the profile to the names that the file uses"
    if set(wanted) == {"title"}:
        fix += ", or leave corpus.title out if there are no titles"
    raise refusal(path, f"{lacking}; the fields found are {listed}", fix)
