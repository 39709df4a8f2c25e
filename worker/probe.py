"""Does the model load here and give the vectors that the library itself would give? Asked before anything is computed.

Texts of few words, and batches of texts as long as the model claims to read, go the way of a worker and through the
library's own entry points, as documents and as questions; how far the two lie apart is told, nothing is judged here.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import owned
from .any_encoder import AnyEncoder
from .layout import SHARED_FOLDERS
from .probe_again import compare, in_words, lowest_cosine
from .rehearsal import command, rehearse
from .texts import DOCUMENT, KINDS, QUERY, Question
from .wire import Libraries, LongProbe, Probed

SENTENCE = "The quick brown fox jumps over the lazy dog."
WORD = "river"
SHORT = (
    SENTENCE,
    WORD,
    "Where does the old bridge cross the river, and who built it?",
    "In 1984 the museum of glass and iron was opened; its roof, 40 m wide, was the work of two sisters.",
)
# How many tokens are tried of what a model claims: so many, more where the corpus has longer texts, and never more than
# the second number: attention grows with the square.
TRIED = {"cpu": (2048, 8192), "cuda": (8192, 32768), "mps": (2048, 8192), "xpu": (2048, 8192)}
FILLERS = ("the", "a", "x", ".")  # words that are likely one token each


def devices(device: str) -> Libraries:
    """What can be known before a model is here: that the libraries import, and that every GPU multiplies matrices."""
    from .encoder import libraries

    answer = libraries(device)
    if device == "cuda" and not answer["gpus"]:
        answer["error"] = f"torch {answer['versions']['torch']} sees no GPU (built for CUDA {answer['cuda_build']})"
    return answer


def probe(
    model: Path,
    device: str,
    dtype: str,
    max_tokens: int | None = None,
    chunk_tokens: int | None = None,
    templates: dict[str, str] | None = None,
    longest: int | None = None,
    told: dict[str, Any] | None = None,
) -> Probed:
    """Load `model`, encode; give width, norm, limits, distances, vectors of short texts, timings and versions.

    `longest`: no text of the corpus has more tokens. `told`: texts of it, for a rehearsal (`rehearsal.rehearse`), and
    how many seconds and threads it may take. Raises what loading and encoding raise.
    """
    if model.parent.name == SHARED_FOLDERS[0] and (why := owned.model(model)):  # as a worker does before it loads
        raise PermissionError(why)
    began = time.monotonic()
    from .loading import make

    limits = max_tokens, chunk_tokens
    encoder = make(model, device, dtype, *limits, told["threads"] if told else None, templates)
    loaded_s = time.monotonic() - began
    why_padded = encoder.pack()  # where it can be, what is tried below is what a worker would do
    filled = {kind: _filled(kind, (templates or {}).get(kind, "{text}")) for kind in KINDS}
    long = {kind: _long(encoder, kind, filled[kind], longest) for kind in encoder.readers()}
    short_only = any(found["error"] for found in long.values())
    texts = [WORD] if short_only else SHORT
    vectors = {kind: _encode(encoder, filled[kind](texts)) for kind in KINDS}
    first, described = vectors[DOCUMENT], encoder.describe()
    answer: Probed = {
        "dim": int(first.shape[1]),
        "norm": _norm(first[0]),
        "bad": next(iter(encoder.bad_rows(first).values()), ""),
        "normalises": encoder.normalises,
        "why_padded": why_padded,
        "max_tokens": encoder.max_tokens,
        "loaded_s": round(loaded_s, 2),
        "cosine": {kind: _lowest_cosine(encoder, filled[kind](texts), vectors[kind]) for kind in KINDS},
        "vectors": {kind: base64.b64encode(vectors[kind].tobytes()).decode() for kind in KINDS},
        "long": long,
        "versions": encoder.versions(),
        "packages": _packages(),
        "device": described.device,
        "torch": described.torch,
        "python": described.python,
        "model_max_tokens": described.model_max_tokens,
    }
    if not short_only:
        answer["again"] = compare(
            encoder, lambda: make(model, "cpu", "float32", *limits, None, templates), filled[DOCUMENT]
        )
    if told and told["texts"] and not short_only:
        print(json.dumps(answer), flush=True)  # it stands, whatever the texts of the corpus do to this process
        answer["rehearsed"] = _rehearsed(encoder, told)
    return answer


def _packages() -> dict[str, str]:
    """What is installed here, for the record of what a run was made with."""
    found = {str(each.metadata["Name"] or "").lower(): str(each.version) for each in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name}


def _rehearsed(encoder: AnyEncoder, told: dict[str, Any]) -> Any:
    try:
        return rehearse(encoder, told, lambda: command("rehearse"), lambda sign: print(sign, end="", flush=True))
    except Exception as error:
        return {"error": in_words(error)}


def _filled(kind: str, template: str) -> Any:
    """Makes texts as encoded, of a kind."""
    as_kind = Question if kind == QUERY else str
    whole = template.replace("{title}", "none")
    return lambda texts: [as_kind(whole.replace("{text}", text)) for text in texts]


def _encode(encoder: AnyEncoder, texts: Sequence[str]) -> Any:
    return encoder.encode(texts, encoder.lengths(texts), range(len(texts)))


def _norm(vector: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(vector.astype(np.float64)))


def _lowest_cosine(encoder: AnyEncoder, texts: Sequence[str], ours: Any) -> float:
    """The lowest cosine of a row to what the library's own entry point gives; -1 where one is no number."""
    return lowest_cosine(ours, encoder.as_the_library(texts))


