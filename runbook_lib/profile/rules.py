"""What the keys of a profile take: each rule says it in words and reads the value, or notes the problem with its line.

A rule is the metadata of a dataclass field: `slots: int | None = field(default=None, metadata=whole(1024, auto=True))`.
So the dataclasses are the one list of keys, and `section` reads a mapping into any of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import os.path
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from .yaml_lines import Node, Problems, shown

# C0 and C1 controls, line separators and half characters: no real name or path has them.
UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# Words that other programs use: by spelling alone, the word most similar to `gpu` would be `cpu`.
OTHER_NAMES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
OTHER_NAMES |= {"gpu": "mps" if sys.platform == "darwin" else "cuda", "metal": "mps", "intel": "xpu"}


class InvalidValue(Exception):
    """A value that does not follow its rule; the text says what was seen, or the reason."""


@dataclass(frozen=True)
class Key:
    """A key: what it takes, in words, and the function that reads its value or notes the problem."""

    allowed: str
    read: Callable[[Node, str, Problems], Any]
    default: str = ""  # in words, where it follows from other keys
    auto: bool = False  # `auto` stands for None
    section: type[Any] | None = None
    many: bool = False  # a list of sections


Rule = dict[str, Key]
Given = dict[str, Any]
Check = Callable[[Given, Node, str, Problems], None]


def rule(allowed: str, take: Callable[[Node], Any], default: str = "", auto: bool = False) -> Rule:
    """A rule from a function that gives the value or raises InvalidValue."""
    allowed += ", or `auto`" if auto else ""

    def read(node: Node, at: str, problems: Problems) -> Any:
        try:
            return None if auto and node.value == "auto" else take(node)
        except InvalidValue as why:
            problems.add(node.line, at, f"expected {allowed}; {why}")
            return None

    return {"key": Key(allowed, read, default, auto)}


# ---------------------------------------------------------------------------------------------- what a message says


def seen_text(node: Node) -> str:
    """Describe a value in words, with at most 80 characters of it."""
    value = node.value
    if isinstance(value, list | dict):
        return f"seen {'a' if value else 'an empty'} {'list' if isinstance(value, list) else 'mapping'}"
    if value is None or isinstance(value, bool):
        return f"seen {'nothing' if value is None else str(value).lower()}"
    return f'seen the text "{shown(value)}"' if isinstance(value, str) else f"seen the number {shown(str(value))}"


def suggestion(word: object, words: Iterable[str]) -> str:
    """Return "did you mean" with the most similar of `words`, or nothing when none is similar."""
    known = list(words)
    other = OTHER_NAMES.get(str(word).lower())
    close = [other] if other in known else difflib.get_close_matches(str(word)[:80], known, 1)
    return f"; did you mean `{shown(close[0])}`?" if close else ""


def line_of(node: Node, key: str) -> int:
    """The line of a key in a mapping, or of the mapping where the key is not given."""
    return node.value[key].line if isinstance(node.value, dict) and key in node.value else node.line


# ---------------------------------------------------------------------------------------------- single values


def take_text(node: Node, lines: bool = False) -> str:
    """The value as text, of one line unless `lines`. Raises InvalidValue."""
    if not isinstance(node.value, str):
        raise InvalidValue(seen_text(node) + ("; in quotes it would be text" if _number(node) is not None else ""))
    if UNWANTED.search(node.value.translate({9: " ", 10: " "}) if lines else node.value):
        raise InvalidValue(f"{seen_text(node)}, which has a control character or a line break in it")
    return node.value


def take_path(node: Node) -> Path:
    """The value as an absolute path. Raises InvalidValue."""
    if not (value := take_text(node)):
        raise InvalidValue("seen empty text")
    return absolute(value, node.folder)


def absolute(text: str, folder: Path) -> Path:
    """Make `text` an absolute path, with `..` as a shell's cd takes it; links are not followed. Raises InvalidValue."""
    try:
        return Path(os.path.normpath(folder.absolute() / Path(text).expanduser()))
    except RuntimeError:
        raise InvalidValue(f'seen the text "{shown(text)}", and there is no such home folder') from None


def text(allowed: str = "text", pattern: str = r".{1,1000}", default: str = "") -> Rule:
    """One line of text that matches `pattern` whole."""

    def take(node: Node) -> str:
        if not re.fullmatch(pattern, value := take_text(node), re.ASCII):
            raise InvalidValue(seen_text(node))
        return value

    return rule(allowed, take, default)


def one_of(*words: str, default: str = "") -> Rule:
    """One of a few words."""

    def take(node: Node) -> str:
        if node.value not in words:
            raise InvalidValue(seen_text(node) + suggestion(node.value, words))
        return str(node.value)

    return rule(f"one of {', '.join(words)}", take, default)


