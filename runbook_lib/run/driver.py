"""The driver of a run: the one command that acts on it. It holds the run's driver.lock, which names it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from worker import process
from worker.escape import safe_text

from ..errors import RunbookError
from . import locks, run_mark
from .disk import explain_disk_errors, rewrite
from .run import Run

TAKE_OVER_S = 30.0  # for a driver to end after it was interrupted


@contextmanager
def hold(run: Run, take_over: bool = False) -> Iterator[None]:
    """Hold the run for one driver. A second one gets an error that names it, or ends it. Watching needs no hold."""
    if why := run_mark.why_not_ours(run.folder):
        raise RunbookError(why)
    path = run.driver_lock
    with explain_disk_errors("taking the run for this command"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(fd, "r+") as file:
        if not _locked(file):
            holder = file.read().strip() or "unknown"
            if not take_over:
                raise RunbookError(
                    f"run {run.name} is being driven already ({locks.driver_in_words(holder)}); wait for it, or watch: "
                    f"runbook watch {run.name}; to end that one and go on here: runbook run ... --take-over"
                )
            _end_driver(run, file, holder)
        who = json.dumps({**process.identify(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        with explain_disk_errors(f"taking the run for this command: {path}"):
            rewrite(fd, who.encode())
        yield


def driven(run: Run) -> bool:
    """Whether a process of this machine drives the run."""
    try:
        return process.alive(json.loads(run.driver_lock.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_driver(run: Run, file: IO[str], holder: str) -> None:
    """Interrupt the driver that holds the run, as Ctrl-C would, and replace it; its workers go on."""
    try:
        identity = json.loads(holder)
    except ValueError:
        identity = {}
    if not process.send(identity, signal.SIGINT):
        raise RunbookError(f"run {run.name}: its driver ({holder}) is no process of this machine; end it there")
    deadline = time.monotonic() + TAKE_OVER_S
    while not _locked(file):
        if time.monotonic() > deadline:
            process.send(identity, signal.SIGKILL)  # what it wrote is whole at every moment
            deadline += TAKE_OVER_S
        time.sleep(0.2)
    run.journal.write("taken over", of=safe_text(holder))
