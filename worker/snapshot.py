"""One reading of a host, made there in one go: what is committed, what runs, what failed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Callable

from . import process, reserve
from .fields import WireError
from .files import JSON_LIMIT, read_json
from .launcher import LAUNCHERS, PROCESS
from .layout import FORMAT, HostFolder, committed, quarantined
from .wire import Assignment, RowGivenUp

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


def _alive(report: Any, alive: Callable[[Any], bool]) -> bool:
    """Whether the process that a report names lives."""
    try:
        return alive((report or {}).get("process"))
    except OSError:  # a number of so many digits that it is no file name
        return False


def snapshot(root: Path, host: str) -> dict[str, Any]:
    """Everything the monitor needs to know about `host`, as one JSON-ready object, by the host's own clock."""
    folder = HostFolder(Path(root))
    assignment = _assignment(folder.assignment(host))
    supervisor = _read(folder.supervisor(host))
    kept = reserve.read(folder.reserve(host))  # newer than the files while the disk is full
    if _at(kept.get("report"), "heartbeat_at") > _at(supervisor, "heartbeat_at"):
        supervisor = kept["report"]
    unwritten = kept.get("exits") if isinstance(kept.get("exits"), dict) else {}
    slots = {}
    for spec in assignment.slots if assignment else ():
        name = spec.slot
        report = _read(folder.progress(name))
        slots[name] = {
            "ranges": [[shard.start, shard.stop] for shard in spec.shards],
            "gpu": spec.gpu,
            "report": report,
            "exits": _exits(folder.exits(name), (unwritten or {}).get(name)),
            "alive": _alive(report, process.alive),
        }
    given_up = quarantined(folder.quarantine)
    usage = shutil.disk_usage(root) if Path(root).exists() else None
    return {
        "format": FORMAT,
        "host": host,
        "now": time.time(),
        "boot": process.boot_id(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "free_bytes": usage.free if usage else None,
        "assigned": assignment is not None,
        "epoch": assignment.epoch if assignment else None,
        "supervisor": supervisor,
        "supervisor_alive": _alive(supervisor, LAUNCHERS[PROCESS].alive),  # one by systemd is told by the same
        "stop_requested": folder.stop_request(host).exists(),
        "slots": slots,
        "committed": committed(folder.parts),
        "quarantined": given_up,
        "given_up": [each.to_json() for each in _given_up(folder, given_up)],
    }
