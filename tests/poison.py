"""A worker whose encoder needs no torch and does what its texts say: stands in for the host's Python.

Called as `poison.py -m worker encode ...`. Everything but the model is the real worker of the host's folder.

    POISON    the process kills itself         HANG     it stops for ever
    TOKENIZE  it kills itself in the tokenizer TWO      it kills itself in a batch of more than two rows
    WAIT      it waits until there is a file   NAN      the vector is NaN, also in float32
              `go` in the host's folder

While there is a file `broken` in the host's folder, whatever it says, the encoder ends the process; `broken` says how.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
import zlib
from pathlib import Path

import numpy as np


class RowError(Exception):
    def __init__(self, row, reason):
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason


class Encoder:
    max_tokens, normalises, out_of_memory, row_limit = 64, True, 0, None
    limits, budget, device = {"document": 64, "query": 64}, 2048, "cpu"

    def __init__(self, folder, device, dtype, max_tokens, threads=None, templates=None):
        pass

    def describe(self):
        return {"device": "cpu (none)", "torch": "none", "python": "3"}

    def lengths(self, texts):
        if any("TOKENIZE" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 + len(text.split()) for text in texts]

    def encode(self, texts, lengths, rows, before_batch=lambda rows: None):
        from worker.batches import batches

        vectors = np.empty((len(texts), 8), np.float32)
        for batch in batches(lengths, 2048):
            before_batch([rows[i] for i in batch])
            size = min(len(batch), self.row_limit or len(batch))
            for at in range(0, len(batch), size):
                self._forward(texts, batch[at : at + size], vectors)
        return vectors

    def _forward(self, texts, batch, vectors):
        said = " ".join(texts[i] for i in batch)
        if Path("broken").exists():
            if Path("broken").read_text() == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("CUDA error: unspecified launch failure")
        if "POISON" in said or ("TWO" in said and len(batch) > 2):
            os.kill(os.getpid(), signal.SIGKILL)
        if "HANG" in said:
            os.kill(os.getpid(), signal.SIGSTOP)
        while "WAIT" in said and not Path("go").exists():
            time.sleep(0.02)
        for i in batch:
            found = np.random.default_rng(zlib.crc32(texts[i].encode())).normal(size=8)
            vectors[i] = np.nan if "NAN" in texts[i] else found / np.linalg.norm(found)

    def readers(self):
        return ["document"]

    def as_the_library(self, texts):
        return self.encode(texts, self.lengths(texts), range(len(texts)))

    def versions(self):
        return {"torch": "none"}

    def cut(self, lengths, texts):
        return [min(n, self.max_tokens) for n in lengths]

    def padding(self, lengths, texts):
        return {"real_tokens": sum(lengths), "padded_tokens": sum(lengths)}

    def bad_rows(self, vectors):
        return {int(i): "NaN or infinity in the vector" for i in np.flatnonzero(np.isnan(vectors).any(axis=1))}

    def redo(self, texts, positions, vectors):
        return {i: reason for i, reason in self.bad_rows(vectors).items() if i in positions}


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # the worker as sent to this host
    stand_in = types.ModuleType("worker.encoder")
    stand_in.Encoder, stand_in.RowError = Encoder, RowError
    stand_in.libraries = lambda cuda: {"versions": {"torch": "none"}, "cuda_build": None, "gpus": []}
    sys.modules["worker.encoder"] = stand_in

    from worker.__main__ import main

    sys.exit(main(sys.argv[3:]))
