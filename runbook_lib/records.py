"""A record: the content of one of our JSON files, as a frozen dataclass. Its fields define the names and types.

A value that does not fit is refused; the error names the file, the field, what was expected and what was found. Fields
that a later version added are ignored; a field that an earlier version did not write has a default.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from worker.escape import safe_text
from worker.files import read_json, sha256_file

from .errors import DataError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | dict[str, Json] | None"
Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Written:
    """A file's sha256 (hexadecimal) and size in bytes."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Written:
        """Of a file as it is now. Raises OSError."""
        return cls(sha256_file(path), path.stat().st_size)


def read(kind: type[Record], path: Path) -> Record | None:
    """Read the record in the JSON file `path`; return None if the file does not exist. Raises DataError and OSError."""
    try:
        value = read_json(path)
    except ValueError as error:
        raise DataError(str(error)) from None
    return None if value is None else parse(kind, value, str(path))


def parse(kind: type[Record], value: object, where: str) -> Record:
    """Convert a JSON value to a record; `where` names its file. Raises DataError."""
    record: Record = _parsed(kind, value, where, "")
    return record


def plain(record: Any) -> dict[str, Json]:
    """Convert a record to a JSON object. A field whose default is None is left out while it is None."""
    held = [(field, getattr(record, field.name)) for field in dataclasses.fields(record)]
    return {field.name: as_json(inner) for field, inner in held if not (inner is None and field.default is None)}


def as_json(value: object) -> Json:
    """Convert a value that may contain records to JSON."""
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return typing.cast("Json", value)


_types = cache(typing.get_type_hints)


def _parsed(kind: Any, value: object, where: str, at: str) -> Any:
    """Check `value` against `kind`: a dataclass, a tuple or dict of one kind, plain types, `object` for anything."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        others = [each for each in inner if each is not types.NoneType]
        if value is None and len(others) < len(inner):
            return None
        if len(others) == 1 or type(value) not in others:
            return _parsed(others[0], value, where, at)
        return value
    if isinstance(value, dict) and dataclasses.is_dataclass(kind):
        return _record(kind, value, where, at)
    if isinstance(value, dict) and origin is dict:
        return {key: _parsed(inner[1], each, where, f"{at}.{key}") for key, each in value.items()}
    if isinstance(value, list) and origin is tuple:
        return tuple(_parsed(inner[0], each, where, f"{at}[{place}]") for place, each in enumerate(value))
    if kind is float and type(value) is int:
        return float(value)
    if kind is object or type(value) is kind:
        return value
    shown = "null" if value is None else safe_text(repr(value), 80)
    raise DataError(f"{where}: {at.removeprefix('.') or 'all of it'}: expected {_named(kind)}, found {shown}")


def _record(kind: Any, value: dict[str, object], where: str, at: str) -> Any:
    fields = {}
    for field in dataclasses.fields(kind):
        name, own = f"{at}.{field.name}", _types(kind)[field.name]
        if field.name in value:
            fields[field.name] = _parsed(own, value[field.name], where, name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DataError(f"{where}: {name[1:]}: expected {_named(own)}, found no such field")
    return kind(**fields)


def _named(kind: Any) -> str:
    """Describe a type in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_named, typing.get_args(kind)))
    if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict:
        return "an object"
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "null"}
    return words.get(kind, "a list")
