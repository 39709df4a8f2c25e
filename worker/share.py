"""Which rows a worker computes next: its own in order, then, from the end, what its neighbours on this host have left.

So the rows of a slot that was given up, and the tail of a slow one, are done by the others of its host, with the laptop
shut. Rows are claimed by a lock that ends with its process; without locks no worker helps another and nothing is lost.
The boundaries stay those of the plan, so the bytes of a part do not depend on the worker that computes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from array import array
from collections.abc import Iterable
from pathlib import Path

from . import states
from .fields import read_record
from .files import make_folder, read_json
from .layout import HostFolder, committed, quarantined
from .rows import Covered, Range, count, missing, planned_parts
from .texts import Question
from .wire import RowGivenUp, SlotSpec, SupervisorReport, Suspected, read_assignment

WAIT_S = 0.5  # between looks at own rows that a neighbour computes


class Refused(Exception):
    """The assignment or the shard is not what was planned: nothing may be encoded from it."""


class Shard:
    """The rows of a shard, by their place in the file: only the rows asked for are held."""

    def __init__(self, path: Path, start: int, stop: int, sha256: str, documents: int | None = None):
        """Refuses a file that is not the one that was staged: nothing may be encoded from it.

        `documents`: the rows from this one on are questions; none is where it is not given.
        """
        self.path, self.start, self.stop = path, start, stop
        self._documents = stop if documents is None else documents
        self._offsets = array("q", [0])
        digest = hashlib.sha256()
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise Refused(f"{path}: no such file; run the launch again to stage it") from None
        for line in self._file:
            digest.update(line)
            self._offsets.append(self._offsets[-1] + len(line))
        rows = len(self._offsets) - 1
        if digest.hexdigest() == sha256 and rows == stop - start:
            return
        self.close()
        if digest.hexdigest() != sha256:
            raise Refused(f"{path}: expected sha256 {sha256}, found {digest.hexdigest()}; run the launch again")
        raise Refused(f"{path}: expected {stop - start} rows, found {rows}")

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def sizes(self, start: int, stop: int) -> list[int]:
        """Of each of rows [start, stop), the bytes of its line: the same as in the corpus."""
        first, last = start - self.start, stop - self.start
        return [self._offsets[i + 1] - self._offsets[i] for i in range(first, last)]

    def read(self, start: int, stop: int) -> list[str]:
        """The texts of rows [start, stop)."""
        self._file.seek(self._offsets[start - self.start])
        texts = []
        for row in range(start, stop):
            record = json.loads(self._file.readline())
            if record["row"] != row:
                raise Refused(f"{self.path}: the line of row {row} holds row {record['row']}")
            texts.append(record["text"] if row < self._documents else Question(record["text"]))
        return texts


def settled(folder: HostFolder) -> list[Range]:
    """What is committed or given up here, and so need not be computed."""
    return committed(folder.parts) + [(row, row + 1) for row in quarantined(folder.quarantine)]


def surely_given_up(folder: HostFolder) -> list[Range]:
    """The rows that were given up because two devices failed at them: what a bad device alone says is no progress."""
    rows = quarantined(folder.quarantine)
    return [(row, row + 1) for row in rows if _surely(folder.quarantined(row))]


def _surely(record: Path) -> bool:
    try:
        return RowGivenUp.from_json(read_json(record)).sure is True
    except (OSError, ValueError):
        return False


def left_to_do(spec: SlotSpec, have: list[Range]) -> list[Range]:
    """What is left of a slot's shards, within the planned boundaries."""
    covered = Covered(have)
    return [
        gap
        for shard in spec.shards
        for low, high in planned_parts(shard.start, shard.stop, spec.part_rows, shard.grid)
        for gap in covered.missing(low, high)
    ]


class Claims:
    """Ranges of rows that are held against every other worker of this host, each until it is released or we end."""

    def __init__(self, folder: HostFolder):
        make_folder(folder.rows_lock.parent, 0o700)
        self._fd = os.open(folder.rows_lock, os.O_RDWR | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self._held: list[Range] = []
        self.work = True

    @property
    def held(self) -> list[Range]:
        """What is held now."""
        with self._lock:
            return list(self._held)

    def take(self, rows: Range) -> bool:
        """Claim these rows; False when another one has some of them."""
        with self._lock:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, rows[1] - rows[0], rows[0])
            except (BlockingIOError, PermissionError):
                return False
            except OSError:  # a file system without such locks: each slot does its own rows
                self.work = False
            self._held.append(rows)
        return True

    def close(self) -> None:
        """Hold nothing, for good."""
        with self._lock:
            os.close(self._fd)  # which ends the locks too
            self._fd, self._held = -1, []

    def release(self, rows: Range) -> None:
        """Hold these no more."""
        with self._lock:
            if rows in self._held:
                self._held.remove(rows)
                if self.work:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, rows[1] - rows[0], rows[0])


