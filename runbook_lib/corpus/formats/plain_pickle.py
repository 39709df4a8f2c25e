"""The items of a pickle that holds plain data; one that asks for more is refused, and none of it is run.

The unpickler is the standard library's Python one, reduced to plain data, because the C one is not safe even without
globals. Measured: 9 bytes (LONG_BINPUT 2^28) cost it 4.1 GB and 16 s; 61 bytes of nested tuples as a dict key cost it
1.4 s, and every 6 bytes more eight times as long; 3 MB of nested tuples as a key end the interpreter with a segfault.
"""

from __future__ import annotations

import pickle
import pickletools
import shlex
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from ...errors import CorpusError
from .source import FETCH_AGAIN, SAVE_PLAIN, Source, refusal, shown

_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL STACK_GLOBAL INST
"""  # the last three end in find_class, which refuses and can say the name
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
# Everything that the standard library raises for a damaged or hostile pickle.
_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
# The memory that an instruction takes, in bytes: most fill one stack entry, and take one byte of the file.
_COST = {
    "EMPTY_DICT": 240, "DICT": 240, "EMPTY_LIST": 96, "LIST": 96, "TUPLE": 72, "TUPLE1": 72, "TUPLE2": 72, "TUPLE3": 80,
    "INT": 48, "BININT": 48, "BININT2": 48, "LONG": 48, "LONG1": 48, "LONG4": 48, "FLOAT": 40, "BINFLOAT": 40,
    "STRING": 80, "BINSTRING": 80, "SHORT_BINSTRING": 80, "UNICODE": 80, "BINUNICODE": 80, "SHORT_BINUNICODE": 80,
    "BINUNICODE8": 80, "BINBYTES": 80, "SHORT_BINBYTES": 80, "BINBYTES8": 80, "SETITEM": 64,
    "PUT": 24, "BINPUT": 24, "LONG_BINPUT": 24, "MEMOIZE": 24,
}  # fmt: skip
_COSTS = [_COST.get(_NAMES.get(code, ""), 16) for code in range(256)]
_PAIR = 64  # of a dict
# A corpus of long texts takes about the size of its file, one of the shortest texts six times that.
_ROOM, _RATIO = 256 * 2**20, 8
_DEEPEST = 1000  # marks in marks; a list of dicts has three
_SHAPE = 'a list of dicts such as {"id": ..., "title": ..., "text": ..., "url": ...}'


# ---------------------------------------------------------------- unpickling


_SET: set[Any] = set()


class _Foreign(Exception):
    """The pickle asks for more than plain data; nothing of it was run."""


class _TooMuch(Exception):
    """The pickle needs memory out of proportion to its size."""


class _PlainUnpickler(pickle._Unpickler):
    """Unpickles plain data and knows no other opcode: no global, extension, persistent id, call or buffer."""

    stack: list[Any]
    metastack: list[list[Any]]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    append: Callable[[Any], None]

    dispatch: ClassVar[dict[int, Any]] = {
        code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in _PLAIN.split())
    }

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file)
        self.read, self.readline = file.read, file.readline
        self.room = _ROOM + _RATIO * size
        # Remembered objects: those numbered one after another, as pickle does it, and those with other numbers.
        self.known: list[Any] = []
        self.far: dict[int, Any] = {}

    def load(self) -> Any:
        """Load the value as the standard library does, counting the memory it takes."""
        self.stack, self.metastack = [], []
        self.append = self.stack.append
        read, dispatch = self.read, self.dispatch
        spent = 0
        try:
            while key := read(1):
                code = key[0]
                spent += _COSTS[code]
                if spent > self.room:
                    raise _TooMuch(f"unfolds to over {spent // 2**20} MiB in memory")
                dispatch[code](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise EOFError

    def find_class(self, module: str, name: str, /) -> Any:
        raise _Foreign(f"{module}.{name}")

    def _skip_frame(self) -> None:
        self.read(8)  # frames only group bytes; without them tell() is exact

    def _set(self, target: Any, pairs: list[Any]) -> None:
        if type(target) is not dict:
            raise TypeError("keys for what is not a dict")
        self.room -= _PAIR * (len(pairs) // 2)
        flat = iter(pairs)
        for key, value in zip(flat, flat, strict=True):
            if type(key) is int:  # as in JSON; and no two texts can be made to collide
                key = str(key)
            elif type(key) is not str:
                raise _Foreign(f"a dict key of type {type(key).__name__}")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        pairs = self.pop_mark()
        self._set(self.stack[-1], pairs)

    def _new_dict(self) -> None:
        pairs, new = self.pop_mark(), {}  # type: ignore[var-annotated]
        self._set(new, pairs)
        self.stack.append(new)

    def _mark(self) -> None:
        if len(self.metastack) >= _DEEPEST:
            raise _TooMuch(f"is nested over {_DEEPEST} deep")
        self.metastack.append(self.stack)
        self.stack = []
        self.append = self.stack.append

    def _remember(self, number: int) -> None:
        if number == len(self.known):
            self.known.append(self.stack[-1])
        elif 0 <= number < len(self.known):
            self.known[number] = self.stack[-1]
        else:
            self.far[number] = self.stack[-1]

    def _recall(self, number: int) -> None:
        if 0 <= number < len(self.known):
            self.append(self.known[number])
        elif number in self.far:
            self.append(self.far[number])
        else:
            raise pickle.UnpicklingError(f"nothing was remembered as {number}")

    def _memoize(self) -> None:
        self._remember(len(self.known))

    # All sets are one empty set: nothing reads them, and to fill them would hash their items.
    def _new_set(self) -> None:
        self.append(_SET)

    def _new_frozenset(self) -> None:
        self.pop_mark()
        self.append(_SET)

    def _add_items(self) -> None:
        self.pop_mark()

    dispatch |= {
        pickle.FRAME[0]: _skip_frame,
        pickle.MARK[0]: _mark,
        pickle.MEMOIZE[0]: _memoize,
        pickle.PUT[0]: lambda self: self._remember(int(self.readline()[:-1])),
        pickle.BINPUT[0]: lambda self: self._remember(self.read(1)[0]),
        pickle.LONG_BINPUT[0]: lambda self: self._remember(*struct.unpack("<I", self.read(4))),
        pickle.GET[0]: lambda self: self._recall(int(self.readline()[:-1])),
        pickle.BINGET[0]: lambda self: self._recall(self.read(1)[0]),
        pickle.LONG_BINGET[0]: lambda self: self._recall(*struct.unpack("<I", self.read(4))),
        pickle.DICT[0]: _new_dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.EMPTY_SET[0]: _new_set,
        pickle.FROZENSET[0]: _new_frozenset,
        pickle.ADDITEMS[0]: _add_items,
    }

    def item(self) -> int | None:
        """Return which item of the outermost list was being read; None when the stacks do not show it."""
        levels = [*self.metastack, self.stack]
        if not levels[0] or type(levels[0][0]) is not list:
            return None
        done, batch = len(levels[0][0]), levels[1:2]
        if levels[0][1:] or not batch:  # items are appended one by one: the open one lies above the list
            return done
        if any(type(item) is not dict for item in batch[0]):
            return None
        return max(0, done + len(batch[0]) - (1 if len(levels) > 2 else 0))


def _load(file: IO[bytes], path: Path) -> Any:
    size = file.seek(0, 2)
    file.seek(0)
    unpickler = _PlainUnpickler(file, size)
    try:
        value = unpickler.load()
    except _Foreign as foreign:
        raise _foreign(path, str(foreign), unpickler.item()) from None
    except _TooMuch as much:
        inside = "" if (item := unpickler.item()) is None else f" (in item {item})"
        reason = f"the pickle {much}, out of proportion to its {size:,} bytes{inside}; nothing of it was taken"
        raise refusal(path, reason, SAVE_PLAIN) from None
    except _BROKEN as error:
        raise _broken(path, error, file.tell(), size, unpickler.item()) from None
    end = file.tell()
    if end < size:
        more = ", which look like another pickle: save all documents as one list" if file.read(1) == b"\x80" else ""
        raise refusal(path, f"{size - end} bytes follow the end of the pickle at byte {end}{more}", FETCH_AGAIN)
    return value


def _broken(path: Path, error: Exception, at: int, size: int, item: int | None) -> CorpusError:
    inside = "" if item is None else f", in item {item}"
    if type(error) is KeyError:  # not an opcode, or one that is not allowed here
        name = _NAMES.get(error.args[0])
        more = f": the instruction {name}, which plain data has not; nothing was run" if name else ""
        fix = f"{FETCH_AGAIN}; if it is whole, save the documents as JSON lines or Parquet"
        return refusal(path, f"not readable as a pickle at byte {at - 1} of {size}{inside}{more}", fix)
    if at >= size:
        return refusal(path, f"cut short: the pickle ends inside a value (size {size} bytes{inside})", FETCH_AGAIN)
    return refusal(path, f"not readable as a pickle at byte {at} of {size}{inside}", FETCH_AGAIN)


def _foreign(path: Path, what: str, item: int | None) -> CorpusError:
    place = "" if item is None else f"item {item}: "
    fix = SAVE_PLAIN
    if what.startswith("pandas") and what.endswith("DataFrame"):
        new = path.with_suffix(".parquet").name
        code = shlex.quote(f"import pandas; pandas.read_pickle({path.name!r}).to_parquet({new!r})")
        trusted = "if you trust this file (reading it so runs what it holds), in its folder"
        fix = f"{trusted}: python -c {shown(code, 500)}; then name the new file"
    elif what.startswith("pandas"):
        fix = "store plain strings instead of pandas values, str(value), and save as JSON lines or Parquet"
    elif what.startswith("numpy"):
        fix = "store plain Python values instead of numpy ones, value.item(), and save as JSON lines or Parquet"
    reason = f"{place}the pickle asks for {shown(what, 200)}, which is not plain data; nothing was run"
    return refusal(path, reason, fix)


# ---------------------------------------------------------------- the items of what was unpickled


def plain_pickle(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The items of a pickled list, or the rows of a pickled dict of columns."""
    value = _load(file, source.path)
    if isinstance(value, (list, tuple)):
        return _drained(list(value))
    if isinstance(value, dict) and value and all(isinstance(column, (list, tuple)) for column in value.values()):
        return _columns(value, source)
    raise refusal(source.path, f"the pickle holds {_shape(value)}; expected {_SHAPE}", SAVE_PLAIN)


