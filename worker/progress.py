"""A worker's report: one small file, one writer, a heartbeat that goes on while a batch computes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from .fields import Record
from .files import make_folder, open_private
from .wire import WorkerReport

HEARTBEAT_S = 2.0
WINDOW_S = 60.0  # the rate looks back this far


def write_report(path: Path, value: Record) -> None:
    """Replace a report whole. Not fsynced: it is a record for people, never the truth."""
    make_folder(path.parent, 0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open_private(temporary, os.O_TRUNC) as file:
            file.write((json.dumps(value.to_json(), sort_keys=True) + "\n").encode())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_in_place(path: Path, value: Record) -> None:
    """Write a report over itself: for one that changes with every batch, and may be unreadable at times.

    A kill leaves it as it was or as it is to be; very rarely neither, which is read as if there were none.
    """
    data = (json.dumps(value.to_json(), sort_keys=True) + "\n").encode()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        make_folder(path.parent, 0o700)
        with open_private(path, 0) as file:
            file.write(data)
        return
    try:
        os.write(fd, data.ljust(os.fstat(fd).st_size))  # at once: blanks, not a second call that cuts the file
    finally:
        os.close(fd)


class Pace:
    """Rows a second over the last minute, by this process's own clock: a single look at its report tells it."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, now: float, rows: int) -> None:
        """So many rows are computed now. Fewer than before: some are computed again, and it begins anew."""
        if self._points and rows < self._points[-1][1]:
            self._points.clear()
        if not self._points or rows > self._points[-1][1]:
            self._points.append((now, rows))
        while len(self._points) > 2 and self._points[1][0] < now - WINDOW_S:
            self._points.popleft()

    def rate(self, now: float) -> float | None:
        """Rows a second; None while unknown. What comes later than usual makes it less."""
        if len(self._points) < 2:
            return None
        (began, before), (last, rows) = self._points[0], self._points[-1]
        usual = (last - began) / (len(self._points) - 1)
        spent = max(last, now - usual) - began
        return round((rows - before) / spent, 3) if spent > 0 else None


class Progress:
    """The report of one worker; `update` from the main thread, the heartbeat thread writes it."""

    def __init__(self, path: Path, report: WorkerReport, beat_s: float | None = None):
        """`report` holds what is known at the start: slot, host, process. `beat_s`: between two heartbeats."""
        self._path = path
        self._report = report
        self._beat_s = beat_s or HEARTBEAT_S
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._beats = 0
        self._broken = ""
        self._pace = Pace()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the first report and keep writing."""
        self.write()
        self._thread.start()

    def update(self, write: bool = False, **fields: Any) -> None:
        """Change fields of the report; the next heartbeat shows them, or this call at once with `write`."""
        with self._lock:
            self._report = replace(self._report, **fields)
            if self._report.computed is not None:
                self._pace.note(time.monotonic(), self._report.computed + (self._report.rows_in_part or 0))
        if write:
            self.write()

    def doing(self, what: str) -> None:
        """A sign of work that is no row: what is waited for."""
        self.update(doing=what)

    def write(self) -> None:
        """Write the report now. A full disk must not end the encoding, so a failure is kept and shown later."""
        with self._lock:
            self._beats += 1
            report = replace(
                self._report,
                heartbeat=self._beats,
                heartbeat_at=time.time(),
                rows_per_s=self._pace.rate(time.monotonic()),
                broken=self._broken,
            )
            try:
                write_report(self._path, report)
                self._broken = ""
            except OSError as error:
                self._broken = str(error)

    def close(self, **fields: Any) -> None:
        """Write the last report and end the heartbeat."""
        self._stopped.set()
        self.update(write=True, **fields)

    def _beat(self) -> None:
        while not self._stopped.wait(self._beat_s):
            self.write()
