"""The problems and notes of one file, collected and put into words: problems stop it, notes do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..errors import CorpusError
from .characters import LONG_WORD
from .formats.source import shown

ACCEPTABLE = {
    "empty_text": "a document without text is encoded as it is, and its vector means nothing",
    "missing_title": "a document without title gets an empty one, and a prompt that shows titles says none",
    "title_not_text": "a title that is a number is written as text; any other type is still refused",
    "surrogates": "half a surrogate pair is replaced by U+FFFD",
}
LONG_TEXT = 2**20  # characters
NAMED = 20  # how many items a message names

_NOTES = {
    "control": "control characters in {}; they are encoded, and shown as escapes",
    "long_text": f"over {LONG_TEXT:,} characters in the text of {{}}: the model reads only its first tokens",
    "long_word": f"a word of over {LONG_WORD:,} letters in {{}}: a tokenizer may take it for one unknown word",
    "repeated_id": "the id of an earlier document in {}: rows are told apart by their number",
    "repeated_text": "the text of an earlier document in {}: each is encoded in its own row",
    "no_id": "no id in {}: the row number stands in",
    "empty_text": "no text in {}, accepted: encoded as it is",
    "missing_title": "no title in {}, accepted: the title is empty",
    "title_not_text": "a number as title in {}, accepted: written as text",
    "surrogates": "half a surrogate pair in {}, accepted: replaced by U+FFFD",
}
FIXES = {
    "count": "fetch the file again, or set corpus.documents in the profile to the true count",
    "unreadable": "mend these lines, or write the file anew from its source",
    "not_a_dict": 'make every item a dict such as {"id": ..., "title": ..., "text": ...}, or every item a text',
    "missing_text": "give every document a text, or leave these documents out",
    "text_type": "make every text a string, or leave these documents out",
    "title_type": "make every title a string",
    "id_type": "make every id a string or a whole number of at most 64 bits",
    "url_type": "make every url a string",
    "empty_text": "give these documents a text or leave them out",
    "missing_title": "give these documents a title",
    "title_not_text": "make every title a string",
    "surrogates": "write these texts as UTF-8",
    "question": "make every question a non-empty string, alone or as the field `question` of a dict",
}


class Findings:
    """Problems and notes by kind; of each kind the first items are named and the rest counted."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    def problem(self, kind: str, place: str, reason: str) -> None:
        """Note a problem, which stops the file."""
        self.problems[kind] += 1
        if len(self.lines) < NAMED:
            self.lines.append(f"{place}: {reason}")

    def note(self, kind: str, place: str) -> None:
        """Note something unusual that is accepted."""
        self.counts[kind] += 1
        places = self.places.setdefault(kind, [])
        if len(places) < NAMED:
            places.append(place)

    def note_all(self, kind: str, count: int, places: list[str]) -> None:
        """Note `count` of a kind at once; `places` names the first of them."""
        if count:
            self.counts[kind], self.places[kind] = count, places[:NAMED]

    def notes(self) -> list[str]:
        """Return a sentence for every kind of note."""
        notes = []
        for kind, places in self.places.items():
            more = ", ..." if self.counts[kind] > len(places) else ""
            notes.append(_NOTES[kind].format(f"{counted(self.counts[kind], 'document')} ({', '.join(places)}{more})"))
        return notes

    def refusal(self, path: Path, rows: int, what: str, notes: list[str]) -> CorpusError:
        """Return one error that names all problems."""
        total = self.problems.total()
        more = [f"and {total - len(self.lines)} more"] if total > len(self.lines) else []
        accept = sorted(self.problems.keys() & ACCEPTABLE.keys())
        fixes = list(dict.fromkeys(FIXES[kind] for kind in self.problems))
        if accept:
            taken = "; ".join(ACCEPTABLE[kind] for kind in accept)
            fixes.append(f"or set corpus.accept: [{', '.join(accept)}] in the profile, by which {taken}")
        lines = [f"{shown(path, 500)}: {counted(total, 'problem')} in {counted(rows, what)}; nothing was written"]
        lines += [f"  {line}" for line in self.lines + more]
        lines += [f"  also seen: {note}" for note in notes]
        return CorpusError("\n".join([*lines, "Next: " + "; ".join(fixes) + "."]))


def counted(count: int, what: str) -> str:
    """A number of things, in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
