"""YAML read with the line of every value, and written back: the one door to the yaml library.

It reads less than YAML offers, on purpose: one document of mappings, lists and plain values; no tags, anchors or
aliases, so nothing in a file can be executed or swell. Plain words are read as YAML 1.2 does: `off`, `no` and
`2025-11-14` are text, `1e3` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from worker.escape import safe_text

from ..errors import ProfileError
from . import tokens

DEEPEST = 8
SHOWN_PROBLEMS = 30
SHOWN_CHARACTERS = 80
LONGEST_PATH = 4096

# Longer digit strings are no number that a profile could mean, and Python is slow (or refuses) to turn them into one.
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,4})?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


@dataclass(frozen=True)
class Node:
    """A value, the line it stands on, and the folder at which its relative paths start."""

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    line: int  # of its key where it has one; 0: it came with --set
    folder: Path
    refused: bool = False  # already noted as a problem: no second message


class Problems:
    """What is wrong with one file, collected so that a person can correct all of it at once."""

    def __init__(self, file: Path, known: Iterable[str] = ()):
        """`file` is named as the person named it; `known` are the keys there are, to suggest from."""
        self.file = safe_text(str(file))
        self.known = tuple(known)
        self.messages: list[tuple[int, str]] = []

    def add(self, line: int, key: str, message: str) -> None:
        """Note one problem, at a dotted key or, with an empty key, at a line."""
        where = f"{self.file}:{line}" if line else "--set"
        self.messages.append((line, tokens.hide(f"{where}: {f'{shown(key)}: ' if key else ''}{message}")))

    def stop_if_any(self) -> None:
        """Raise one ProfileError with everything noted so far, in the order of the lines."""
        if not self.messages:
            return
        count = len(self.messages)
        lines = [text for _, text in sorted(self.messages, key=lambda item: item[0])[:SHOWN_PROBLEMS]]
        more = f"\n  and {count - SHOWN_PROBLEMS} more" if count > SHOWN_PROBLEMS else ""
        raise ProfileError(
            f"reading the profile {self.file}: {count} problem{'s' * (count > 1)}\n  "
            + "\n  ".join(lines)
            + f"{more}\nNext: change these lines, then give the same command again."
        )


def shown(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Return `text` on one line and at most 80 characters of it, for a message about a file.

    For a path, `limit` is LONGEST_PATH: a shortened path cannot be found.
    """
    return safe_text(text.replace("\n", "\\n").replace("\t", "\\t"), limit)


def read(text: str, folder: Path, problems: Problems, override: str = "") -> Node | None:
    """The one value in `text`, or None where it is not YAML; `override` is the key of a `--set` that it comes from."""
    # A comment may hold a tab; elsewhere YAML's own message about it is no help.
    tab = re.search(r"^[^#\n]*\t", text, re.MULTILINE)
    if tab:
        line = text.count("\n", 0, tab.start()) + 1
        problems.add(0 if override else line, override, "a tab; YAML is indented with spaces")
        return None
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader), folder, problems, override).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if isinstance(mark, yaml.Mark) else (1, 1)
        reason = shown(error.problem or error.context or "")
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        reason = f"the character U+{ord(text[error.position]):04X} is not allowed in a file"
    problems.add(0 if override else line, override, f"not YAML: column {column}: {reason}")
    return None


def write(value: object) -> str:
    """`value` (mappings, lists, text, numbers, None) as YAML that `read` takes back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Puts text that `read` would take for a number in quotes, even where YAML 1.1 would not."""


for _tag, _pattern in (("int", _INTEGER), ("float", _FLOAT)):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"{_pattern.pattern}$"), [*"-+.0123456789"])


Keys = tuple[str, ...]


class _Builder:
    """Turns the events of the parser into nodes, noting what is refused.

    Events and not yaml.compose: an alias is seen before anything is copied, and depth is limited here.
    """

    def __init__(self, events: Iterator[yaml.Event], folder: Path, problems: Problems, override: str):
        self.events = events
        self.folder = folder
        self.problems = problems
        self.override = override

    def document(self) -> Node:
        """The first document; a second one is noted."""
        next(self.events)
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Node(None, self._line(event), self.folder)
        at = (self.override,) if self.override else ()
        event = next(self.events)
        node = self._node(event, self._line(event), at)
        next(self.events)
        if isinstance(event := next(self.events), yaml.DocumentStartEvent):
            self._note(event, at, "a second document (`---`); a profile is one")
        return node

    def _line(self, event: yaml.Event) -> int:
        return 0 if self.override or not event.start_mark else event.start_mark.line + 1

    def _note(self, event: yaml.Event, at: Keys, message: str) -> None:
        self.problems.add(self._line(event), ".".join(at), message)

    def _node(self, event: yaml.Event, line: int, at: Keys) -> Node:
        refused = self._refused(event, at)
        if isinstance(event, yaml.CollectionStartEvent) and len(at) >= DEEPEST:
            # Not read any further: without this, a file of brackets would exhaust Python's stack.
            self._note(event, at, f"nested more than {DEEPEST} deep")
            self.problems.stop_if_any()
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self._mapping(at), line, self.folder, refused)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self._sequence(at), line, self.folder, refused)
        if isinstance(event, yaml.ScalarEvent):
            # Only plain text can be a number or a word of YAML's own; text in quotes is text.
            value = event.value if event.style else _plain(event.value)
            return Node(value, line, self.folder, refused)
        return Node(None, line, self.folder, refused)

    def _refused(self, event: yaml.Event, at: Keys) -> bool:
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        # A password may begin with one of these characters.
        name, kind = (tokens.HIDDEN if at and at[-1] in tokens.SECRETS else shown(text or "") for text in (anchor, tag))
        if isinstance(event, yaml.AliasEvent):
            self._note(event, at, f"an alias (*{name}); write the value out, in quotes if it begins with *")
        elif anchor:
            self._note(event, at, f"an anchor (&{name}); write the value out where it is wanted")
        if tag:
            self._note(event, at, f"a tag ({kind}); tags are not read, write a plain value")
        return bool(anchor or tag)

    def _sequence(self, at: Keys) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, self._line(event), (*at, str(len(items)))))
        return items

    def _mapping(self, at: Keys) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, at)
            node = self._node(next(self.events), self._line(event), (*at, key))
            if key in entries:
                first = f" (first in line {entries[key].line})" if entries[key].line else ""
                self._note(event, (*at, key), f"the key `{shown(key)}` stands here a second time{first}")
            entries.setdefault(key, node)
        return entries

    def _key(self, event: yaml.Event, at: Keys) -> str:
        if isinstance(event, yaml.ScalarEvent):
            self._refused(event, at)
            return str(event.value)
        if not isinstance(event, yaml.AliasEvent):
            self._note(event, at, "a key that is a list or a mapping; keys are words")
        self._node(event, self._line(event), (*at, "?"))
        return "?"


def _plain(text: str) -> str | int | float | bool | None:
    """What a word without quotes means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
