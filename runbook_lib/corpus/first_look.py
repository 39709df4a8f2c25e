"""A first look at a corpus nobody described yet: which of its fields is the text, the title, the id, the address."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import sources
from .characters import is_visible
from .findings import counted
from .formats.readers import open_source
from .formats.source import Unreadable, refusal, shown
from .plain_ids import plain_id

SAMPLE = 1000  # documents looked at
DEEPEST = 3  # fields inside fields
NAMES = {  # what people call them, the likeliest first
    "text": (
        "text",
        "body",
        "content",
        "contents",
        "passage",
        "article",
        "document",
        "abstract",
        "maintext",
        "summary",
    ),
    "title": ("title", "headline", "heading", "subject", "name", "label"),
    "id": (
        "id",
        "_id",
        "doc_id",
        "docid",
        "document_id",
        "article_id",
        "page_id",
        "pageid",
        "uuid",
        "pmid",
        "doi",
        "key",
    ),
    "url": ("url", "uri", "link", "href", "permalink", "source_url"),
}
LONGEST_TITLE = 300  # characters, in the mean
_PART = re.compile(r"[^0-9a-z]+")


@dataclass
class Seen:
    """What the sample holds in one field."""

    texts: int = 0
    characters: int = 0
    numbers: int = 0
    values: set[Any] = field(default_factory=set)

    @property
    def mean(self) -> float:
        """Characters of its texts in the mean."""
        return self.characters / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class FirstLook:
    """What was seen: `names` key -> the field guessed for it; `first` key -> its value in the first document."""

    format: str
    files: int
    sampled: int
    fields: tuple[str, ...]
    names: dict[str, str]
    first: dict[str, str]
    without_title: int


def look(path: Path, scratch: Path | None = None) -> FirstLook:
    """Look at the first documents of a corpus. Raises CorpusError if it cannot be read or nothing looks like text."""
    files = sources.find(path)
    with open_source(files.files[0], scratch=scratch) as source:
        items = [item for _, item in itertools.islice(source.items, SAMPLE) if not isinstance(item, Unreadable)]
        form = source.format
    if not items:
        raise refusal(path, "no document that can be read", "look at the file, or name another one")
    if all(type(item) is str for item in items):
        first = {"text": shown(items[0], 80)}
        return FirstLook(form, len(files.files), len(items), (), {}, first, len(items))
    seen = _fields(items)
    if len(items) == 1 and len(files.files) == 1 and (whole := _documents_inside(items[0])):
        fix = "save them as a JSON array of objects, or as JSON lines: one object a document"
        raise refusal(path, f"one object, not a list of documents: {whole}", fix)
    names = _guess(seen, len(items))
    if "text" not in names:
        listed = ", ".join(f'"{shown(name)}"' for name in itertools.islice(seen, 20))
        reason = f"no field that looks like text in {counted(len(items), 'document')}; seen: {listed}"
        raise refusal(path, reason, "name the field with the text in a profile (corpus.text)")
    values = [dict(_leaves(item)) for item in items if type(item) is dict]
    first = {key: shown(values[0].get(name), 80) for key, name in names.items()}
    title = names.get("title")
    without = (
        sum(not (type(v := each.get(title)) is str and is_visible(v)) for each in values) if title else len(values)
    )
    return FirstLook(form, len(files.files), len(items), tuple(seen), names, first, without)


def _documents_inside(item: Any) -> str:
    """Say where the documents of a file are that holds one object alone; empty where that is a document itself."""
    if type(item) is not dict:
        return ""
    for name, value in item.items():
        if type(value) is list and len(value) > 1 and all(type(each) is dict for each in value):
            return f'its field "{shown(name)}" holds a list of {len(value):,} objects'
    inside = [set(value) for value in item.values() if type(value) is dict]
    if len(item) == len(inside) > 1 and set.intersection(*inside):
        return f'{len(item):,} objects by their keys, such as "{shown(next(iter(item)))}"'
    columns = [name for name, value in item.items() if type(value) is list and len(value) > 1]
    return f'lists by their columns, such as "{shown(columns[0])}"' if len(columns) == len(item) > 0 else ""


def _leaves(item: dict[str, Any], above: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield each field of a document, those inside others as `a.b`."""
    for name, value in item.items():
        if type(value) is dict and depth < DEEPEST:
            yield from _leaves(value, f"{above}{name}.", depth + 1)
        else:
            yield f"{above}{name}", value


def _fields(items: list[Any]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    for item in items:
        for name, value in _leaves(item) if type(item) is dict else ():
            one = seen.setdefault(name, Seen())
            if type(value) is str and value:
                one.texts += 1
                one.characters += len(value)
                one.values.add(value[:200])
            elif type(key := plain_id(value)) in (int, str) and key != "":
                one.numbers += 1
                one.values.add(key)
    return seen


def _guess(seen: dict[str, Seen], documents: int) -> dict[str, str]:
    """Choose a field for each of text, title, id, url, by its name and what it holds; none for those not found."""
    names: dict[str, str] = {}
    longest = max(seen, key=lambda name: seen[name].mean, default="")
    free = dict(seen)

    def choose(key: str, fits: Callable[[Seen], bool]) -> None:
        for wanted in NAMES[key]:
            for name, one in free.items():
                if fits(one) and _is_called(name, wanted):
                    names[key] = name
                    del free[name]
                    return

    choose("text", lambda one: one.texts > documents // 2 and one.mean * 5 > seen[longest].mean)
    if "text" not in names and longest and seen[longest].texts > documents // 2:
        names["text"] = longest
        del free[longest]
    # Of a document without one the row number stands in.
    choose("id", lambda one: len(one.values) == one.texts + one.numbers > documents // 2)
    choose("url", lambda one: one.texts > 0)
    choose("title", lambda one: one.texts > 0 and one.mean <= LONGEST_TITLE)
    return names


def _is_called(name: str, wanted: str) -> bool:
    """Whether a field's last name is this word, in any way of writing it: `Doc ID`, `docId`, `meta.doc-id`."""
    last = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.rpartition(".")[2]).lower()
    plain, word = _PART.sub("_", last).strip("_"), wanted.strip("_")
    return plain.replace("_", "") == word.replace("_", "") or plain.endswith(f"_{word}")
