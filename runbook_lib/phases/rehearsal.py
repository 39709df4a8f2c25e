"""Rehearsal: texts of the corpus that hosts encode for a few seconds when they try the model, and what they found.

A host on this machine counts the tokens of all documents where they are few enough, a far one those of a sample, drawn
at random with a seed that follows from the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.bins import BINS
from worker.escape import safe_text

from ..corpus import corpus as corpora
from ..errors import DataError
from ..profile.profile import HostSpec
from ..run import planning
from ..run.machine_facts import MachineFacts
from ..run.run import Run

SECONDS = 3.0  # of encoding, for each host
SAMPLE_BYTES, SAMPLE_TEXTS = 2**20, 2000  # what travels to a host
ALL_BYTES = 32 * 2**20  # of a corpus whose documents are all counted on this machine: half a minute of one processor
RECORD = "rehearsal.json"
LARGEST = 10**15
MOST_WATTS = 1e5


@dataclass(frozen=True)
class Lengths:
    """Tokens of documents, as counted; `exact`: of all of them. `host`: who counted.

    `chunks`: of all texts that were counted, 0 where long ones are cut; `in_chunks`: texts that are read in several.
    """

    texts: int
    tokens: int
    read: int
    cut: int
    longest: int
    bins: tuple[int, ...]
    exact: bool
    host: str = ""
    chunks: int = 0
    in_chunks: int = 0

    @property
    def share_cut(self) -> float:
        """The share of documents that are cut."""
        return self.cut / self.texts

    @property
    def tokens_cut(self) -> float:
        """The share of tokens that are not read."""
        return 1 - self.read / self.tokens if self.tokens else 0.0

    @property
    def margin(self) -> float:
        """Half the width of a 95 % interval of `share_cut` (Wilson 1927); 0 where all were counted."""
        if self.exact:
            return 0.0
        n, p, z = self.texts, self.share_cut, 1.96
        return float(z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))


@dataclass(frozen=True)
class Rate:
    """How fast `slots` processes of a host read tokens, side by side."""

    rows: int
    tokens: int
    seconds: float
    slots: int

    @property
    def tokens_s(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Taken:
    """What a slot of a host took: `watts` of its GPU, bytes of its device and of its machine; 0 where not known."""

    watts: float = 0.0
    device_bytes: int = 0
    process_bytes: int = 0


def sample(run: Run, spec: HostSpec | None = None, facts: Mapping[str, MachineFacts] | None = None) -> str:
    """Return what a rehearsal is given on its standard input, as JSON; empty before the corpus is numbered.

    Without a host it is for the processor of this machine.
    """
    try:
        corpus = corpora.load(run.corpus)
        rows = drawn(corpus)
        texts = list(corpus.texts(rows))
    except DataError:
        return ""
    here = spec is None or spec.computes_here
    counts_all = here and len(texts) < corpus.documents and (_small(corpus) or run.profile.model.too_long == "refuse")
    everything = {"path": str(corpus.texts_path), "documents": corpus.documents} if counts_all else None
    slots, threads = planning.sharing(run, spec, facts) if spec and facts else (1, None)
    side_by_side = slots if threads else 1  # GPUs do not share what slots of a processor share
    told = {"texts": texts, "all": everything, "seconds": SECONDS, "threads": threads, "slots": side_by_side}
    return json.dumps({**told, "rows": corpus.rows // max(1, len(run.profile.hosts) if not here else 1)})


def _small(corpus: corpora.Corpus) -> bool:
    return int(corpus.offsets()[corpus.documents]) <= ALL_BYTES


def drawn(corpus: corpora.Corpus) -> list[int]:
    """Return rows of documents, in a random order that follows from the corpus: as many as may travel."""
    order = np.random.default_rng(int(corpus.fingerprint[:16], 16)).permutation(corpus.documents)[:SAMPLE_TEXTS]
    sizes = np.diff(corpus.offsets())[order]
    return [int(row) for row in order[: max(1, int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES)))]]


def keep(run: Run, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep what hosts found; one that was not asked now, as it works, keeps what it found before."""
    told = {name: answer["rehearsed"] for name, answer in answers.items() if isinstance(answer.get("rehearsed"), dict)}
    found = {name: _as_json(each) for name, each in told.items()}
    if found:
        run.save_json(RECORD, {"hosts": {**_kept(run), **found}})


def _as_json(told: dict[str, Any]) -> dict[str, Any]:
    """What a host told, or that it is none: with a NaN in it the record of all hosts could not be read again."""
    try:
        json.dumps(told, allow_nan=False)
    except ValueError:
        return {"error": "it told numbers that are none"}
    return told


def _kept(run: Run) -> dict[str, Any]:
    with suppress(DataError, ValueError):
        hosts = run.load_json(RECORD).get("hosts")
        return hosts if isinstance(hosts, dict) else {}
    return {}


def lengths(run: Run, documents: int) -> Lengths | None:
    """Return the best count: of all documents, else of the most; None where nobody counted."""
    found = [each for name, answer in _kept(run).items() if (each := _lengths(name, answer, documents))]
    return max(found, key=lambda each: each.texts, default=None)


def errors(run: Run) -> dict[str, str]:
    """Return why hosts could not try texts of the corpus."""
    told = {name: answer.get("error") for name, answer in _kept(run).items() if isinstance(answer, dict)}
    return {name: safe_text(str(why), 500) for name, why in told.items() if why}


def rates(run: Run) -> dict[str, Rate]:
    """Return how fast each host is, as far as it was tried."""
    return {name: rate for name, answer in _kept(run).items() if (rate := _rate(answer))}


def taken(run: Run) -> dict[str, Taken]:
    """Return what a slot of each host took, as far as it was tried."""
    return {name: found for name, answer in _kept(run).items() if (found := _taken(answer))}


def _taken(answer: Any) -> Taken | None:
    with suppress(KeyError, TypeError, ValueError):
        watts = answer["watts"]
        if isinstance(watts, int | float) and 0 <= watts < MOST_WATTS:
            return Taken(float(watts), _whole(answer["device_bytes"]), _whole(answer["process_bytes"]))
    return None


def _lengths(name: str, answer: Any, documents: int) -> Lengths | None:
    """Check every number: a host may say anything."""
    with suppress(KeyError, TypeError, ValueError):
        given = answer["lengths"]
        texts, tokens, read, cut, longest = (
            _whole(given[key]) for key in ("texts", "tokens", "read", "cut", "longest")
        )
        chunks, in_chunks = (_whole(given.get(key, 0)) for key in ("chunks", "in_chunks"))
        bins = tuple(_whole(each) for each in given["bins"])
        if 0 < texts <= documents and cut <= texts and read <= tokens and len(bins) == BINS and sum(bins) == texts:
            return Lengths(texts, tokens, read, cut, longest, bins, texts == documents, name, chunks, in_chunks)
    return None


def _rate(answer: Any) -> Rate | None:
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        given = answer["rate"]
        rows, tokens, slots = (_whole(given[key]) for key in ("rows", "tokens", "slots"))
        rate = Rate(rows, tokens, float(given["seconds"]), slots)
        if rate.slots and rate.rows and rate.tokens and 1e-6 < rate.seconds < 1e6:
            return rate
    return None


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    return value
