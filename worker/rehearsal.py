"""A few seconds of a run before the run: texts of the corpus on the device: how fast it is, how long they are.

The same encoder and the same batches as a worker's; what comes of it is thrown away. Counting is exact for the texts
that are counted: the tokenizer is the model's own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from .any_encoder import AnyEncoder
from .bins import BINS, bin_of
from .wire import LengthsFound, RateFound, Rehearsed

AT_ONCE = 256  # texts that are counted in one go
FIRST, LARGEST, TURNS = 16, 4096, 4  # texts of a try; how often few texts are encoded


def rehearse(encoder: AnyEncoder, told: dict[str, Any], seconds: float) -> Rehearsed:
    """Encode `told["texts"]` for about `seconds`, and count their tokens, or those of all documents of a file.

    `told["all"]`: {"path": a texts.jsonl, "documents": how many lines of it} where all are to be counted.
    """
    texts = [str(text) for text in told["texts"]]
    whole = told.get("all")
    counted = count(encoder, _of_file(whole["path"], int(whole["documents"])) if whole else texts)
    return {"lengths": counted, "rate": measure(encoder, texts, seconds)}


def _of_file(path: str, documents: int) -> Iterator[str]:
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number >= documents:
                return
            yield json.loads(line)["text"]


def count(encoder: AnyEncoder, texts: Iterable[str]) -> LengthsFound:
    """Tokens of the texts, before and after the model's limit."""
    found: LengthsFound = {"texts": 0, "tokens": 0, "read": 0, "cut": 0, "longest": 0, "bins": [0] * BINS}
    for some in _pieces(texts):
        lengths = list(encoder.lengths(some))
        read = encoder.cut(lengths, some)
        found["texts"] += len(some)
        found["tokens"] += sum(lengths)
        found["read"] += sum(read)
        found["cut"] += sum(1 for before, after in zip(lengths, read) if after < before)
        found["longest"] = max([found["longest"], *lengths])
        for tokens in lengths:
            found["bins"][bin_of(tokens)] += 1
    return found


def _pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        some.append(text)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def measure(encoder: AnyEncoder, texts: Sequence[str], seconds: float) -> RateFound:
    """How many tokens are read a second: of ever more texts, until batches are like those of a part; then of more.

    Only the last size counts. It ends after `seconds`, or when each of a few texts was encoded several times.
    """
    encode(encoder, texts[:1])  # the first batch of a device takes longer than any later one
    found: RateFound = {"rows": 0, "tokens": 0, "seconds": 0.0}
    began, at, size = time.monotonic(), 0, FIRST
    tokens, took = 0, 0.0
    while time.monotonic() - began < seconds and at < TURNS * max(FIRST, len(texts)):
        some = [texts[i % len(texts)] for i in range(at, at + size)]
        before = time.monotonic()
        tokens, took = encode(encoder, some), time.monotonic() - before
        at += size
        if took < seconds / 8 and size < min(LARGEST, len(texts)):
            found, size = {"rows": 0, "tokens": 0, "seconds": 0.0}, 2 * size
        else:
            found = {
                "rows": found["rows"] + len(some),
                "tokens": found["tokens"] + tokens,
                "seconds": found["seconds"] + took,
            }
    if not found["rows"]:  # the time was over while it grew
        found = {"rows": size // 2, "tokens": tokens, "seconds": took}
    return {**found, "seconds": round(found["seconds"], 6)}


def encode(encoder: AnyEncoder, texts: Sequence[str]) -> int:
    """Encode texts as a part is encoded; return how many tokens were read."""
    lengths = encoder.lengths(texts)
    encoder.encode(texts, lengths, range(len(texts)))
    return sum(encoder.cut(lengths, texts))
