"""A host's folder as launch makes it, and the processes that a test starts in it: what tests of the worker stand on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from worker import process
from worker.files import read_json, write_atomic, write_json
from worker.layout import HostFolder, committed, quarantined
from worker.wire import Assignment

HELPERS = Path(__file__).parent
HOST = "here"
SLOT = "cluster0_gpu0"

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc on this machine")


@dataclass
class Box:
    """One host's folder with shards, worker and assignment, and the processes that a test starts in it."""

    root: Path
    texts: Sequence[str]
    assignment: dict[str, Any]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> HostFolder:
        return HostFolder(self.root)

    @property
    def told(self) -> Assignment:
        """The assignment as a worker reads it."""
        return Assignment.from_json(self.assignment)

    def save(self, **changes: Any) -> None:
        """Write the assignment, with changes of its keys, and the mark of its run."""
        self.assignment.update(changes)
        write_json(self.folder.mark, {"id": self.assignment["run_id"]})
        write_json(self.folder.assignment(HOST), self.assignment)

    def start(self, verb: str, *more: str, python: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start `python -m worker <verb>` as launch does; its output goes to the log, unless told otherwise."""
        name = f"host_{HOST}" if verb == "supervise" else SLOT
        self.folder.log(name).parent.mkdir(exist_ok=True)
        argv = [python or self.assignment["python"], "-m", "worker", verb, "--root", str(self.root), "--host", HOST]
        with self.folder.log(name).open("ab") as log:
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # as hosts start them
            options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment, **options}
            child = subprocess.Popen(
                [*argv, *more], cwd=self.root, stdin=subprocess.DEVNULL, start_new_session=True, **options
            )
        self.started.append(child)
        return child

    def worker(self, slot: str = SLOT, **options: Any) -> subprocess.Popen[bytes]:
        """Start the worker of a slot."""
        return self.start("encode", "--slot", slot, **options)

    def supervisor(self) -> subprocess.Popen[bytes]:
        """Start the supervisor; always with this Python, whatever its workers run with."""
        return self.start("supervise", python=sys.executable)

    def end(self, child: subprocess.Popen[bytes], within_s: float = 90.0) -> int:
        """Wait for a process and give its exit code; its log is shown when that takes too long."""
        try:
            return child.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {within_s:g} s:\n{self.logs()}")

    def report(self, slot: str = SLOT) -> dict[str, Any]:
        """The worker's report, empty while there is none."""
        return _read(self.folder.progress(slot))

    def supervised(self, slot: str = SLOT) -> dict[str, Any]:
        """The slot in its supervisor's report, empty while there is none."""
        found: dict[str, Any] = _read(self.folder.supervisor(HOST)).get("slots", {}).get(slot, {})
        return found

    def exits(self, slot: str = SLOT) -> list[dict[str, Any]]:
        """How the slot's workers ended, by their supervisor."""
        found: list[dict[str, Any]] = _read(self.folder.exits(slot)).get("exits", [])
        return found

    def parts(self) -> list[tuple[int, int]]:
        """The committed ranges."""
        return committed(self.folder.parts)

    def record(self, start: int, stop: int) -> dict[str, Any]:
        """The record of a committed part."""
        found = read_json(self.folder.part(start, stop).with_suffix(".json"))
        assert found is not None
        return found

    def at_hand(self, slot: str = SLOT) -> list[int]:
        """The rows that the slot's worker computes at this moment."""
        return list(_read(self.folder.suspects(slot)).get("rows", []))

    def go(self) -> None:
        """Let the workers go on whose texts say WAIT."""
        (self.root / "go").touch()

    def given_up(self) -> list[int]:
        """The rows in quarantine."""
        return quarantined(self.folder.quarantine)

    def sums(self) -> dict[str, str]:
        """File name -> sha256 of every committed array, each equal to what its record says."""
        found = {}
        for start, stop in self.parts():
            path = self.folder.part(start, stop)
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            assert self.record(start, stop)["sha256"] == found[path.name]
        return found

    def leftovers(self) -> list[str]:
        """Files in parts/ that stand under no final name."""
        return sorted(p.name for p in self.folder.parts.glob("*") if p.suffix not in (".npy", ".json"))

    def logs(self) -> str:
        """All logs of this folder."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.root / "logs").glob("*.log")))

    def alone(self, slot: str = SLOT) -> int | None:
        """The pid of the slot's living worker, by its own report."""
        found = self.report(slot).get("process")
        return int(found["pid"]) if found and process.alive(found) else None

    def clean_up(self) -> None:
        """End what this test started and nothing else."""
        names = [spec["slot"] for spec in self.assignment["slots"]]
        recorded = [source(name).get("process") for name in names for source in (self.report, self.supervised)]
        for child in self.started:
            if child.poll() is None:
                child.kill()
                child.wait()
        for identity in recorded:
            if identity and identity["pid"] != os.getpid() and process.alive(identity):  # a test may play the worker
                process.stop(identity, grace_s=0.1)


def waiting(*rows: int) -> list[str]:
    """Sixteen texts, each a batch of its own; at some of them a worker with the light encoder waits for `Box.go`."""
    return [f"{'WAIT ' if row in rows else ''}text {'word ' * (9 * row)}" for row in range(16)]


def put_shard(folder: HostFolder, texts: Sequence[str], start: int, stop: int) -> dict[str, Any]:
    """The shard of rows [start, stop) in its file, and what an assignment says of it."""
    lines = [json.dumps({"row": row, "text": texts[row]}).encode() + b"\n" for row in range(start, stop)]
    place = {"start": start, "stop": stop, "grid": start, "file": [start, stop]}
    return {**place, "sha256": write_atomic(folder.shard(start, stop), lines)}


def script(path: Path, text: str) -> str:
    """An executable script that stands in for the host's Python."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def failing(box: Box, commands: str) -> None:
    """Let a few lines of shell stand in for the host's Python, started once a worker: it cannot be forked from."""
    box.save(python=script(box.root / "python", f"#!/bin/sh\n[ $3 = warm ] && exit 1\n{commands}\n"))


def codes(box: Box, slot: str = SLOT) -> list[int | None]:
    """The exit codes on file."""
    return [entry["code"] for entry in box.exits(slot)]


def _read(path: Path) -> dict[str, Any]:
    """A file of ours as it stands, empty while there is none or it was written half."""
    try:
        return read_json(path) or {}
    except (OSError, ValueError):
        return {}


MakeBox = Callable[..., Box]
