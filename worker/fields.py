"""Fields of a record: what each may hold, how it is read from JSON, and how a false value is refused.

Standard library only. `worker.wire` describes with it all that passes between machines and processes.
"""

from __future__ import annotations

import re
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Callable, TypedDict, TypeVar

from .escape import safe_text
from .files import read_json
from .layout import HOST_NAME, SLOT_NAME
from .rows import Range

ROWS = 10**9  # row numbers have nine digits
RANGES = 10**6
ENTRIES = 4096  # of any other list or object
NUMBER = 2**63
SECONDS = 1e11  # the year 5138: what is later cannot be shown as a date
PIDS = 2**31

W = TypeVar("W", bound="Record")
Read = Callable[[Any, str, str], Any]  # (value, where, field) -> what is kept of it
Kind = dict[str, Any]  # as the metadata of a field: `read`, and `holds` where a value is kept as it is if that is true


class WireError(ValueError):
    """Something that no honest sender writes."""


def shown(value: object, limit: int = 500) -> str:
    """What a host said, for a message. Of a list or an object only its size: it may be huge, or nested without end."""
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return safe_text(repr(value[:limit] if isinstance(value, str) else value), limit)


def refuse(where: str, name: str, seen: object, expected: str) -> WireError:
    """The error that says it all."""
    return WireError(f"{safe_text(f'{where} {name}'.strip(), 300)}: {shown(seen, 80)}, expected {expected}")


def is_count(value: object, limit: int = NUMBER) -> bool:
    """Whether it is a whole number from 0 on, below `limit`; true and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def is_number(value: object, limit: float) -> bool:
    """Whether it is a number from 0 on, below `limit`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < limit


# ---------------------------------------------------------------------------------------------------- kinds of fields


def one(expected: str, holds: Callable[[Any], bool]) -> Kind:
    """A value for which `holds` is true; `expected` says which, for the refusal."""

    def read(value: Any, where: str, name: str) -> Any:
        if not holds(value):
            raise refuse(where, name, value, expected)
        return value

    return {"read": read, "holds": holds}


def _is_sane(value: Any) -> bool:
    """Of a time or a rate. One next to nothing would make a rate without bounds; NaN fails this too."""
    return is_number(value, SECONDS) and (value == 0 or value >= 1e-9)


def maybe(kind: Kind) -> Kind:
    """The same, or nothing."""
    made: Kind = {"read": lambda value, where, name: None if value is None else kind["read"](value, where, name)}
    if holds := kind.get("holds"):
        made["holds"] = lambda value: value is None or holds(value)
    return made


def left_out(kind: Kind) -> Kind:
    """The same, and not written while it is nothing: a record is as it was before there was this field."""
    return {**kind, "left_out": True}


def lax(kind: Kind) -> Kind:
    """The same for a value that only informs: one of another kind counts as absent."""

    def read(value: Any, where: str, name: str) -> Any:
        try:
            return kind["read"](value, where, name)
        except WireError:
            return None

    return {"read": read}


def many(kind: Kind, most: int = ENTRIES, or_none: bool = False) -> Kind:
    """A list of at most `most` of a kind; with `or_none`, nothing is an empty one."""
    holds = kind.get("holds")

    def read(value: Any, where: str, name: str) -> Any:
        value = [] if or_none and value is None else value
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise refuse(where, name, value, f"a list of at most {most}")
        if holds and all(map(holds, value)):  # the usual case, of thousands of values
            return tuple(value)
        return tuple([kind["read"](each, where, name) for each in value])

    return {"read": read}


def _range(value: Any, where: str, name: str) -> Range:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise refuse(where, name, value, "two rows")
    low, high = value
    if type(low) is type(high) is int and 0 <= low < high <= ROWS:  # at once: a poll brings all that is committed
        return low, high
    for row in value:
        ROW["read"](row, where, name)
    raise refuse(where, name, value, "the first row below the second")


def identity(value: Any, where: str, name: str) -> Identity:
    """A process, as `worker.process.identify` names it."""
    if not isinstance(value, dict):
        raise refuse(where, name, value, "a process")
    if not is_count(value.get("pid"), PIDS) or not value["pid"]:
        raise refuse(where, "pid", value.get("pid"), "the number of a process")
    for key in ("start", "boot"):
        MAYBE_TEXT["read"](value.get(key), where, key)
    return value  # type: ignore[return-value]


