"""What `runbook verify` takes of a large archive: peak memory and processor seconds, the content fit among them.

    python benchmarks/verify_scale.py [--documents 250000] [--dim 768] [--characters 1500] [--folder FOLDER] [--quick]

The archive is made up without a model: texts of drawn words, vectors that follow from these words with some noise, and
parts with records that agree; merged, validated and sealed by the product. An archive that lies in the folder already
is taken as it is. `verify` runs in a process of its own. Exits with 1 where a check fails, or where it takes more than
300 MB, or more than 120 processor seconds (more in proportion where there are more numbers than 250,000 x 768).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE.parent / "tests" / "helpers")]

import made_up  # noqa: E402
import memory  # noqa: E402

from runbook_lib.phases import merge, publish, validate  # noqa: E402
from runbook_lib.report import gate, report, verification  # noqa: E402
from runbook_lib.run.checks import Checks  # noqa: E402
from runbook_lib.run.opening import open_folder  # noqa: E402
from runbook_lib.run.run import PHASES, Run  # noqa: E402
from worker.rows import planned_parts  # noqa: E402

LIMIT_MB, LIMIT_S, FULL = 300, 120.0, (250_000, 768)
SLOTS, PART_ROWS, NOISE = 16, 1024, 0.6
TELLING, COMMON, OWN_WORDS = 400, 100, 25  # words that tell what a text is about, those that all texts have, own ones
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make(folder: Path, documents: int, dim: int, characters: int) -> Run:
    """A sealed run of so many documents under `folder`; the one of before if it has this size."""
    kept = next(iter(folder.glob("runs/*/SHA256SUMS")), None)
    if kept is not None:
        return open_folder(kept.parent)
    drawn = _Drawn(documents, dim, characters)
    asked = [{"question": f"What is document {row} about?", "title": f"Title {row}"} for row in range(10)]
    made = made_up.run_folder(
        folder, texts=drawn.records(), questions=asked, made=np.zeros((1, dim), np.float32), slots=SLOTS,
        part_rows=PART_ROWS, dim=dim,
    )  # fmt: skip
    made = replace(made, plan=replace(made.plan, max_tokens=None))  # else only the beginnings of texts are read
    made.plan.save(made.run.plan_file)
    for slot in made.plan.slots:
        for start, stop in planned_parts(slot.start, slot.stop, PART_ROWS):
            made.commit_part(start, stop, drawn.vectors(start, stop))
    return _sealed(made.run)


def _sealed(run: Run) -> Run:
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(run, phase, checks)
    run.save_json("hosts.json", {"hosts": {}})
    merge.merge(run)
    merge.write_founding(run)
    valid, shown = validate.validate(run)
    done = publish.publish(run, valid, shown)
    gate.gate(run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(run)
    return run


class _Drawn:
    """Documents of drawn words, and the vectors that follow from the words that only a few documents share."""

    def __init__(self, documents: int, dim: int, characters: int):
        rng = np.random.default_rng(0)
        self.words = ["".join(rng.choice(list(LETTERS), rng.integers(4, 9))) for _ in range(TELLING + COMMON)]
        self.of_words = rng.normal(size=(TELLING, dim)).astype(np.float32)
        self.documents, self.dim = documents, dim
        self.usual = max(2, characters // 7 - OWN_WORDS)

    def _own(self, row: int) -> np.ndarray:
        return np.random.default_rng((1, row)).integers(TELLING, size=OWN_WORDS)

    def records(self) -> list[dict[str, object]]:
        """The documents in the founding shape."""
        found: list[dict[str, object]] = []
        for row in range(self.documents):
            rng = np.random.default_rng((2, row))
            common = TELLING + rng.integers(COMMON, size=rng.integers(self.usual // 2, 2 * self.usual))
            text = " ".join(self.words[word] for word in rng.permutation([*self._own(row), *common]))
            found.append({"id": row, "title": f"Title {row}", "text": text, "url": f"https://example.org/{row}"})
        return found

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """Unit vectors of rows [start, stop), float32."""
        noise = np.random.default_rng((3, start)).normal(size=(stop - start, self.dim))
        words = np.stack([self.of_words[self._own(row)].sum(axis=0) for row in range(start, stop)])
        vectors = words / np.linalg.norm(words, axis=1, keepdims=True) + NOISE * noise / np.sqrt(self.dim)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def measured(run: Path, quick: bool) -> dict[str, object]:
    """What one verification takes, in this process."""
    began = time.process_time(), time.perf_counter()
    checks = verification.verify(open_folder(run), quick)
    return {
        "ok": checks.ok,
        "failed": [f"{check.name}: {check.seen}"[:300] for check in checks.failed],
        "cpu_s": round(time.process_time() - began[0], 1),
        "wall_s": round(time.perf_counter() - began[1], 1),
        "peak_mb": memory.peak_mib(),
        "last_line": checks.stamp,
    }


def main() -> int:
    """Make, verify, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=FULL[0])
    parser.add_argument("--dim", type=int, default=FULL[1])
    parser.add_argument("--characters", type=int, default=1500, help="of a text, in the mean")
    parser.add_argument("--folder", type=Path, help="where the archive is, or is made and stays")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measured(options.run, options.quick)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place, "archive")
        folder.parent.mkdir(parents=True, exist_ok=True)
        run = make(folder, options.documents, options.dim, options.characters)
        argv = [sys.executable, __file__, "--run", str(run.folder), *(["--quick"] if options.quick else [])]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    allowed_s = LIMIT_S * max(1.0, options.documents * options.dim / (FULL[0] * FULL[1]))
    return int(not found["ok"] or found["peak_mb"] > LIMIT_MB or found["cpu_s"] > allowed_s)


if __name__ == "__main__":
    sys.exit(main())
