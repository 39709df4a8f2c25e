"""What each step costs at any size: CPU seconds and peak memory, each step in a process of its own.

    python benchmarks/scale/measure.py [--fleets 250000x16,2500000x128,10000000x8000] [--rows 250000,2500000] [--draw]

`--fleets`: rows x slots of made-up runs that are looked at, collected and moved (eight slots a host). `--rows`: runs
with real texts and vectors of 8 numbers that are numbered, merged and validated. Figures go to results.json beside this
file, which keeps those of other sizes; `--draw` makes the pictures of docs/scale.md from it. CPU seconds, not wall
time: other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "tests" / "helpers")]
results = HERE / "results.json"
PICTURES = HERE.parents[1] / "docs"
SLOTS_A_HOST = 8
FLEET = ("plan", "poll", "collect", "move", "shown", "incidents", "journal")
WHOLE = ("build", "arrived", "merge", "merge_again", "validate", "seal")


def run_step(name: str, folder: Path) -> dict[str, float]:
    """One step in a process of its own; its figures."""
    argv = [sys.executable, str(HERE / "steps.py"), name, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} of {folder} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(
    size: str, names: tuple[str, ...], make: Callable[[Path], None], after: dict[str, Callable[[Path], None]]
) -> None:
    """Make a run of a size, take each step, keep what each took."""
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        make(folder / "run")
        for name in names:
            keep(size, name, run_step(name, folder / "run"))
            if name in after:
                after[name](folder / "run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(size: str, name: str, figures: dict[str, float]) -> None:
    """Print figures and write them beside the others."""
    print(
        f"{size:>16}  {name:<12} {figures['s']:9.3f} CPU s {figures['peak_mb']:6.0f} MB  {json.dumps(figures)}",
        flush=True,
    )
    found = read()
    found.setdefault(size, {})[name] = figures
    results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def read() -> dict[str, Any]:
    """The figures of all sizes."""
    return dict(json.loads(results.read_text())) if results.exists() else {}


def of_fleet(size: str) -> None:
    """A made-up fleet, such as 10000000x8000."""
    import fleet

    rows, slots = map(int, size.split("x"))
    hosts = max(1, slots // SLOTS_A_HOST)
    measure(size, FLEET, lambda folder: fleet.make(folder, rows, hosts, slots // hosts), {})


def of_rows(size: str) -> None:
    """A whole run of so many rows."""
    import whole

    measure(size, WHOLE, lambda folder: whole.write_corpus(folder, int(size)), {"build": whole.commit_parts})


def main() -> int:
    """Measure what was asked for, then draw."""
    global results
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", default="250000x16,2500000x128,10000000x8000", help="rows x slots, by commas")
    parser.add_argument("--rows", default="250000,2500000", help="rows of whole runs, by commas")
    parser.add_argument("--results", type=Path, default=results, help="where the figures are kept")
    parser.add_argument("--draw", action="store_true", help="draw the pictures of docs/scale.md")
    args = parser.parse_args()
    results = args.results
    for size in filter(None, args.fleets.split(",")):
        of_fleet(size)
    for size in filter(None, args.rows.split(",")):
        of_rows(size)
    if args.draw:
        import curves

        curves.draw(read(), PICTURES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
