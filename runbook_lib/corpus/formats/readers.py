"""Reading a corpus file as a stream of raw items, without running anything in it or trusting its name.

The first bytes show the format: pickle, JSON lines, JSON array, Parquet or CSV, each of them also inside gzip.
Every item has the place where a person finds it ("item 4", "line 5", "row 4"). What cannot be read at all is a
CorpusError; one line that cannot be read is an `Unreadable` in the place of its item, so that the next lines are
read too.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from .json_stream import json_array, json_lines
from .plain_pickle import plain_pickle
from .source import FETCH_AGAIN, SAVE_PLAIN, Source, refusal, shown
from .tables import csv_rows, parquet
from .whole_file import LOOK, check_room

PICKLE, JSON_LINES, JSON_ARRAY, PARQUET, CSV = "pickle", "JSON lines", "JSON array", "Parquet", "CSV"

_READERS = {PICKLE: plain_pickle, JSON_LINES: json_lines, JSON_ARRAY: json_array, PARQUET: parquet, CSV: csv_rows}
_SUFFIXES = {
    ".pkl": {PICKLE},
    ".pickle": {PICKLE},
    ".jsonl": {JSON_LINES},
    ".ndjson": {JSON_LINES},
    ".json": {JSON_ARRAY, JSON_LINES},
    ".parquet": {PARQUET},
    ".csv": {CSV},
}
_EXPECTED = "expected a pickled list of dicts, JSON lines, a JSON array, Parquet, or CSV with a header"
_CHUNK = 2**20
_RATIO = 100  # text packs about 4-fold, deflate can reach 1,032-fold: more than this is an attack
# Characters of all documents together, beyond those of the file: many documents of a pickle may share one text, and
# Parquet is also compressed.
_ROOM, _UNFOLDS = 64 * 2**20, {PICKLE: 8, PARQUET: _RATIO}


@contextlib.contextmanager
def open_source(path: Path, wanted: Collection[str] = (), scratch: Path | None = None) -> Iterator[Source]:
    """Open a corpus file; its items are read one at a time.

    Of a Parquet file only the `wanted` columns are read, unless none is named. A gzip is unpacked into a nameless
    file in the folder `scratch`, so that every reader can seek.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(_open(path))
        source = Source(path, "", iter(()))
        name = path.name
        head = _head(file, path)
        if head.startswith(b"\x1f\x8b"):
            unpacked = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            _unpack(file, unpacked, path, scratch)
            file = unpacked
            source.notes.append("compressed with gzip: unpacked to read it")
            name = name.removesuffix(".gz")
            head = _head(file, path)
        source.format = _format(head, path)
        suffix = Path(name).suffix.lower()
        if source.format not in _SUFFIXES.get(suffix, {source.format}):
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


def _unpack(file: IO[bytes], out: IO[bytes], path: Path, scratch: Path | None) -> None:
    """Write the content of a gzip to `out`; a cut or damaged one is refused here, before any reader gets it."""
    size = path.stat().st_size
    limit = max(64 * 2**20, _RATIO * size)
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            while chunk := packed.read(_CHUNK):
                out.write(chunk)
                if scratch is not None and out.tell() % LOOK < _CHUNK:
                    check_room(scratch)
                if out.tell() > limit:
                    raise refusal(path, f"gzip that unpacks to over {_RATIO} times its size", "unpack it first")
    except EOFError:
        raise refusal(path, f"gzip cut short (size {size} bytes)", FETCH_AGAIN) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise refusal(path, f"gzip not readable ({shown(error, 200)})", FETCH_AGAIN) from None
    out.seek(0)


_OTHERS = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file it stands for", "run git lfs pull"),
    (b"\x1f\x8b", "gzip within gzip", "unpack it once"),
    (b"PK\x03\x04", "this is a ZIP archive", "unpack it and name the file inside"),
    (b"BZh", "this is compressed with bzip2", "unpack it (bunzip2)"),
    (b"\xfd7zXZ", "this is compressed with xz", "unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "this is compressed with zstd", "unpack it (unzstd)"),
    (b"\xff\xfe", "this is UTF-16 text, expected UTF-8", "save it as UTF-8"),
    (b"\xfe\xff", "this is UTF-16 text, expected UTF-8", "save it as UTF-8"),
)


def _format(head: bytes, path: Path) -> str:
    for magic, reason, fix in _OTHERS:
        if head.startswith(magic):
            raise refusal(path, reason, fix)
    if head.startswith(b"PAR1"):
        return PARQUET
    # Protocols 2 and up say so. Protocols 0 and 1 open with a container, then an opcode that JSON cannot have there.
    if head[:1] in b"\x80(])}":
        return PICKLE
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"<"):
        raise refusal(path, f"this is HTML or XML, not a corpus; {_EXPECTED}", FETCH_AGAIN)
    if any(byte < 32 and byte not in b"\t\n\r\x0b\x0c" for byte in head):
        raise refusal(path, f"not a known format (first bytes {head[:8].hex(' ')}); {_EXPECTED}", SAVE_PLAIN)
    if text.startswith(b"["):
        return JSON_ARRAY
    return JSON_LINES if text.startswith(b"{") else CSV
