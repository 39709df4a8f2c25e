"""A worker watches its supervisor and starts it again when it was killed: else no next worker would be started.

When no operator watches, the workers are all that is left of a host. The supervisor's lock decides: should two
workers start one, the second leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from . import locks, owned, process
from .fields import read_record
from .layout import HostFolder
from .say import say
from .starting import start_supervisor
from .wire import Assignment, SupervisorReport

LOOK_S = 4.0
LOOKS = 2  # so many in a row must find none: one that takes over needs a moment
LONGEST_S = 300.0  # between two tries


def lost(folder: HostFolder, host: str) -> bool:
    """Whether a supervisor that had work is gone, without having been asked to."""
    report = read_record(SupervisorReport, folder.supervisor(host))
    if not report.process or report.working is False or process.alive(report.process):
        return False
    wanted = folder.assignment(host).exists() and not folder.stop_request(host).exists()
    return wanted and not locks.held(folder.supervisor_lock(host))


class Guard(threading.Thread):
    """Looks now and then, for as long as this worker lives."""

    def __init__(self, folder: HostFolder, assignment: Assignment):
        super().__init__(name="guard", daemon=True)
        self._folder, self._host, self._python = folder, assignment.host, assignment.python
        self._look_s = assignment.look_s or LOOK_S
        self._placed = bool(assignment.scheduler)
        self._ended = threading.Event()

    def run(self) -> None:
        """Look, and act on what is found so many times in a row; after each try it waits twice as long."""
        gone, pause, child = 0, self._look_s, None
        while not self._ended.wait(pause):
            if child is not None:
                child.poll()  # or it would stay a zombie, should it leave at once
            gone = gone + 1 if self._lost() else 0
            if gone >= LOOKS:
                child, gone, pause = self.act(), 0, min(2 * pause, LONGEST_S)

    def _lost(self) -> bool:
        try:
            return lost(self._folder, self._host)
        except OSError:
            return False

    def act(self) -> subprocess.Popen[bytes] | None:
        """Start one; None where that cannot be done now."""
        if self._placed:  # with its supervisor the place is gone: others use this machine now
            say(f"the supervisor of {self._host} is gone, and with it its place: this worker ends")
            os.kill(os.getpid(), signal.SIGTERM)
            return None
        say(f"the supervisor of {self._host} is gone: another one is started")
        try:
            if why := owned.code(self._folder.root):
                raise OSError(why)
            return start_supervisor(self._folder, self._host, self._python)
        except OSError as error:
            say(f"it cannot be started: {error}")
            return None

    def close(self, wanted: bool) -> None:
        """End the looking. A worker that ends, unless that was `wanted`, leaves no host behind without a supervisor."""
        self._ended.set()
        if not wanted and not self._placed and self._lost():
            self.act()
