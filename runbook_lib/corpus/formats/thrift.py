"""The part of Thrift's compact protocol that Parquet metadata uses: structs of numbers and lists."""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_DEEPEST = 16


class Truncated(Exception):
    """The bytes end inside a value, or are not a value."""


class Reader:
    """Reads values from bytes; `at` is the current position."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.data):
            raise Truncated
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """A number of varying length, without sign."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise Truncated

    def signed(self) -> int:
        """A number of varying length, with its sign in the last bit."""
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def field(self, before: int) -> tuple[int, int]:
        """The next field of a struct: (its number, its type); type 0 ends it."""
        head = self.byte()
        if head == 0:
            return 0, 0
        return (before + (head >> 4)) if head >> 4 else self.signed(), head & 15

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """A struct: the value of each field by its number."""
        fields: dict[int, Any] = {}
        number, kind = self.field(0)
        while kind:
            fields[number] = self.value(kind, depth + 1)
            number, kind = self.field(number)
        return fields

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value: numbers, structs and lists as they are; None for a value that was skipped."""
        if depth > _DEEPEST:
            raise Truncated
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            return self.signed()
        if kind == STRUCT:
            return self.struct(depth)
        if kind in (LIST, SET):
            size, each = self.list_head()
            return [self.byte() if each in (TRUE, FALSE) else self.value(each, depth + 1) for _ in range(size)]
        if kind == BYTE:
            return self.byte()
        if kind not in (DOUBLE, BINARY):
            raise Truncated  # no struct of ours holds a map
        size = 8 if kind == DOUBLE else self.number()
        self.at += size
        return None

    def list_head(self) -> tuple[int, int]:
        """How many items a list has, and of which type."""
        head = self.byte()
        size = head >> 4 if head >> 4 < 15 else self.number()
        if size > len(self.data) - self.at:  # each takes a byte or more
            raise Truncated
        return size, head & 15
