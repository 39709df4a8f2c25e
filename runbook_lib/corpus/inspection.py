"""The inspection of one item of a corpus file: the document that it is, or what is wrong with it."""

from __future__ import annotations

import ast
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ProfileError
from ..profile.profile import CorpusSpec
from .characters import LONG_WORD, SURROGATES, has_control, has_long_word, is_visible
from .columns import Column
from .findings import ACCEPTABLE, LONG_TEXT, NAMED, Findings, counted
from .formats.source import Odd, Unreadable, shown
from .plain_ids import plain_id
from .repeats import WIDTH, Repeats, digest

_WIDEST_INT = 2**64
_ID_SHOWN = 40  # characters


@dataclass(frozen=True)
class Document:
    """One document of the corpus; `row` is its identity, `id` is what its source calls it."""

    row: int
    id: str | int
    title: str
    text: str
    url: str


@dataclass(frozen=True)
class Fields:
    """What the source calls a document's fields, and the oddities (keys of ACCEPTABLE) that do not stop it."""

    id: str = "id"
    title: str = "title"
    text: str = "text"
    url: str = "url"
    accept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse an oddity that cannot be accepted."""
        if unknown := sorted(self.accept - ACCEPTABLE.keys()):
            raise ProfileError(f"corpus.accept: {', '.join(unknown)} is not one of {', '.join(ACCEPTABLE)}")

    @classmethod
    def of(cls, spec: CorpusSpec) -> Fields:
        """As the profile names them."""
        return cls(spec.id, spec.title, spec.text, spec.url, frozenset(spec.accept))

    @property
    def names(self) -> dict[str, str]:
        """The field of the source that each of id, title, text and url is read from."""
        return {"id": self.id, "title": self.title, "text": self.text, "url": self.url}


class _Seen:
    """The ids and the texts of all documents, to find those that an earlier one has; and what each is called."""

    def __init__(self, scratch: Path | None) -> None:
        self.ids, self.texts, self._names = Repeats(scratch), Repeats(scratch), Column(scratch)

    def add(self, place: str, own_id: str | int | None, text: str | None) -> None:
        """Add the next document; without an id, or a text that can be taken, it is like no other."""
        self.ids.add(os.urandom(WIDTH) if own_id is None else digest(f"{type(own_id).__name__} {own_id}".encode()))
        self.texts.add(os.urandom(WIDTH) if text is None else digest(text.encode()))
        self._names.append(f"{place}\t{str(own_id)[: 2 * _ID_SHOWN]!a}\n".encode())

    def named(self, rows: Iterable[int]) -> dict[int, tuple[str, str]]:
        """Return row -> its document's place and id."""
        wanted = set(rows)
        lines = enumerate(self._names.lines() if wanted else ())
        found = {row: line.decode().rstrip("\n").split("\t", 1) for row, line in lines if row in wanted}
        return {row: (place, ast.literal_eval(own_id)) for row, (place, own_id) in found.items()}

    def close(self) -> None:
        """Give memory and disk back."""
        for each in (self.ids, self.texts, self._names):
            each.close()


