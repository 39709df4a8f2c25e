"""The merged file in the founding shape, `wikipedia_merged.pkl`: written as a stream of pickle instructions.

`pickle.load` gives the dict that `pickle.dump` would have stored: embeddings (N, D) float32, articles (a list of dicts
with id, title, url), total_articles, embedding_dim, model, timestamp. Writing the instructions ourselves needs memory
for one piece of the matrix instead of several matrices. The same content always gives the same bytes, so the check
makes the bytes again and compares: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import (
    APPENDS,
    BINBYTES8,
    BINFLOAT,
    BINGET,
    BINPUT,
    BINUNICODE,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    LONG1,
    MARK,
    NEWFALSE,
    NEWTRUE,
    NONE,
    PROTO,
    REDUCE,
    SETITEMS,
    SHORT_BINBYTES,
    SHORT_BINUNICODE,
    STACK_GLOBAL,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    TUPLE3,
    encode_long,
)

from worker.escape import safe_text

from ..errors import DataError
from ..records import Written
from .large_files import PIECE_BYTES, write

PROTOCOL = 4
ARTICLE_KEYS = ("id", "title", "url")
# A pickle reader keeps everything between MARK and APPENDS on its stack: as many items as pickle itself puts there.
BATCH = 1000


@dataclass(frozen=True)
class FoundingContent:
    """The content of the file: the merged matrix and articles, and the values of the small keys."""

    embeddings: Path
    articles: Path
    documents: int
    dim: int
    model: str
    timestamp: str

    @property
    def matrix_bytes(self) -> int:
        """The size of the vectors without the rest."""
        return self.documents * self.dim * 4


# ------------------------------------------------------------------------------------------------- single values


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")  # as pickle does: a half character in a title must not stop the run
    if len(raw) < 256:
        return SHORT_BINUNICODE + bytes([len(raw)]) + raw
    return BINUNICODE + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    raw = encode_long(value)
    return LONG1 + bytes([len(raw)]) + raw


def _scalar(value: object) -> bytes:
    """Pickle an id, title or url. Raises DataError for anything except text, a number, true, false or None."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return NONE if value is None else NEWTRUE if value else NEWFALSE
    if isinstance(value, int) and value.bit_length() < 8 * 255:
        return _number(value)
    if isinstance(value, float):
        return BINFLOAT + struct.pack(">d", value)
    raise DataError(f"{safe_text(repr(value), 80)} cannot stand in the merged file: expected text or a number")


def _global(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + STACK_GLOBAL


# ---------------------------------------------------------------------------------------------------- the stream


def _matrix(content: FoundingContent) -> Iterator[bytes]:
    """Pickle a float32 array as numpy 2 does: an empty array, then its state with the raw bytes."""
    zero, one = _number(0), _number(1)
    yield _global("numpy._core.multiarray", "_reconstruct") + _global("numpy", "ndarray")
    yield zero + TUPLE1 + SHORT_BINBYTES + b"\x01b" + TUPLE3 + REDUCE
    yield MARK + one + _number(content.documents) + _number(content.dim) + TUPLE2
    yield _global("numpy", "dtype") + _text("f4") + NEWFALSE + NEWTRUE + TUPLE3 + REDUCE
    yield MARK + _number(3) + _text("<") + 3 * NONE + 2 * _number(-1) + zero + TUPLE + BUILD
    yield NEWFALSE + BINBYTES8 + struct.pack("<Q", content.matrix_bytes)
    yield from _raw_vectors(content)
    yield TUPLE + BUILD


def _raw_vectors(content: FoundingContent) -> Iterator[bytes]:
    """Read the vectors at the end of the .npy file. Raises DataError if the file is too short."""
    left = content.matrix_bytes
    with content.embeddings.open("rb") as file:
        file.seek(max(0, content.embeddings.stat().st_size - left))
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
    if left:
        raise DataError(f"{content.embeddings}: {left} bytes short; delete {content.embeddings.parent} and merge again")


def _articles(content: FoundingContent) -> Iterator[bytes]:
    """Pickle a list of dicts; the three keys are stored once and referred to, so that a reader has one copy of each."""
    again = [BINGET + bytes([place]) for place in range(len(ARTICLE_KEYS))]
    first = [_text(key) + BINPUT + bytes([place]) for place, key in enumerate(ARTICLE_KEYS)]
    yield EMPTY_LIST
    batch: list[bytes] = []
    count = 0
    with content.articles.open(encoding="utf-8", errors="surrogatepass", newline="\n") as lines:
        for count, line in enumerate(lines, 1):
            article = json.loads(line)
            id_key, title_key, url_key = first if count == 1 else again
            own_id, title, url = _scalar(article["id"]), _scalar(article["title"]), _scalar(article["url"])
            entries = (EMPTY_DICT, MARK, id_key, own_id, title_key, title, url_key, url, SETITEMS)
            batch.append(b"".join(entries))
            if len(batch) == BATCH:
                yield MARK + b"".join(batch) + APPENDS
                batch = []
    if batch:
        yield MARK + b"".join(batch) + APPENDS
    if count != content.documents:
        raise DataError(f"{content.articles}: expected {content.documents} lines, found {count}; merge again")


def stream(content: FoundingContent) -> Iterator[bytes]:
    """Return the file's bytes, in pieces of about 1 MiB at most. Raises DataError if matrix and articles do not fit."""
    yield PROTO + bytes([PROTOCOL]) + EMPTY_DICT + MARK + _text("embeddings")
    yield from _matrix(content)
    yield _text("articles")
    yield from _articles(content)
    yield _text("total_articles") + _number(content.documents) + _text("embedding_dim") + _number(content.dim)
    yield _text("model") + _text(content.model) + _text("timestamp") + _text(content.timestamp)
    yield SETITEMS + STOP


# -------------------------------------------------------------------------------------------------------- verbs


def save(path: Path, content: FoundingContent, sha256: str = "") -> Written:
    """Write the whole file under `path`, make its folder, and return its sha256 and size.

    Raises DataError if it cannot be written, or has another sha256 than the given one.
    """
    remedy = "Free space there or change output.folder in the profile, then merge again."
    return write(path, stream(content), content.matrix_bytes + content.articles.stat().st_size, remedy, sha256)


def check(path: Path, content: FoundingContent) -> list[str]:
    """Return in words how the file differs from its content; empty if every byte is right.

    Makes the stream again and compares piece by piece; the file is never unpickled.
    """
    try:
        return _differences(path, content)
    except FileNotFoundError as error:
        return [f"{error.filename}: no such file"]
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        return [f"cannot be compared: {safe_text(str(error), 300)}"]


def sha256(content: FoundingContent) -> str:
    """Return the sha256 that the file has if it holds this content. Raises DataError and OSError."""
    digest = hashlib.sha256()
    for piece in stream(content):
        digest.update(piece)
    return digest.hexdigest()


def _differences(path: Path, content: FoundingContent) -> list[str]:
    at = 0
    with path.open("rb") as file:
        for wanted in stream(content):
            piece = file.read(len(wanted))
            if piece != wanted:
                place = next((i for i, (a, b) in enumerate(zip(piece, wanted, strict=False)) if a != b), len(piece))
                what = "ends" if place == len(piece) else "differs from the merged matrix and articles"
                return [f"{what} at byte {at + place}"]
            at += len(wanted)
        return [f"goes on after its end, byte {at}"] if file.read(1) else []
