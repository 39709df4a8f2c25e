"""How long a device that computes by itself waits for its worker: with batches made ahead, and one by one.

    python benchmarks/device_waits.py [--corpus FILE] [--texts 4000] [--part-rows 512] [--tokens-per-s 100000]

A stand-in for a GPU: its "kernels" sleep as long as their tokens would take and run one after the other in a thread of
their own; the tokenizer, the batches, the parts, their records and commits are the worker's own. Printed for each way,
in turn: the share of the time in which the device computes, and rows a second. What a GPU's own memory and copies do is
not in it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import models  # noqa: E402

from worker.blame import Suspects  # noqa: E402
from worker.encode import commit  # noqa: E402
from worker.encoder import Encoder  # noqa: E402
from worker.layout import HostFolder  # noqa: E402
from worker.part import encode_part  # noqa: E402
from worker.wire import PartRecord  # noqa: E402


class StandIn(Encoder):
    """The real tokenizer and batches; the model's work is slept by a thread that plays the device."""

    rate: float
    busy = 0.0

    def play(self, tokens_per_s: float, ahead: bool) -> None:
        """Be a device of so many tokens a second from now on."""
        self.rate, self.ahead, self.busy = tokens_per_s, ahead, 0.0
        self.budget = 65536
        self._thread = ThreadPoolExecutor(1)

    def _start(self, model: Any, texts: list[str], features: Any) -> Callable[[], np.ndarray]:
        tokens = features["input_ids"].numel()
        return self._thread.submit(self._kernels, len(texts), tokens / self.rate).result

    def _kernels(self, rows: int, seconds: float) -> np.ndarray:
        time.sleep(seconds)
        self.busy += seconds
        return np.full((rows, 384), 384**-0.5, np.float32)


def run(encoder: StandIn, texts: list[str], part_rows: int, folder: Path, ahead: bool) -> tuple[float, float]:
    """(seconds, of which the device computed) for all texts in parts, committed as a worker does."""
    from worker.around import Around

    host = HostFolder(folder)
    suspects = Suspects(host, "cluster0_gpu0")
    parts = [(start, min(start + part_rows, len(texts))) for start in range(0, len(texts), part_rows)]
    share = _Parts(parts, texts)
    began = time.perf_counter()
    around = Around(share, suspects, encoder)  # type: ignore[arg-type]
    while task := around.next():
        if ahead:
            around.prepare()
        low, high = task.rows
        vectors, rows = encode_part(encoder, task.texts, low, suspects, suspects.note, tokenized=task.lengths)
        suspects.clear(range(low, high))
        record = PartRecord.from_json({**BLANK, **rows.to_json(), "start": low, "stop": high})
        around.commit(task.rows, lambda vectors=vectors, record=record: commit(host, vectors, record))  # type: ignore[misc]
    around.committed()
    around.close()
    return time.perf_counter() - began, encoder.busy


BLANK = {
    **{"model": {"name": "m", "revision": None, "digest": "0" * 64}, "dtype": "bfloat16", "prompt": "{text}"},
    **{"question_prompt": "{text}", "max_tokens": 256, "normalised": True, "dim": 384, "batching": "padded"},
    **{"device": "a stand-in", "torch": "none", "python": "3", "model_max_tokens": 256, "slot": "cluster0_gpu0"},
    **{"host": "here", "run": "bench", "run_id": "0" * 32, "corpus": "0" * 64, "epoch": 1, "threads": 1},
    **{"written_at": 0.0, "why_padded": "", "sha256": "0" * 64, "bytes": 1},
}


class _Parts:
    """What a share hands out, from a list."""

    assignment: Any = None

    def __init__(self, parts: list[tuple[int, int]], texts: list[str]):
        self._left, self._texts, self._lock = iter(parts), texts, threading.Lock()

    def next(self) -> Any:
        with self._lock:
            rows = next(self._left, None)
        return rows and (rows, self, "cluster0_gpu0")

    def read(self, start: int, stop: int) -> list[str]:
        return self._texts[start:stop]

    def sizes(self, start: int, stop: int) -> list[int]:
        return [len(text) for text in self._texts[start:stop]]

    def release(self, rows: tuple[int, int]) -> None: ...

    def stop(self) -> None: ...


def main() -> None:
    """Print both ways, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--part-rows", type=int, default=512)
    parser.add_argument("--tokens-per-s", type=float, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    texts = models.texts_of(args.corpus, args.texts)
    encoder = StandIn(models.mini_lm(), "cpu", "float32", 256, 1)
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for turn in range(args.rounds):
        for ahead in (False, True) if turn % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                encoder.play(args.tokens_per_s, ahead)
                found[ahead].append(run(encoder, texts, args.part_rows, Path(folder), ahead))
    print(f"{len(texts)} texts, parts of {args.part_rows}, a device of {args.tokens_per_s:,.0f} tokens/s")
    for ahead, name in ((False, "one by one"), (True, "ahead")):
        spent = statistics.median(seconds for seconds, _ in found[ahead])
        share = statistics.median(busy / seconds for seconds, busy in found[ahead])
        print(f"{name:10} {spent:7.2f} s, {len(texts) / spent:8.0f} rows/s, the device computes {share:.1%} of it")


if __name__ == "__main__":
    main()
