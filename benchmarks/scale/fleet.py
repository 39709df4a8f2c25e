"""A made-up run of any size: a plan, parts at home, and hosts that answer as real ones do; no text and no vector.

The corpus is sparse files of the right sizes, a part at home is its two names. What a host answers is made as JSON and
passes the product's own check of answers, so all that a look, a collect or a move of rows does is done for real.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runbook_lib.hosts import answers
from runbook_lib.hosts import hosts as machines
from runbook_lib.profile import profile as profiles
from runbook_lib.run import opening
from runbook_lib.run import plan as plans
from runbook_lib.run import run as runs
from worker.layout import HostFolder
from worker.rows import Range, planned_parts
from worker.wire import Reading

PROFILE = """run: scale
corpus: {path: corpus.jsonl}
model: {name: owner/model, dim: 8, dtype: float32}
hosts: [{name: host0000, kind: local, device: cpu, slots: 1}]
"""
LINE_BYTES = 400  # of a document in texts.jsonl
MODEL = plans.ModelIdentity("owner/model", "0" * 40, "1" * 64, 8, True)


def host_name(number: int) -> str:
    """The name of a host by its number."""
    return f"host{number:04d}"


def make_plan(rows: int, hosts: int, slots: int, run: str, run_id: str, part_rows: int = 0) -> plans.Plan:
    """The plan of `rows` documents on `hosts` with `slots` GPUs each; 0: in the parts that the product would choose."""
    ranges = plans.cut(rows, hosts * slots)
    usual = plans.part_rows_for("cuda", max(stop - start for start, stop in ranges), 0, 1)
    part_rows = part_rows or plans.part_rows_of_all(usual, rows, hosts * slots)
    made = [
        plans.Slot(f"cluster{at // slots}_gpu{at % slots}", host_name(at // slots), at % slots, "cuda", 1, start, stop)
        for at, (start, stop) in enumerate(ranges)
    ]
    return plans.Plan(
        run=run, epoch=1, documents=rows, questions=0, corpus="2" * 64, model=MODEL, dtype="float32", prompt="{text}",
        question_prompt="{text}", max_tokens=512, part_rows=part_rows, slots=tuple(made), run_id=run_id,
    )  # fmt: skip


def parts_of(plan: plans.Plan, slot: plans.Slot) -> list[Range]:
    """The parts of a slot."""
    return planned_parts(slot.start, slot.stop, plan.part_rows)


def done_of(plan: plans.Plan, slot: plans.Slot, share: float) -> list[Range]:
    """The first parts of a slot: those that are done."""
    mine = parts_of(plan, slot)
    return mine[: int(len(mine) * share)]


def make(folder: Path, rows: int, hosts: int, slots: int, share: float = 0.5, part_rows: int = 0) -> None:
    """A run's folder with its plan and, by name, `share` of the parts of each slot at home."""
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(PROFILE)
    run = opening.create(profiles.load(folder / "profile.yaml"), "scale")
    plan = make_plan(rows, hosts, slots, run.name, run.id, part_rows)
    plan.save(run.plan_file)
    _sparse_corpus(run.corpus, plan)
    run.local.parts.mkdir()
    for slot in plan.slots:
        for start, stop in done_of(plan, slot, share):
            run.local.part(start, stop).with_suffix(".json").touch()
    run.journal.write("supervisor started", host=host_name(0))


def _sparse_corpus(folder: Path, plan: plans.Plan) -> None:
    """A numbered corpus of the right sizes; nobody here reads a text of it."""
    folder.mkdir()
    rows = plan.rows
    for name, dtype, shape in (("fingerprints.npy", np.uint8, (rows, 16)), ("offsets.npy", np.int64, (rows + 1,))):
        np.lib.format.open_memmap(folder / name, "w+", dtype, shape)
    for name, size in (
        ("texts.jsonl", LINE_BYTES * rows),
        ("articles.jsonl", LINE_BYTES * rows),
        ("questions.jsonl", 0),
    ):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    written = {path.name: {"sha256": "0" * 64, "bytes": path.stat().st_size} for path in folder.iterdir()}
    record = {
        "format": 1,
        "source": {"path": "made up", "bytes": 0, "sha256": "0" * 64},
        "documents": rows,
        "questions": 0,
        "fingerprint": plan.corpus,
        "fields": {"id": "id", "title": "title", "text": "text", "url": "url"},
        "accept": [],
        "template": plan.prompt,
        "question_template": plan.question_prompt,
        "notes": [],
        "characters": {"total": 0, "min": 0, "median": 0, "p95": 0, "max": 0},
        "files": written,
    }
    (folder / "corpus.json").write_text(json.dumps(record))


