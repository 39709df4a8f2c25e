"""Which rows an audit computes again for what they are, beside those that it draws.

Before the draw: rows that fit their texts least or have an odd norm, equal texts whose vectors differ, the questions.
After it, while there is time: one row of each part, so that no part is wrong as a whole unseen; of some the longest
text, since what breaks on long texts only is met by few drawn rows. Which parts these are follows from the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..result import alike, content_fit, misfits, odd_norms, sampling, twins
from ..result.content_fit import Scores
from ..result.misfits import Misfit
from .subject import Subject

QUESTIONS, PARTS, TWINS = 50, 500, 20  # computed again at most
LONGEST = 8  # of one part in so many the longest text: these take long


def first(subject: Subject, scores: Scores | None, found: Sequence[Misfit]) -> list[int]:
    """Return the rows to compute before any drawn one: some of parts that do not fit, then those that fit least, then
    neighbours that would fit better exchanged, rows with an odd norm, equal texts whose vectors differ, the questions.
    """
    rows = [row for misfit in found[:20] for row in misfit.rows]
    if scores:
        rows += content_fit.lowest(scores, misfits.LOOKED_AT) + content_fit.exchanged(scores, misfits.PAIRS)
    matrix, prints = subject.merged.embeddings, subject.corpus.fingerprints()[: subject.corpus.documents]
    rows += odd_norms.rows(matrix) + twins.differing(matrix, prints, alike.APART[subject.plan.dtype], TWINS)
    asked = range(subject.corpus.documents, subject.corpus.rows)
    return list(dict.fromkeys([*rows, *asked[:QUESTIONS]]))


def of_each_part(subject: Subject, seed: str) -> list[int]:
    """Return a row of each part, parts in an order that follows from the seed; none with --since: rows are not those
    of parts.
    """
    if subject.whole is not None:
        return []
    sizes, rows = np.diff(subject.corpus.offsets()), list[int]()
    parts = [part for part in subject.manifest.parts if part.rows]
    for place in sampling.draw(f"{seed}/parts", len(parts), PARTS):
        low, high = parts[place].rows or (0, 0)
        drawn = int.from_bytes(hashlib.sha256(f"{seed}/{low}".encode()).digest()[:8], "big")
        longest = drawn % LONGEST == 0
        rows.append(low + (int(sizes[low:high].argmax()) if longest else drawn // LONGEST % (high - low)))
    return rows
