"""Questions nobody asked while the run ran: computed by its own model on this machine's processor, with its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worker.escape import safe_text

from ..corpus.prompt import as_encoded
from ..errors import DataError
from ..phases.recompute import answers, model_at_hand
from ..run.run import Run

WITHIN_S = 600.0  # to load the model and compute all questions
SHOWN = 80  # characters of a question in a message


def embed(run: Run, questions: Sequence[str], model: Path | None = None) -> np.ndarray:
    """Return the vectors of questions, float32 (questions, dim). `model`: its folder, if not where the profile says.

    Raises DataError if the model is not here, its files are not the run's, or a question has no vector.
    """
    doing = f"searching {run.name}"
    if empty := [place for place, question in enumerate(questions, 1) if not question.strip()]:
        raise DataError(f"{doing}: question {empty[0]} is empty; expected words")
    plan = run.plan()
    asked = [(as_encoded(plan.question_prompt, question), True) for question in questions]
    vectors: list[tuple[float, ...]] = []
    for opinion in answers(run, plan, model_at_hand(run, plan, model), asked, "float32", WITHIN_S):
        if opinion.vector is None:
            question = safe_text(questions[len(vectors)], SHOWN)
            raise DataError(f"{doing}: '{question}' cannot be encoded: {safe_text(opinion.error or '', 300)}")
        vectors.append(opinion.vector)
    if len(vectors) < len(questions):
        question = safe_text(questions[len(vectors)], SHOWN)
        raise DataError(f"{doing}: '{question}' ended the encoder, or had no answer within {WITHIN_S:g} s")
    return np.array(vectors, np.float32).reshape(len(vectors), plan.model.dim)
