"""The questions' nearest documents, and the rank of the document that answers a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..corpus.questions import Question
from .articles import Audit
from .survey import Header, Questions, Survey, some_rows, unit

RANK_OF_INTEREST = 10
QUESTION_CHARACTERS = 300
ANSWERS_SHOWN = 100
Answers = list[list[int]]


@dataclass(frozen=True)
class Neighbour:
    """A document near a question: its row, its title if it has one, and the cosine."""

    row: int
    title: str | None
    cosine: float


@dataclass(frozen=True)
class Answered:
    """A question: its nearest documents, the first rows that answer it, and the best rank of an answer.

    `rank` is None if the question names no answer.
    """

    question: str
    nearest: tuple[Neighbour, ...]
    answers: tuple[int, ...]
    rank: int | None


@dataclass(frozen=True)
class Retrieval:
    """How well the questions find their documents: how many name one, and have it nearest or among the first ten.

    All None if the questions' vectors could not be used.
    """

    asked: int | None = None
    with_answer: int | None = None
    top1: int | None = None
    top10: int | None = None
    questions: tuple[Answered, ...] | None = None


def wanted_titles(questions: Sequence[Question]) -> set[str]:
    """Return the titles that questions name as their answer."""
    return {title for question in questions if isinstance(title := question.get("title"), str)}


def answers(questions: Sequence[Question], audit: Audit, documents: int) -> Answers:
    """Return for each question the rows that answer it: by `passage_index` (a row), else by `title`; else empty."""
    return [_rows_of(question, audit, documents) for question in questions]


def _rows_of(question: Question, audit: Audit, documents: int) -> list[int]:
    row, title = question.get("passage_index"), question.get("title")
    if isinstance(row, int) and not isinstance(row, bool) and 0 <= row < documents:
        return [row]
    return audit.titled.get(title, []) if isinstance(title, str) else []


def ask(vectors: np.ndarray, known: Answers, matrix: Path, shape: Header) -> Questions:
    """Prepare the questions for a survey: their directions, and the cosine of the best answer of each."""
    directions = unit(vectors)
    best = np.full(len(directions), np.inf)
    for place, rows in enumerate(known):
        if rows:
            best[place] = (unit(some_rows(matrix, shape, rows)) @ directions[place]).max()
    return Questions(directions, best)


def figures(questions: Sequence[Question], known: Answers, survey: Survey, audit: Audit) -> Retrieval:
    """Return the figures of a report: each question with its five nearest documents and the rank of its answer."""
    shown = audit.articles([int(row) for row in survey.nearest.ravel() if row >= 0])
    ranks = [1 + int(ahead) if rows else None for ahead, rows in zip(survey.ahead, known, strict=True)]
    entries = []
    for place, question in enumerate(questions):
        nearest = tuple(
            Neighbour(int(row), shown[int(row)].get("title"), round(float(cosine), 6))
            for row, cosine in zip(survey.nearest[place], survey.cosines[place], strict=True)
            if row >= 0 and np.isfinite(cosine)
        )
        text = question["question"][:QUESTION_CHARACTERS]
        entries.append(Answered(text, nearest, tuple(known[place][:ANSWERS_SHOWN]), ranks[place]))
    given = [rank for rank in ranks if rank is not None]
    return Retrieval(
        asked=len(entries),
        with_answer=len(given),
        top1=sum(rank == 1 for rank in given),
        top10=sum(rank <= RANK_OF_INTEREST for rank in given),
        questions=tuple(entries),
    )
