"""What a host says is checked before anything is made of it: its answers may be damaged, or made up by somebody."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from worker.escape import safe_text
from worker.layout import SLOT_NAME

from ..errors import HostError
from ..profile.rules import UNWANTED
from . import bounds

ROWS = 10**9  # row numbers have nine digits
RANGES = 10**6
GIVEN_UP = 100
SECONDS = 1e11  # the year 5138: what is later cannot be shown as a date
PIDS = 2**31
NUMBERS = ("heartbeat_at", "started_at", "loaded_s", "processing_time", "ended_at", "rate", "rows_per_s")
COUNTS = ("rows_in_part", "rows_committed")
STATE = re.compile("[a-z][a-z ]{0,39}")  # of a worker, a supervisor or an environment: a few words of ours


class _Impossible(ValueError):
    """Something in a reading that no honest host says."""


def reading(value: Any, host: str) -> dict[str, Any]:
    """A reading (`worker.snapshot.snapshot`) that can be true. Raises HostError naming the field that cannot."""
    try:
        _need(isinstance(value, dict), "reading", value)
        _number(value.get("now"), "now")
        for name in ("assigned", "supervisor_alive", "stop_requested"):
            _need(isinstance(value.get(name), bool), name, value.get(name))
        _need(isinstance(value.get("slots"), dict) and len(value["slots"]) <= 4096, "slots", value.get("slots"))
        for slot, entry in value["slots"].items():
            _need(bool(SLOT_NAME.fullmatch(slot)), "slot's name", slot)
            _slot(entry, slot)
        _supervisor(value.setdefault("supervisor", None))
        if value.setdefault("epoch", None) is not None:
            _whole(value["epoch"], "epoch")
        process = (value["supervisor"] or {}).get("process")
        _need(
            bool(process) or not value["supervisor_alive"], "supervisor process", process
        )  # it may have to be stopped
        _each(value.get("committed"), "committed", lambda rows: _range(rows, "committed"), RANGES)
        _each(value.get("quarantined"), "quarantined", lambda row: _whole(row, "quarantined"), RANGES)
        _each(value.setdefault("given_up", []), "given_up", _given_up, GIVEN_UP)
    except _Impossible as why:
        raise HostError(
            f"{host}: its reading cannot be true ({why}); nothing was taken from it. Look at that machine: a disk that "
            "fails, or somebody who writes into the run's folder"
        ) from None
    return value  # type: ignore[no-any-return]


def _need(holds: bool, name: str, seen: object) -> None:
    if not holds:
        raise _Impossible(f"{name}: {shown(seen, 80)}")


def shown(value: object, limit: int = 500) -> str:
    """What a host said, for a message. Of a list or an object only its size: it may be huge, or nested without end."""
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return safe_text(repr(value[:limit] if isinstance(value, str) else value), limit)


def _number(value: object, name: str) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    # A time next to nothing would make a rate without bounds; NaN fails this too.
    _need(number == 0 or 1e-9 <= number < SECONDS, name, value)


def _whole(value: object, name: str) -> None:
    _need(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= ROWS, name, value)


def _range(value: object, name: str) -> None:
    _need(isinstance(value, (list, tuple)) and len(value) == 2, name, value)
    assert isinstance(value, (list, tuple))
    for row in value:
        _whole(row, name)
    _need(value[0] < value[1], name, value)


def _each(values: object, name: str, check: Callable[[object], None], most: int = 4096) -> None:
    _need(isinstance(values, list) and len(values) <= most, name, values)
    for value in values:  # type: ignore[attr-defined]
        check(value)


def _slot(entry: Any, slot: str) -> None:
    _need(isinstance(entry, dict), slot, entry)
    _each(entry.get("ranges"), f"{slot} ranges", lambda rows: _range(rows, f"{slot} ranges"), RANGES)
    _need(isinstance(entry.get("alive"), bool), f"{slot} alive", entry.get("alive"))
    _need(isinstance(entry.get("gpu"), (str, type(None))), f"{slot} gpu", entry.get("gpu"))
    _each(entry.get("exits"), f"{slot} exits", lambda exit: _record(exit, f"{slot} exits"))
    for exit in entry["exits"]:
        _need(isinstance(exit.get("reason"), str), f"{slot} reason", exit.get("reason"))
    report = entry.setdefault("report", None)
    if report is None:
        return
    _record(report, f"{slot} report")
    for name in NUMBERS:
        if report.get(name) is not None:
            _number(report[name], f"{slot} {name}")
    for name in COUNTS:
        if report.get(name) is not None:
            _whole(report[name], f"{slot} {name}")
    for name in ("device", "reason"):
        _need(isinstance(report.get(name), (str, type(None))), f"{slot} {name}", report.get(name))
    _state(report, slot)
    _process(report, slot)


def _given_up(value: Any) -> None:
    """Why a row was given up: its number, the slot, the time there, and the reason."""
    _record(value, "given_up")
    _whole(value.get("row"), "given_up row")
    _number(value.get("at"), "given_up at")
    for name in ("reason", "slot"):
        _need(isinstance(value.get(name), str), f"given_up {name}", value.get(name))


def _supervisor(value: Any) -> None:
    if value is None:
        return
    _record(value, "supervisor")
    _process(value, "supervisor")
    _need(isinstance(value.get("gpus"), (str, type(None))), "supervisor gpus", value.get("gpus"))
    slots = value.get("slots")
    _need(isinstance(slots, (dict, type(None))), "supervisor slots", slots)
    for entry in (slots or {}).values():
        _need(isinstance(entry, dict), "supervisor slots", entry)
        if entry.get("deaths") is not None:
            _whole(entry["deaths"], "supervisor deaths")
        _state(entry, "supervisor")
        _process(entry, "supervisor")


def _state(record: dict[str, Any], name: str) -> None:
    state = record.get("state")
    _need(state is None or (isinstance(state, str) and bool(STATE.fullmatch(state))), f"{name} state", state)


def _process(record: dict[str, Any], name: str) -> None:
    """The identity of a process (see `worker.process.identify`), where one is given."""
    found = record.get("process")
    if found is None:
        return
    _need(isinstance(found, dict), f"{name} process", found)
    pid = found.get("pid")
    _need(isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid < PIDS, f"{name} pid", pid)
    for key in ("start", "boot"):
        _need(isinstance(found.get(key), (str, type(None))), f"{name} {key}", found.get(key))


def _record(value: Any, name: str) -> None:
    """A JSON object of bounded size: no number that is none, no endless text, nothing nested without end."""
    _need(isinstance(value, dict), name, value)
    if odd := bounds.problem(value):
        _need(False, name, odd)


# ---------------------------------------------------------------------------------------------- other answers


def path(value: object, host: str, what: str) -> str:
    """A path that a host says: absolute, and of characters that a person can mean (as in a profile)."""
    if isinstance(value, str) and value.startswith("/") and len(value) < 4096 and not UNWANTED.search(value):
        return value
    raise HostError(f"{host}: says as {what} what cannot be: {shown(value, 200)}")


def environment(value: object, host: str) -> dict[str, Any]:
    """What `worker.environment.find` can say."""
    found: dict[str, Any] = value if isinstance(value, dict) else {}
    texts = (found.get(name) for name in ("python", "why", "tool", "log"))
    state = found.get("state")
    if not (isinstance(state, str) and STATE.fullmatch(state) and all(isinstance(text, str) for text in texts)):
        raise HostError(f"{host}: says of its environment what cannot be: {shown(value)}")
    for name in ("python", "log"):
        if found[name] or (name == "python" and state in ("ready", "foreign")):
            path(found[name], host, f"its environment's {name}")
    return {**found, "why": safe_text(found["why"]), "tool": safe_text(found["tool"])}


def completed(value: object, host: str) -> tuple[int | None, str, str]:
    """How a command ended there (None: it did not), and what it printed on either stream, safe to print."""
    found = value if isinstance(value, dict) else {}
    code, out, err = (found.get(name) for name in ("exit", "out", "err"))
    if not (code is None or type(code) is int) or not isinstance(out, str) or not isinstance(err, str):
        raise HostError(f"{host}: says of a command what cannot be: {shown(value)}")
    return code, safe_text(out, 2**20), safe_text(err, 2**20)


def piece(value: object, host: str, offset: int) -> tuple[str, int]:
    """A piece of a log, safe to print, and where the next one begins: never before `offset`."""
    found = value if isinstance(value, dict) else {}
    text, behind = found.get("text"), found.get("offset")
    if not isinstance(text, str) or type(behind) is not int or not 0 <= behind < 2**63:
        raise HostError(f"{host}: says of a log what cannot be: {shown(value)}")
    return safe_text(text, 100_000), max(offset, behind)


def running(value: Any, host: str) -> list[dict[str, Any]]:
    """What `worker.process.running` can say."""
    try:
        _each(value, "what runs there", _running, 2 * 4096)
    except _Impossible as why:
        raise HostError(f"{host}: says of what runs there what cannot be ({why})") from None
    return list(value)


def _running(each: Any) -> None:
    _record(each, "what runs there")
    _need(each.get("verb") in ("supervise", "encode"), "verb", each.get("verb"))
    _need(each.get("process") is not None, "process", None)
    _process(each, "what runs there")


def files(value: object, host: str) -> list[tuple[str, int]]:
    """(path below a folder, bytes) of each file in a listing. A name is shown safely, and never used as one."""
    listed = value.get("files") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise HostError(f"{host}: lists its files as what cannot be: {shown(value)}")
    found = []
    for item in listed:
        name, size = item if isinstance(item, list) and len(item) == 2 else (item, 0)
        if not isinstance(name, str) or not _inside(name) or type(size) is not int or not 0 <= size < 2**63:
            raise HostError(f"{host}: lists a file that cannot be below the folder: {shown(name, 200)}")
        found.append((safe_text(name, 4096).replace("\n", "\\n").replace("\t", "\\t"), size))
    return found


def _inside(name: str) -> bool:
    """Whether a host's word for a file can be the path of one below a folder."""
    return 0 < len(name) < 4096 and name[0] != "/" and ".." not in name.split("/")
