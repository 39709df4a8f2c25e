"""The lines of a text file: each with its number and its offset, and none longer than a limit; and plain text itself,
a document a line.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator
from typing import IO, Any

from .source import Source, Unreadable, refusal

LONGEST = 32 * 2**20  # bytes or characters of one JSON value, one line, one CSV record: a whole book has about 1 MiB


def lines(file: IO[bytes], source: Source) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number, offset, line) of each line, without a byte order mark."""
    start = skip_mark(file, source)
    number = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        if len(raw) > LONGEST:
            raise refusal(source.path, f"line {number} has over {LONGEST} bytes", "give every document a line")
        yield number, start, raw
        start += len(raw)


def skip_mark(file: IO[bytes], source: Source) -> int:
    """Skip a byte order mark and note it; return where the text starts."""
    if file.read(3) == codecs.BOM_UTF8:
        source.notes.append("starts with a byte order mark: not part of the first document")
        return 3
    return file.seek(0)


def not_utf8(error: UnicodeDecodeError, start: int) -> str:
    """Say which byte of the file is not UTF-8; `start` is the offset of the decoded bytes."""
    byte = error.object[error.start]
    return f"byte {start + error.start} of the file (0x{byte:02x}) is not UTF-8; expected UTF-8"


class BlankLines:
    """The blank lines of a file, counted."""

    def __init__(self) -> None:
        self.count = 0
        self.first = 0

    def add(self, line: int) -> None:
        """Count a blank line."""
        self.count += 1
        self.first = self.first or line

    def note(self, source: Source) -> None:
        """Add the number of blank lines to the notes."""
        if self.count:
            source.notes.append(f"{self.count} blank lines passed over (first: line {self.first})")


def text_a_line(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield every line that is not blank, without its end, as a string."""
    blank = BlankLines()
    for number, start, raw in lines(file, source):
        if not raw.strip():
            blank.add(number)
            continue
        try:
            yield f"line {number}", raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield f"line {number}", Unreadable(not_utf8(error, start))
    blank.note(source)
