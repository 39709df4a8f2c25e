"""Each question's nearest documents, as an HTML table and as lines of text; those of a few documents, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..result.figures import Figures
from ..result.neighbours import Beside
from ..result.retrieval import Answered
from . import markup, words
from .markup import Markup, tag, text

NEAREST = 5


@dataclass(frozen=True)
class Nearest:
    """Each question's nearest documents; a notebook displays them as a table."""

    questions: tuple[Answered, ...]

    @property
    def hits(self) -> tuple[int, int]:
        """The number of questions whose own document is the nearest, and of questions that name one."""
        ranks = [question.rank for question in self.questions if question.rank is not None]
        return sum(rank == 1 for rank in ranks), len(ranks)

    def html(self) -> Markup:
        """Return a table: for each question the rank of its own document, and its nearest documents with cosines."""
        if not self.questions:
            return Markup("<p>No questions in the validation.</p>")
        titles = ("question", "own document comes", "nearest documents, cosine")
        heads = list(zip(titles, (markup.WIDE, markup.CELL, markup.WIDE), strict=True))
        first, asked = self.hits
        score = f"; its own document is the nearest for {first} of the {asked} that name one" if asked else ""
        caption = f"{words.many(len(self.questions), 'question')}{score}"
        return markup.table(caption, heads, (self._row(*numbered) for numbered in enumerate(self.questions, 1)))

    def _row(self, place: int, question: Answered) -> Markup:
        neighbours = [
            tag(
                "li",
                tag("b", Markup("✓ "), text(title, 120)) if own else text(title, 120),
                Markup(" "),
                tag("span", text(score), style=f"{markup.MUTED};font-variant-numeric:tabular-nums"),
                style="margin:0",
            )
            for title, score, own in _neighbours(question)
        ]
        cell = f"{markup.WIDE};vertical-align:top;padding:6px 24px 6px 0"
        asked = text(f"{place}. ") + text(question.question)
        return tag(
            "tr",
            tag("th", asked, scope="row", style=f"{cell};font-weight:normal;max-width:340px"),
            tag("td", text(_comes(question)), style=f"{cell};white-space:nowrap"),
            tag("td", tag("ol", *neighbours, style="margin:0;padding-left:20px"), style=cell),
            style=f"border-bottom:{markup.LINE}",
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        lines = []
        for place, question in enumerate(self.questions, 1):
            lines.append(f"{place}. {words.one_line(question.question)} [own document: {_comes(question)}]")
            for title, score, own in _neighbours(question):
                lines.append(f"   {'*' if own else ' '} {score}  {words.one_line(title, 120)}")
        return "\n".join(lines) or "no questions in the validation"


def _comes(question: Answered) -> str:
    rank = question.rank
    return "not named" if rank is None else "✓ first" if rank == 1 else f"rank {rank}"


def _neighbours(question: Answered) -> list[tuple[str, str, bool]]:
    """Return title, cosine and whether it is the question's own document, for the nearest five."""
    return [
        (each.title or f"row {each.row}", f"{each.cosine:.3f}", each.row in question.answers)
        for each in question.nearest[:NEAREST]
    ]


def nearest(figures: Figures) -> Nearest:
    """Return each question's nearest documents, from the figures of the validation."""
    return Nearest((figures.retrieval.questions if figures.retrieval else None) or ())


def beside(documents: Sequence[Beside]) -> Markup:
    """Return a table: for each document its row and title, and its nearest documents with cosines."""
    heads = [("row", markup.NUMBER), ("document", markup.WIDE), ("nearest documents, cosine", markup.WIDE)]
    return markup.table(f"{words.many(len(documents), 'document')}, chosen by the plan", heads, map(_beside, documents))


def _beside(document: Beside) -> Markup:
    cell = f"{markup.WIDE};vertical-align:top;padding:6px 24px 6px 0"
    near = [
        tag("li", text(f"{each.title or f'row {each.row}'} {each.cosine:.3f}", 140), style="margin:0")
        for each in document.nearest
    ]
    return tag(
        "tr",
        tag("td", text(f"{document.row:,}"), style=f"{markup.NUMBER};vertical-align:top;padding:6px 24px 6px 0"),
        tag("th", text(document.title or "no title", 120), scope="row", style=f"{cell};font-weight:normal"),
        tag("td", tag("ol", *near, style="margin:0;padding-left:20px"), style=cell),
        style=f"border-bottom:{markup.LINE}",
    )
