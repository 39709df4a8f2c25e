"""Files as a small table, in a notebook and in words: name, size, sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..records import Written
from ..result.placed import Placed
from .markup import CELL, NUMBER, table, tag, text


@dataclass(frozen=True)
class FileTable:
    """Files by their names or paths."""

    caption: str
    files: Mapping[str, Written]

    def __repr__(self) -> str:
        widest = max(map(len, self.files), default=0)
        lines = [f"  {name:{widest}}  {size(each.bytes):>10}  {each.sha256}" for name, each in self.files.items()]
        return "\n".join([self.caption, *lines])

    def _repr_html_(self) -> str:
        rows = [
            tag("tr", *(tag("td", text(value, 1000), style=style) for value, style in (
                (name, CELL), (size(each.bytes), NUMBER), (each.sha256, CELL))))
            for name, each in self.files.items()
        ]  # fmt: skip
        return table(self.caption, (("file", CELL), ("size", NUMBER), ("sha256", CELL)), rows)


def merged(outputs: Mapping[str, Written]) -> FileTable:
    """The merged files, by name."""
    return FileTable("Merged files", outputs)


def placed(file: Placed) -> FileTable:
    """One file of the result that lies elsewhere."""
    return FileTable("Written", {file.path: file})


def size(number: int) -> str:
    """Bytes for a person."""
    return f"{number:,} bytes" if number < 1e6 else f"{number / 1e6:,.1f} MB"
