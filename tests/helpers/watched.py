"""A run as the monitor finds it, from files alone: no process is started, reports and parts are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import wired

from runbook_lib.hosts import hosts
from runbook_lib.profile import profile
from runbook_lib.run import opening, plan, run
from runbook_lib.slots.snapshot import Snapshot
from worker.files import write_json
from worker.layout import HostFolder


def one_host(tmp_path: Path) -> run.Run:
    """A run with the host `here` of two slots of ten rows."""
    text = "run: t\ncorpus: {path: c.jsonl}\nmodel: {name: /nowhere}\nmonitor: {interval_s: 0.05}\n"
    text += "hosts:\n  - {name: here, kind: local, slots: 2, device: cpu, workdir: work}\n"
    (tmp_path / "p.yaml").write_text(text)
    this = opening.create(profile.load(tmp_path / "p.yaml"))
    slots = tuple(plan.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, 10 * i, 10 * i + 10) for i in range(2))
    model = plan.ModelIdentity("m", "r", "d", 4, True)
    plan.Plan(this.name, 1, 18, 2, "c", model, "float32", "{text}", "{text}", None, 5, slots).save(this.plan_file)
    return this


def two_hosts(made: run.Run) -> run.Run:
    """The run of `one_host` on two hosts with a slot each; rows 0-10 are done on `here`, none of 10-20 on `there`."""
    folder = made.profile.path.parent
    here = made.profile.hosts[0]
    specs = (here, replace(here, name="there", workdir=str(folder / "other")))
    plan_now = made.plan()
    low, high = plan_now.slots
    replace(plan_now, slots=(low, replace(high, slot="cluster1_gpu0", host="there", index=0))).save(made.plan_file)
    this = run.Run(made.folder, replace(made.profile, hosts=specs))
    for spec, slot in zip(specs, this.plan().slots, strict=True):
        told = wired.assignment([wired.slot(slot.slot, (slot.start, slot.stop))])
        write_json(folder_of(this, spec.name).assignment(spec.name), told)
    commit(folder_of(this, "here"), (0, 5), (5, 10))
    return this


def host_folder(made: run.Run) -> HostFolder:
    """The folder of its only host."""
    return hosts.connect(made.profile.hosts[0], made.name).folder


def staged(made: run.Run, **reports: Any) -> HostFolder:
    """The host's folder, staged, with what each slot's worker reports."""
    folder = host_folder(made)
    slots = [wired.slot(f"cluster0_gpu{i}", (10 * i, 10 * i + 10)) for i in range(2)]
    write_json(folder.assignment("here"), wired.assignment(slots))
    for slot, report in reports.items():
        write_json(folder.progress(slot), report)
    return folder


def commit(folder: HostFolder, *ranges: tuple[int, int]) -> None:
    """Records of parts without their vectors: all that the monitor counts."""
    for start, stop in ranges:
        write_json(folder.part(start, stop).with_suffix(".json"), {})


def folder_of(this: run.Run, name: str) -> HostFolder:
    """The folder of a host of the run."""
    return hosts.connect(next(spec for spec in this.profile.hosts if spec.name == name), this.name).folder


def lose(this: run.Run, name: str) -> None:
    """From now on the host cannot be read."""
    workdir = folder_of(this, name).root.parent
    workdir.rename(workdir.with_name(f"{workdir.name} as it was"))
    workdir.write_text("a file stands where the folder should be")


class Kept:
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.states: list[Snapshot] = []

    def show(self, state: Snapshot) -> None:
        self.states.append(state)
