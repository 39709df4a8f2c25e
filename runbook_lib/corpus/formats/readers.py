"""Reading a corpus file as a stream of raw items, without running anything in it or trusting its name.

The first bytes show the format: pickle, JSON lines, JSON array, Parquet, Arrow or CSV, each of them also packed by
gzip, bzip2 or zstd. Text with a document a line may look like CSV: there the name decides (.txt). Every item has the
place where a person finds it ("item 4", "line 5", "row 4"). What cannot be read at all is a CorpusError; one line that
cannot be read is an `Unreadable` in the place of its item, so that the next lines are read too.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from .arrow_ipc import FILE_MAGIC, STREAM_MAGIC, arrow_ipc
from .json_stream import json_array, json_lines
from .plain_pickle import plain_pickle
from .source import FETCH_AGAIN, SAVE_PLAIN, Source, refusal, shown
from .tables import csv_rows, parquet, separator
from .text_lines import text_a_line
from .unpacking import packer, unpacked

PICKLE, JSON_LINES, JSON_ARRAY, PARQUET, CSV = "pickle", "JSON lines", "JSON array", "Parquet", "CSV"
ARROW, TEXT = "Arrow", "text"

_READERS = {
    PICKLE: plain_pickle,
    JSON_LINES: json_lines,
    JSON_ARRAY: json_array,
    PARQUET: parquet,
    ARROW: arrow_ipc,
    CSV: csv_rows,
    TEXT: text_a_line,
}
PACKED = (".gz", ".bz2", ".zst", ".zstd")
SUFFIXES = {
    ".pkl": {PICKLE},
    ".pickle": {PICKLE},
    ".jsonl": {JSON_LINES},
    ".ndjson": {JSON_LINES},
    ".json": {JSON_ARRAY, JSON_LINES},
    ".parquet": {PARQUET},
    ".arrow": {ARROW},
    ".feather": {ARROW},
    ".ipc": {ARROW},
    ".csv": {CSV},
    ".tsv": {CSV},
    ".txt": {TEXT, CSV, JSON_LINES, JSON_ARRAY},
}
_EXPECTED = "expected a pickled list of dicts, JSON lines, a JSON array, Parquet, Arrow, or CSV with a header"
# Characters of all documents together, beyond those of the file: many documents of a pickle may share one text, and
# Parquet is also compressed.
_ROOM, _UNFOLDS = 64 * 2**20, {PICKLE: 8, PARQUET: 100, ARROW: 100}


@contextlib.contextmanager
def open_source(path: Path, wanted: Collection[str] = (), scratch: Path | None = None) -> Iterator[Source]:
    """Open a corpus file; its items are read one at a time.

    Of a Parquet file only the `wanted` columns are read, unless none is named. What is packed is unpacked into a
    nameless file in the folder `scratch`, so that every reader can seek.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(_open(path))
        source = Source(path, "", iter(()))
        name = path.name
        head = _head(file, path)
        if by := packer(head):
            file = stack.enter_context(unpacked(file, by, path, scratch))
            source.notes.append(f"compressed with {by}: unpacked to read it")
            name = next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)
            head = _head(file, path)
            if again := packer(head):
                raise refusal(path, f"{again} within {by}", "unpack it once")
        suffix = Path(name).suffix.lower()
        source.format = _format(head, path, suffix, wanted)
        if source.format not in SUFFIXES.get(suffix, {source.format}):
            source.notes.append(f"the name ends in {shown(suffix)}, the content is {source.format}: read as such")
        source.room = _ROOM + _UNFOLDS.get(source.format, 4) * file.seek(0, 2)
        file.seek(0)
        source.items = _READERS[source.format](file, source, wanted)
        yield source


def _open(path: Path) -> IO[bytes]:
    if not path.exists():
        raise refusal(path, "there is no such file", "set the path in the profile (corpus.path, questions)")
    if not path.is_file():
        raise refusal(path, "this is not a file", "name the file itself in the profile")
    try:
        return path.open("rb", buffering=2**20)
    except OSError as error:
        raise refusal(path, f"it cannot be opened ({error.strerror})", "make it readable for you") from None


# ---------------------------------------------------------------- what the file is


def _head(file: IO[bytes], path: Path) -> bytes:
    head = file.read(1024)
    file.seek(0)
    if not head:
        raise refusal(path, "empty file (0 bytes)", FETCH_AGAIN)
    return head


SHEETS = (".xlsx", ".xlsm", ".xlsb", ".ods", ".docx")
SAVE_SHEET = "open it and save the sheet as CSV UTF-8, with the names of the columns in the first row"
_OTHERS = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file it stands for", "run git lfs pull"),
    (b"\xd0\xcf\x11\xe0", "this is an Excel or Word file of the older kind", SAVE_SHEET),
    (b"%PDF", "this is a PDF, not a corpus", "have its text taken out, and save it as JSON lines"),
    (b"SQLite format 3", "this is an SQLite database", "save the table or the query as CSV or JSON lines"),
    (b"PK\x03\x04", "this is a ZIP archive", "unpack it and name the file inside"),
    (b"\xfd7zXZ", "this is compressed with xz", "unpack it (unxz)"),
    (b"\xff\xfe", "this is UTF-16 text, expected UTF-8", "save it as UTF-8"),
    (b"\xfe\xff", "this is UTF-16 text, expected UTF-8", "save it as UTF-8"),
)


def _format(head: bytes, path: Path, suffix: str, wanted: Collection[str]) -> str:
    if head.startswith(b"PK\x03\x04") and (suffix in SHEETS or b"[Content_Types].xml" in head):
        raise refusal(path, "this is an Excel workbook, or another document of an office program", SAVE_SHEET)
    for magic, reason, fix in _OTHERS:
        if head.startswith(magic):
            raise refusal(path, reason, fix)
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith((FILE_MAGIC, STREAM_MAGIC)):
        return ARROW
    # Protocols 2 and up say so. Protocols 0 and 1 open with a container, then an opcode that JSON cannot have there.
    if head[:1] in b"\x80(])}":
        return PICKLE
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"<") and suffix != ".txt":
        raise refusal(path, f"this is HTML or XML, not a corpus; {_EXPECTED}", FETCH_AGAIN)
    if any(byte < 32 and byte not in b"\t\n\r\x0b\x0c" for byte in head):
        raise refusal(path, f"not a known format (first bytes {head[:8].hex(' ')}); {_EXPECTED}", SAVE_PLAIN)
    if suffix == ".txt" and not _is_json(text) and not _is_table(text, wanted):
        return TEXT
    if text.startswith(b"["):
        return JSON_ARRAY
    lines_of_texts = text.startswith(b'"') and SUFFIXES.get(suffix) == {JSON_LINES}  # a quoted header looks the same
    return JSON_LINES if text.startswith(b"{") or lines_of_texts else CSV


def _is_json(text: bytes) -> bool:
    """Whether text begins as JSON lines or an array do, and not as prose in brackets does."""
    return text[:1] in b"{[" and text[1:].lstrip()[:1] in (b'"', b"{", b"}", b"[", b"]")


def _is_table(text: bytes, wanted: Collection[str]) -> bool:
    """Whether the first line is a header that has a wanted column."""
    header = text.split(b"\n", 1)[0].decode(errors="replace").rstrip("\r")
    return any(name in wanted for name in header.split(separator(header, wanted)))
