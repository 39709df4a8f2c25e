"""The items of JSON lines and of a JSON array, as the JSON standard defines them, one at a time.

Refused although Python takes it: a key given twice. NaN, infinities and numbers of endless digits are `Odd` values:
they stop nobody who does not ask for that field.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from ...errors import CorpusError
from .json_size import holds_more
from .source import Odd, Source, Unreadable, refusal, shown
from .text_lines import LONGEST, BlankLines, lines, not_utf8, skip_mark

_CHUNK = 2**20
# Limits of one document; its other fields may hold lists too. An object takes up to 232 bytes.
_LISTS, _VALUES = 2**18, 2**20
_SMALL = 4 * _CHUNK  # a text of this size needs little memory, whatever it holds

# ---------------------------------------------------------------- one value


class _NotTaken(ValueError):
    """JSON that Python accepts and this module does not."""


def _no_constant(name: str) -> Any:
    return Odd(f"{name}, which is not JSON")


def _short_int(digits: str) -> Any:
    return Odd(f"a number of {len(digits)} digits") if len(digits) > 20 else int(digits)


def _finite_float(digits: str) -> Any:
    value = float(digits)
    return Odd("a number too large for a float") if math.isinf(value) else value


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for key, inner in pairs:
        if key in value:
            raise _NotTaken(f'the key "{shown(key)}" is given twice')
        value[key] = inner
    return value


def _check_size(raw: bytes) -> None:
    if len(raw) > _SMALL and holds_more(raw, _LISTS, _VALUES):
        raise _NotTaken(f"over {_LISTS:,} lists and objects, or {_VALUES:,} values, in one document")


_JSON = json.JSONDecoder(
    parse_constant=_no_constant,
    parse_int=_short_int,
    parse_float=_finite_float,
    object_pairs_hook=_unique_keys,
)

# ---------------------------------------------------------------- one value a line


def json_lines(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield a value a line; a line that cannot be read gives an `Unreadable`."""
    blank = BlankLines()
    for number, start, raw in lines(file, source):
        if raw.isspace():
            blank.add(number)
        else:
            yield f"line {number}", _line(raw, start)
    blank.note(source)


def _line(raw: bytes, start: int) -> Any:
    try:
        _check_size(raw)
        return _JSON.decode(raw.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        return Unreadable(not_utf8(error, start))
    except json.JSONDecodeError as error:
        return Unreadable(f"not one JSON value ({error.msg.removesuffix(' at')} at character {error.pos + 1})")
    except _NotTaken as error:
        return Unreadable(str(error))
    except RecursionError:
        return Unreadable("nested too deeply")


# ---------------------------------------------------------------- one array


def json_array(file: IO[bytes], source: Source, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the values of one array, which is read piece by piece."""
    window = _Window(file, source.path, skip_mark(file, source))
    window.take("[")
    index = 0
    while window.peek() != "]":
        if index:
            window.take(",")
        window.place = f"item {index}"
        yield window.place, window.value()
        index += 1
    window.take("]")
    if window.peek():
        raise window.refusal("more text follows the end of the JSON array")


class _Window:
    """A view on the JSON text that moves on with the reader, so that a file is never held whole."""

    def __init__(self, file: IO[bytes], path: Path, start: int) -> None:
        self.file, self.path, self.place = file, path, "start"
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.text, self.at, self.read_bytes, self.ended = "", 0, start, False

    def refusal(self, reason: str) -> CorpusError:
        return refusal(self.path, f"{self.place}: {reason}", "mend the file, or save JSON lines from its source")

    def more(self) -> None:
        """Drop what was read and add at least as much as is left, so that a long value costs linear time."""
        self.text = self.text[self.at :]
        self.at = 0
        raw = self.file.read(max(_CHUNK, len(self.text)))
        self.ended = not raw
        self.read_bytes += len(raw)
        try:
            self.text += self.decode(raw, self.ended)
        except UnicodeDecodeError as error:  # what it decoded may open with bytes kept from the chunk before
            raise self.refusal(not_utf8(error, self.read_bytes - len(error.object))) from None

    def peek(self) -> str:
        """The next character that is not blank, or nothing at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.more()

    def take(self, mark: str) -> None:
        """Go past one punctuation mark."""
        character = self.peek()
        if not character:
            raise self.refusal(f'cut short: the file ends where "{mark}" was expected')
        if character != mark:
            raise self.refusal(f'not JSON: found "{shown(character)}" after it, expected "{mark}"')
        self.at += 1

    def value(self) -> Any:
        """The next JSON value, read on until it is whole."""
        self.peek()
        while True:
            try:
                if len(self.text) - self.at > _SMALL:
                    _check_size(self.text[self.at :].encode("utf-8", "replace"))
                value, end = _JSON.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self._may_go_on(error):
                    short = "cut short, or " if self.ended else ""
                    raise self.refusal(f"{short}not JSON ({error.msg})") from None
            except _NotTaken as error:
                raise self.refusal(str(error)) from None
            except RecursionError:
                raise self.refusal("nested too deeply") from None
            else:
                if end < len(self.text) or self.ended:  # a number may go on in the next chunk
                    self.at = end
                    return value
            self.more()

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """True when more text may complete the value: a string without end, or an error at the last word."""
        if self.ended or len(self.text) - self.at > LONGEST:
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self.text) - 12
