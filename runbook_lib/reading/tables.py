"""The rows of Parquet and CSV, whose columns are known before the first row."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import IO, Any

from .source import FETCH_AGAIN, Source, Unreadable, refusal, shown
from .text_lines import LONGEST, Blank, lines, not_utf8


def _set_columns(source: Source, names: Collection[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        told = ", ".join(f'"{shown(name)}"' for name in twice[:20])
        raise refusal(source.path, f"column given twice: {told}", "give every column its own name")
    source.columns = tuple(names)


# ---------------------------------------------------------------- Parquet


def parquet(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; only the `wanted` columns are read, unless none is named."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        whole = _ends_like_parquet(file)
        seen = "Parquet not readable" if whole else f"cut short: Parquet without its end (size {file.seek(0, 2)} bytes)"
        raise refusal(source.path, f"{seen} ({_first_line(error)})", FETCH_AGAIN) from None
    names = table.schema_arrow.names
    _set_columns(source, names)
    return _parquet_rows(table, [name for name in names if not wanted or name in wanted], source)


def _parquet_rows(table: Any, names: list[str], source: Source) -> Iterator[tuple[str, Any]]:
    row = 0
    batches = table.iter_batches(batch_size=1000, columns=names)
    while True:
        try:
            batch = next(batches, None)
            columns = [] if batch is None else [column.to_pylist() for column in batch.columns]
        except UnicodeDecodeError:
            raise refusal(source.path, f"after row {row}: text that is not UTF-8", "save it as UTF-8") from None
        except (OSError, ValueError, TypeError) as error:  # pyarrow's own errors are kinds of these
            raise refusal(source.path, f"not readable after row {row} ({_first_line(error)})", FETCH_AGAIN) from None
        if batch is None:
            return
        for values in zip(*columns, strict=True):
            yield f"row {row}", dict(zip(names, values, strict=True))
            row += 1


def _ends_like_parquet(file: IO[bytes]) -> bool:
    file.seek(-4, 2)
    return file.read(4) == b"PAR1"


def _first_line(error: Exception) -> str:
    return shown(str(error).split("\n")[0], 200)


# ---------------------------------------------------------------- CSV


def csv_rows(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The rows of a CSV file with a header; one of another width is an `Unreadable` in its place."""
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
    blank = Blank()
    open_lines: list[str] = []

    def text() -> Iterator[str]:
        for _, start, raw in lines(file, source):
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                raise refusal(source.path, not_utf8(error, start), "save it as UTF-8") from None
            open_lines.append(line)
            yield line

    reader = csv.reader(text(), strict=True)
    limit = csv.field_size_limit(LONGEST)
    line = 1
    try:
        for values in reader:
            if values:
                yield line, values
            else:
                blank.add(line)
            open_lines.clear()
            line = reader.line_num + 1
    except csv.Error as error:
        seen = f"line {reader.line_num}: not CSV ({shown(error, 200)})"
        opened = _open_quote(open_lines)
        if opened is not None:
            seen = f"line {line + opened}: a quote opens here and is never closed, or not as CSV has it"
        raise refusal(source.path, seen, "mend the line, or save JSON lines from its source") from None
    finally:
        csv.field_size_limit(limit)
    blank.note(source)


_QUOTES = re.compile(r'"+')


def _open_quote(open_lines: list[str]) -> int | None:
    """The line (from 0) of the quote that is still open after these lines of one record."""
    opened = None
    for number, line in enumerate(open_lines):
        for mark in _QUOTES.findall(line):
            if len(mark) % 2:  # within quotes, two stand for one
                opened = number if opened is None else None
    return opened