def _long(encoder: AnyEncoder, kind: str, filled: Any, longest: int | None) -> LongProbe:
    """One full batch of texts as long as the model claims to read, others of many lengths beside them.

    `claimed`: the model's limit, None where it names none; `tokens`: how long the longest was; `error`: what encoding
    raised, and `works`: the most tokens that do work then, where that can be found out.
    """
    claimed = encoder.limits[kind]
    some, at_most = TRIED[encoder.device.split(":")[0]]
    overhead = encoder.lengths(filled([""]))[0]
    most = max(min(claimed or at_most, max(some, longest or 0), at_most), overhead + 1)

    counts = encoder.lengths(filled([" ".join([word] * 9) for word in FILLERS]))
    filler = min(zip(counts, FILLERS), key=lambda each: abs(each[0] - overhead - 9))[1]

    def text(tokens: int) -> str:
        """As many words as make so many tokens where each word is one; what is too much is cut, if at all."""
        return " ".join([filler] * max(1, tokens - overhead))

    rows = max(1, encoder.budget // most)
    texts = filled([text(most)] * rows + [text(1 + most * i // 8) for i in range(8)])
    tokens = max(encoder.cut(encoder.lengths(texts), texts))
    answer: LongProbe = {"claimed": claimed, "tokens": tokens, "error": "", "works": None, "cosine": None}
    try:
        answer["cosine"] = _lowest_cosine(encoder, texts, _encode(encoder, texts))
        answer["rows"], answer["out_of_memory"] = len(texts), encoder.out_of_memory
    except Exception as error:  # whatever it is, a document of that length would have met it
        answer["error"] = in_words(error)
        if encoder.device == "cpu":  # a GPU does nothing more after some errors
            answer["works"] = _most_that_works(encoder, filled, text, most)
    return answer


def _most_that_works(encoder: AnyEncoder, filled: Any, text: Any, most: int) -> int | None:
    """How many tokens the longest text has that can be encoded; None where not even one word can."""
    low, high, works = 0, most, None
    while high - low > 1:
        middle = (low + high) // 2
        texts = filled([text(middle)])
        try:
            _encode(encoder, texts)
        except Exception:
            high = middle
        else:
            low, works = middle, encoder.cut(encoder.lengths(texts), texts)[0]
    return works
