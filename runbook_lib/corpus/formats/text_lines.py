"""The lines of a text file: each with its number and its offset, and none of endless length."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO

from .source import Source, refusal

LONGEST = 32 * 2**20  # bytes or characters of one JSON value, one line, one CSV record: a whole book has about 1 MiB


def lines(file: IO[bytes], source: Source) -> Iterator[tuple[int, int, bytes]]:
    """The lines with their number and their offset; a byte order mark is taken away."""
    start = skip_mark(file, source)
    number = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        if len(raw) > LONGEST:
            raise refusal(source.path, f"line {number} has over {LONGEST} bytes", "give every document a line")
        yield number, start, raw
        start += len(raw)


def skip_mark(file: IO[bytes], source: Source) -> int:
    """Go past a byte order mark, and note it; where the text starts."""
    if file.read(3) == codecs.BOM_UTF8:
        source.notes.append("starts with a byte order mark: not part of the first document")
        return 3
    return file.seek(0)


def not_utf8(error: UnicodeDecodeError, start: int) -> str:
    """Which byte of the file is not UTF-8; `start` is the offset of what was decoded."""
    byte = error.object[error.start]
    return f"byte {start + error.start} of the file (0x{byte:02x}) is not UTF-8; expected UTF-8"


class Blank:
    """The blank lines of a file, counted."""

    def __init__(self) -> None:
        self.count = 0
        self.first = 0

    def add(self, line: int) -> None:
        """Count one."""
        self.count += 1
        self.first = self.first or line

    def note(self, source: Source) -> None:
        """Say how many there were."""
        if self.count:
            source.notes.append(f"{self.count} blank lines passed over (first: line {self.first})")
