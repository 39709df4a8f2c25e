"""The negative control: each safety mechanism is taken out in turn, and the suite must see it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from . import history as histories
from .broken import MECHANISMS
from .history import History, Outcome, Size
from .zygote import Zygote

SIZE = Size(rows=1024, faults=10, gap_s=0.25, pace_s=0.08, patience_s=30.0)
TRIES = 3  # seeds: one that goes red is enough
STATES = 500  # of the power cuts
CUTS = {
    "fsync": "the bytes of a file are synced",
    "folder-fsync": "a name is synced",
    "direct": "a file grows under a temporary name",
    "record-first": "the record is written after its array",
    "torn-line": "a torn line of the journal is cut off",
}
CALM = 900  # the first of their seeds


@dataclass(frozen=True)
class Control:
    """What became of one mechanism's absence: the outcome that went red, or the last green one."""

    name: str
    outcome: Outcome
    plays: int

    @property
    def red(self) -> bool:
        """Whether the suite saw it."""
        return not self.outcome.ok

    @property
    def sign(self) -> str:
        """The first thing that was wrong."""
        verdict = self.outcome.verdict
        counts = [f"{what} {n}" for what in ("lost", "wrong", "doubled") if (n := getattr(verdict, what))]
        return "; ".join([*counts, *verdict.broken[:1]])[:130]


def controls(top: Path, zygote: Zygote, only: str, jobs: int) -> int:
    """Play each mechanism's absence; a table; 0 when all went red, and the same seeds with nothing taken out green."""
    names = only.split(",") if only else list(MECHANISMS)
    with ThreadPoolExecutor(jobs) as pool:
        intact = list(pool.map(lambda name: _intact(top, zygote, name), names))
        found = list(pool.map(lambda name: _play(top, zygote, name), names))
    _print(found, intact)
    seen = [each.red for each in found]
    calm = [outcome.ok for outcome in intact]
    if not only:
        seen += [_cut(name, what) for name, what in CUTS.items()]
        calm.append(not _cut("", "nothing taken out"))
    print(f"controls {len(seen)}, red {sum(seen)}; with nothing taken out {sum(calm)} of {len(calm)} green")
    return 0 if all(seen) and all(calm) else 1


def _history(seed: int, name: str) -> History:
    return histories.make(seed, replace(SIZE, tier=MECHANISMS[name].tier), MECHANISMS[name].mix)


def _intact(top: Path, zygote: Zygote, name: str) -> Outcome:
    history = _history(CALM, name)
    return histories.play(history, top / f"intact-{name}", zygote)


def _play(top: Path, zygote: Zygote, name: str) -> Control:
    """Seed after seed until one goes red."""
    for number in range(TRIES):
        history = _history(CALM + number, name)
        outcome = histories.play(history, top / f"{name}-{number}", zygote, name)
        if not outcome.ok:
            shutil.rmtree(outcome.folder)
            break
    return Control(name, outcome, number + 1)


def _cut(name: str, what: str) -> bool:
    """Cut the power, in thought, with a mechanism of writing taken out; whether it was seen. One line of the table."""
    words = ["--states", str(STATES), "--seed", "1", *(["--control", name] if name else [])]
    script = Path(__file__).with_name("power_cut.py")
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    said = (done.stdout + done.stderr).strip().splitlines() or [""]
    seen = done.returncode == 1 and " bad" in said[-1]  # a script that breaks down has seen nothing
    word = "red  " if seen else "GREEN" if name else "calm "
    print(f"{word} {'no-' + name if name else '-':22} {what:44} {said[-1][:130]}")
    return seen


def _print(found: Sequence[Control], intact: Sequence[Outcome]) -> None:
    for each, calm in zip(found, intact, strict=True):
        word = "red  " if each.red else "GREEN"
        print(f"{word} {each.name:22} {MECHANISMS[each.name].what:44} {each.sign}" + _remark(calm))


def _remark(calm: Outcome) -> str:
    return "" if calm.ok else f"\n      with nothing taken out it fails too: {calm.verdict}"
