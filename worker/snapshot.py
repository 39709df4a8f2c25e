"""One reading of a host, made there in one go: what is committed, what runs, what failed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import process, reserve, slurm
from .fields import WireError
from .files import JSON_LIMIT, read_json
from .layout import FORMAT, HostFolder, committed, quarantined
from .states import RUNNING
from .wire import Assignment, RowGivenUp, SlurmOptions

REPORT_LIMIT = 2**20  # bytes; a reading holds two reports of each slot
REASONS_SHOWN = 20  # rows given up whose reason a reading tells; all their numbers are in it


def _read(path: Path, limit: int = REPORT_LIMIT) -> dict[str, Any] | None:
    """A report, or what is wrong with it: a half-written file of a dying disk must not hide the other slots."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a pipe would wait for ever
            return {"unreadable": f"{path}: not a regular file"}
        return read_json(path, limit)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}


def _assignment(path: Path) -> Assignment | None:
    """What the host is to do. One that was overwritten is none: the host counts as one that was never launched."""
    with contextlib.suppress(WireError):
        return Assignment.from_json(_read(path, JSON_LIMIT))  # no other limit than the worker's
    return None


def _exits(path: Path, unwritten: Any) -> list[Any]:
    """The last ends of a slot's workers; `unwritten`: the very last, where it could not be written there."""
    on_file = (_read(path) or {}).get("exits")
    exits = on_file[-50:] if isinstance(on_file, list) else []
    return [*exits, unwritten][-50:] if isinstance(unwritten, dict) and _at(unwritten) > _at(exits[-1:]) else exits


def _at(entry: Any, key: str = "at") -> float:
    """When something was noted, 0 where that cannot be said."""
    last = entry[-1] if isinstance(entry, list) and entry else entry
    at = last.get(key) if isinstance(last, dict) else None
    return float(at) if isinstance(at, (int, float)) and not isinstance(at, bool) else 0.0


def _given_up(folder: HostFolder, rows: list[int]) -> list[RowGivenUp]:
    """The first rows that were given up: of which slot, when, and why."""
    records = [(row, _read(folder.quarantined(row)) or {}) for row in rows[:REASONS_SHOWN]]
    return [
        RowGivenUp(row, _at(record), str(record.get("reason", ""))[:500], str(record.get("slot", ""))[:80])
        for row, record in records
    ]


def _alive(report: Any) -> bool:
    """Whether the process that a report names lives."""
    try:
        return process.alive((report or {}).get("process"))
    except OSError:  # a number of so many digits that it is no file name
        return False


def snapshot(root: Path, host: str) -> dict[str, Any]:
    """Everything the monitor needs to know about `host`, as one JSON-ready object, by the host's own clock."""
    folder = HostFolder(Path(root))
    own = _of_host(folder, host)
    alive = {name: _alive(entry["report"]) for name, entry in own["slots"].items()}
    slots = {name: {**entry, "alive": alive[name]} for name, entry in own["slots"].items()}
    living = _alive(own["supervisor"])
    return {**_of_folder(folder), **own, "slots": slots, "supervisor_alive": living, "queued": None}


def snapshots(root: Path, cluster: str, hosts: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same of all tasks of a cluster, by host: its folder is listed once, its queue asked once at most.

    A process of another machine says nothing here: a supervisor lives while its heartbeat is fresh, by the folder's
    clock, and its workers by its word.
    """
    folder, heartbeat_s = HostFolder(Path(root)), SlurmOptions.from_json(options).heartbeat_s
    shared = _of_folder(folder)
    placed = slurm.evidence(folder, cluster, hosts, slurm.queue(str(root), cluster, options))
    readings = {}
    for host, evidence in placed.items():
        own = _of_host(folder, host)
        report = own["supervisor"] if isinstance(own["supervisor"], dict) else {}
        living = slurm.is_fresh(evidence.silent_s, heartbeat_s) and report.get("working") is not False
        slots = {name: {**entry, "alive": living and _runs(report, name, entry["report"])}
                 for name, entry in own["slots"].items()}  # fmt: skip
        # Without its process a supervisor's report is damaged, and the reading is refused by who asked.
        readings[host] = {**shared, **own, "slots": slots, "supervisor_alive": living, "queued": evidence.to_json()}
    return readings


def _runs(supervisor: Any, slot: str, report: Any) -> bool:
    """Whether a supervisor that lives says that the process of this report is its slot's worker, and runs."""
    slots = supervisor.get("slots")
    entry = slots.get(slot) if isinstance(slots, dict) else None
    worker = (report or {}).get("process")
    return isinstance(entry, dict) and entry.get("state") == RUNNING and bool(worker) and entry.get("process") == worker


def _of_host(folder: HostFolder, host: str) -> dict[str, Any]:
    """What the files of one host say."""
    assignment = _assignment(folder.assignment(host))
    supervisor = _read(folder.supervisor(host))
    kept = reserve.read(folder.reserve(host))  # newer than the files while the disk is full
    if _at(kept.get("report"), "heartbeat_at") > _at(supervisor, "heartbeat_at"):
        supervisor = kept["report"]
    unwritten = kept.get("exits") if isinstance(kept.get("exits"), dict) else {}
    slots = {}
    for spec in assignment.slots if assignment else ():
        name = spec.slot
        slots[name] = {
            "ranges": [[shard.start, shard.stop] for shard in spec.shards],
            "gpu": spec.gpu,
            "report": _read(folder.progress(name)),
            "exits": _exits(folder.exits(name), (unwritten or {}).get(name)),
        }
    return {
        "host": host,
        "assigned": assignment is not None,
        "epoch": assignment.epoch if assignment else None,
        "supervisor": supervisor,
        "stop_requested": folder.stop_request(host).exists(),
        "slots": slots,
    }


def _of_folder(folder: HostFolder) -> dict[str, Any]:
    """What is so of a run's folder and its machine, whichever host asks."""
    given_up = quarantined(folder.quarantine)
    usage = shutil.disk_usage(folder.root) if folder.root.exists() else None
    return {
        "format": FORMAT,
        "now": time.time(),
        "boot": process.boot_id(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "free_bytes": usage.free if usage else None,
        "committed": committed(folder.parts),
        "quarantined": given_up,
        "given_up": [each.to_json() for each in _given_up(folder, given_up)],
    }
