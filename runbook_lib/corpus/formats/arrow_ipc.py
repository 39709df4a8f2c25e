"""The rows of Arrow's own files (IPC): its stream, which `datasets` writes, and its file, also known as Feather 2.

Both hold the same messages in a row; the file adds an index, which is not used. All messages are walked before the
library decodes any: it would allocate whatever a packed one claims, and take a stream that was cut for a shorter one.
The layout is that of Arrow's specification (format/Message.fbs).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from typing import IO, Any

from ...errors import CorpusError
from . import table_columns as columns
from .source import FETCH_AGAIN, Source, first_line, refusal

FILE_MAGIC, STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"
LARGEST = 2**30  # bytes of one message when unpacked
_SMALL, _RATIO = 64 * 2**20, 100  # a message may unpack to this, or to so many times its size
_DICTIONARY, _BATCH = 2, 3  # kinds of messages
SAVE_AGAIN = "write it anew from its source, or save it as Parquet"


def arrow_ipc(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The rows of an Arrow file or stream; only the `wanted` columns are turned into values, unless none is named."""
    import pyarrow

    size = file.seek(0, 2)
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    whole = pyarrow.py_buffer(mapped)
    start = 8 if mapped[:6] == FILE_MAGIC else 0
    if start and mapped[-6:] != FILE_MAGIC:
        raise refusal(source.path, f"cut short: an Arrow file without its end (size {size} bytes)", FETCH_AGAIN)
    try:
        _check_messages(mapped, start, source)
        reader = pyarrow.ipc.open_stream(pyarrow.BufferReader(whole.slice(start)))
        chosen = columns.choose(reader.schema, source, wanted)
    except (pyarrow.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        if isinstance(error, CorpusError):
            raise
        raise refusal(source.path, f"Arrow file not readable ({first_line(error)})", FETCH_AGAIN) from None
    return _rows(reader, chosen, source)


def _rows(reader: Any, chosen: columns.Columns, source: Source) -> Iterator[tuple[str, Any]]:
    import pyarrow

    row = 0
    while True:
        try:
            batch = reader.read_next_batch()
            batch.validate(full=True)  # offsets of a damaged one would lead anywhere
        except StopIteration:
            return
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = f"not readable after row {row} ({first_line(error)})"
            raise refusal(source.path, reason, FETCH_AGAIN) from None
        for values in columns.rows(batch, chosen):
            yield f"row {row}", values
            row += 1


# ---------------------------------------------------------------- the messages, before they are decoded


def _check_messages(data: Any, at: int, source: Source) -> None:
    """Walk all messages. Raises CorpusError for a stream without its end, or a message that unpacks to too much."""
    size = len(data)
    while True:
        if at + 8 > size:
            what = f"cut short: an Arrow stream without its end mark (size {size} bytes)"
            raise refusal(source.path, what, "fetch it again, or close the writer when you save it")
        mark, length = struct.unpack_from("<Ii", data, at)
        if mark != 0xFFFFFFFF or length < 0:
            raise refusal(source.path, f"Arrow file not readable (no message at byte {at})", FETCH_AGAIN)
        if length == 0:
            return
        body = at + 8 + length
        message = _Table(data, at + 8, body)
        packed = message.number(3, "<q")
        if packed < 0 or body + packed > size:
            raise refusal(source.path, f"cut short: inside the message at byte {at} (size {size} bytes)", FETCH_AGAIN)
        _check_size(message, data, body, packed, at, source)
        at = body + packed


def _check_size(message: _Table, data: Any, body: int, packed: int, at: int, source: Source) -> None:
    kind = message.number(1, "<B")
    head = message.table(2)
    if kind == _DICTIONARY and head:
        head = head.table(1)
    if kind not in (_DICTIONARY, _BATCH) or head is None or head.table(3) is None:  # not packed
        return
    claimed = 0
    for offset, length in head.pairs(2):
        if length >= 8 and 0 <= offset <= packed - 8:
            claimed += max(struct.unpack_from("<q", data, body + offset)[0], length)
    if claimed > LARGEST or claimed > max(_SMALL, _RATIO * packed):
        reason = f"the message at byte {at} has {packed:,} bytes and would unpack to {claimed:,}"
        raise refusal(source.path, reason, SAVE_AGAIN)


class _Table:
    """One table of a flatbuffer: its fields by number. Raises struct.error outside of [start, stop)."""

    def __init__(self, data: Any, start: int, stop: int, at: int | None = None) -> None:
        self.data, self.start, self.stop = data, start, stop
        self.at = start + self._read("<I", start) if at is None else at
        self.fields = self.at - self._read("<i", self.at)
        self.count = (self._read("<H", self.fields) - 4) // 2

    def _read(self, form: str, at: int) -> int:
        if not self.start <= at <= self.stop - struct.calcsize(form):
            raise ValueError(f"an offset leads out of the message at byte {self.start}")
        return int(struct.unpack_from(form, self.data, at)[0])

    def _place(self, field: int) -> int | None:
        offset = self._read("<H", self.fields + 4 + 2 * field) if field < self.count else 0
        return self.at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """A number, 0 where it is not given."""
        place = self._place(field)
        return 0 if place is None else self._read(form, place)

    def table(self, field: int) -> _Table | None:
        """A table inside, if there is one."""
        place = self._place(field)
        return None if place is None else _Table(self.data, self.start, self.stop, place + self._read("<I", place))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A list of pairs of 64 bits: the offset and length of each buffer."""
        place = self._place(field)
        if place is None:
            return
        vector = place + self._read("<I", place)
        for index in range(self._read("<I", vector)):
            yield self._read("<q", vector + 4 + 16 * index), self._read("<q", vector + 12 + 16 * index)
