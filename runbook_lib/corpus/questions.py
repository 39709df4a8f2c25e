"""The questions of a run: rows of their own, after the documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Required, TypeAlias, TypedDict, cast

from .characters import SURROGATES, is_visible
from .findings import Findings
from .formats.readers import JSON_ARRAY, JSON_LINES, open_source
from .formats.source import Unreadable, refusal

Plain: TypeAlias = str | int | float | bool | None


class Question(TypedDict, total=False):
    """A question; the fields that the library reads are named here, and all plain ones stay.

    `row`: in a corpus. `title` or `passage_index` (a row) name the document that answers it.
    """

    question: Required[str]
    row: int
    title: Plain
    passage_index: Plain


def read_questions(path: Path | None, *, notes: list[str]) -> list[Question]:
    """Read the questions of a JSON list or JSON lines, as dicts with a non-empty `question`; no path means none.

    A list of strings is taken too. Of a dict's fields the plain ones stay (text, numbers, true, false, null).
    """
    if path is None:
        return []
    findings, questions, rows = Findings(), [], 0
    with open_source(path) as source:
        if source.format not in (JSON_ARRAY, JSON_LINES):
            reason = f"questions in {source.format}; expected a JSON list or JSON lines"
            raise refusal(path, reason, 'save them as [{"question": "..."}, ...]')
        for place, item in source.items:
            rows += 1
            problem = _problem(item)
            if problem:
                findings.problem("question", place, problem)
            else:
                questions.append(_question(item))
        if findings.problems:
            raise findings.refusal(path, rows, "question", source.notes)
        notes.extend(f"questions: {note}" for note in source.notes)
    return questions


def _question(item: Any) -> Question:
    if isinstance(item, str):
        return {"question": item}
    plain = {name: value for name, value in item.items() if value is None or isinstance(value, Plain)}
    plain.pop("row", None)  # ours
    return cast(Question, plain)


def _problem(item: Any) -> str | None:
    if isinstance(item, Unreadable):
        return item.reason
    if not isinstance(item, (dict, str)):
        return f"{type(item).__name__}, expected a dict with a question, or a string"
    fields = _question(item)
    text = fields.get("question")
    if not isinstance(text, str):
        return "no field `question` that is a string"
    if not is_visible(text):
        return "empty question"
    if any(SURROGATES.search(value) for pair in fields.items() for value in pair if isinstance(value, str)):
        return "half a surrogate pair"
    return None
