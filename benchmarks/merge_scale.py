"""Merge, founding file, validation and backup at full size, side by side with the founding plan's way of doing them.

    python benchmarks/merge_scale.py [--documents 250000] [--dim 768] [--rounds 2] [--folder FOLDER]

Every step runs in a process of its own, so that its peak memory is its own, and ours alternates with the plan's. Ours
verifies every part (sha256, identity, fingerprints), syncs and hashes what it writes; the plan's way does none of it:
load all parts, np.concatenate, pickle.dump; to validate, pickle.load and look; to back up, cp. Needs about 5 GB of disk
and, for the plan's way and the final comparison, 4 GB of memory. Exits with 1 when ours passes 300 MB anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "helpers"), str(HERE.parent / "demo")]

LIMIT_MB = 300
PART_ROWS = 1024
SLOTS = 16


def peak_mb() -> float:
    """This process's own peak of resident memory."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss also counts the parent before the exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return in_mb(resource.RUSAGE_SELF)


def in_mb(who: int) -> float:
    """Peak memory as the system counts it for a process or for its children."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


# ------------------------------------------------------------------------------------------------------------- making


def make(folder: Path, documents: int, dim: int) -> None:
    """A run with a numbered corpus and every part committed."""
    import made_up

    from worker.rows import planned_parts

    asked = [{"question": f"What is document {i} about?", "title": f"Title {i}"} for i in range(1, 11)]
    made = made_up.run_folder(
        folder, documents, asked, made=np.zeros((1, dim), np.float32), slots=SLOTS, part_rows=PART_ROWS, dim=dim
    )
    for slot in made.plan.slots:
        for start, stop in planned_parts(slot.start, slot.stop, PART_ROWS):
            made.commit_part(start, stop, made_up.vectors(stop - start, dim, seed=start))
    (folder / "run.txt").write_text(str(made.run.folder))


def the_run(folder: Path) -> Any:
    """The made-up run; the library is imported in the step's own process."""
    from runbook_lib.run import opening

    return opening.open_folder(Path((folder / "run.txt").read_text()))


# ---------------------------------------------------------------------------------------------------------------- ours


def merge(folder: Path) -> None:
    """Ours: verified parts to embeddings.npy, articles.jsonl and the manifest."""
    from runbook_lib.phases import merge as verb

    verb.merge(the_run(folder))


def founding(folder: Path) -> None:
    """Ours: the founding file, which the merge wrote as a stream, found whole."""
    from runbook_lib.phases import merge as verb

    verb.write_founding(the_run(folder))


def backup(folder: Path) -> None:
    """Ours: copied, synced, read back."""
    from runbook_lib.phases import backup as verb
    from runbook_lib.records import plain

    (folder / "backup.json").write_text(json.dumps(plain(verb.backup(the_run(folder)))))


def validate(folder: Path) -> None:
    """Ours: ten checks and what goes beyond them."""
    from runbook_lib.phases import validate as verb
    from runbook_lib.records import read
    from runbook_lib.result.placed import Backup

    checks, _ = verb.validate(the_run(folder), read(Backup, folder / "backup.json"))
    if not checks.ok:
        raise SystemExit(f"the made-up result does not validate:\n{checks}")


# ---------------------------------------------------------------------------------------------------- the plan's way


def plan_merge(folder: Path) -> None:
    """Load everything, concatenate, pickle."""
    from runbook_lib.corpus import corpus

    this = the_run(folder)
    parts = [np.load(path) for path in sorted(this.local.parts.glob("*.npy"))]
    numbered = corpus.load(this.corpus)
    embeddings = np.concatenate(parts)[: numbered.documents]
    articles = [{key: article[key] for key in ("id", "title", "url")} for article in numbered.articles()]
    manifest = json.loads((this.candidate / "manifest.json").read_text())
    merged = {
        "embeddings": embeddings,
        "articles": articles,
        "total_articles": len(articles),
        "embedding_dim": embeddings.shape[1],
        "model": manifest["model"]["name"],
        "timestamp": manifest["timestamp"],
    }
    with (folder / "plan.pkl").open("wb") as file:
        pickle.dump(merged, file, protocol=4)
        file.flush()
        os.fsync(file.fileno())


