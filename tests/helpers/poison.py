"""A worker whose encoder needs no torch and does what its texts say: stands in for the host's Python.

Called as `poison.py -m worker encode ...`. Everything but the model is the real worker of the host's folder.

    POISON    the process kills itself         HANG     it stops for ever
    TOKENIZE  it kills itself in the tokenizer TWO      it kills itself in a batch of more than two rows
    WAIT      it waits until there is a file   NAN      the vector is NaN, also in float32
              `go` in the host's folder

    RAISE     the encoding raises              ALONE    one of these four, before a text: only on the slot's device,
                                               such as ALONERAISE; the processor does that text
    COMPLAIN  a driver's complaint is logged   ABORT    the same of a failed assertion, and the process aborts
    PROCESSORRAISE  the encoding raises on the processor, and not on the slot's device

While there is a file `ahead` in the host's folder, batches are begun before others have ended, as on a GPU.

A file `device.<slot>` in the host's folder says how the device of that slot misbehaves (see DEVICES); the processor,
which has no slot, does not. While there is a file `broken` in the host's folder, whatever it says, the encoder ends the
process; `broken` says how.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CALLS: list[int] = []


def slot() -> str:
    """The slot whose worker this is, asked when it matters: a worker may be forked from a process without one."""
    return sys.argv[sys.argv.index("--slot") + 1] if "--slot" in sys.argv else ""


def turned(vectors: np.ndarray) -> np.ndarray:
    return np.roll(vectors, 1, axis=1)


# What a bad device makes of the vectors of a batch; `texts` are those of the batch.
DEVICES = {
    "nan": lambda vectors, texts: vectors * np.nan,
    "infinite": lambda vectors, texts: vectors * np.inf,
    "zeros": lambda vectors, texts: vectors * 0,
    "constant": lambda vectors, texts: np.tile(np.eye(1, 8, dtype=np.float32), (len(texts), 1)),
    "turned": lambda vectors, texts: turned(vectors),
    "shorter": lambda vectors, texts: vectors / 2,
    "nan from the second batch on": lambda vectors, texts: vectors * np.nan if len(CALLS) > 1 else vectors,
    "nan from the tenth batch on": lambda vectors, texts: vectors * np.nan if len(CALLS) > 9 else vectors,
    "turned from the tenth batch on": lambda vectors, texts: turned(vectors) if len(CALLS) > 9 else vectors,
    "nan in every third batch": lambda vectors, texts: vectors * np.nan if len(CALLS) % 3 == 0 else vectors,
    "nan in every seventh batch": lambda vectors, texts: vectors * np.nan if len(CALLS) % 7 == 0 else vectors,
    "turned in large batches": lambda vectors, texts: turned(vectors) if len(texts) > 5 else vectors,
    "turned in long texts": lambda vectors, texts: turned(vectors) if len(texts[0]) > 500 else vectors,
    "raises": None,
    "raises from the tenth batch on": None,
    "raises in large batches": None,
    "kills": None,
    "kills while loading": None,
    "hangs while loading": None,
    "hangs": None,
}

# The same of what the known texts do not show, as they are shorter and longer.
HIDDEN = {
    "turned in texts of middling length": lambda vectors, texts: (
        turned(vectors) if all(10 < len(text) < 60 for text in texts) else vectors
    ),
}


def device() -> str:
    """How the device at hand misbehaves."""
    path = Path(f"device.{slot()}")
    return path.read_text() if slot() and path.exists() else ""


class RowError(Exception):
    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason


class Encoder:
    normalises, out_of_memory, row_limit, ahead = True, 0, None, False
    _counts = True
    limits, budget, device = {"document": 64, "query": 64}, 2048, "cpu"

    def __init__(
        self,
        folder: object,
        device: str,
        dtype: str,
        max_tokens: int | None,
        threads: int | None = None,
        templates: object = None,
    ) -> None:
        self.max_tokens = min(64, max_tokens or 64)
        self.ahead = Path("ahead").exists()
        if globals()["device"]() == "kills while loading":
            os.kill(os.getpid(), signal.SIGKILL)
        if globals()["device"]() == "hangs while loading":
            os.kill(os.getpid(), signal.SIGSTOP)

    def describe(self) -> Any:
        from worker.wire import Described

        return Described("cpu (none)", "none", "3", 64)

    def lengths(self, texts: list[str]) -> list[int]:
        if any("TOKENIZE" in text for text in texts) and "probe" not in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 + len(text.split()) for text in texts]

    def encode(
        self,
        texts: list[str],
        lengths: list[int],
        rows: Sequence[int],
        before_batch: Callable[[list[int]], None] = lambda rows: None,
    ) -> np.ndarray:
        from worker.batches import batches
        from worker.pipeline import through

        vectors = np.empty((len(texts), 8), np.float32)
        self._counts = list(rows) != [-1] * 16  # canaries are no batch of a part

        def start(batch: list[int], ready: None) -> Callable[[], None]:
            """As late as it may be: then most batches are begun."""
            return lambda: self._in_pieces(texts, batch, vectors)

        def tell(begun: list[list[int]]) -> None:
            before_batch([rows[i] for batch in begun for i in batch])

        for _ in through(batches(lengths, 2048), lambda batch: None, start, tell, self.ahead):
            pass
        return vectors

    def _in_pieces(self, texts: list[str], batch: list[int], vectors: np.ndarray) -> None:
        size = min(len(batch), self.row_limit or len(batch))
        for at in range(0, len(batch), size):
            self._forward(texts, batch[at : at + size], vectors)

    def _forward(self, texts: list[str], batch: list[int], vectors: np.ndarray) -> None:
        said = " ".join(texts[i] for i in batch if slot() or "ALONE" not in texts[i])
        said = "" if "probe" in sys.argv else said  # a rehearsal is no place to wait for `go`
        CALLS.extend([1] * self._counts)
        if Path("broken").exists():
            if Path("broken").read_text() == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("CUDA error: unspecified launch failure")
        self._misbehave(len(batch))
        if "POISON" in said or ("TWO" in said and len(batch) > 2):
            os.kill(os.getpid(), signal.SIGKILL)
        if not slot() and any("PROCESSORRAISE" in texts[i] for i in batch):
            raise IndexError("index out of range in self")
        if "RAISE" in said.replace("PROCESSORRAISE", ""):
            raise IndexError("index out of range in self")
        if "COMPLAIN" in said:
            print("Error: command buffer exited with error status.", file=sys.stderr, flush=True)
        if "ABORT" in said:
            print("/GPU.mm:1: failed assertion `[MPSNDArray] dimension larger than 2**31'", file=sys.stderr, flush=True)
            os.abort()
        if "HANG" in said:
            os.kill(os.getpid(), signal.SIGSTOP)
        while "WAIT" in said and not Path("go").exists():
            time.sleep(0.02)
        for i in batch:
            found = np.random.default_rng(zlib.crc32(texts[i].encode())).normal(size=8)
            bad = "NAN" in texts[i] and (slot() or "ALONE" not in texts[i])
            vectors[i] = np.nan if bad else found / np.linalg.norm(found)
        if change := {**DEVICES, **HIDDEN}.get(device()):
            vectors[batch] = change(vectors[batch], [texts[i] for i in batch])

    def _misbehave(self, size: int) -> None:
        how = device()
        late = how.endswith("from the tenth batch on") and len(CALLS) < 10
        if how.startswith("raises") and not late and (size > 5 or "large" not in how):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if how == "kills":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "hangs":
            os.kill(os.getpid(), signal.SIGSTOP)

    def layout(self, lengths: list[int], texts: list[str]) -> list[list[int]]:
        from worker.batches import batches

        return batches(lengths, 2048)

    def pack(self) -> str:
        return "it has no layers"

    def readers(self) -> list[str]:
        return ["document"]

    def as_the_library(self, texts: list[str]) -> np.ndarray:
        return self.encode(texts, self.lengths(texts), range(len(texts)))

    def versions(self) -> dict[str, str]:
        return {"torch": "none"}

    def cut(self, lengths: list[int], texts: list[str]) -> list[int]:
        return [min(n, self.max_tokens) for n in lengths]

    def padding(self, lengths: list[int], texts: list[str]) -> dict[str, int]:
        return {"real_tokens": sum(lengths), "padded_tokens": sum(lengths)}

    def bad_rows(self, vectors: np.ndarray) -> dict[int, str]:
        return {int(i): "NaN or infinity in the vector" for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1))}

    def redo(self, texts: list[str], positions: list[int], vectors: np.ndarray) -> dict[int, str]:
        for i in positions:
            self._forward(texts, [i], vectors)
        return {i: reason for i, reason in self.bad_rows(vectors).items() if i in positions}


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # the worker as sent to this host
    stand_in = types.ModuleType("worker.encoder")
    stand_in.Encoder, stand_in.RowError = Encoder, RowError
    stand_in.libraries = lambda cuda: {"versions": {"torch": "none"}, "cuda_build": None, "gpus": []}
    sys.modules["worker.encoder"] = stand_in

    from worker.__main__ import main

    sys.exit(main(sys.argv[3:]))
