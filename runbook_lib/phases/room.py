"""Room on disks: the bytes that a run will write, compared with the free ones; folders of one disk are added up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..corpus.corpus import Corpus
from ..hosts import together
from ..profile.profile import HostSpec
from ..result import whole as wholes
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.run import Run

ENVIRONMENT_BYTES = {  # torch and its dependencies, installed
    "cuda": 8_000_000_000,
    "xpu": 8_000_000_000,
    "mps": 2_000_000_000,
    "cpu": 2_000_000_000,
}
SPARE_BYTES = 200_000_000  # for logs, records and the file system itself


def add(
    checks: Checks, run: Run, dim: int, model_bytes: int, corpus: Corpus, facts: Mapping[str, MachineFacts]
) -> None:
    """Add a check for each disk of this machine, and for each host that was asked; `dim`: numbers of a vector."""
    vectors, texts, whole = corpus.rows * dim * 4, corpus.text_bytes, wholes.load(run)
    result = vectors if whole is None else whole.corpus.rows * dim * 4
    kept = texts if whole is None else texts + whole.corpus.text_bytes
    share = (vectors + texts) // len(run.profile.hosts)
    needs: dict[Path, int] = {run.folder: vectors + result + kept}
    founding = result + kept // 10
    needs[run.profile.output.folder] = founding
    needs[run.profile.output.backups] = founding
    for specs in together.groups(host for host in run.profile.hosts if host.is_here):
        there = Path(specs[0].workdir).expanduser()
        needs[there] = needs.get(there, 0) + share * len(specs) + model_bytes
    _here(checks, needs)
    for specs in together.groups(run.profile.hosts):
        known = facts.get(specs[0].name)
        if known is not None and not specs[0].is_here:
            _there(checks, specs, known, share, model_bytes)


def _here(checks: Checks, needs: Mapping[Path, int]) -> None:
    """Add up what folders of one disk need (bytes)."""
    disks: dict[int, tuple[list[Path], int]] = {}
    for folder, need in needs.items():
        if not writable(folder):
            checks.add("disk", False, f"{folder} cannot be written", "writable", "correct its permissions")
            continue
        device = folder.stat().st_dev
        folders, so_far = disks.get(device, ([], 0))
        disks[device] = ([*folders, folder], so_far + need)
    for folders, need in disks.values():
        free = shutil.disk_usage(folders[0]).free
        what = "vectors, texts, model, merged file and backup"
        _room(checks, f"disk of {folders[0]}", free, need, what, "here")


def _there(checks: Checks, specs: Sequence[HostSpec], known: MachineFacts, share: int, model_bytes: int) -> None:
    """The disk of hosts that are reached as one; `share`: the bytes that each of them writes."""
    host, free = specs[0], known.get("free_bytes")
    if free is None:
        checks.add("disk", True, "the host does not say what is free", where=host.reached, warn=True)
        return
    sharing = len(specs) + len(known.get("shared", []))  # each of these hosts writes its share to the same disk
    making = 0 if known["made"] else ENVIRONMENT_BYTES[host.device]
    what = "texts, vectors, model" + (", environment" if making else "")
    _room(checks, "disk", free, share * sharing + model_bytes + making, what, host.reached)


def writable(folder: Path) -> bool:
    """Whether a folder is there, or can be made, and takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _room(checks: Checks, name: str, free: int, need: int, what: str, where: str) -> None:
    room, expected = f"{free / 1e9:.1f} GB free", f"{(need + SPARE_BYTES) / 1e9:.1f} GB for {what}"
    checks.add(name, free > need + SPARE_BYTES, room, expected, "free space or move a folder", where)