def plan_validate(folder: Path) -> None:
    """The plan's phase 4: one load and a look."""
    with (folder / "plan.pkl").open("rb") as file:
        data = pickle.load(file)
    rows = data["embeddings"]
    assert not np.isnan(rows).any() and not np.isinf(rows).any()
    np.linalg.norm(rows, axis=1)


def plan_final(folder: Path) -> None:
    """The plan's final checklist: the file loaded by seven processes in turn."""
    for _ in range(7):
        subprocess.run([sys.executable, __file__, "--step", "plan_validate", "--folder", str(folder)], check=True)


def plan_backup(folder: Path) -> None:
    """cp."""
    shutil.copyfile(folder / "plan.pkl", folder / "plan_copy.pkl")


# ------------------------------------------------------------------------------------------------------------ measuring

STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step
    for step in (merge, founding, backup, validate, plan_merge, plan_validate, plan_final, plan_backup)
}


def measured(step: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak MB of one step in its own process; what was written before is on the disk first."""
    os.sync()
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return figures["seconds"], figures["peak_mb"]


def forget(folder: Path) -> None:
    """Take away what a round made."""
    this = the_run(folder)
    shutil.rmtree(this.candidate, ignore_errors=True)
    shutil.rmtree(this.profile.output.folder, ignore_errors=True)
    for name in ("plan.pkl", "plan_copy.pkl"):
        (folder / name).unlink(missing_ok=True)


def same_dict(folder: Path) -> bool:
    """Whether both files load as equal dicts."""
    with the_run(folder).founding_candidate.open("rb") as ours, (folder / "plan.pkl").open("rb") as theirs:
        a, b = pickle.load(ours), pickle.load(theirs)
    return np.array_equal(a.pop("embeddings"), b.pop("embeddings")) and a == b


PAIRS = [
    ("merge and founding file", ("merge",), ("plan_merge",)),
    ("validate everything / load once and look", ("validate",), ("plan_validate",)),
    ("validate everything / the final checklist", ("validate",), ("plan_final",)),
    ("backup read back / cp", ("backup",), ("plan_backup",)),
]


def compare(folder: Path, rounds: int) -> int:
    """Run all steps, print the table, give the exit code."""
    seen: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
    for _ in range(rounds):
        forget(folder)
        for step in STEPS:
            seen[step].append(measured(step, folder))
    print(f"\n{'step':<16}{'seconds':>10}{'peak MB':>10}")
    seconds = {step: statistics.median(each[0] for each in figures) for step, figures in seen.items()}
    peaks = {step: max(each[1] for each in figures) for step, figures in seen.items()}
    for step in STEPS:
        print(f"{step:<16}{seconds[step]:>10.2f}{peaks[step]:>10.0f}")
    print(f"\n{'ours / the plan':<44}{'time':>8}{'memory':>10}")
    for name, ours, theirs in PAIRS:
        time_ratio = sum(seconds[step] for step in ours) / sum(seconds[step] for step in theirs)
        peak_ratio = max(peaks[step] for step in ours) / max(peaks[step] for step in theirs)
        print(f"{name:<44}{time_ratio:>7.2f}x{peak_ratio:>9.3f}x")
    print(f"\nboth merged files load as the same dict: {same_dict(folder)}")
    highest = max(peaks[step] for step in ("merge", "founding", "backup", "validate"))
    print(f"highest peak of ours: {highest:.0f} MB (limit {LIMIT_MB})")
    return 0 if highest < LIMIT_MB else 1


def main() -> int:
    """Make, measure, compare; or be one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=250_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the made-up run goes; kept and used again if it is there")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        began = time.perf_counter()
        STEPS[options.step](options.folder)
        print(
            json.dumps(
                {"seconds": time.perf_counter() - began, "peak_mb": max(peak_mb(), in_mb(resource.RUSAGE_CHILDREN))}
            )
        )
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "run.txt").exists():
            print(f"making {options.documents:,} x {options.dim} in {folder}", flush=True)
            make(folder, options.documents, options.dim)
        return compare(folder, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