def open_run(folder: Path) -> runs.Run:
    """The made-up run, with the hosts of its plan."""
    run = opening.open_folder(next((folder / "runs").iterdir()))
    spec = replace(run.profile.hosts[0], kind="ssh", ssh="nowhere")
    specs = tuple(replace(spec, name=name) for name in run.plan().hosts)
    return runs.Run(run.folder, replace(run.profile, hosts=specs))


def answer(plan: plans.Plan, slots: list[plans.Slot], committed: list[Range], died: bool, now: float) -> dict[str, Any]:
    """What a host's agent answers to a poll, as JSON: each slot computes, or has just died for the third time."""
    process = {"pid": 4242, "start": "100", "boot": "b" * 32}
    entries = {}
    for slot in slots:
        report = {
            "slot": slot.slot, "host": slot.host, "run": plan.run, "epoch": plan.epoch, "process": process,
            "state": "running", "started_at": now - 900, "loaded_s": 12.0, "rows_committed": slot.rows // 2,
            "part": [slot.start, slot.start + 1], "rows_in_part": 1, "processing_time": 880.0, "rate": 50.0,
            "rows_per_s": 50.0, "heartbeat": int(now), "heartbeat_at": now, "device": "cuda (made up)",
        }  # fmt: skip
        exits = [
            {"at": now - 30 + at, "code": 1, "reason": "out of memory", "left": 9, "deaths": at + 1, "state": "waiting"}
            for at in range(3 if died else 0)
        ]
        report |= {"exit_code": 1, "ended_at": now, "reason": "out of memory"} if died else {}
        rows = [[slot.start, slot.stop]]
        entries[slot.slot] = {"ranges": rows, "gpu": None, "report": report, "exits": exits, "alive": not died}
    supervised = {slot.slot: {"state": "waiting" if died else "running", "process": process} for slot in slots}
    supervisor = {
        "host": slots[0].host, "process": process, "heartbeat_at": now, "working": True, "slots": supervised,
    }  # fmt: skip
    return {
        "now": now, "assigned": True, "supervisor_alive": True, "stop_requested": False, "slots": entries,
        "supervisor": supervisor, "committed": committed, "quarantined": [], "given_up": [], "epoch": plan.epoch,
    }  # fmt: skip


@dataclass
class Host:
    """A made-up host: it answers a poll, and has nothing else."""

    name: str
    folder: HostFolder
    said: dict[str, Any]

    def poll(self) -> Reading:
        """One reading, checked as a real one is."""
        return answers.reading(self.said, self.name)

    def breaks(self) -> list[str]:
        """No connection ever broke."""
        return []


class Fleet:
    """The hosts of a run; `install` has the product speak with them."""

    def __init__(self, run: runs.Run, share: float = 0.5, died: bool = False):
        plan, now = run.plan(), time.time()
        self.hosts: dict[str, Host] = {}
        by_host: dict[str, list[plans.Slot]] = {}
        for slot in plan.slots:
            by_host.setdefault(slot.host, []).append(slot)
        for name, slots in by_host.items():
            committed = [part for slot in slots for part in done_of(plan, slot, share)]
            said = answer(plan, slots, committed, died, now)
            self.hosts[name] = Host(name, HostFolder(run.folder / "nowhere"), said)

    def install(self) -> Fleet:
        """Have every connection of this process end here."""
        machines.connect = lambda spec, run: self.hosts[spec.name]  # type: ignore[assignment, return-value]
        return self

    def committed(self) -> dict[str, list[Range]]:
        """What each host has committed, as a poll finds it."""
        return {name: list(host.poll().committed) for name, host in self.hosts.items()}
