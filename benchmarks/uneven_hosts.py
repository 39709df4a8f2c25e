"""How far above the ideal a real run ends whose hosts differ in speed: rows move to those that will soon be done.

    python benchmarks/uneven_hosts.py [--speeds 3,1.5,1] [--seconds 240] [--rounds 1] [--json FILE]

A local host for each speed, of two workers each: real supervisors, workers, looks and moves; the encoder sleeps, so the
machine's own load matters little. The ideal: all rows at the sum of the speeds that the workers had, commits included,
with none ever idle. Beside it: the sleep alone, which no run can reach (a commit takes time too), and the static plan.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sleeping

from runbook_lib.phases import launch, monitor, preflight, staging, tend, workers
from runbook_lib.profile import profile
from runbook_lib.run import opening, run
from runbook_lib.slots.snapshot import Snapshot
from worker.files import read_json
from worker.layout import HostFolder, committed

WORKERS, PART_ROWS, LOOK_S = 2, 20, 5.0
SLEEPING = Path(__file__).with_name("sleeping.py")
ROWS_A_SECOND = 10.0  # of a worker of speed 1


class Silent:
    """Shows nothing."""

    def show(self, state: Snapshot) -> None:
        """Take no notice."""


def _model(folder: Path) -> None:
    """Write the files of a model, as far as they are read without loading it."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    values = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 8},
        "config.json": {"model_type": "bert", "max_position_embeddings": 512},
        "config_sentence_transformers.json": {"prompts": {}},
        "sentence_bert_config.json": {"max_seq_length": 64},
    }
    for name, value in values.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"weights")


def _run(folder: Path, speeds: list[float], rows: int) -> run.Run:
    """Make the run: a host for each speed, and rows that all sleep alike."""
    _model(folder / "model")
    documents = [{"id": i, "title": f"T {i}", "text": f"{sleeping.MARK} {i}", "url": ""} for i in range(rows)]
    (folder / "corpus.json").write_text(json.dumps(documents))
    hosts = []
    for number, speed in enumerate(speeds):
        python = folder / f"python{number}"
        pace_s = 1 / (ROWS_A_SECOND * speed)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SLEEPING}" {pace_s:.6f} "$@"\n')
        python.chmod(0o755)
        name = f"host{number}"
        hosts.append({"name": name, "kind": "local", "slots": WORKERS, "device": "cpu", "threads": 1,
                      "workdir": name, "environment": str(python)})  # fmt: skip
    value = {"run": "uneven", "corpus": {"path": "corpus.json"}, "model": {"name": "./model"}, "hosts": hosts,
             "part_rows": PART_ROWS, "monitor": {"interval_s": LOOK_S}}  # fmt: skip
    (folder / "profile.yaml").write_text(json.dumps(value))  # JSON is YAML
    return opening.create(profile.load(folder / "profile.yaml"))


def _commits(this: run.Run) -> dict[str, list[tuple[float, float]]]:
    """Return slot -> (begin, end) of each of its parts, in order, by the parts' records."""
    times: dict[str, list[tuple[float, float]]] = {}
    for spec in this.profile.hosts:
        parts = HostFolder(Path(spec.workdir) / this.name)
        for start, stop in committed(parts.parts):
            record = read_json(parts.part(start, stop).with_suffix(".json")) or {}
            times.setdefault(record["slot"], []).append(
                (record["written_at"] - record["seconds"], record["written_at"])
            )
    return {slot: sorted(each) for slot, each in times.items()}


def _rate(parts: list[tuple[float, float]]) -> float:
    """Return the rows a second of a worker at work: what it sleeps, computes again and commits, by the usual part."""
    return PART_ROWS / statistics.median(b[1] - a[1] for a, b in itertools.pairwise(parts))


def measure(speeds: list[float], seconds: float) -> dict[str, float]:
    """Run once; return ideal, measured and static seconds, and how far above the ideal it ended (`above`)."""
    rate = ROWS_A_SECOND * WORKERS * sum(speeds)
    rows = int(seconds * rate)
    with tempfile.TemporaryDirectory() as folder:
        this = _run(Path(folder), speeds, rows)
        _, model = preflight.the_model(this)
        _, corpus = preflight.the_corpus(this, model)
        facts = {spec.name: {"cores": 2, "gpus": []} for spec in this.profile.hosts}
        checks, _ = preflight.the_plan(this, model, corpus, facts)  # type: ignore[arg-type]
        if not (checks.ok and staging.stage(this).ok and launch.start(this).ok):
            raise SystemExit("the run could not be launched")
        began = time.monotonic()
        try:
            state = asyncio.run(monitor.watch(this, Silent(), tend.tend))
            whole_s = time.monotonic() - began
        finally:
            workers.stop(this)
        if not state.done:
            raise SystemExit("the run did not end")
        moves = [event["rows"] for event in this.journal.events("rows moved")]  # type: ignore[typeddict-item]
        parts = _commits(this)
        begins, ends = [p[0][0] for p in parts.values()], [p[-1][1] for p in parts.values()]
        ideal, took = rows / sum(map(_rate, parts.values())), max(ends) - min(begins)
        return {
            "rows": rows,
            "ideal_s": ideal,
            "asleep_s": rows / rate,
            "took_s": took,
            "above": took / ideal - 1,
            "above_asleep": took / (rows / rate) - 1,
            "static_s": rows / len(speeds) / (ROWS_A_SECOND * WORKERS * min(speeds)),
            "whole_s": whole_s,
            "moves": len(moves),
            "rows_moved": sum(moves),
        }


def main() -> None:
    """Measure and print; with --json also into a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speeds", default="3,1.5,1", help="of the hosts, relative to one another")
    parser.add_argument("--seconds", type=float, default=240.0, help="what the ideal takes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    speeds = [float(speed) for speed in args.speeds.split(",")]
    rounds = []
    for _ in range(args.rounds):
        found = measure(speeds, args.seconds)
        rounds.append(found)
        print(
            f"speeds {args.speeds}: {found['took_s']:.1f} s, ideal {found['ideal_s']:.1f} s: {found['above']:+.1%}; "
            f"all that was slept, shared evenly, {found['asleep_s']:.1f} s: {found['above_asleep']:+.1%}; "
            f"static plan {found['static_s']:.0f} s; "
            f"{found['moves']:g} moves of {found['rows_moved']:,g} of {found['rows']:,g} rows; "
            f"from the launch to the end of watching {found['whole_s']:.1f} s",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