class Share:
    """What one slot is to do, as its host's assignment says now: launch may write a new one at any moment."""

    def __init__(self, folder: HostFolder, host: str, slot: str):
        """Raises Refused where there is no assignment, or none of this slot."""
        self.folder, self.slot = folder, slot
        self._path = folder.assignment(host)
        self._claims = Claims(folder)
        self._shards: dict[Range, Shard] = {}
        self._broken: set[Range] = set()
        self._stamp: tuple[int, int] | None = None
        self._left: set[int] = set()  # rows that this device cannot do
        self._stopped = threading.Event()
        self._read()

    def stop(self) -> None:
        """Wait no more for rows that a neighbour has claimed."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of everything."""
        self.stop()
        self._claims.close()
        for shard in self._shards.values():
            shard.close()

    def _read(self) -> None:
        stamp = self._stamped()
        assignment = read_assignment(self._path)
        if assignment is None:
            raise Refused(f"{self._path}: no assignment; run the launch")
        spec = next((spec for spec in assignment.slots if spec.slot == self.slot), None)
        if spec is None:
            raise Refused(f"slot {self.slot} is not in {self._path}")
        self.assignment, self.spec, self._stamp = assignment, spec, stamp

    def _stamped(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _renew(self) -> None:
        """Take over a newer assignment; while it cannot be read, or does not name this slot, the one before holds."""
        if self._stamped() in (None, self._stamp):
            return
        with contextlib.suppress(OSError, ValueError, Refused):
            self._read()

    @property
    def rows(self) -> int:
        """How many rows are this slot's own."""
        return sum(shard.stop - shard.start for shard in self.spec.shards)

    def done(self) -> int:
        """How many of them are committed; rows given up do not count."""
        have = Covered(committed(self.folder.parts))
        return self.rows - sum(count(have.missing(shard.start, shard.stop)) for shard in self.spec.shards)

    def left(self) -> int:
        """How many of them are neither committed nor given up."""
        return count(left_to_do(self.spec, settled(self.folder)))

    def one(self, row: int) -> tuple[Range, Shard, str] | None:
        """Claim one row of this host, as `next` does; None when it need not be done, or another worker does it."""
        rows = (row, row + 1)
        if not missing(*rows, settled(self.folder)):
            return None
        for spec in self.assignment.slots:
            if any(shard.start <= row < shard.stop for shard in spec.shards):
                texts = self._shard_of(spec, rows)
                return (rows, texts, spec.slot) if self._take(rows) else None
        return None

    def next(self) -> tuple[Range, Shard, str] | None:
        """Claim the next rows: (rows, their shard, the slot whose they are); None when there is nothing to do.

        Those claimed before stay claimed, and do not come again, until they are released. Raises Refused for an own
        shard that is not as staged; one of a neighbour is left to that neighbour.
        """
        while not self._stopped.is_set():
            self._renew()
            if self.spec.fenced:
                raise Refused(f"fenced: {self.spec.fenced}")
            have = [*settled(self.folder), *self._claims.held, *((row, row + 1) for row in tuple(self._left))]
            own = left_to_do(self.spec, have)
            for rows in own:
                shard = self._shard_of(self.spec, rows)
                if self._take(rows):
                    return rows, shard, self.slot
            task = self._of_a_neighbour(have)
            if task or not own:
                return task
            self._stopped.wait(WAIT_S)  # a neighbour has claimed what is left of ours: it may fail
        return None

    def leave(self, rows: Iterable[int]) -> None:
        """These rows are not for this device: others may do them."""
        self._left.update(rows)

    def _take(self, rows: Range) -> bool:
        """Claim rows, unless they were committed meanwhile."""
        if not self._claims.take(rows):
            return False
        if self.folder.part(*rows).with_suffix(".json").exists():
            self.release(rows)
            return False
        return True

    def release(self, rows: Range) -> None:
        """Let go of rows: they are committed, or others may do them."""
        self._claims.release(rows)

    def _of_a_neighbour(self, have: list[Range]) -> tuple[Range, Shard, str] | None:
        """From the end of the neighbour who has most left; not the rows that its worker just died of."""
        if not self._claims.work:
            return None
        others = [(left_to_do(spec, have), spec) for spec in self.assignment.slots if spec.slot != self.slot]
        for left, spec in sorted(others, key=lambda other: -count(other[0])):
            suspects = self._suspects(spec.slot) if left else set()
            for rows in reversed(left):
                if suspects.intersection(range(*rows)):
                    continue
                try:
                    shard = self._shard_of(spec, rows)
                except Refused:
                    continue
                if self._take(rows):
                    return rows, shard, spec.slot
        return None

    def _suspects(self, slot: str) -> set[int]:
        """The rows that a neighbour was computing; none of one given up, or that hangs: it will not try them again."""
        supervised = read_record(SupervisorReport, self.folder.supervisor(self.assignment.host)).slots.get(slot)
        if supervised and (supervised.state == states.FENCED or supervised.hung):
            return set()
        return set(read_record(Suspected, self.folder.suspects(slot)).rows)

    def _shard_of(self, spec: SlotSpec, rows: Range) -> Shard:
        entry = next(shard for shard in spec.shards if shard.start <= rows[0] and rows[1] <= shard.stop)
        key = entry.file
        if key in self._broken:
            raise Refused(f"{self.folder.shard(*key)}: not as staged")
        if key not in self._shards:
            try:
                documents = self.assignment.documents
                self._shards[key] = Shard(self.folder.shard(*key), *key, entry.sha256, documents)
            except Refused:
                if spec is not self.spec:
                    self._broken.add(key)
                raise
        return self._shards[key]
