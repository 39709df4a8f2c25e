"""The figures that the report prints, each as an element that a program can find again: `<data id value>text</data>`.

`expected` makes them from the run's files, and `read` takes them from a page: who edits a figure has to edit what it
follows from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from worker.escape import safe_text

from ..result.facts import RunFacts
from . import figures_shown
from .verdict import sentence

LONGEST = 1000  # characters of a figure as it is printed


@dataclass(frozen=True)
class Printed:
    """A figure as printed: its id on the page, its exact value, and the words that a person reads."""

    key: str
    value: str
    text: str


@dataclass(frozen=True)
class Card:
    """A figure of the first section, with its remark."""

    name: str
    figure: Printed
    note: Printed | None


def cards(run_facts: RunFacts) -> list[Card]:
    """Return the key figures."""
    made = []
    for figure in figures_shown.key_figures(run_facts):
        key = "figure-" + re.sub(r"[^a-z]+", "-", figure.name)
        note = Printed(f"{key}-note", figure.note, figure.note) if figure.note else None
        made.append(Card(figure.name, Printed(key, figure.exact or figure.value, figure.value), note))
    return made


def checksum(name: str, sha256: str) -> Printed:
    """Return the sum of one file of the result."""
    return Printed(f"sha256-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}", sha256, sha256)


def verdict(run_facts: RunFacts) -> Printed:
    """Return the verdict's sentence."""
    words = sentence(run_facts)
    return Printed("verdict", "true" if run_facts.ok else "false", words)


def expected(run_facts: RunFacts) -> dict[str, Printed]:
    """Return all figures by their id, as the page must print them."""
    shown = [verdict(run_facts)]
    for card in cards(run_facts):
        shown += [card.figure] if card.figure.text else []
        shown += [card.note] if card.note else []
    for name, written in (run_facts.manifest.outputs if run_facts.manifest else {}).items():
        shown.append(checksum(f"merged/{name}", written.sha256))
    for kind in ("founding", "backup"):
        if output := run_facts.output(kind):
            shown.append(checksum(kind, output.sha256))
    return {each.key: _as_shown(each) for each in shown}


def _as_shown(figure: Printed) -> Printed:
    """Return a figure as a page gives it back: escapes of control characters, and its length, are the page's."""
    return Printed(figure.key, safe_text(figure.value, len(figure.value)), safe_text(figure.text, LONGEST))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Printed] = []
        self._open: tuple[str, str] | None = None
        self._words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "data":
            given = dict(attrs)
            self._open, self._words = (given.get("id") or "", given.get("value") or ""), []

    def handle_data(self, data: str) -> None:
        self._words += [data] if self._open else []

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._open:
            self.found.append(Printed(*self._open, "".join(self._words)))
            self._open = None


def read(path: Path) -> list[Printed]:
    """Return the figures that a page prints, in its order. Raises OSError."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8", errors="replace"))
    page.close()
    return page.found


def differences(found: Sequence[Printed], wanted: dict[str, Printed]) -> list[str]:
    """Return in words how the figures that a page prints differ from those that its files give."""
    wrong, seen = [], set[str]()
    for figure in found:
        right = wanted.get(figure.key)
        if right is None or figure.key in seen:
            wrong.append(f"{safe_text(figure.key, 80)}: a figure too many, {safe_text(figure.text, 80)!r}")
        elif figure != right:
            shown = figure.text if figure.text != right.text else figure.value
            meant = right.text if figure.text != right.text else right.value
            wrong.append(f"{figure.key}: {safe_text(shown, 160)!r} is printed, {meant[:160]!r} follows from the files")
        seen.add(figure.key)
    return wrong + [f"{key}: not printed" for key in wanted if key not in seen]
