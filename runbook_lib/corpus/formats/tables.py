"""The rows of Parquet and CSV, whose columns are known before the first row."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Iterator
from typing import IO, Any

from ...errors import CorpusError
from . import parquet_pages
from . import table_columns as columns
from .source import FETCH_AGAIN, Source, Unreadable, first_line, refusal, shown
from .text_lines import LONGEST, BlankLines, lines, not_utf8

MARKS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
FIELDS = 2**20  # of one line of CSV, and lines of one record
DOCUMENTS = 200_000  # rows allowed in Parquet of any size, and one more for each eight bytes
SAVE_SMALLER = "write it anew from its source with the defaults of your Parquet writer, or as JSON lines"


# ---------------------------------------------------------------- Parquet


def parquet(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; only the `wanted` columns are read, unless none is named."""
    import pyarrow.parquet

    try:
        parquet_pages.check_footer(file)
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        chosen = columns.choose(table.schema_arrow, source, wanted)
        rows = parquet_pages.rows_at_a_time(file, table.metadata, chosen.top)
    except parquet_pages.OversizedParquet as why:
        raise refusal(source.path, f"Parquet that is not read: {why}", SAVE_SMALLER) from None
    except CorpusError:
        raise
    except UnicodeDecodeError:
        raise refusal(source.path, "a name of a column is not UTF-8", "give the columns other names") from None
    except Exception as error:  # the library raises many kinds for a damaged file
        whole = _ends_like_parquet(file)
        what = "Parquet not readable" if whole else f"cut short: Parquet without its end (size {file.seek(0, 2)} bytes)"
        raise refusal(source.path, f"{what} ({first_line(error)})", FETCH_AGAIN) from None
    if table.metadata.num_rows > DOCUMENTS + file.seek(0, 2) // 8:
        what = f"{table.metadata.num_rows:,} rows in {file.seek(0, 2):,} bytes: out of proportion"
        raise refusal(source.path, what, SAVE_SMALLER)
    return _parquet_rows(table, chosen, source, rows)


def _parquet_rows(table: Any, chosen: columns.Columns, source: Source, rows: int) -> Iterator[tuple[str, Any]]:
    row = 0
    batches = table.iter_batches(batch_size=rows, columns=chosen.top)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            for values in columns.rows(batch, chosen):
                yield f"row {row}", values
                row += 1
        except UnicodeDecodeError:
            raise refusal(source.path, f"after row {row}: text that is not UTF-8", "save it as UTF-8") from None
        except (OSError, ValueError, TypeError, MemoryError) as error:  # pyarrow's own errors are kinds of these
            if isinstance(error, CorpusError):
                raise
            raise refusal(source.path, f"not readable after row {row} ({first_line(error)})", FETCH_AGAIN) from None


def _ends_like_parquet(file: IO[bytes]) -> bool:
    file.seek(-4, 2)
    return file.read(4) == b"PAR1"


# ---------------------------------------------------------------- CSV


def csv_rows(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a CSV file with a header; a row of another width gives an `Unreadable`.

    Between the fields stands the mark by which the header has most of the `wanted` columns: a comma if in doubt.
    """
    mark = separator(_first_line_of(file), wanted)
    if mark != ",":
        source.notes.append(f"the fields are separated by {MARKS[mark]}")
    records = _records(file, source, mark)
    _, header = next(records, (0, None))
    if header is None:
        raise refusal(source.path, "blank lines and nothing else", FETCH_AGAIN)
    columns.check_once(source, header, wanted)
    source.columns = tuple(header)
    return _under(header, records)


def separator(header: str, wanted: Collection[str]) -> str:
    """Return the mark of MARKS that separates the columns of this first line."""

    def fits(mark: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=mark), [])
        return len({*names} & {*wanted}), len(names)

    try:
        return max(MARKS, key=fits)
    except csv.Error:  # told with its line by the reader
        return ","


def _first_line_of(file: IO[bytes]) -> str:
    """The first line that is not blank, as far as it can be shown; the file is where it was."""
    at = file.tell()
    line = b""
    while not line.strip() and (line := file.readline(LONGEST)):
        pass
    file.seek(at)
    return line.removeprefix(codecs.BOM_UTF8).decode(errors="replace")


def _under(header: list[str], records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[str, Any]]:
    for row, (line, values) in enumerate(records):
        place = f"row {row} (line {line})"
        if len(values) == len(header):
            yield place, dict(zip(header, values, strict=True))
        else:
            yield place, Unreadable(f"{len(values)} fields, the header has {len(header)}")


def _records(file: IO[bytes], source: Source, mark: str) -> Iterator[tuple[int, list[str]]]:
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
            if raw.count(mark.encode()) > FIELDS:
                raise refusal(source.path, f"line {number} has over {FIELDS:,} {MARKS[mark]}", FETCH_AGAIN)
            try:
                open_lines.append(raw.decode())
            except UnicodeDecodeError as error:
                raise refusal(source.path, not_utf8(error, start), "save it as UTF-8") from None
            yield open_lines[-1]

    reader = csv.reader(text(), delimiter=mark, strict=True)
    limit = csv.field_size_limit(LONGEST)
    try:
        for values in reader:
            if any(values):
                yield line, values
            else:  # also a line of marks alone, as programs for tables leave below the last row
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
