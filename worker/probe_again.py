"""Does the device of a host give what its processor gives? Short texts and one of full length, tried before the run.

Known faults of devices meet texts of a few tokens, texts that are padded, and one text of full length among short
ones; no norm and no fingerprint shows them. So 32 texts are computed in the worker's own batches, all in one padded
batch, and each alone, and are held against the processor in float32, one text a call by the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from .any_encoder import AnyEncoder
from .canary import PASSAGE
from .texts import DOCUMENT
from .wire import AgainProbe

SHORT, MOST_WORDS = 31, 8
FULL = 2048  # tokens of the longest text at most: the processor does it too
WHY_LIMIT = 1000  # characters of an error

Vectors = Callable[[], Any]


def compare(
    encoder: AnyEncoder, processor: Callable[[], AnyEncoder], filled: Callable[[Sequence[str]], list[str]]
) -> AgainProbe:
    """The lowest cosine of the 32 texts in each way of computing them; `filled` makes a document of words.

    `processor` loads the same model in float32 on the processor.
    """
    texts = filled(_texts(encoder.limits[DOCUMENT]))
    answer: AgainProbe = {"rows": len(texts), "tokens": max(encoder.cut(encoder.lengths(texts), texts)), "cosine": {}}
    try:
        right = _one_by_one((encoder if _is_one(encoder) else processor()).as_the_library, texts)
    except Exception as error:
        return {**answer, "error": f"the processor cannot do it: {in_words(error)}"}
    for way, compute in _ways(encoder, texts).items():
        try:
            answer["cosine"][way] = lowest_cosine(compute(), right)
        except Exception as error:
            return {**answer, "error": f"{way}: {in_words(error)}"}
    return answer


def _ways(encoder: AnyEncoder, texts: list[str]) -> dict[str, Vectors]:
    """How the texts are computed on the device. On a processor padding is the library's own and held against it."""

    def batches(some: Sequence[str]) -> Any:
        return encoder.encode(some, encoder.lengths(some), range(len(some)))

    ways: dict[str, Vectors] = {"in the worker's batches": lambda: batches(texts)}
    if encoder.device != "cpu":
        ways["in one batch"] = lambda: encoder.as_the_library(texts)
        ways["alone"] = lambda: _one_by_one(batches, texts)
    return ways


def _is_one(encoder: AnyEncoder) -> bool:
    """Whether an encoder is itself the model in float32 on the processor."""
    return encoder.device == "cpu" and getattr(encoder, "dtype", "float32") == "float32"


def _texts(limit: int | None) -> list[str]:
    """Texts of 1 to 8 words, no two alike, and one with as many words as are read."""
    words = PASSAGE.split()
    short = [" ".join(words[i : i + 1 + i % MOST_WORDS]) for i in range(SHORT)]
    return [*short, " ".join(words[i % len(words)] for i in range(min(limit or FULL, FULL)))]


def _one_by_one(compute: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> Any:
    import numpy as np

    return np.concatenate([compute([text]) for text in texts])


def lowest_cosine(ours: Any, theirs: Any) -> float:
    """The lowest cosine of a row of one to the same row of the other, both (rows, dim); -1 where one is no number."""
    import numpy as np

    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    same = np.abs(ours - theirs).max(axis=1) <= 1e-7  # vectors of zeros have no direction
    cosines = np.where(same, 1.0, (ours * theirs).sum(axis=1) / np.where(sizes > 0, sizes, 1.0))
    return float(np.nan_to_num(cosines, nan=-1.0).min())


def in_words(error: Exception) -> str:
    """An exception's type and text."""
    return f"{type(error).__name__}: {error}"[:WHY_LIMIT]
