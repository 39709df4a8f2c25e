"""Where a trial takes place: somebody's project folder, two local hosts of two slots, and files that are nobody's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..chaos import checker, processes
from ..chaos.history import write_model
from . import operator
from .operator import Command, Done

NAMES, SLOTS, ROWS, PART_ROWS = ("one", "two"), 2, 96, 8
HOST_PYTHON = Path(__file__).parents[1] / "chaos" / "host_python.py"
ROUNDS = 4  # how often the same command may be given: three of them because something was wrong


class Blamed(Exception):
    """Something is not as it was promised."""


@dataclass
class Scene:
    """A project folder with a corpus of `ROWS` documents, a profile, and two hosts; and what was found wrong."""

    folder: Path
    blames: list[str] = field(default_factory=list)
    pace_s: float = 0.01
    profile: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    sums: dict[Path, str] = field(default_factory=dict)
    commands: int = 0
    said: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------------------ lay out

    def lay_out(self) -> None:
        """Corpus, questions, model, profile, the script that is the hosts' Python, and other people's files."""
        self.project.mkdir(parents=True)
        self.texts = [f"{row} of a lake and {row * row} ferries" for row in range(ROWS)]
        self.write_corpus()
        asked = [{"question": "Which one is about the 3rd ferry?", "title": "T3"}]
        (self.project / "questions.json").write_text(json.dumps(asked))
        write_model(self.project / "model")
        self.python = self.folder / "python"
        words = [sys.executable, "-B", "-I", "-S", HOST_PYTHON, Path(np.__file__).parents[1], self.pace_s, "-"]
        quoted = " ".join(f"'{word}'" for word in words)
        self.python.write_text(
            f'#!/bin/sh\ncase "$1" in -m) exec {quoted} "$@";; *) exec \'{sys.executable}\' "$@";; esac\n'
        )
        self.python.chmod(0o755)
        for name in NAMES:
            self.workdir(name).mkdir(parents=True, mode=0o700)
        self.profile = {
            "run": "trial",
            "corpus": {"path": "corpus.jsonl"},
            "questions": "questions.json",
            "model": {"name": "./model", "prompt": "", "question_prompt": ""},
            "part_rows": PART_ROWS,
            "monitor": {
                "interval_s": 0.2, "slow_rows_per_s": 0.01, "stuck_s": 3, "first_progress_s": 8, "deadline_s": 120,
                "unreachable_s": 5,
            },
            "hosts": [
                {
                    "name": name, "kind": "local", "slots": SLOTS, "device": "cpu", "threads": 1,
                    "workdir": str(self.workdir(name)), "environment": str(self.python),
                }
                for name in NAMES
            ],
        }  # fmt: skip
        for path in (
            self.project / "thesis.txt",
            self.project / "letters" / "mother.txt",
            *(self.workdir(name) / "somebody" / "parts" / "rows_000000000_000000008.npy" for name in NAMES),
        ):
            self.precious(path, f"mine: {path.name}")

    @property
    def project(self) -> Path:
        """Where the person works."""
        return self.folder / "project"

    def workdir(self, name: str) -> Path:
        """The folder of all runs on a host."""
        return self.folder / "hosts" / name

    def write_corpus(self) -> None:
        """Write the texts as they are now."""
        lines = [json.dumps({"id": f"d{row}", "title": f"T{row}", "text": text}) for row, text in enumerate(self.texts)]
        (self.project / "corpus.jsonl").write_text("".join(line + "\n" for line in lines))

    def precious(self, path: Path, text: str = "") -> Path:
        """A file that no run made: from now on it must stay as it is. Written when `text` is given."""
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.sums[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return path

    def save_profile(self, name: str = "profile.yaml") -> None:
        """Write the profile as it is now."""
        (self.project / name).write_text(yaml.safe_dump(self.profile, sort_keys=False))

    def modes(self, host: str, **of_slot: str) -> None:
        """How the devices of a host behave from now on: nan, raise, kill, hang ... (see chaos/host_python.py)."""
        path = self.workdir(host) / "modes.json"
        path.with_suffix(".new").write_text(json.dumps(of_slot))
        path.with_suffix(".new").replace(path)

    # ---------------------------------------------------------------------------------------------------- commands

    def start(self, *words: str, **options: Any) -> Command:
        """Start a command."""
        self.commands += 1
        log = self.folder / f"command-{self.commands}.log"
        return operator.start(self.project, words, log=log, **options)

    def runbook(self, *words: str, within_s: float = operator.PATIENCE_S, **options: Any) -> Done:
        """Give a command and wait for its end. A traceback, or no end, is a blame."""
        command = self.start(*words, **options)
        done = command.wait(within_s)
        self.said.append(f"$ runbook {' '.join(words)}  -> {done.code}\n{done.out[-1500:]}")
        if done.code is None:
            self.blame(f"runbook {' '.join(words)} does not end")
        if "Traceback (most recent call last)" in done.out:
            self.blame(f"runbook {' '.join(words)} ended in a traceback")
        return done

    def run(self, *words: str, profile: str = "profile.yaml", rounds: int = ROUNDS, **options: Any) -> Done:
        """The same command until it says that all is well, at most so many times."""
        for _ in range(rounds):
            done = self.runbook("run", profile, *words, **options)
            if done.well or done.code is None:
                break
        return done

    def finished(self, *words: str) -> None:
        """A run that is done, and right."""
        self.save_profile()
        done = self.run(*words)
        self.hold(done.well, f"the run before the fault failed: {done.out[-300:]}")
        self.right()

    # ------------------------------------------------------------------------------------------------------ what is

    @property
    def runs(self) -> list[Path]:
        """The folders of runs, the oldest first."""
        found = [path.parent for path in (self.project / "runs").glob("*/profile.yaml")]
        return sorted(found, key=lambda path: path.name)

    @property
    def here(self) -> Path:
        """The folder of the one run."""
        return self.runs[-1]

    def root(self, name: str) -> Path:
        """The run's folder on a host."""
        return self.workdir(name) / self.here.name

    @property
    def pickle(self) -> Path:
        """The result in the founding shape."""
        return self.project / "embeddings" / "trial_merged.pkl"

    @property
    def backups(self) -> list[Path]:
        """The backups there are."""
        found = (self.project / "embeddings" / "backups").rglob("*")
        return sorted(path for path in found if path.is_file() and path.suffix == ".pkl")

    def home_parts(self) -> list[Path]:
        """The arrays at home."""
        return sorted((self.here / "parts").glob("rows_*.npy"))

    def processes(self) -> list[processes.Process]:
        """Workers and supervisors of this trial."""
        return processes.working_in(self.folder / "hosts")

    def wait(self, what: Callable[[], Any], words: str, within_s: float = 60.0) -> Any:
        """Wait until something holds."""
        deadline = time.monotonic() + within_s
        while not (found := what()):
            if time.monotonic() > deadline:
                raise Blamed(f"waited in vain: {words}")
            time.sleep(0.02)
        return found

    def some(self, kind: str, host: str = "", slot: str = "") -> processes.Process:
        """A living worker (encode) or supervisor (supervise)."""

        def found() -> list[processes.Process]:
            return [
                each
                for each in self.processes()
                if each.kind == kind and each.option("--host") in (host or each.option("--host"))
                and each.option("--slot") in (slot or each.option("--slot"))
            ]  # fmt: skip

        return self.wait(found, f"a process {kind} {host} {slot}")[0]

    @contextlib.contextmanager
    def working(self, parts: int = 2) -> Iterator[Command]:
        """A run under way that has committed some parts; slow enough to be harmed."""
        self.save_profile()
        command = self.start("run", "profile.yaml")
        self.wait(
            lambda: command.over() or (self.runs and len(list((self.here / "parts").glob("*.json"))) >= parts),
            "parts at home",
        )
        if command.over():
            raise Blamed(f"the run ended before the fault: {command.said[-300:]}")
        try:
            yield command
        finally:
            if not command.over():
                command.kill()

    # ----------------------------------------------------------------------------------------------------- verdicts

    def blame(self, what: str) -> None:
        """Something is not as promised."""
        self.blames.append(what)

    def hold(self, condition: object, otherwise: str) -> None:
        """What must hold, or the trial is over."""
        if not condition:
            raise Blamed(otherwise)

    def wrong(self, texts: list[str] | None = None) -> str:
        """What is wrong with the result on disk; empty when it is whole and right, everywhere."""
        wanted = checker.expected(self.texts if texts is None else texts)
        found = checker.merged(self.here / "merged", self.texts if texts is None else texts, wanted)
        if not found.ok:
            return f"merged: {found}"
        if not self.pickle.is_file():
            return "no pickle"
        try:
            values = pickle.loads(self.pickle.read_bytes())["embeddings"]
        except Exception as error:
            return f"pickle: {error}"
        if not np.array_equal(np.asarray(values), wanted):
            return "the pickle has other vectors"
        if not any(path.read_bytes() == self.pickle.read_bytes() for path in self.backups):
            return "no backup equals the pickle"
        return ""

    def right(self, texts: list[str] | None = None) -> None:
        """The result must be whole and right, and the archive verify."""
        if found := self.wrong(texts):
            self.blame(f"all is well was said, and it is not: {found}")
        checked = self.runbook("verify", self.here.name)
        if not checked.well:
            self.blame(f"the archive does not verify: {checked.out[-600:]}")
        status = self.runbook("status", self.here.name)
        if not status.well:
            self.blame(f"status does not say that all is well: {status.out[-300:]}")

    def well_or_refused(self, done: Done) -> None:
        """Whatever a command says must be true: all is well only where it is; else what is wrong is found by verify."""
        if done.well:
            self.right()
        elif not self.wrong() and self.runbook("verify", self.here.name).well:
            self.blame(f"refused, though all is well: {done.out[-300:]}")

    def repaired(self, done: Done) -> None:
        """After something was damaged that can be had again, the same command must make it right."""
        if not done.well:
            self.blame(f"not repaired by the same command: {done.out[-700:]}")
        else:
            self.right()

    def refused(self, done: Done, *words: str) -> None:
        """Refused in words that tell."""
        if done.well:
            self.blame(f"not refused: {done.out[-300:]}")
        for word in words:
            if not re.search(word, done.out, re.IGNORECASE):
                self.blame(f"the refusal does not say {word!r}: {done.out[-700:]}")

    def told(self, *patterns: str) -> None:
        """What must stand in failures.log and in the execution report, though the run may have failed."""
        for name in ("failures.log", "execution_report_*.md"):
            found = sorted((self.here / "notes").glob(name))
            text = found[-1].read_text() if found else ""
            if not found:
                self.blame(f"no notes/{name}")
            for pattern in patterns:
                if found and not re.search(pattern, text, re.IGNORECASE):
                    self.blame(f"notes/{name} does not tell {pattern!r}: {text[-500:]}")

    def computed(self) -> int:
        """How many rows all workers of all runs computed."""
        return sum(checker.rows_encoded(path) for path in (self.folder / "hosts").glob("*/*/encoded.log"))

    def given_up(self) -> set[int]:
        """The rows that were given up, by any host or at home."""
        folders = [self.here / "quarantine", *(self.root(name) / "quarantine" for name in NAMES)]
        return {int(path.stem.split("_")[1]) for folder in folders for path in folder.glob("row_*.json")}

    def innocent(self, guilty: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """No row may have been given up but the guilty."""
        if blamed := self.given_up() - guilty:
            self.blame(f"innocent rows given up: {sorted(blamed)[:20]}")

    def judge(self) -> None:
        """What holds after every trial: nobody's file was touched."""
        self.blames += checker.untouched(self.sums)
        logs = [path.read_text(errors="replace") for path in sorted(self.folder.glob("command-*.log"))]
        if any("Traceback (most recent call last)" in log for log in logs):
            self.blames.append("a traceback in what a command printed")

    def clean_up(self) -> None:
        """End what is left; only this trial's."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for each in left[::-1]:
                processes.end(each)
            time.sleep(0.02)
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink() and not os.access(path, os.W_OK):
                    path.chmod(0o700)


def flip(path: Path, at: int = -40) -> None:
    """Another bit in a file, under the same name, as a disk does."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    aside = path.with_name(f".{path.name}.trial")
    aside.write_bytes(raw)
    aside.replace(path)
