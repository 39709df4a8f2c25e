"""Each question's nearest documents, as a table for a page and as lines for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..result import facts
from . import markup, words
from .markup import text

NEAREST = 5


@dataclass(frozen=True)
class Nearest:
    """Each question's nearest documents; draws itself as a table."""

    questions: tuple[dict[str, Any], ...]

    @property
    def hits(self) -> tuple[int, int]:
        """How many questions have their own document as the nearest, of how many that name one."""
        ranks = [rank for question in self.questions if (rank := question.get("rank")) is not None]
        return sum(rank == 1 for rank in ranks), len(ranks)

    def html(self) -> str:
        """A table: a line a question, how far down its own document comes, and its nearest documents with cosines."""
        if not self.questions:
            return "<p>No questions in the validation.</p>"
        titles = ("question", "own document comes", "nearest documents, cosine")
        heads = list(zip(titles, (markup.WIDE, markup.CELL, markup.WIDE), strict=True))
        first, asked = self.hits
        told = f"; its own document is the nearest for {first} of the {asked} that name one" if asked else ""
        caption = f"{words.many(len(self.questions), 'question')}{told}"
        return markup.table(caption, heads, (self._row(*numbered) for numbered in enumerate(self.questions, 1)))

    def _row(self, place: int, question: dict[str, Any]) -> str:
        neighbours = "".join(
            f'<li style="margin:0">{"<b>✓ " if own else ""}{text(title, 120)}{"</b>" if own else ""} '
            f'<span style="{markup.MUTED};font-variant-numeric:tabular-nums">{score}</span></li>'
            for title, score, own in _neighbours(question)
        )
        cell = f"{markup.WIDE};vertical-align:top;padding:6px 24px 6px 0"
        asked = text(question.get("question", ""))
        return (
            f'<tr style="border-bottom:{markup.LINE}">'
            f'<th scope="row" style="{cell};font-weight:normal;max-width:340px">{place}. {asked}</th>'
            f'<td style="{cell};white-space:nowrap">{_comes(question)}</td>'
            f'<td style="{cell}"><ol style="margin:0;padding-left:20px">{neighbours}</ol></td></tr>'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        lines = []
        for place, question in enumerate(self.questions, 1):
            lines.append(f"{place}. {words.one_line(question.get('question', ''))} [own document: {_comes(question)}]")
            for title, score, own in _neighbours(question):
                lines.append(f"   {'*' if own else ' '} {score}  {words.one_line(title, 120)}")
        return "\n".join(lines) or "no questions in the validation"


def _comes(question: dict[str, Any]) -> str:
    rank = question.get("rank")
    return "not named" if rank is None else "✓ first" if rank == 1 else f"rank {text(rank, 20)}"


def _neighbours(question: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Title, cosine and whether it is the question's own document, of the nearest five."""
    own: list[int] = question.get("answers") or []
    title = question.get("title")
    found = []
    for item in (question.get("nearest") or [])[:NEAREST]:
        score = facts.number(item.get("cosine", item.get("score")))
        name, row = str(item.get("title") or f"row {item.get('row')}"), item.get("row")
        mark = row in own if own else bool(title) and name == title
        found.append((name, "–" if score is None else f"{score:.3f}", mark))
    return found


def nearest(figures: dict[str, Any]) -> Nearest:
    """Each question's nearest documents, from the figures of the validation."""
    found = facts.own_figures(figures).get("retrieval")
    items = found.get("questions") if isinstance(found, dict) else found
    return Nearest(tuple(item for item in items or [] if isinstance(item, dict)))
