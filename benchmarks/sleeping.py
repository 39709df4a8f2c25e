"""A worker whose encoder sleeps a given time a row and gives a vector that follows from the text: for uneven_hosts.py.

Called as a host's Python: `sleeping.py SECONDS_A_ROW -m worker encode ...`. All but the model is the real worker of the
host's folder; the supervisor is this Python as it is.
"""

from __future__ import annotations

import os
import sys
import time
import types
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIM, TOKENS, MARK = 8, 64, "row of the corpus"
PACE_S = 0.0  # a row


class RowError(Exception):
    """A row that cannot be encoded: never raised here."""


class Encoder:
    """What `worker.any_encoder` asks of an encoder, without a model."""

    normalises, out_of_memory, row_limit, ahead = True, 0, None, False
    limits, budget, device, max_tokens = {"document": TOKENS, "query": TOKENS}, 2048, "cpu", TOKENS

    def __init__(self, *args: Any, **keys: Any) -> None:
        """Load nothing."""

    def describe(self) -> Any:
        """Return what a part's record says of the device."""
        from worker.wire import Described

        return Described("cpu (sleeping)", "none", "3", TOKENS)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many words each text has."""
        return [2 + len(text.split()) for text in texts]

    def cut(self, lengths: Sequence[int], texts: Sequence[str]) -> list[int]:
        """Return the lengths as they are read."""
        return [min(length, TOKENS) for length in lengths]

    def encode(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        rows: Sequence[int],
        before_batch: Callable[[list[int]], None] = lambda rows: None,
    ) -> np.ndarray:
        """Sleep for each text of the corpus (known texts are free), and return its vector."""
        vectors = np.empty((len(texts), DIM), np.float32)
        before_batch(list(rows))
        time.sleep(PACE_S * sum(MARK in text for text in texts))
        for i, text in enumerate(texts):
            found = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM)
            vectors[i] = found / np.linalg.norm(found)
        return vectors

    def padding(self, lengths: Sequence[int], texts: Sequence[str]) -> dict[str, int]:
        """Return that nothing was padded."""
        return {"real_tokens": sum(lengths), "padded_tokens": sum(lengths)}

    def as_the_library(self, texts: Sequence[str]) -> np.ndarray:
        """Return the same vectors."""
        return self.encode(texts, self.lengths(texts), range(len(texts)))

    def pack(self) -> str:
        """Say why batches are padded."""
        return "it has no layers"

    def readers(self) -> list[str]:
        """Return the one kind of text."""
        return ["document"]

    def versions(self) -> dict[str, str]:
        """Return no version."""
        return {"torch": "none"}

    def bad_rows(self, vectors: np.ndarray) -> dict[int, str]:
        """Return that no row is bad."""
        return {}

    def redo(self, texts: Sequence[str], positions: Sequence[int], vectors: np.ndarray) -> dict[int, str]:
        """Redo nothing."""
        return {}


if __name__ == "__main__":
    PACE_S = float(sys.argv[1])
    if sys.argv[4:5] == ["supervise"]:
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    sys.path[0] = str(Path.cwd())  # the worker as sent to this host
    stand_in = types.ModuleType("worker.encoder")
    vars(stand_in).update(Encoder=Encoder, RowError=RowError)
    sys.modules["worker.encoder"] = stand_in

    from worker.__main__ import main

    sys.exit(main(sys.argv[4:]))
