"""How long a killed worker costs its slot: from SIGKILL to the next batch of its successor, on a warm host.

    python benchmarks/restart.py [--kills 5] [--json FILE]

A local host of one slot (one thread) embeds documents of our own with the real all-MiniLM-L6-v2. Its worker is killed
at a random moment, each time after it has committed a part (else it is not the first death in a row, and there is a
pause). A successor's next batch begins when it notes the rows of it on file, which it does before it computes them.
Beside it: a plain start, a new Python that imports the libraries and loads the model. Linux only: elsewhere no host is
warm.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kill_cost
import models

from runbook_lib.phases import launch, staging, workers
from worker import process
from worker.files import read_json
from worker.layout import HostFolder
from worker.wire import WorkerReport

PATIENCE_S = 120.0
PLAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from worker.encoder import Encoder; "
    "Encoder(Path(sys.argv[2]), 'cpu', 'float32', None, 1)"
)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, looked at every 5 ms. Ends the benchmark when it does not within two minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.005)


def one_kill(host: HostFolder, slot: str, dice: random.Random) -> float:
    """Seconds from the kill of the slot's worker to the next batch of the one after it."""

    def report() -> WorkerReport:
        return WorkerReport.from_json(read_json(host.progress(slot)) or {}, slot)

    until(lambda: (report().computed or 0) > 0, "the worker commits a part")
    time.sleep(dice.uniform(0.1, 1.0))
    victim = report().process
    began = time.monotonic()
    if victim is None or not process.send(victim, signal.SIGKILL):
        raise SystemExit("the worker ended before it was killed: give it more documents")
    until(lambda: report().process != victim and report().state == "running", "the next worker runs")
    running = host.progress(slot).stat().st_mtime_ns

    def begun() -> bool:
        file = host.suspects(slot)
        return file.exists() and file.stat().st_mtime_ns >= running

    until(begun, "the next batch begins")
    return time.monotonic() - began


def plain_start() -> float:
    """Seconds until a Python of its own has imported the libraries and loaded the model."""
    began = time.monotonic()
    argv = [sys.executable, "-c", PLAIN, str(kill_cost.ROOT), str(models.mini_lm())]
    subprocess.run(argv, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> int:
    """Kill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--documents", type=int, help="as many as last for the kills, unless given")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    told = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("no host is warm on this system: Linux only")
    dice, kills, plain = random.Random(1), [], []
    with tempfile.TemporaryDirectory() as scratch:
        documents = told.documents or 1500 * (told.kills + 1)
        this = kill_cost.new_run(Path(scratch) / "run", documents, {"one": 1})
        try:
            for checks in (staging.stage(this), launch.start(this)):
                if not checks.ok:
                    raise SystemExit(repr(checks))
            (progress,) = Path(scratch).glob("run/hosts/one/*/progress")
            host = HostFolder(progress.parent)
            for _ in range(told.kills):
                kills.append(one_kill(host, "cluster0_gpu0", dice))
        finally:
            workers.stop(this)
        for _ in range(min(3, told.kills)):
            plain.append(plain_start())
    print(
        f"killed to next batch, {len(kills)} kills: median {statistics.median(kills):.2f} s, highest {max(kills):.2f} s"
    )
    print(f"a plain start, libraries and model: median {statistics.median(plain):.2f} s")
    if told.json:
        told.json.write_text(json.dumps({"kills": kills, "plain": plain}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
