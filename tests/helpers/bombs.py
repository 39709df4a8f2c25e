"""Small corpus files that would take a machine's memory, disk or patience, were they read as they ask for."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MIB = 2**20
PROTO4 = b"\x80\x04"


def _text(data: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(data)) + data


def _document(text: bytes) -> bytes:
    return b"}(\x8c\x05title\x8c\x01T\x8c\x04text" + text + b"u"


def _zlib_gz(pieces: list[tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        for piece, times in pieces:
            for _ in range(times):
                file.write(piece)
    return out.getvalue()


PICKLES: dict[str, Callable[[], bytes]] = {
    "sets.pkl": lambda: PROTO4 + b"]" + b"\x8f" * (8 * MIB) + b".",
    "frozen_sets.pkl": lambda: PROTO4 + b"](" + b"(\x91" * (4 * MIB) + b"e.",
    "marks.pkl": lambda: PROTO4 + b"]" + b"(" * (8 * MIB) + b".",
    "memo.pkl": lambda: PROTO4 + b"]" + b"\x94" * (8 * MIB) + b".",
    "far_memo.pkl": lambda: PROTO4 + b"]" + b"".join(b"r" + struct.pack("<I", 9 * n + 9) for n in range(MIB)) + b".",
    "dicts.pkl": lambda: PROTO4 + b"](" + b"}" * (8 * MIB) + b"e.",
    "lists.pkl": lambda: PROTO4 + b"](" + b"]" * (8 * MIB) + b"e.",
    "tuples.pkl": lambda: PROTO4 + b"](" + b"N\x85" * (4 * MIB) + b"e.",
    "nones.pkl": lambda: PROTO4 + b"](" + b"N" * (8 * MIB) + b"e.",
    "numbers.pkl": lambda: PROTO4 + b"](" + b"M\xff\xff" * (3 * MIB) + b"e.",
    "pairs.pkl": lambda: PROTO4 + b"](}(" + b"".join(b"\x8c\x04%04xN" % (n % 65536) for n in range(MIB)) + b"ue.",
    "one_text_many_documents.pkl": lambda: (
        PROTO4 + b"](" + _document(_text(b"x" * (4 * MIB)) + b"q\x00") + _document(b"h\x00") * 100_000 + b"e."
    ),
    "one_list_many_times.pkl": lambda: PROTO4 + b"](](" + b"N" * MIB + b"e\x94" + b"h\x00" * (3 * MIB) + b"e.",
    "columns_of_one_text.pkl": lambda: (
        PROTO4 + b"}(\x8c\x05title](\x8c\x01T\x94" + b"h\x00" * 200_000 + b"e\x8c\x04text]("
        + _text(b"x" * MIB) + b"\x94" + b"h\x01" * 200_000 + b"eu."
    ),
}  # fmt: skip
HEAD = b'{"id":1,"title":"t","text":"'
TEXTS: dict[str, Callable[[], bytes]] = {
    "lists.jsonl": lambda: HEAD + b'x","z":[' + b"[]," * (10 * MIB) + b"[]]}\n",
    "objects.jsonl": lambda: HEAD + b'x","z":[' + b'{"":1},' * (4 * MIB) + b"1]}\n",
    "keys.jsonl": lambda: HEAD + b'x",' + b",".join(b'"%x":1' % n for n in range(2 * MIB)) + b"}\n",
    "numbers.jsonl": lambda: HEAD + b'x","z":[' + b"1e9," * (7 * MIB) + b"1]}\n",
    "nested.jsonl": lambda: HEAD + b'x","z":' + b"[" * (20 * MIB) + b"\n",
    "digits.jsonl": lambda: b'{"id":' + b"9" * (30 * MIB) + b',"title":"t","text":"x"}\n',
    "long_line.jsonl": lambda: HEAD + b"x" * (120 * MIB),
    "one_emoji.jsonl": lambda: HEAD + "\U0001f600".encode() + b"x" * (30 * MIB) + b'"}\n',
    "escapes.jsonl": lambda: HEAD + b"\\ud83d\\ude00" * (2 * MIB) + b'"}\n',
    "empty_objects.jsonl": lambda: b"{}\n" * (4 * MIB),
    "blank_lines.jsonl": lambda: HEAD + b'x"}\n' + b"\n" * (4 * MIB),
    "lists.json": lambda: b"[" + HEAD + b'x","z":[' + b"[]," * (10 * MIB) + b"[]]}]",
    "deep.json": lambda: b"[" + HEAD + b'x","z":' + b"[" * (5 * MIB),
    "text_without_end.json": lambda: b"[" + HEAD + b"x" * (120 * MIB),
    "empty_objects.json": lambda: b"[" + b"{}," * (4 * MIB) + b"{}]",
    "numbers.json": lambda: b"[" + b"1," * (8 * MIB) + b"1]",
    "commas.csv": lambda: b"id,title,text\n" + b"," * (30 * MIB) + b"\n",
    "header.csv": lambda: b"," * (30 * MIB) + b"\nx\n",
    "one_record.csv": lambda: b"id,title,text\n1,t," + (b'"' + b"a" * (9 * MIB) + b'\n",') * 20 + b"\n",
    "open_quote.csv": lambda: b'id,title,text\n1,t,"' + b"a\n" * (40 * MIB),
    "short_rows.csv": lambda: b"id,title,text\n" + b"1\n" * (4 * MIB),
    "zeros.jsonl.gz": lambda: _zlib_gz([(HEAD, 1), (b"x" * MIB, 300)]),
    "many_lines.jsonl.gz": lambda: _zlib_gz([(HEAD + b'x"}\n' + b" " * MIB, 200)]),
    "gzip_of_gzip.gz": lambda: gzip.compress(_zlib_gz([(b"x" * MIB, 300)]), mtime=0),
    "many_members.gz": lambda: gzip.compress(b"", mtime=0) * 100_000,
    "name_without_end.gz": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (20 * MIB),
}


def _write(table: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", **options)
    return out.getvalue()


def _dictionary(count: int, text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def _columns(count: int, text: pa.Array) -> dict[str, object]:
    return {"id": pa.array(range(count)), "title": _dictionary(count, "T"), "text": text}


def _wide(columns: int) -> bytes:
    return _write(pa.table({**_columns(1, pa.array(["x"])), **{f"c{n}": [0] for n in range(columns)}}))


def _groups(count: int) -> bytes:
    return _write(pa.table(_columns(count, pa.array(["x"] * count))), row_group_size=1)


def _nested(depth: int) -> bytes:
    kind: pa.DataType = pa.int32()
    for _ in range(depth):
        kind = pa.struct([("a", kind)])
    return _write(pa.table({**_columns(1, pa.array(["x"])), "z": pa.array([None], kind)}))


def _lists() -> bytes:
    values = pa.array(["x"]).dictionary_encode().take(pa.array([0] * (4 * MIB)))
    lists = pa.ListArray.from_arrays(pa.array([0, 4 * MIB], pa.int32()), values)
    return _write(pa.table({"id": [1], "title": ["T"], "text": lists}))


def _pages_of_one_value() -> bytes:
    texts = pa.array(["x" * (8 * MIB)] * 60)
    return _write(pa.table(_columns(60, texts)), use_dictionary=False, data_page_size=1)


def _one_page() -> bytes:
    texts = pa.array(["x" * MIB] * 300)
    return _write(pa.table(_columns(300, texts)), use_dictionary=False, data_page_size=2**30)


def _repeated() -> bytes:
    """Each value is the one before it: DELTA_BYTE_ARRAY keeps nothing of it but a length."""
    texts = pa.array(["x" * (8 * MIB)] * 200)
    encoding = {"text": "DELTA_BYTE_ARRAY"}
    options = {"use_dictionary": False, "column_encoding": encoding, "write_statistics": False}
    return _write(pa.table({"title": ["T"] * 200, "text": texts}), **options)


def _footer(length: int) -> bytes:
    return b"PAR1" + bytes(length) + struct.pack("<I", length) + b"PAR1"


def _schema(fields: int, children: int) -> bytes:
    """A footer whose schema has so many fields, each with so many children."""
    field = b"\x48\x01a" + (b"\x15" + bytes([2 * children]) if children else b"") + b"\x00"
    count = bytearray()
    n = fields
    while n > 127:
        count.append(n & 127 | 128)
        n >>= 7
    count.append(n)
    footer = b"\x15\x02\x19\xfc" + bytes(count) + field * fields + b"\x16\x02\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


PARQUETS: dict[str, Callable[[], bytes]] = {
    "dictionary.parquet": lambda: _write(pa.table(_columns(100_000, _dictionary(100_000, "x" * (8 * MIB))))),
    "titles.parquet": lambda: _write(
        pa.table({"title": _dictionary(50_000, "T" * (8 * MIB)), "text": _dictionary(50_000, "x")})
    ),
    "run_length.parquet": lambda: _write(pa.table(_columns(4 * MIB, _dictionary(4 * MIB, "x")))),
    "lists.parquet": _lists,
    "pages_of_one_value.parquet": _pages_of_one_value,
    "one_page.parquet": _one_page,
    "repeated.parquet": _repeated,
    "many_columns.parquet": lambda: _wide(12_000),
    "many_row_groups.parquet": lambda: _groups(21_000),
    "nested.parquet": lambda: _nested(60),
    "footer_of_zeros.parquet": lambda: _footer(30 * MIB),
    "schema_of_many.parquet": lambda: _schema(2 * MIB, 0),
    "schema_nested_for_ever.parquet": lambda: _schema(300_000, 1),
}
BOMBS = {**PICKLES, **TEXTS, **PARQUETS}


def write(folder: Path, name: str) -> Path:
    """The bomb of that name."""
    path = folder / name
    path.write_bytes(BOMBS[name]())
    return path


__all__ = ["BOMBS", "write"]