def _drained(items: list[Any]) -> Iterator[tuple[str, Any]]:
    for index in range(len(items)):
        item, items[index] = items[index], None  # so that items already yielded can be freed
        yield f"item {index}", item


def _columns(columns: dict[str, Sequence[object]], source: Source) -> Iterator[tuple[str, Any]]:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{shown(name)} has {length}" for name, length in list(lengths.items())[:20])
        raise refusal(source.path, f"columns of different lengths: {listed}", "save columns of one length")
    source.columns = tuple(columns)
    source.notes.append(f"a dict of {len(columns)} columns, read as rows")
    return (
        (f"item {row}", dict(zip(columns, values, strict=True)))
        for row, values in enumerate(zip(*columns.values(), strict=True))
    )


def _shape(value: Any) -> str:
    """Describe the type of a value in words; never its content, which may be secret or huge."""
    if value is None:
        return "None (NoneType)"
    if isinstance(value, dict):
        kinds = sorted({type(inner).__name__ for inner in value.values()})
        words = f"a dict of {len(value)} keys (values: {', '.join(kinds) or 'none'})"
        if kinds == ["str"]:
            words += (
                ", which looks like {title: text}; [{'title': t, 'text': x} for t, x in d.items()] makes a list of it"
            )
        return words
    return f"one {type(value).__name__}"
