"""The wanted columns of tables of pyarrow, also those inside structs (`a.b`), as Python values a few rows at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from .source import Source, refusal, shown

USUAL = ("id", "title", "url")  # what a profile that says nothing asks for, wherever it is there
PIECE = 32 * 2**20  # bytes turned into Python values at a time
ROWS = 65_536  # rows turned into Python values at a time


@dataclass(frozen=True)
class Columns:
    """name as wanted -> its column and the fields inside it; `top`: the columns to be read."""

    paths: dict[str, tuple[str, ...]]

    @property
    def top(self) -> list[str]:
        """The columns that hold them, each once."""
        return list(dict.fromkeys(path[0] for path in self.paths.values()))


def choose(schema: Any, source: Source, wanted: Collection[str]) -> Columns:
    """Find the wanted columns, all where none is wanted, and tell the source what there is.

    Raises CorpusError for a wanted column that is there twice, or holds lists or structs.
    """
    names = schema.names
    check_once(source, names, wanted)
    found = {name: path for name in wanted or names if (path := _path(schema, name))}
    source.columns = (*names, *(name for name in found if name not in names))
    usual = [name for name, path in found.items() if wanted and name in USUAL and _is_nested(_kind(schema, path))]
    # Whether the profile names it or says nothing: it can be no id, title or address.
    for name in usual if len(usual) < len(found) else ():
        source.notes.append(f'"{shown(name)}" is {shown(_kind(schema, found.pop(name)))}: not read')
    nested = {name: kind for name, path in found.items() if wanted and _is_nested(kind := _kind(schema, path))}
    if nested:
        kinds = ", ".join(f'"{shown(name)}" is {shown(kind)}' for name, kind in nested.items())
        inside = [f"{name}.{field.name}" for name, kind in nested.items() if _is_struct(kind) for field in kind]
        fix = f"name one of the fields inside: {', '.join(map(shown, inside[:20]))}" if inside else "store plain texts"
        raise refusal(source.path, f"a column of lists or structs: {kinds}; expected text", fix)
    return Columns(found)


def check_once(source: Source, names: Collection[str], wanted: Collection[str]) -> None:
    """Refuse a column given twice, if it is wanted or if all are."""
    counts = Counter(names)
    if twice := sorted(name for name, count in counts.items() if count > 1 and (not wanted or name in wanted)):
        listed = ", ".join(f'"{shown(name)}"' for name in twice[:20])
        raise refusal(source.path, f"column given twice: {listed}", "give every column its own name")


def rows(batch: Any, columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch, so few at a time that they stay small as Python strings."""
    chosen = {name: _column(batch, path) for name, path in columns.paths.items()}
    step = ROWS
    for column in chosen.values():
        step = min(step, max(1, PIECE // (1 + _longest(column))))
    for start in range(0, batch.num_rows, step):
        values = [column.slice(start, step).to_pylist() for column in chosen.values()]
        for row in zip(*values, strict=True):
            yield dict(zip(chosen, row, strict=True))


def _path(schema: Any, name: str) -> tuple[str, ...]:
    """The column of this name, or one whose struct has the field that follows a dot; empty where there is none."""
    if name in schema.names:
        return (name,)
    for at in (index for index, letter in enumerate(name) if letter == "."):
        top, rest = name[:at], name[at + 1 :]
        if schema.names.count(top) == 1 and (inner := _inside(schema.field(top).type, rest)):
            return (top, *inner)
    return ()


def _inside(kind: Any, name: str) -> tuple[str, ...]:
    if not _is_struct(kind):
        return ()
    if kind.get_field_index(name) >= 0:
        return (name,)
    for at in (index for index, letter in enumerate(name) if letter == "."):
        number = kind.get_field_index(name[:at])
        if number >= 0 and (inner := _inside(kind.field(number).type, name[at + 1 :])):
            return (name[:at], *inner)
    return ()


def _kind(schema: Any, path: tuple[str, ...]) -> Any:
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(kind.get_field_index(name)).type
    return kind


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


def _is_nested(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_nested(kind) or pyarrow.types.is_run_end_encoded(kind))


def _column(batch: Any, path: tuple[str, ...]) -> Any:
    import pyarrow.compute

    column = batch.column(path[0])
    for name in path[1:]:  # a row whose struct is null has nulls in it
        column = pyarrow.compute.struct_field(column, name)
    if pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type):
        with contextlib.suppress(pyarrow.ArrowInvalid):  # text of writers that do not say that it is text
            return column.cast(pyarrow.large_string())
    return column


def _longest(column: Any) -> int:
    """The bytes of the longest value; many rows may share it, so the size of a batch does not tell."""
    import pyarrow
    import pyarrow.compute

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return _longest(column.dictionary)
    if pyarrow.types.is_nested(kind):
        return max(1, int(column.nbytes)) // max(1, len(column)) * 8
    try:
        return int(pyarrow.compute.max(pyarrow.compute.binary_length(column)).as_py() or 0)
    except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowInvalid):  # numbers, dates
        return 16