class Inspection:
    """Turns raw items into documents, and notes what is odd or wrong with them.

    `scratch`: a folder on a disk with room for some 80 bytes a document, so that memory does not grow with them.
    """

    def __init__(self, fields: Fields, scratch: Path | None = None) -> None:
        self.fields = fields
        self.findings = Findings()
        self.names: list[str] = []  # the fields of the first dict
        self.given: set[str] = set()  # which of id, title, text and url any document had
        self.types: Counter[str] = Counter()  # of items that are not dicts
        self.strings: bool | None = None  # whether the first item was a bare text; then all have to be
        self.untitled, self.first_untitled = 0, ""  # documents before the first title, where the profile names no field
        self._seen = _Seen(scratch)

    def conclude(self) -> None:
        """Note which documents have the id or the text of an earlier one: known only when all were seen."""
        (ids, of_ids), (texts, of_texts) = self._seen.ids.later(NAMED), self._seen.texts.later(NAMED)
        named = self._seen.named(row for row, _ in (*of_ids, *of_texts))
        places = [f'{named[row][0]}: "{shown(named[row][1], _ID_SHOWN)}" of row {first}' for row, first in of_ids]
        self.findings.note_all("repeated_id", ids, places)
        self.findings.note_all("repeated_text", texts, [named[row][0] for row, _ in of_texts])

    def close(self) -> None:
        """Give memory and disk back."""
        self._seen.close()

    def document(self, row: int, place: str, item: Any) -> Document | None:
        """Return the document, or None when there is a problem with it. To be called for each row, in order."""
        if self.strings is None and not isinstance(item, Unreadable):
            self.strings = type(item) is str
        if type(item) is not (str if self.strings else dict):
            self._seen.add(place, None, None)
            self._no_document(place, item)
            return None
        if self.strings:
            item = {self.fields.text: item}
        self.names = self.names or [str(name) for name in itertools.islice(item, NAMED)]
        fields = self.fields
        text = self._text(place, item)
        title = self._title(place, *_value(item, fields.title))
        key = plain_id(_value(item, fields.id)[0])
        own_id = self._id(row, place, key)
        self._seen.add(place, None if key is None else own_id, text)
        url = self._url(place, _value(item, fields.url)[0])
        if text is None or title is None or own_id is None or url is None:
            return None
        return Document(row, own_id, title, text, url)

    def _no_document(self, place: str, item: Any) -> None:
        if isinstance(item, Unreadable):
            self.findings.problem("unreadable", place, item.reason)
            return
        self.types[type(item).__name__] += 1
        expected = "a text, as the first" if self.strings else "a dict"
        self.findings.problem("not_a_dict", place, f"{type(item).__name__}, expected {expected}")

    def _text(self, place: str, item: dict[str, object]) -> str | None:
        name = self.fields.text
        (text, given), (title, _) = _value(item, name), _value(item, self.fields.title)
        if given:
            self.given.add("text")
        if type(text) is not str:
            label = f'{place} ("{shown(title)}")' if type(title) is str and title else place
            if given:
                self.findings.problem("text_type", label, f"text is {_kind(text)}, expected a string")
            else:
                self.findings.problem("missing_text", label, f'no field "{shown(name)}"')
            return None
        text = self._encodable(place, "text", text)
        if text is None:
            return None
        if not is_visible(text):
            if "empty_text" not in self.fields.accept:
                kind = "empty text" if not text else f"empty text: {counted(len(text), 'character')}, none visible"
                self.findings.problem("empty_text", place, kind)
                return None
            self.findings.note("empty_text", place)
        self._remark(place, text, title)
        return text

    def _remark(self, place: str, text: str, title: Any) -> None:
        """Note what is unusual but allowed in a text."""
        data = text.encode()
        if has_control(data) or (type(title) is str and has_control(title.encode(errors="replace"))):
            self.findings.note("control", place)
        if len(text) > LONG_TEXT:
            self.findings.note("long_text", place)
        if len(text) > LONG_WORD and has_long_word(text):
            self.findings.note("long_word", place)

    def _title(self, place: str, title: Any, given: bool) -> str | None:
        if not given and self._has_no_titles(place):
            return ""
        if given and self.untitled and "title" not in self.given:
            lacking = counted(self.untitled, "document")
            reason = f'no field "{shown(self.fields.title)}" in {lacking} from here on, {place} has one'
            self.findings.problem("missing_title", self.first_untitled, reason)
        if given:
            self.given.add("title")
        if type(title) is str and is_visible(title):
            return self._encodable(place, "title", title)
        if title is None or type(title) is str or _is_nan(title):
            if "missing_title" in self.fields.accept:
                self.findings.note("missing_title", place)
                return ""
            reason = f"title is {_kind(title)}" if type(title) is not str else "empty title"
            self.findings.problem("missing_title", place, reason if given else f'no field "{shown(self.fields.title)}"')
            return None
        number = type(title) in (int, float) and abs(title) < _WIDEST_INT
        if number and "title_not_text" in self.fields.accept:
            self.findings.note("title_not_text", place)
            return str(title)
        reason = f"title is {_kind(title)}, expected a string"
        self.findings.problem("title_not_text" if number else "title_type", place, reason)
        return None

    def _has_no_titles(self, place: str) -> bool:
        """Whether this is a file without titles: the profile names no field, and no document so far has one."""
        if self.fields.title != Fields.title or "title" in self.given or "missing_title" in self.fields.accept:
            return False
        self.untitled += 1
        self.first_untitled = self.first_untitled or place
        return True

    def _id(self, row: int, place: str, value: Any) -> str | int | None:
        if value is None:
            self.findings.note("no_id", place)
            return row
        self.given.add("id")
        own: str | int | None
        if type(value) is str:
            own = self._encodable(place, "id", value)
        elif type(value) is int and -_WIDEST_INT // 2 <= value < _WIDEST_INT:
            own = value
        else:
            kind = "a number of over 64 bits" if type(value) is int else _kind(value)
            self.findings.problem("id_type", place, f"id is {kind}, expected a string or a whole number")
            return None
        return own

    def _url(self, place: str, value: Any) -> str | None:
        if value is None or _is_nan(value):
            return ""
        self.given.add("url")
        if type(value) is not str:
            self.findings.problem("url_type", place, f"url is {_kind(value)}, expected a string")
            return None
        return self._encodable(place, "url", value)

    def _encodable(self, place: str, name: str, value: str) -> str | None:
        """Return a value that UTF-8 can encode, or None after a problem."""
        try:
            value.encode()
            return value
        except UnicodeEncodeError as error:
            at = error.start
        if "surrogates" in self.fields.accept:
            self.findings.note("surrogates", place)
            return SURROGATES.sub("\ufffd", value)
        reason = f"{name} holds U+{ord(value[at]):04X}, half a surrogate pair, at character {at}"
        self.findings.problem("surrogates", place, reason)
        return None


def _value(item: dict[str, Any], name: str) -> tuple[Any, bool]:
    """Return the value of a field, and whether there is one; `a.b` is b inside of a, where no field is called so."""
    if name in item:
        return item[name], True
    for at in (index for index, letter in enumerate(name) if letter == "."):
        inner = item.get(name[:at])
        if type(inner) is dict:
            value, given = _value(inner, name[at + 1 :])
            if given:
                return value, True
    return None, False


def _is_nan(value: Any) -> bool:
    return type(value) is float and math.isnan(value)


def _kind(value: Any) -> str:
    """The type of a value in words."""
    if isinstance(value, Odd):
        return value.reason
    return "float (NaN)" if _is_nan(value) else type(value).__name__
