"""File names: shared by the worker and the control machine.

Standard library only, so the control machine reads a worker's files without torch. On a host:

    <workdir>/<run>/
        run.json                        which run this is, with its random id
        worker/                         this package
        hosts/<host>.json               what the host's supervisor is to do (written by launch)
        shards/rows_<start>_<stop>.jsonl  one line a row: {"row": 17, "text": "as encoded"}
        parts/rows_<start>_<stop>.npy   float32 (stop - start, dim), C order
        parts/rows_<start>_<stop>.json  the commit: what the .npy is, with its sha256
        progress/<slot>.json            one writer: that slot's worker
        progress/<slot>.exits.json      one writer: the supervisor; exit codes and reasons
        progress/rows.lock              a byte a row, locked while a worker computes it
        progress/known.json             what known texts give on this host's processor
        canaries/<digest>.json          what known texts give on a kind of slot
        doubled/<slot>.json             batches of others' parts to be computed again, and the answer
        progress/host_<host>.json       one writer: the supervisor; its own heartbeat
        progress/host_<host>.reserve    its place for a last word when the disk is full
        quarantine/row_<row>.json       a document that no worker could encode, and why
        slurm/<job>.sh, slurm/<cluster>.json  batch scripts, and the jobs that were submitted
        logs/<slot>.log, logs/host_<host>.log
    <workdir>/models/<digest>/          a model, shared by runs
    <workdir>/seals/<run id>.jsonl      the sums of a run's seals: they stay when its other files are removed
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .escape import safe_text
from .rows import Range

FORMAT = 1
PART_FILE = re.compile(r"rows_([0-9]{9})_([0-9]{9})\.(npy|json)")
QUARANTINE_FILE = re.compile(r"row_([0-9]{9})\.json")
SLOT_NAME = re.compile(r"cluster[0-9]{1,4}_gpu[0-9]{1,4}")
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# What all runs of an account share on a host, beside their folders; and what Windows keeps, whatever the suffix.
SHARED_FOLDERS = ("models", "environments", "seals")
DEVICE_NAMES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


def seals_file(workdir: Path, run_id: str) -> Path:
    """What a host was told of the seals of a run: one line each, the last one last."""
    return workdir / SHARED_FOLDERS[2] / f"{run_id}.jsonl"


@dataclass(frozen=True)
class HostFolder:
    """Every path of one run on one host; no other code joins these names."""

    root: Path
    notes: Path | None = None  # where notes of every batch go, if not beside the progress: a shared disk is slow

    @property
    def mark(self) -> Path:
        """Which run this folder is of: its name and its random id, written when the folder was made."""
        return self.root / "run.json"

    @property
    def parts(self) -> Path:
        """Committed slices of rows."""
        return self.root / "parts"

    @property
    def quarantine(self) -> Path:
        """Rows that no worker could encode."""
        return self.root / "quarantine"

    def assignment(self, host: str) -> Path:
        """What the supervisor of `host` is to do."""
        return self.root / "hosts" / f"{host}.json"

    def shard(self, start: int, stop: int) -> Path:
        """The rows [start, stop), one JSON line each; named by them, so that rows can move from slot to slot."""
        return self.root / "shards" / f"rows_{start:09d}_{stop:09d}.jsonl"

    def part(self, start: int, stop: int) -> Path:
        """The array of rows [start, stop); its commit has the suffix .json."""
        return self.parts / f"rows_{start:09d}_{stop:09d}.npy"

    def quarantined(self, row: int) -> Path:
        """The record of one row that could not be encoded."""
        return self.quarantine / f"row_{row:09d}.json"

    def progress(self, slot: str) -> Path:
        """The worker's own report."""
        return self.root / "progress" / f"{slot}.json"

    def lock(self, slot: str) -> Path:
        """Held by the living worker of a slot, so that a second one leaves."""
        return self.root / "progress" / f"{slot}.lock"

    @property
    def rows_lock(self) -> Path:
        """Each row's byte is locked by the worker that computes it, so that no two do the same rows."""
        return self.root / "progress" / "rows.lock"

    def suspects(self, slot: str) -> Path:
        """The rows being encoded right now: read after a death, to find the document that kills its worker."""
        return (self.notes or self.root / "progress") / f"{slot}.suspects.json"

    @property
    def known(self) -> Path:
        """What the known texts give on this host's processor: a device that gives something else is broken."""
        return self.root / "progress" / "known.json"

    @property
    def known_lock(self) -> Path:
        """Held by the worker that has them computed."""
        return self.root / "progress" / "known.lock"

    def canary(self, digest: str) -> Path:
        """What the canaries of a kind of slot give; see `worker.canary`."""
        return self.root / "canaries" / f"{digest}.json"

    def doubled(self, slot: str) -> Path:
        """Which batches of others' parts a slot is to compute again; see `worker.double`."""
        return self.root / "doubled" / f"{slot}.json"

    def doubled_answer(self, slot: str) -> Path:
        """What came of it."""
        return self.root / "doubled" / f"{slot}.answer.json"

    def exits(self, slot: str) -> Path:
        """How the slot's workers ended: codes and reasons, kept by the supervisor."""
        return self.root / "progress" / f"{slot}.exits.json"

    def supervisor(self, host: str) -> Path:
        """The supervisor's own report."""
        return self.root / "progress" / f"host_{host}.json"

    def reserve(self, host: str) -> Path:
        """What the supervisor of a host has to say while its disk is full."""
        return self.root / "progress" / f"host_{host}.reserve"

    def supervisor_lock(self, host: str) -> Path:
        """Held by the living supervisor of a host."""
        return self.root / "progress" / f"host_{host}.lock"

    def stop_request(self, host: str) -> Path:
        """Exists while the operator wants this host's workers stopped."""
        return self.root / "progress" / f"host_{host}.stop"

    def restart_request(self, slot: str) -> Path:
        """Exists while the operator wants this slot's worker started anew."""
        return self.root / "progress" / f"{slot}.restart"

    def slurm(self, name: str) -> Path:
        """A file of what was asked of Slurm: batch scripts, jobs, the queue's last answer."""
        return self.root / "slurm" / name

    def log(self, name: str) -> Path:
        """The log of a slot, or of `host_<host>`; appended, never truncated."""
        return self.root / "logs" / f"{name}.log"


def run_name_problem(name: str) -> str:
    """Why a run cannot be called so, in words; empty where it can. Some disks fold case, or drop a last dot."""
    if not RUN_NAME.fullmatch(name):
        return f"run name {safe_text(name, 120)!r}: letters, digits, '.', '_' and '-' only, at most 100"
    folded = name.casefold().rstrip(".")
    if folded in SHARED_FOLDERS or DEVICE_NAMES.fullmatch(folded) or name.endswith("."):
        return f"run name {name!r}: kept for something else, or folded onto another name by some disks; take another"
    return ""


def committed(parts: Path) -> list[Range]:
    """The row ranges committed in a folder, sorted: judged by name, since only a commit has a final .json name."""
    ranges = []
    try:
        names = os.listdir(parts)  # noqa: PTH208  (asked at every look, of thousands of names)
    except FileNotFoundError:
        return []
    for name in names:
        match = PART_FILE.fullmatch(name) if name.endswith(".json") else None
        if match and match.group(1) < match.group(2):
            ranges.append((int(match.group(1)), int(match.group(2))))
    return sorted(ranges)


def quarantined(folder: Path) -> list[int]:
    """The rows that were given up, sorted."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(m.group(1)) for name in names if (m := QUARANTINE_FILE.fullmatch(name)))
