"""How much memory a Parquet file needs, read from its metadata before anything is decoded.

A few bytes of Parquet may stand for gigabytes: a page packed a thousandfold, a text of the dictionary that a million
rows use, a value that repeats all of the one before it. So the page headers are read first: too large a page is
refused, and only as many rows are decoded at a time as fit into memory, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from .thrift import LIST, STRUCT, Reader, Truncated

FOOTER = 16 * 2**20  # bytes
PAGE = 128 * 2**20  # bytes of one, unpacked: a row group of a few writers is one page
PAGES = 200_000
VALUES = 2**24  # of one page
FIELDS, DEEPEST = 10_000, 32  # of the schema
GROUPS = 20_000
BATCH = 192 * 2**20  # bytes that are decoded at a time
ROWS = 1000
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DELTA_BYTE_ARRAY = 7
_CHILDREN = 5
_HEAD = 2**14  # bytes of a page's head: its statistics may hold two values


class OversizedParquet(Exception):
    """The file is larger, somewhere, than what is decoded; the text says where."""


@dataclass(frozen=True)
class _Page:
    kind: int
    size: int
    packed: int
    values: int
    encoding: int


def check_footer(file: IO[bytes]) -> None:
    """Refuse a footer or a schema that is too large for the library; ValueError for a damaged one.

    The library itself refuses a footer that is cut short.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 12:
        return
    if length > FOOTER:
        raise OversizedParquet(f"its footer has {length:,} bytes, at most {FOOTER:,} are read")
    file.seek(size - 8 - length)
    try:
        _check_schema(Reader(file.read(length)))
    except Truncated:
        raise ValueError("its footer is damaged") from None


def _check_schema(reader: Reader) -> None:
    number, kind = reader.field(0)
    while (number, kind) != (2, LIST):
        if not kind:
            raise Truncated
        reader.value(kind)
        number, kind = reader.field(number)
    count, each = reader.list_head()
    if count > FIELDS or each != STRUCT:
        raise OversizedParquet(f"its schema has {count:,} fields, at most {FIELDS:,} are read")
    open_fields: list[int] = []  # the children still to come, of each open field
    for _ in range(count):
        children = reader.struct().get(_CHILDREN) or 0
        if open_fields:
            open_fields[-1] -= 1
        open_fields.append(children)
        if len(open_fields) > DEEPEST:
            raise OversizedParquet(f"its schema is nested over {DEEPEST} deep")
        while open_fields and open_fields[-1] <= 0:
            open_fields.pop()


def rows_at_a_time(file: IO[bytes], metadata: Any, names: list[str]) -> int:
    """Return how many rows to decode at once. Raises OversizedParquet for too large a page, ValueError for damage."""
    if metadata.num_row_groups > GROUPS:
        raise OversizedParquet(f"it has {metadata.num_row_groups:,} row groups, at most {GROUPS:,} are read")
    rows, left = ROWS, PAGES
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            if chunk.path_in_schema.split(".")[0] in names:
                pages = []
                for page in _pages(file, chunk, f"row group {number}, column {index}"):
                    pages.append(page)
                    left -= 1
                    if left < 0:
                        raise OversizedParquet(f"it has over {PAGES:,} pages")
                if chunk.physical_type.endswith("BYTE_ARRAY"):
                    rows = min(rows, _fit(pages))
    return rows


def _pages(file: IO[bytes], chunk: Any, where: str) -> Iterator[_Page]:
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset]
    at = min(start for start in starts if start >= 4)
    stop = at + chunk.total_compressed_size
    while at < stop:
        file.seek(at)
        reader = Reader(file.read(_HEAD))
        try:
            page = _page(reader.struct())
        except (Truncated, TypeError, AttributeError):
            raise ValueError(f"{where}: the page at byte {at} is damaged") from None
        if page.size > PAGE or page.values > VALUES or (page.kind == _DICTIONARY and page.values > VALUES // 4):
            size = f"a page of {page.size:,} bytes and {page.values:,} values"
            raise OversizedParquet(f"{where}: {size}, at most {PAGE:,} and {VALUES:,} are read")
        yield page
        at += reader.at + page.packed


def _page(head: dict[int, Any]) -> _Page:
    kind, size, packed = head.get(1), head.get(2), head.get(3)
    body = head.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0)) or {}  # type: ignore[arg-type]
    values, encoding = body.get(1, 0), body.get({_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}.get(kind, 0), 0)  # type: ignore[arg-type]
    if not all(isinstance(number, int) and number >= 0 for number in (kind, size, packed, values, encoding)):
        raise Truncated
    return _Page(kind, size, packed, values, encoding)  # type: ignore[arg-type]


def _fit(pages: list[_Page]) -> int:
    """Return how many rows of a column fit into a batch, whatever they hold."""
    data = [page for page in pages if page.kind in (_DATA, _DATA_V2) and page.values]
    if not data:
        return ROWS
    largest = max(max(page.size for page in data), 1)
    shortest = min(page.values for page in data[:-1] or data)
    # A batch covers this many pages, and part of one at each end.
    fits = [int(shortest * (BATCH / largest - 2))]
    fits += [BATCH // max(page.size, 1) for page in pages if page.kind == _DICTIONARY]  # each row may name its longest
    if any(page.encoding == _DELTA_BYTE_ARRAY for page in data):  # each may repeat the one before
        fits.append(BATCH // largest)
    return max(1, min(fits))
