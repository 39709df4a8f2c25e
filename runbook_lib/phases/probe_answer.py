"""What a host answers that tried the model, as a probe: every value is checked, as a host may print anything."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.escape import safe_text
from worker.texts import KINDS

from ..hosts import hosts as machines

WIDEST = 1_000_000
Answer = dict[str, Any]  # as printed; `parse_probe` checks every value
Vectors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Probe:
    """The findings of a host; only `error` if the model could not be loaded or used.

    `missing`: Python or a library is missing; `own_code`: the model contains its own code. `why_padded`: why batches
    cannot be packed there; empty where they can. `again`: the lowest cosine of its device to its processor, with what
    was tried; None: not known, with why.
    """

    error: str = ""
    missing: bool = False
    own_code: bool = False
    dim: int = 0
    norm: float = 0.0
    bad: str = ""
    normalises: bool = False
    why_padded: str = ""
    loading: str = ""
    cosine: float = -1.0
    tokens: int = 0
    claimed: int | None = None
    long_error: str = ""
    works: int | None = None
    again: float | None = None
    again_words: str = ""
    vectors: Vectors | None = None


def parse_answer(done: machines.Completed) -> Answer:
    """Return the JSON object that a worker command printed last, or its error."""
    lines = done.out.strip().splitlines()
    if done.exit_code or not lines:
        return {"error": " / ".join(done.err.strip().splitlines()[-3:]) or f"exit code {done.exit_code}"}
    try:
        value = json.loads(lines[-1])
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"error": f"printed {lines[-1][:200]}, expected a JSON object"}


def parse_probe(answer: Mapping[str, Any]) -> Probe:
    """Convert an answer to a probe; check every value."""
    if answer.get("error"):
        why = safe_text(str(answer["error"]), 2000)  # the libraries report these two in words only
        return Probe(why, answer.get("missing") is True or "No module named" in why, "trust_remote_code" in why)
    try:
        dim = _whole(answer["dim"])
        long = [answer["long"][kind] for kind in KINDS if kind in answer["long"]]
        worst = max(long, key=lambda one: bool(one["error"]))
        cosines = [answer["cosine"][kind] for kind in KINDS] + [one["cosine"] for one in long if not one["error"]]
        return Probe(
            dim=dim,
            norm=math.nan if answer["norm"] != answer["norm"] else _number(answer["norm"]),
            bad=safe_text(str(answer["bad"]), 500),
            normalises=answer["normalises"] is True,
            why_padded=safe_text(str(answer.get("why_padded", "its worker does not say")), 500),
            loading=f"in {_number(answer['loaded_s']):g} s on {safe_text(str(answer['device']), 100)}, "
            f"torch {safe_text(str(answer['torch']), 50)}",
            cosine=min(_number(cosine) for cosine in cosines),
            tokens=_whole(worst["tokens"], 0),
            claimed=None if worst["claimed"] is None else _whole(worst["claimed"]),
            long_error=safe_text(str(worst["error"]), 1000),
            works=None if worst["works"] is None else _whole(worst["works"]),
            **_again(answer.get("again")),
            vectors={kind: _array(answer["vectors"][kind], dim) for kind in KINDS},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:  # the last: a number too large
        return Probe(f"answered what no probe answers ({type(error).__name__}: {safe_text(str(error), 200)})")


def _again(answer: Any) -> dict[str, Any]:
    """What a host found of its device beside its processor."""
    if answer is None:
        return {"again_words": "its worker does not say"}
    if answer.get("error"):
        return {"again_words": safe_text(str(answer["error"]), 1000)}
    cosines = {safe_text(str(way), 50): _number(cosine) for way, cosine in answer["cosine"].items()}
    way = min(cosines, key=lambda each: cosines[each])
    tried = f"of {_whole(answer['rows'])} texts of up to {_whole(answer['tokens']):,} tokens"
    return {"again": cosines[way], "again_words": f"{way}, {tried}"}


def _whole(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= WIDEST:
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {value!r:.40}")
    return float(value)


def _array(text: str, dim: int) -> npt.NDArray[np.float32]:
    vectors = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(-1, dim)
    if not len(vectors):
        raise ValueError("expected vectors, found none")
    return vectors
