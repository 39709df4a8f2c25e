"""An open corpus file: its items, what is unusual about it, and the message that refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.escape import safe_text

from ...errors import CorpusError

SAVE_PLAIN = "save the documents as JSON lines (one JSON object a line) or Parquet"
FETCH_AGAIN = "fetch the file again and compare its size and sha256 with the source"


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of an item that could not be read, with the reason."""

    reason: str


@dataclass(frozen=True)
class Odd:
    """A value that JSON or this library has no room for; it matters only in a field that is asked for."""

    reason: str


@dataclass
class Source:
    """An open corpus file: its items in order, each after its place."""

    path: Path
    format: str
    items: Iterator[tuple[str, Any]]
    notes: list[str] = field(default_factory=list)  # unusual but allowed; complete after the last item
    columns: tuple[str, ...] | None = None  # the fields of every item, where the format knows them beforehand
    room: int = 2**62  # the most characters of all documents together: more is out of proportion to the file


def shown(foreign: object, limit: int = 60) -> str:
    """Make foreign text safe for one line of a message."""
    return safe_text(str(foreign), limit).replace("\n", "\\n").replace("\t", "\\t")


def first_line(error: Exception) -> str:
    """The first line of a library's error, safe for a message."""
    return shown(str(error).split("\n")[0], 200)


def refusal(path: Path, reason: str, fix: str) -> CorpusError:
    """Return the error that says why a file cannot be taken, and what to do next."""
    return CorpusError(f"{shown(path, 500)}: {reason}. Next: {fix}.")
