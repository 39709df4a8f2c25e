"""What this machine can do at most: a matrix product, writing to the disk, bytes through the loopback.

    python benchmarks/limits.py [--quick] [--threads 1 2] [--json FILE]

The product is one that a layer of all-MiniLM-L6-v2 needs for 2,048 tokens: (2048, 384) by (384, 1536), float32: as
torch multiplies, and as oneDNN does with the weights laid out for it, where there is one (`worker/linear.py`). The
disk's figure is of one new file, synced at its end, in the folder of temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

SHAPE = (2048, 384, 1536)
MB = 1_000_000
GEMM = """
import sys, time, torch
rows, inner, columns, threads, seconds, way = *map(int, sys.argv[1:5]), float(sys.argv[5]), sys.argv[6]
torch.set_num_threads(threads)
a, b = torch.randn(rows, inner), torch.randn(inner, columns)
out = torch.empty(rows, columns)
with torch.inference_mode():
    if way == "onednn":
        laid = torch.ops.mkldnn._reorder_linear_weight(b.T.contiguous())
        multiply = lambda: torch.ops.mkldnn._linear_pointwise(a, laid, None, "none", [], "")
    else:
        multiply = lambda: torch.mm(a, b, out=out)
    for _ in range(20):
        multiply()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            multiply()
        count += 10
print(2 * rows * inner * columns * count / (time.perf_counter() - began) / 1e9)
"""


def gemm(threads: int, seconds: float, way: str) -> float:
    """GFLOP a second of the product by "gemm" or "onednn", in a process of its own; 0 where torch has no oneDNN."""
    argv = [sys.executable, "-c", GEMM, *map(str, (*SHAPE, threads, seconds, way))]
    done = subprocess.run(argv, check=way == "gemm", capture_output=True, text=True)
    return float(done.stdout or 0)


def disk(megabytes: int) -> float:
    """MB a second of writing one file and syncing it."""
    block = os.urandom(MB)
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return megabytes / (time.perf_counter() - began)


def loopback(megabytes: int) -> float:
    """MB a second through a TCP connection of this machine with itself."""
    block = os.urandom(MB)

    def send(there: socket.socket) -> None:
        with there:
            for _ in range(megabytes):
                there.sendall(block)

    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        there, _ = server.accept()
        began, got = time.perf_counter(), 0
        threading.Thread(target=send, args=(there,), daemon=True).start()
        with ours:
            while piece := ours.recv(1 << 18):
                got += len(piece)
        return got / MB / (time.perf_counter() - began)


def repeated(work: Callable[[], float], rounds: int) -> list[float]:
    """As many figures of the same work."""
    return [work() for _ in range(rounds)]


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a moment of each")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    told = parser.parse_args()
    seconds, megabytes = (0.05, 20) if told.quick else (2.0, 1000)
    figures: dict[str, dict[str, list[float]]] = {"gemm": {}, "onednn": {}, "disk": {}, "loopback": {}}
    for threads, way in product(sorted({*told.threads}), ("gemm", "onednn")):
        figures[way][str(threads)] = repeated(partial(gemm, threads, seconds, way), told.rounds)
    figures["disk"]["write"] = repeated(lambda: disk(megabytes), told.rounds)
    figures["loopback"]["tcp"] = repeated(lambda: loopback(megabytes), told.rounds)
    for what, by in figures.items():
        for how, values in by.items():
            unit = "GFLOP/s, threads " + how if what in ("gemm", "onednn") else "MB/s"
            print(f"{what:9} {statistics.median(values):9.0f} {unit}")
    if told.json:
        told.json.write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
