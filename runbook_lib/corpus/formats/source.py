"""An open corpus file: its items, what is unusual about it, and the words in which it is refused."""

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
    """Stands where an item should be: why it could not be read."""

    reason: str


@dataclass
class Source:
    """An open corpus file: its items in order, each after its place."""

    path: Path
    format: str
    items: Iterator[tuple[str, Any]]
    notes: list[str] = field(default_factory=list)  # what is unusual and fine; complete when the items are used up
    columns: tuple[str, ...] | None = None  # the fields of every item, where the format knows them beforehand
    room: int = 2**62  # characters that its documents may have together: more is out of proportion to the file


def shown(foreign: object, limit: int = 60) -> str:
    """Foreign text for one line of a message."""
    return safe_text(str(foreign), limit).replace("\n", "\\n").replace("\t", "\\t")


def refusal(path: Path, seen: str, fix: str) -> CorpusError:
    """Why a file cannot be taken, and what to do next."""
    return CorpusError(f"{shown(path, 500)}: {seen}. Next: {fix}.")
