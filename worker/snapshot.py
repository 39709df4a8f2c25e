"""One reading of a host, made there in one go: what is committed, who works, what broke. Standard library only."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from . import process
from .layout import FORMAT, HostFolder, committed, quarantined, read_json


def _read(path: Path) -> dict[str, Any] | None:
    """A report, or what is wrong with it: a half-written file of a dying disk must not hide the other slots."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}


def snapshot(root: Path, host: str) -> dict[str, Any]:
    """Everything the monitor needs to know about `host`, as one JSON-ready object, by the host's own clock."""
    folder = HostFolder(Path(root))
    assignment = _read(folder.assignment(host)) or {}
    supervisor = _read(folder.supervisor(host))
    slots = {}
    for spec in assignment.get("slots", []):
        name = spec["slot"]
        report = _read(folder.progress(name))
        slots[name] = {
            "start": spec["start"],
            "stop": spec["stop"],
            "report": report,
            "exits": (_read(folder.exits(name)) or {}).get("exits", [])[-5:],
            "alive": process.alive((report or {}).get("process")),
        }
    usage = shutil.disk_usage(root) if Path(root).exists() else None
    return {
        "format": FORMAT,
        "host": host,
        "now": time.time(),
        "boot": process.boot_id(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "free_bytes": usage.free if usage else None,
        "assigned": bool(assignment),
        "epoch": assignment.get("epoch"),
        "supervisor": supervisor,
        "supervisor_alive": process.alive((supervisor or {}).get("process")),
        "stop_requested": folder.stop_request(host).exists(),
        "slots": slots,
        "committed": committed(folder.parts),
        "quarantined": quarantined(folder.quarantine),
    }
