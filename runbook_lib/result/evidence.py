"""Everything a validation needs, read once, so that each check only compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..corpus.corpus import Corpus
from ..corpus.questions import Question
from ..errors import DataError
from ..run.plan import Plan
from ..run.run import Run
from . import articles, figures, neighbours, retrieval
from . import survey as surveys
from . import whole as wholes
from .articles import Audit
from .manifest import Manifest
from .merged import Merged
from .retrieval import Retrieval
from .survey import Geometry, Header, Questions, Survey
from .whole import Whole


@dataclass(frozen=True)
class AskedQuestions:
    """The questions: their records, the rows that answer each, and their vectors (empty if there is a `problem`)."""

    records: list[Question]
    answers: retrieval.Answers
    vectors: np.ndarray
    problem: str

    @property
    def texts(self) -> list[str]:
        """The questions as shown."""
        return [record["question"][: retrieval.QUESTION_CHARACTERS] for record in self.records]


@dataclass(frozen=True)
class Matrix:
    """The merged matrix: its header, and the findings of one pass over it."""

    shape: Header
    survey: Survey
    geometry: Geometry
    sampled: list[int]
    looked_at: list[int]  # documents whose neighbours are shown
    questions: Questions


@dataclass(frozen=True)
class Evidence:
    """The merged files as they are. `matrix` is None if it cannot be read or has a wrong size; `problem` says why.

    `founding` is None where only its sum is held against the other files, as in an archive.
    """

    run: Run
    plan: Plan
    corpus: Corpus
    merged: Merged
    founding: Path | None
    manifest: Manifest
    audit: Audit
    asked: AskedQuestions
    shape: Header | None
    matrix: Matrix | None
    problem: str
    duplicates: figures.Duplicates
    retrieval: Retrieval
    whole: Whole | None = None

    @property
    def documents(self) -> int:
        """How many rows the result has."""
        return self.all_documents.documents

    @property
    def all_documents(self) -> Corpus:
        """The corpus of the result: with --since the plan's `corpus` holds only its work rows."""
        return self.corpus if self.whole is None else self.whole.corpus


def gather(run: Run, plan: Plan, corpus: Corpus, manifest: Manifest, merged: Merged, founding: Path | None) -> Evidence:
    """Read the merged files of a run; a fault in one of them is kept as `problem`, not raised."""
    whole = wholes.load(run)
    everything = corpus if whole is None else whole.corpus
    records = corpus.questions_list()
    audit = articles.audit(merged.articles, everything, retrieval.wanted_titles(records))
    vectors, problem = _question_vectors(merged, plan, len(records))
    asked = AskedQuestions(records, retrieval.answers(records, audit, everything.documents), vectors, problem)
    shape, matrix, problem = None, None, ""
    try:
        shape = surveys.header(merged.embeddings)
        if (shape.rows, shape.dim) != (everything.documents, plan.model.dim):
            raise DataError(f"expected {everything.documents} x {plan.model.dim}, found {shape.rows} x {shape.dim}")
        matrix = _matrix(merged, shape, asked, plan)
    except DataError as error:
        problem = f"{merged.embeddings.name}: {error}"
    groups = surveys.equal_rows(matrix.survey.hashes) if matrix else []
    duplicates = figures.duplicates(groups, everything.fingerprints(), audit)
    ranks = Retrieval()
    if matrix and not asked.problem:
        ranks = retrieval.figures(records, asked.answers, matrix.survey, audit)
    return Evidence(
        run, plan, corpus, merged, founding, manifest, audit, asked, shape, matrix, problem, duplicates, ranks, whole
    )


def _matrix(merged: Merged, shape: Header, asked: AskedQuestions, plan: Plan) -> Matrix:
    answers = [] if asked.problem else asked.answers
    questions = retrieval.ask(asked.vectors, answers, merged.embeddings, shape)
    sampled, looked_at = figures.sample(shape), neighbours.chosen(plan.sha256, shape.rows)
    directions = neighbours.directions(merged.embeddings, shape, looked_at)
    survey = surveys.survey(merged.embeddings, shape, questions, sampled, directions)
    return Matrix(shape, survey, surveys.geometry(survey), sampled, looked_at, questions)


def _question_vectors(merged: Merged, plan: Plan, records: int) -> tuple[np.ndarray, str]:
    """Read the questions' vectors; return them and the problem with their file, if there is one."""
    nothing = np.zeros((0, plan.model.dim), np.float32)
    if records != plan.questions:
        return nothing, f"{records} questions in the corpus, {plan.questions} in the plan"
    if not records:
        return nothing, ""
    try:
        shape = surveys.header(merged.questions)
    except DataError as error:
        return nothing, str(error)
    if (shape.rows, shape.dim) != (plan.questions, plan.model.dim):
        return nothing, f"expected {plan.questions} x {plan.model.dim}, found {shape.rows} x {shape.dim}"
    return surveys.some_rows(merged.questions, shape, range(shape.rows)), ""
