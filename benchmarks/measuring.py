"""Ways of encoding take turns, each in a process of its own; how close their vectors are; machine and load."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
NEIGHBOURS = 10
MOST_QUERIES = 200  # of the texts themselves, where no questions are given
QUIET = 1.5  # a load average above it is said: other work may have been measured too
OTHERS = 0.25  # cores that other processes took meanwhile, above which it is said too


# ------------------------------------------------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """What this machine is: processor, cores, memory in GiB, system."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory), "system": system}


def busy_s() -> float | None:
    """Seconds that all cores together have worked since the start of the machine; None where no file tells."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + rest[0] + rest[1]) / os.sysconf("SC_CLK_TCK")


def settle(most_s: float = 120.0) -> None:
    """Wait until the load that earlier work left has gone, so long at most."""
    until = time.monotonic() + most_s
    while os.getloadavg()[0] > 0.8 and time.monotonic() < until:
        time.sleep(2.0)


class Load:
    """The load average at start and end, and how many cores others' work took meanwhile."""

    def __init__(self, own: int, detached: bool):
        """`own`: cores that the benchmark itself keeps busy; `detached`: its processes are not its children."""
        self._own, self._detached = own, detached
        self.start, self._began = os.getloadavg()[0], time.monotonic()
        self._busy, self._ours = busy_s(), sum(os.times()[:4])

    def end(self) -> dict[str, float | None]:
        """All of it; `others` counts once every process of ours has ended, None where nothing tells."""
        now, took = busy_s(), max(0.01, time.monotonic() - self._began)
        others = None
        if now is not None and self._busy is not None and not self._detached:
            others = round(max(0.0, now - self._busy - (sum(os.times()[:4]) - self._ours)) / took, 2)
        found = {"start": round(self.start, 2), "end": round(os.getloadavg()[0], 2)}
        return {**found, "own": self._own, "others": others}


# ---------------------------------------------------------------------------------------------------------- figures


def spread(values: Sequence[float]) -> list[float]:
    """[median, lowest, highest]."""
    return [statistics.median(values), min(values), max(values)]


def lowest_cosine(vectors: np.ndarray, others: np.ndarray) -> float:
    """The lowest cosine of a row with the same row of the other matrix, both (rows, dim)."""
    a, b = vectors.astype(np.float64), others.astype(np.float64)
    return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def nearest(queries: np.ndarray, rows: np.ndarray, own: Sequence[int] | None = None) -> np.ndarray:
    """The ten nearest rows of each query by cosine, int (queries, 10); `own` names the row that a query itself is."""
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, rows))
    closeness = a @ b.T
    if own is not None:
        closeness[np.arange(len(own)), own] = -np.inf
    count = min(NEIGHBOURS, len(rows) - (own is not None))
    return np.argsort(-closeness, axis=1, kind="stable")[:, :count]


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the exact neighbours that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def answered(found: np.ndarray, answers: Sequence[int | None], rows: int) -> float | None:
    """The share of the questions whose answer is among the rows found; None where no answer is known."""
    known = [(row, list(ten)) for row, ten in zip(answers, found, strict=True) if row is not None and row < rows]
    return sum(row in ten for row, ten in known) / len(known) if known else None


# ------------------------------------------------------------------------------------------------------------ turns


class WayEnded(Exception):
    """A way's process ended, or could not be started; the message is its last words."""


