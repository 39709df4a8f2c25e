"""A scene of the trials on a cluster: the same project, commands and verdicts; its hosts are tasks of a Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slurm
from fleet import FleetError
from small_run import runbook_here
from waiting import wait_for

from runbook_lib.run.opening import open_folder
from runbook_lib.run.run import Run
from tests.trials import operator
from tests.trials.scene import Scene
from worker.layout import HostFolder

BEAT_S = 0.5


@dataclass
class Project(Scene):
    """A project whose hosts are tasks of `cluster`; `entry`: more keys of theirs."""

    cluster: slurm.Cluster = None  # type: ignore[assignment]
    entry: dict[str, Any] = field(default_factory=dict)
    pace_s: float = 0.2

    def lay_out(self) -> None:
        """The same; the profile's only entry is a cluster of two tasks with a slot each."""
        super().lay_out()
        entry = {
            "name": "cluster", "kind": "slurm", "tasks": 2, "slots": 1, "device": "cpu", "threads": 1,
            "workdir": str(self.workdir("one")), "environment": str(self.python), "heartbeat_s": BEAT_S,
        }  # fmt: skip
        self.profile["hosts"] = [entry]
        self.profile["monitor"] |= {"unreachable_s": 600, "first_progress_s": 60, "stuck_s": 30}

    def save_profile(self, name: str = "profile.yaml") -> None:
        """Write the profile with what the test adds to the entry."""
        self.profile["hosts"][0] |= self.entry
        super().save_profile(name)

    def paced(self, pace_s: float) -> None:
        """From now on a part takes so long."""
        self.pace_s = pace_s
        self.python.write_text(re.sub(r"'[0-9.]+' '-'", f"'{pace_s}' '-'", self.python.read_text()))

    def there_before(self, pattern: str) -> list[Path]:
        """Files of the progress folder on the cluster's disk."""
        return list((self.there.root / "progress").glob(pattern))

    @property
    def run_(self) -> Run:
        """The one run."""
        return open_folder(self.here)

    @property
    def there(self) -> HostFolder:
        """The run's folder on the cluster's disk."""
        return HostFolder(self.root("one"))

    def begun(self, *words: str) -> operator.Command:
        """The whole run by one command, under way: its first part is committed."""
        self.save_profile()
        command = self.start("run", "profile.yaml", *words)
        self.wait(lambda: command.over() or self.parts(), "a first part", 120)
        assert not command.over(), command.said[-2000:]
        return command

    def parts(self) -> list[Path]:
        """The parts that are committed on the cluster's disk."""
        folders = (self.folder / "hosts" / "one").glob("trial-*/parts")
        return [path for folder in folders for path in folder.glob("*.json")]

    def ended_well(self, command: operator.Command, within_s: float = 240.0) -> None:
        """The command ends, says that all is well, and the result is whole and right, byte for byte."""
        done = command.wait(within_s)
        assert done.well, done.out[-3000:]
        self.right()
        self.judge()
        assert self.blames == []
        assert not {"dead"} & self.shown(), "a slot there read dead"

    def shown(self) -> set[str]:
        """Every verdict that the journal has of a slot in trouble."""
        return {str(event.get("verdict")) for event in self.run_.journal.events("slot in trouble")}

    def process(self, host: str, slot: str = "") -> tuple[str, int]:
        """The node of a host's supervisor, or of its slot's worker, and its process as this machine counts."""
        report = self.there.progress(slot) if slot else self.there.supervisor(host)
        wait_for(report.exists)  # a first part may be another task's
        inside = int(json.loads(report.read_text())["process"]["pid"])
        word = ["encode", slot] if slot else ["supervise", host]
        for node in self.cluster.nodes:
            with contextlib.suppress(FleetError, OSError):
                outside = self.cluster.outside(node, inside)
                words = Path(f"/proc/{outside}/cmdline").read_bytes().decode().split("\0")
                if all(each in words for each in word) and str(self.there.root) in words:
                    return node, outside
        raise AssertionError(f"no process {inside} of {host} {slot} on any node")

    def kill(self, host: str, slot: str = "") -> None:
        """SIGKILL for a host's supervisor, or its slot's worker."""
        os.kill(self.process(host, slot)[1], signal.SIGKILL)

    def told_by(self, *words: str) -> str:
        """What a quick command says."""
        return runbook_here(*words, cwd=self.project)

    def jobs(self) -> set[str]:
        """The names of this run's jobs that the queue has."""
        return {line for line in self.cluster.run("squeue", "-h", "-o", "%j").split() if self.here.name in line}

    def submissions(self) -> int:
        """How many arrays were submitted."""
        return len(list((self.there.root / "slurm").glob("rb-trial-*.sh")))

    def clean_up(self) -> None:
        """End the commands and jobs of this project."""
        with contextlib.suppress(FleetError):
            for name in self.cluster.run("squeue", "-h", "-o", "%j").split():
                if name.startswith("rb-"):
                    self.cluster.run("scancel", f"--name={name}")
        super().clean_up()