def some_of(*words: str) -> Rule:
    """A list of some of a few words."""

    def take(node: Node) -> tuple[str, ...]:
        if not isinstance(node.value, list):
            raise InvalidValue(f"{seen_text(node)}; a list is written [{words[0]}]")
        for item in node.value:
            if item.value not in words:
                raise InvalidValue(seen_text(item) + suggestion(item.value, words))
        return tuple(dict.fromkeys(str(item.value) for item in node.value))

    return rule(f"a list of {', '.join(words)}", take)


def _number(node: Node) -> int | float | None:
    return node.value if isinstance(node.value, int | float) and not isinstance(node.value, bool) else None


def whole(highest: int, auto: bool = False) -> Rule:
    """A whole number from 1."""

    def take(node: Node) -> int:
        number = _number(node)
        if not isinstance(number, int) or not 1 <= number <= highest:
            raise InvalidValue(seen_text(node))
        return number

    return rule(f"a whole number from 1 to {highest}", take, auto=auto)


def positive(highest: int = 10**7) -> Rule:
    """A number above zero."""

    def take(node: Node) -> float:
        number = _number(node)
        if number is None or not 0 < number <= highest:  # NaN fails this too
            raise InvalidValue(seen_text(node))
        return float(number)

    return rule(f"a number above 0 and up to {highest}", take)


def path(default: str = "") -> Rule:
    """A path."""
    return rule("the path of a file or folder", take_path, default)


def secret() -> Rule:
    """The path of a file that holds a secret; never the secret."""

    def take(node: Node) -> Path:
        # The most common mistake is the token or password itself (see `slips`), so no message shows the value.
        try:
            return take_path(node)
        except InvalidValue:
            raise InvalidValue("seen what cannot be a path (not shown: it may be the secret itself)") from None

    return rule("the path of a file that holds the secret", take)


# ---------------------------------------------------------------------------------------------- mappings


def keys(cls: type[Any]) -> dict[str, Key]:
    """The keys of a section, by name."""
    return {f.name: f.metadata["key"] for f in dataclasses.fields(cls) if "key" in f.metadata}


def section(cls: type[Any], check: Check | None = None) -> Rule:
    """A mapping with the keys of `cls`; `check` gets them together, completes them and notes what does not fit."""

    def read(node: Node, at: str, problems: Problems) -> Any:
        given = read_keys(cls, node, at, problems)
        if check:
            check(given, node, at, problems)
        return None if problems.messages else cls(**given)

    return {"key": Key(f"a mapping with {', '.join(keys(cls))}", read, section=cls)}


def read_keys(cls: type[Any], node: Node, at: str, problems: Problems) -> Given:
    """Read the values that a mapping gives for the keys of `cls`, each by its rule."""
    if not isinstance(node.value, dict):
        problems.add(node.line, at, f"expected a mapping with {', '.join(keys(cls))}; {seen_text(node)}")
        return {}
    prefix = f"{at}." if at else ""
    for name, child in node.value.items():
        if name not in keys(cls):
            problems.add(child.line, prefix + name, _unknown(name, keys(cls), problems.known))
    given = {}
    for name, key in keys(cls).items():
        child = node.value.get(name, Node(None, node.line, node.folder))
        if child.refused:
            continue
        if child.value is not None:
            given[name] = key.read(child, prefix + name, problems)
        elif default_of(cls, name) is MISSING:
            state = "is empty" if name in node.value else "is missing"
            problems.add(child.line, prefix + name, f"{state}; expected {key.allowed}")
    return given


def _unknown(name: str, here: Iterable[str], known: Iterable[str]) -> str:
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    hint = f"; did you mean `{elsewhere[0]}`?" if elsewhere else suggestion(name, here)
    return f"unknown key{f'{hint} Allowed' if hint else '; allowed'} here: {', '.join(here)}"


def default_of(cls: type[Any], name: str) -> Any:
    """Return the value of a key that is not given; MISSING for a required key."""
    entry = next(f for f in dataclasses.fields(cls) if f.name == name)
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def described(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every dotted key of a section and its subsections, with what it takes and its default."""
    for name, key in keys(cls).items():
        default = key.default or default_of(cls, name)
        if key.section:
            yield from described(key.section, f"{prefix}{name}." + ("NAME." if key.many else ""))
        elif default is MISSING:
            yield prefix + name, f"{key.allowed}; required"
        else:
            unset = "auto" if key.auto else "not given"
            yield prefix + name, f"{key.allowed}; default: {unset if default in (None, ()) else default}"


def plain(value: Any, auto: bool = False) -> Any:
    """Return a section as mappings, lists and plain values, which `section` can read again."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name), key.auto) for name, key in keys(type(value)).items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return "auto" if value is None and auto else value
