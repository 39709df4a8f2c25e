"""The rows of Parquet and CSV, whose columns are known before the first row."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import IO, Any

from ...errors import CorpusError
from . import parquet_pages
from .source import FETCH_AGAIN, Source, Unreadable, refusal, shown
from .text_lines import LONGEST, BlankLines, lines, not_utf8

FIELDS = 2**20  # of one line of CSV, and lines of one record
PIECE = 32 * 2**20  # bytes of Parquet turned into Python values at a time
DOCUMENTS = 200_000  # rows allowed in Parquet of any size, and one more for each eight bytes
SAVE_SMALLER = "write it anew from its source with the defaults of your Parquet writer, or as JSON lines"


def _set_columns(source: Source, names: Collection[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        listed = ", ".join(f'"{shown(name)}"' for name in twice[:20])
        raise refusal(source.path, f"column given twice: {listed}", "give every column its own name")
    source.columns = tuple(names)


# ---------------------------------------------------------------- Parquet


def parquet(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; only the `wanted` columns are read, unless none is named."""
    import pyarrow
    import pyarrow.parquet

    try:
        parquet_pages.check_footer(file)
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        schema = table.schema_arrow
        names = schema.names
        _set_columns(source, names)
        read = [name for name in names if not wanted or name in wanted]
        nested = [name for name in read if wanted and pyarrow.types.is_nested(schema.field(name).type)]
        rows = parquet_pages.rows_at_a_time(file, table.metadata, read)
    except parquet_pages.OversizedParquet as why:
        raise refusal(source.path, f"Parquet that is not read: {why}", SAVE_SMALLER) from None
    except CorpusError:
        raise
    except UnicodeDecodeError:
        raise refusal(source.path, "a name of a column is not UTF-8", "give the columns other names") from None
    except Exception as error:  # the library raises many kinds for a damaged file
        whole = _ends_like_parquet(file)
        what = "Parquet not readable" if whole else f"cut short: Parquet without its end (size {file.seek(0, 2)} bytes)"
        raise refusal(source.path, f"{what} ({_first_line(error)})", FETCH_AGAIN) from None
    if nested:
        kinds = ", ".join(f'"{shown(name)}" is {shown(schema.field(name).type)}' for name in nested)
        raise refusal(source.path, f"a column of lists or structs: {kinds}; expected text", "store plain texts")
    if table.metadata.num_rows > DOCUMENTS + file.seek(0, 2) // 8:
        what = f"{table.metadata.num_rows:,} rows in {file.seek(0, 2):,} bytes: out of proportion"
        raise refusal(source.path, what, SAVE_SMALLER)
    return _parquet_rows(table, read, source, rows)


def _parquet_rows(table: Any, names: list[str], source: Source, rows: int) -> Iterator[tuple[str, Any]]:
    row = 0
    batches = table.iter_batches(batch_size=rows, columns=names)
    while True:
        try:
            batch = next(batches, None)
            pieces = [] if batch is None else list(_pieces(batch))
            done, batch = batch is None, None  # freed, as the pieces below, before the next one is read
            for piece in pieces:
                columns = [column.to_pylist() for column in piece.columns]
                for values in zip(*columns, strict=True):
                    yield f"row {row}", dict(zip(names, values, strict=True))
                    row += 1
            pieces = []
        except UnicodeDecodeError:
            raise refusal(source.path, f"after row {row}: text that is not UTF-8", "save it as UTF-8") from None
        except (OSError, ValueError, TypeError, MemoryError) as error:  # pyarrow's own errors are kinds of these
            raise refusal(source.path, f"not readable after row {row} ({_first_line(error)})", FETCH_AGAIN) from None
        if done:
            return


def _pieces(batch: Any) -> Iterator[Any]:
    """Yield a batch in pieces that stay small as Python strings, which may take four times the bytes."""
    if batch.nbytes <= PIECE or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _ends_like_parquet(file: IO[bytes]) -> bool:
    file.seek(-4, 2)
    return file.read(4) == b"PAR1"


def _first_line(error: Exception) -> str:
    return shown(str(error).split("\n")[0], 200)


# ---------------------------------------------------------------- CSV


def csv_rows(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a CSV file with a header; a row of another width gives an `Unreadable`."""
    records = _records(file, source)
    _, header = next(records, (0, None))
    if header is None:
        raise refusal(source.path, "blank lines and nothing else", FETCH_AGAIN)
    _set_columns(source, header)
    return _under(header, records)


def _under(header: list[str], records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[str, Any]]:
    for row, (line, values) in enumerate(records):
        place = f"row {row} (line {line})"
        if len(values) == len(header):
            yield place, dict(zip(header, values, strict=True))
        else:
            yield place, Unreadable(f"{len(values)} fields, the header has {len(header)}")


def _records(file: IO[bytes], source: Source) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the line that it starts on."""
    blank = BlankLines()
    open_lines: list[str] = []
    open_bytes, line = 0, 1

    def text() -> Iterator[str]:
        nonlocal open_bytes
        for number, start, raw in lines(file, source):
            open_bytes += len(raw)
            if open_bytes > LONGEST or len(open_lines) > FIELDS:
                reason = f"the record that starts on line {line} has over {LONGEST:,} bytes, or {FIELDS:,} lines"
                raise refusal(source.path, reason, "look for a quote there that is never closed")
            if raw.count(b",") > FIELDS:
                raise refusal(source.path, f"line {number} has over {FIELDS:,} commas", FETCH_AGAIN)
            try:
                open_lines.append(raw.decode())
            except UnicodeDecodeError as error:
                raise refusal(source.path, not_utf8(error, start), "save it as UTF-8") from None
            yield open_lines[-1]

    reader = csv.reader(text(), strict=True)
    limit = csv.field_size_limit(LONGEST)
    try:
        for values in reader:
            if values:
                yield line, values
            else:
                blank.add(line)
            open_lines.clear()
            open_bytes = 0
            line = reader.line_num + 1
    except csv.Error as error:
        reason = f"line {reader.line_num}: not CSV ({shown(error, 200)})"
        opened = _open_quote(open_lines)
        if opened is not None:
            reason = f"line {line + opened}: a quote opens here and is never closed, or not as CSV has it"
        raise refusal(source.path, reason, "mend the line, or save JSON lines from its source") from None
    finally:
        csv.field_size_limit(limit)
    blank.note(source)


_QUOTES = re.compile(r'"+')


def _open_quote(open_lines: list[str]) -> int | None:
    """Return the line (from 0) of the quote that is still open after these lines of one record."""
    opened = None
    for number, line in enumerate(open_lines):
        for mark in _QUOTES.findall(line):
            if len(mark) % 2:  # within quotes, two stand for one
                opened = number if opened is None else None
    return opened
