"""The run's journal: JSON lines, fsynced, each with the sha256 of the line before, so that a change is detected."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Required, TypedDict, cast

from worker.files import json_line, make_folder, sync, sync_folder

from .disk import explain_disk_errors

FIRST = "0" * 64
PHASE, PROGRESS, FAULT, RECOVERY, REMARK, ACT = "phase", "progress", "fault", "recovery", "remark", "act"
EVERY_KIND = (PHASE, PROGRESS, FAULT, RECOVERY, REMARK, ACT)

# Every event that the library writes, and its kind: never guessed from words in a name. `ACT` is a person's.
KINDS = {
    **dict.fromkeys(("phase started", "phase ended", "gate", "notebook added"), PHASE),
    **dict.fromkeys(
        ("run created", "checked", "environment begun", "staged", "slots added", "supervisor started", "watching",
         "watched", "asked", "result published", "record written", "audit drawn", "rows done twice", "canaries",
         "sealed"),
        PROGRESS,
    ),
    **dict.fromkeys(
        ("part refused", "part put aside", "record put aside", "damage found", "phase failed", "restart failed",
         "slot in trouble", "worker died", "row given up", "slot without a row",
         "supervisor lost", "host failed", "link broke", "result changed", "result refused", "slot fenced"),
        FAULT,
    ),
    **dict.fromkeys(
        ("revived", "launched late", "worker restarted", "rows moved", "slot recovered", "link is back",
         "record restored"),
        RECOVERY,
    ),
    "note": REMARK,
    **dict.fromkeys(
        ("watching interrupted", "workers stopped", "taken over", "started from scratch", "profile changed",
         "host joined", "host left", "corpus amended", "cleaned", "fence lifted"),
        ACT,
    ),
}  # fmt: skip
UNDOING = (
    "taken over",
    "started from scratch",
    "corpus amended",
    "host left",
)  # acts that end or set aside what was done
TAIL = 64 * 1024  # bytes that hold the last events


class Event(TypedDict, total=False):
    """An event: the fields of every event, then those of some that are read by name. `at`: UTC, in ISO form.

    `wrote`: the sha256 of each file that was written, by its path in the run.
    """

    seq: Required[int]
    at: Required[str]
    event: Required[str]
    kind: str
    prev: str
    action: str
    after: str
    attempt: int
    cause: str
    exit_at: float | None
    failed: list[str]
    given_up_at: float
    host: str
    id: str
    ok: bool
    phase: str
    process: str
    profile: str
    reason: str
    row: int
    rows_again: int
    seconds_lost: float | None
    slot: str
    start: int
    software: str
    by: str
    command: str
    stop: int
    verdict: str
    what: str
    where: str
    list: str
    signed: str
    stamped: bool
    seed: str
    furthest: float
    digest: str
    wrote: dict[str, str]


def _whole(raw: bytes) -> list[bytes]:
    """Return the lines, without a last one torn by a crash. A power cut can lose a line's start and keep its end."""
    lines = raw.splitlines(keepends=True)
    if lines and not (lines[-1].endswith(b"\n") and _is_json(lines[-1])):
        lines.pop()
    return lines


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _end(file: BinaryIO) -> tuple[int, int, bytes]:
    """Return where the whole lines end, their count and the last one. Only the end is read: a line holds its number."""
    start = max(0, file.seek(0, os.SEEK_END) - TAIL)
    file.seek(start)
    lines = _whole(file.read())
    if start:
        number = json.loads(lines[-1]).get("seq") if len(lines) > 1 else None  # the first may be incomplete
        if isinstance(number, int):
            return start + sum(map(len, lines)), number + 1, lines[-1]
        file.seek(0)
        lines = _whole(file.read())
    return sum(map(len, lines)), len(lines), lines[-1] if lines else b""


@dataclass(frozen=True)
class _Read:
    """What was read of a journal: its whole lines up to `offset`, the last of them, and the events in them."""

    inode: int
    size: int
    changed: int
    offset: int
    last: bytes
    events: tuple[Event, ...]


_read: dict[Path, _Read] = {}  # of the journals read last: a watcher reads the same one again and again
KEPT = 4


def _events(path: Path) -> tuple[Event, ...]:
    """Return all events of a journal. Events read before are not parsed again if the file only grew since."""
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        before = _read.get(path)
        if before and (before.inode, before.size, before.changed) == (stat.st_ino, stat.st_size, stat.st_mtime_ns):
            return before.events
        if before and not (before.inode == stat.st_ino and before.size < stat.st_size and _goes_on(file, before)):
            before = None
        offset = before.offset if before else 0
        file.seek(offset)
        lines = _whole(file.read())
    events = (before.events if before else ()) + tuple(map(json.loads, filter(_is_json, lines)))
    last = lines[-1] if lines else before.last if before else b""
    while len(_read) >= KEPT and path not in _read:
        _read.pop(next(iter(_read)), None)
    _read[path] = _Read(stat.st_ino, stat.st_size, stat.st_mtime_ns, offset + sum(map(len, lines)), last, events)
    return events


def _goes_on(file: BinaryIO, before: _Read) -> bool:
    file.seek(before.offset - len(before.last))
    return file.read(len(before.last)) == before.last


@dataclass(frozen=True)
class Journal:
    """Append and read one journal; several processes may append at once."""

    path: Path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with its kind. A last line torn by a crash is cut off first: it was never acknowledged.

        `kind` is given where the event's name does not decide it, as for a gate that does not hold.
        """
        kind = fields.pop("kind", "") or KINDS.get(event, "")
        with explain_disk_errors("writing into the journal"):
            self._append(event, kind, fields)

    def _append(self, event: str, kind: str, fields: dict[str, object]) -> None:
        make_folder(self.path.parent)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(fd, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size, number, last = _end(file)
            if not number:  # perhaps a new file: its name must be on the disk before an event is acknowledged
                sync_folder(self.path.parent)
            record = {
                "seq": number,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                **({"kind": kind} if kind else {}),
                **fields,
                "prev": hashlib.sha256(last).hexdigest() if last else FIRST,
            }
            file.seek(size)
            file.truncate()
            file.write(json_line(json.dumps(record, ensure_ascii=False)))
            file.flush()
            sync(file.fileno())

    def events(self, *names: str) -> Iterator[Event]:
        """The events in order, all or those named; a damaged line is left out; `problems` names it."""
        if not self.path.exists():
            return
        for record in _events(self.path):
            if not names or record.get("event") in names:
                yield record.copy()

    def last(self, count: int) -> list[Event]:
        """Return the last events, oldest first, reading only the end of the file; invalid lines are left out."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()[-count:]
        events: list[Event] = []
        for line in lines:
            try:
                events.append(cast(Event, dict(json.loads(line))))
            except (ValueError, TypeError):  # cut in the middle, or torn by a crash
                continue
        return events

    def problems(self, torn: bool = False) -> list[str]:
        """Return what is wrong with the chain; empty when every line follows from the one before.

        `torn`: ignore half a line at the end; a crash left it, and the next event removes it.
        """
        messages = []
        before = FIRST
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if torn and not line.endswith(b"\n"):
                    break
                try:
                    record = json.loads(line)
                    if record["prev"] != before or record["seq"] != number - 1:
                        messages.append(f"{self.path.name} line {number}: does not follow from the line before")
                except (ValueError, KeyError, TypeError):
                    messages.append(f"{self.path.name} line {number}: not a journal line")
                before = hashlib.sha256(line).hexdigest()
        return messages