def matching(pattern: re.Pattern[str], expected: str) -> Kind:
    """A text that the pattern matches whole."""
    return one(expected, lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None)


FLAG = one("true or false", lambda value: isinstance(value, bool))
TEXT = one("a text", lambda value: isinstance(value, str))
STATE = re.compile("[a-z][a-z ]{0,39}")  # of a worker, a supervisor or an environment: a few words of ours
WORDS = matching(STATE, "a few words")
SLOT = matching(SLOT_NAME, "a slot's name")
HOST = matching(HOST_NAME, "a host's name")
SHA256 = matching(re.compile("[0-9a-f]{64}"), "a sha256")
ROW = one("a row", lambda value: is_count(value, ROWS + 1))
SOME = one(f"a whole number from 0 to {ROWS}", lambda value: is_count(value, ROWS + 1))
COUNT = one("a whole number from 0 on", is_count)
LEAST_1 = one("a whole number from 1 on", lambda value: is_count(value) and value > 0)
CODE = one("an exit code", lambda value: type(value) is int and abs(value) < PIDS)
TIME, RATE = one("seconds", _is_sane), one("rows a second", _is_sane)
FLOAT = one("a number", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool))
COSINE = one("a cosine", lambda value: type(value) in (int, float) and -1 <= value <= 1)
PYTHON = matching(re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?"), "a python such as 3.11")
MODULE = matching(re.compile(r"[A-Za-z_][\w.]*"), "names of modules")
LIMIT = one("a number of tokens", lambda value: is_count(value, 10**40))  # some tokenizers say 10^30 for "no limit"
MAYBE_FLAG, MAYBE_TEXT, MAYBE_WORDS, MAYBE_SOME = map(maybe, (FLAG, TEXT, WORDS, SOME))
MAYBE_COUNT, MAYBE_CODE, MAYBE_TIME, MAYBE_RATE, MAYBE_LIMIT = map(maybe, (COUNT, CODE, TIME, RATE, LIMIT))
WORDS_BY_ROW = one(
    "words by row", lambda value: isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
)
RANGE: Kind = {"read": _range}
PROCESS = maybe({"read": identity})
LAX_FLAG, LAX_TEXT, LAX_WORDS, LAX_SOME, LAX_COUNT = map(lax, (FLAG, TEXT, WORDS, SOME, COUNT))
LAX_CODE, LAX_TIME, LAX_RANGE, LAX_PROCESS = map(lax, (CODE, TIME, RANGE, PROCESS))


class Identity(TypedDict):
    """Which process: a pid may be given to another process later (`worker.process.identify`)."""

    pid: int
    start: str | None  # in the machine's own terms; None for one that is gone
    boot: str


@dataclass(frozen=True)
class Record:
    """What passes as a JSON object: each field declares what it may be, as its metadata."""

    @classmethod
    def from_json(cls: type[W], value: Any, where: str = "", name: str = "") -> W:
        """The record in a JSON value. WireError names `where`, else `name`, and the field."""
        if not isinstance(value, dict):
            raise refuse(where, name or ("" if where else cls.__name__.lower()), value, "a JSON object")
        where = where or name
        return cls(**{each.name: each.metadata["read"](value.get(each.name), where, each.name) for each in fields(cls)})

    @classmethod
    def blank(cls: type[W]) -> W:
        """One that says nothing, where all may lack."""
        return cls.from_json({})

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        values = {each.name: (getattr(self, each.name), _may_be_left_out(each)) for each in fields(self)}
        return {name: _plain(value) for name, (value, may_lack) in values.items() if value is not None or not may_lack}


def _may_be_left_out(each: Field[Any]) -> bool:
    return each.default is None or bool(each.metadata.get("left_out"))


def read_record(kind: type[W], path: Path) -> W:
    """A record in which all may lack, or a blank one where there is none to read: it may not have been fsynced."""
    try:
        return kind.from_json(read_json(path) or {})
    except (OSError, ValueError):
        return kind.blank()


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def of(cls: type[Record]) -> Kind:
    """A record of a class."""
    return {"read": cls.from_json}


def by_name(cls: type[Record]) -> Kind:
    """Records by name; none where nothing is said."""

    def read(value: Any, where: str, name: str) -> Any:
        if value is not None and (not isinstance(value, dict) or len(value) > ENTRIES):
            raise refuse(where, name, value, f"an object of at most {ENTRIES}")
        return {key: cls.from_json(each, where, name) for key, each in (value or {}).items()}

    return {"read": read}