class Process:
    """A way of encoding in a process of its own (ways.py): asked by a line, answered by a line."""

    def __init__(self, way: str, python: str, job: Path, threads: int):
        """Start loading it; `ready` waits until it is loaded."""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        own = max(1, threads // 2) if way == "pool" else threads
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true" if own > 1 else "false"}
        self._child = subprocess.Popen(
            [python, str(HERE / "ways.py"), way, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=self._errors, env={**os.environ, **dict.fromkeys(THREADS, str(own)), **quiet},
        )  # fmt: skip

    def ready(self) -> dict[str, Any]:
        """What it says of itself once it is loaded. Raises WayEnded."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._errors.seek(0)
            lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
            raise WayEnded(lines[-1][:300] if lines else f"exit code {self._child.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **what: Any) -> dict[str, Any]:
        """Its answer to one line. Raises WayEnded."""
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, and that says why
            self._child.stdin.write(json.dumps(what) + "\n")
            self._child.stdin.flush()
        return self.ready()

    def end(self) -> None:
        """End it and wait, so that its processor time counts as ours."""
        assert self._child.stdin and self._child.stdout
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()


@dataclass
class Turns:
    """What came of ways that took turns."""

    seconds: dict[str, list[list[float]]] = field(default_factory=dict)  # way -> [wall, CPU] a round
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # way -> why there are no figures of it
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    questions: dict[str, np.ndarray] = field(default_factory=dict)


Tell = Callable[[str], None]


def take_turns(ways: Mapping[str, str], job: dict[str, Any], rounds: int, tell: Tell = lambda line: None) -> Turns:
    """Load each way (name -> the Python to run it by) once, then encode in turn, the order turned each other round.

    `job` is what `ways.Job` holds. A way that fails is left out from there on, with its reason.
    """
    turns, processes = Turns(), {}
    file = Path(job["scratch"]) / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    try:
        for way, python in ways.items():
            processes[way] = Process(way, python, file, job["threads"])
        for way in ways:
            tell(f"loading {way}")
            with _noting(turns, way):
                turns.said[way] = processes[way].ready()
                processes[way].ask(do="encode", first=64)  # warms up
        for turn in range(rounds):
            for way in [*ways][:: -1 if turn % 2 else 1]:
                if way not in turns.failed:
                    tell(f"round {turn + 1} of {rounds}: {way}")
                    with _noting(turns, way):
                        took = processes[way].ask(do="encode")
                        turns.seconds.setdefault(way, []).append([took["wall"], took["cpu"]])
                        turns.said[way] |= took
        for way in ways:
            if way not in turns.failed:
                with _noting(turns, way):
                    _vectors(turns, way, processes[way], job)
    finally:
        for process in processes.values():
            process.end()
    for way in turns.failed:
        turns.seconds.pop(way, None)
    return turns


@contextlib.contextmanager
def _noting(turns: Turns, way: str) -> Iterator[None]:
    """A way that ends is noted with its last words."""
    try:
        yield
    except WayEnded as error:
        turns.failed[way] = str(error)


def _vectors(turns: Turns, way: str, process: Process, job: dict[str, Any]) -> None:
    """Have the vectors of a way, and those of the questions by it."""
    path = str(Path(job["scratch"]) / "vectors.npy")
    process.ask(do="save", path=path)
    turns.vectors[way] = np.load(path)
    if job["questions"]:
        process.ask(do="questions", path=path)
        turns.questions[way] = np.load(path)


def closeness(turns: Turns, yardstick: str, answers: Sequence[int | None] = ()) -> dict[str, dict[str, float | None]]:
    """Of each way: lowest cosine to the yardstick's vectors, recall@10 of its neighbours, questions answered in ten.

    Queries are the questions, by the way itself; without any, some of the texts, each leaving itself out.
    """
    exact_rows = turns.vectors[yardstick]
    own = None if turns.questions else range(0, len(exact_rows), max(1, len(exact_rows) // MOST_QUERIES))

    def ten(way: str) -> np.ndarray:
        rows = turns.vectors[way]
        return nearest(rows[list(own)] if own is not None else turns.questions[way], rows, own)

    exact, found = ten(yardstick), {}
    for way, rows in turns.vectors.items():
        near = ten(way)
        found[way] = {
            "cosine": lowest_cosine(rows, exact_rows),
            "recall": recall(near, exact),
            "answered": None if own is not None or not answers else answered(near, answers, len(rows)),
        }
    return found


def git_commit() -> str:
    """The commit that was measured, with + where the code differs from it; empty outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()

    code = (":(top)worker", ":(top)runbook_lib", ":(top)benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *code) else "")


def own_python() -> str:
    """The Python of this process."""
    return sys.executable
