"""Whether a model gives packed the vectors that it gives one text a call: the last word on packing it, at each load.

Built-in texts, short and long ones in one row, are held against the same texts alone, in float32: deliberate faults
give a thousand times what is allowed, rounding a thousandth of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .packed_attention import CALLS
from .packing import Packing
from .texts import DOCUMENT, KINDS, QUERY, Question, kind_of

if TYPE_CHECKING:
    from .text_model import TextModel

# A longer window would need a text for its check that takes longer than padding costs.
LONGEST_WINDOW = 1000
# 1 - cosine to the same text alone: faults give 8e-4 and more, rounding 5e-11 and less.
ALIKE = 1e-7
SAME_NORM = 1e-3
WORDS = ["bridge", "river", "lamp", "1984", "the", "of", "stone,", "über", "東京", "don't", "quickly", "iron", "(see)"]
WORDS += ["window", "a", "garden", "winter", "letter"]
SIZES = (1, 2, 2, 60, 5, 9, 9, 9, 17, 30)  # words of the texts of the check; the one more is longer than a window


def self_check(packing: Packing, texts: TextModel, budget: int) -> str:
    """Why a model may not be packed, by what it does with built-in texts; empty where it may, and then it is on.

    A row longer than the model has positions, or than `budget` tokens, is held against the same texts one a call.
    """
    try:
        return _looked_at(packing, texts, budget)
    except Exception as error:  # whatever it is, a batch would have met it
        packing.off()
        return f"packed it raises {type(error).__name__}: {error}"[:300]


def _looked_at(packing: Packing, texts: TextModel, budget: int) -> str:
    window = _window_of(packing, texts)
    if window is None:
        return "its layers have an attention of their own"
    limits = [texts.limits[kind] for kind in KINDS]
    if window > LONGEST_WINDOW and any(limit is None or limit > window for limit in limits):
        return f"its windows of {window:,} tokens are too long to be tried"
    rows = [_texts_of(packing, texts, DOCUMENT, 2 * window)]
    if len(set(texts.prompts.values())) > 1 or len(set(limits)) > 1:
        rows.append(_texts_of(packing, texts, QUERY, 0)[:5])
    alone = [np.concatenate([_vectors(texts, [text]) for text in row]) for row in rows]
    positions = getattr(packing.model.config, "max_position_embeddings", None) or budget
    rows[0], alone[0] = _longer(texts, rows[0], alone[0], min(positions, budget) if positions > 0 else budget)
    packing.on()
    for row, expected in zip(rows, alone):
        away = _away(_vectors(texts, row), expected)
        if not away < ALIKE:
            packing.off()
            return f"packed its vectors are others: 1 - cosine {away:.1g}, expected less than {ALIKE:g}"
    return ""


def _window_of(packing: Packing, texts: TextModel) -> int | None:
    """The longest window of the layers that call our attention, 0 for none; None where nothing calls it."""
    packing.on()
    CALLS.count = CALLS.window = 0
    _vectors(texts, [f"{texts.prompts[DOCUMENT] or ''}{WORDS[0]}"])
    packing.off()
    return CALLS.window if CALLS.count else None


def _texts_of(packing: Packing, texts: TextModel, kind: str, longest: int) -> list[str]:
    """The texts of the check, one of at least `longest` tokens, one with the tokenizer's own words written out."""
    special = getattr(getattr(packing.reader, "tokenizer", None), "all_special_tokens", [])
    plain = [" ".join(WORDS[(5 * i + 3 * j) % len(WORDS)] for j in range(size)) for i, size in enumerate(SIZES)]
    plain[4] = " ".join(f"{WORDS[i % len(WORDS)]} {token}" for i, token in enumerate(special)) or plain[4]
    plain.append(" ".join(WORDS[7 * j % len(WORDS)] for j in range(max(longest, SIZES[-1]))))
    kind_of_text = Question if kind == QUERY else str
    return [kind_of_text(f"{texts.prompts[kind] or ''}{text}") for text in plain]


def _longer(texts: TextModel, row: list[str], alone: Any, tokens: int) -> tuple[list[str], Any]:
    """The same texts, and short ones of them again until they have more than so many tokens, and their vectors."""
    limit = texts.limits[DOCUMENT]
    lengths = [max(1, min(n, limit or n)) for n in texts.tokens(row)]  # 0 each would never be enough
    chosen = list(range(len(row)))
    while sum(lengths[i] for i in chosen) <= tokens:
        chosen += range(len(SIZES))
    return [row[i] for i in chosen], alone[chosen]


def _vectors(texts: TextModel, some: Sequence[str]) -> Any:
    with torch.inference_mode():
        features = texts.features(texts.model, some)
        return texts.vectors(texts.model, kind_of(some[0]), features).double().numpy()


def _away(vectors: Any, expected: Any) -> float:
    """The largest 1 - cosine of two rows; as if opposite where one has no direction or is not as long."""
    norms, wanted = np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1)
    with np.errstate(all="ignore"):
        away = 1 - (vectors * expected).sum(axis=1) / (norms * wanted)
        alike = np.isfinite(away) & (np.abs(norms / wanted - 1) <= SAME_NORM)
    return float(np.where(alike, away, 2.0).max())
