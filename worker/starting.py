"""How a supervisor starts its workers, and a worker its supervisor: detached, their output appended to their log.

On Linux a host's workers are forked from one process that has imported the libraries (`warm.py`). Where that is not
safe, or not ready in time, or fails, they start plainly: nothing but time is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Union

from . import process
from .allotted import GPUS, gpu_of
from .device import NEW, settle
from .files import make_folder, open_private
from .launcher import command, detached
from .layout import HostFolder
from .say import say
from .wire import Assignment, SlotSpec

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
ALWAYS = {
    # sentence-transformers loads Arrow where pandas is installed; with a thread of Arrow's nothing could be forked.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",  # the model was sent: nothing is to be looked up
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
NO_CUDA_YET = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # whether there is a GPU is asked without touching it
IMPORT_S = 120.0  # for the libraries; what was read from a slow disk meanwhile is in memory for plain starts
FORK_S = 10.0  # for the answer to one request
CLOSE_S = 2.0  # for its end once its input is closed
STARTS = 5  # of warm processes in the life of a supervisor
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
LIBC = ctypes.CDLL(None)
ROOM = 64  # characters that a worker has to write its own words over those of the warm process


def start_worker(folder: HostFolder, assignment: Assignment, spec: SlotSpec, warm: Warm | None = None) -> Worker | None:
    """The worker of a slot, with its GPU and its threads; None while `warm` imports: ask again. Raises OSError."""
    environment = dict.fromkeys(THREADS, str(spec.threads))
    if spec.device == "cuda":
        environment[GPUS] = gpu_of(spec.gpu, os.environ)
    if spec.device in NEW:
        warm = None  # nobody looks whether the libraries have touched such a GPU before they fork
    ready = warm.ready(assignment.python) if warm else False
    if ready is None:
        return None
    if warm and ready and (forked := warm.fork(spec.slot, environment)):
        return forked
    argv = [assignment.python, "-m", "worker", "encode", "--root", str(folder.root)]
    argv += ["--host", assignment.host, "--slot", spec.slot]
    return detached(
        argv, folder.log(spec.slot), folder.root, {**settle(spec.device, os.environ), **environment, **ALWAYS}
    )


def start_supervisor(folder: HostFolder, host: str, python: str) -> subprocess.Popen[bytes]:
    """The supervisor of a host, as the launch starts it; without what its worker was given. Raises OSError."""
    environment = {key: value for key, value in os.environ.items() if key not in (*THREADS, GPUS)}
    return detached(command(folder, host, python), folder.log(f"host_{host}"), folder.root, environment)


class Forked:
    """A worker that the warm process forked; its supervisor asks of it what it asks of a child of its own."""

    def __init__(self, pid: int, warm: Warm):
        self.pid, self._warm = pid, warm
        self._identity = process.identify(pid)

    def poll(self) -> int | None:
        """The exit code, below 0 for a signal; None while it runs. `NOT_TOLD` where it ended and nothing tells how."""
        self._warm.listen(0.0)
        code = self._warm.ends.get(self.pid)
        if code is None and not process.alive(self._identity):
            if self._warm.lives():
                self._warm.listen(1.0)  # the word of its end may be under way
            code = self._warm.ends.get(self.pid, NOT_TOLD)
        return code


NOT_TOLD = 256  # no exit code: these end at 255
Worker = Union[Forked, "subprocess.Popen[bytes]"]


def _end_with_us() -> None:
    """Have a child killed when its parent ends: before its program begins, as one that is stopped cannot ask for it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Warm:
    """A host's warm process, held by its supervisor and ended with it."""

    def __init__(self, folder: HostFolder, host: str):
        self._folder, self._host = folder, host
        self._child: subprocess.Popen[bytes] | None = None
        self._python = ""
        self._starts = 0
        self._deadline = 0.0
        self._buffer = b""
        self._imported = False
        self._unfit = ""  # why no worker is to be forked
        self._forked: int | None = None  # the answer to the last request
        self.ends: dict[int, int] = {}  # pid -> exit code of workers that ended

    def ready(self, python: str) -> bool | None:
        """Whether workers of this Python can be forked now; None: not yet. The process is started where none lives."""
        if sys.platform != "linux":
            return False
        self.listen(0.0)  # first: it may have said why it ended
        if self._unfit:
            return False
        if not self.lives():
            if self._child and not self._imported:
                self._give_up("it ended before it was ready")
            else:
                self._start(python)
        if not self._imported and time.monotonic() > self._deadline:
            self._give_up(f"the libraries are not imported within {IMPORT_S:g} s")
        return False if self._unfit or python != self._python else self._imported or None

    def fork(self, slot: str, environment: Mapping[str, str]) -> Forked | None:
        """Have a worker of `slot` forked with these variables; None where that fails: start it plainly."""
        self._forked = None
        deadline = time.monotonic() + FORK_S
        with contextlib.suppress(OSError):
            assert self._child is not None and self._child.stdin is not None
            self._child.stdin.write(json.dumps({"slot": slot, "environment": dict(environment)}).encode() + b"\n")
            self._child.stdin.flush()
            while not self._forked and self.lives() and time.monotonic() < deadline:
                self.listen(0.1)
        if self._forked:
            return Forked(self._forked, self)
        say(f"warm process: did not fork the worker of {slot}")
        self.close()
        return None

    def listen(self, within_s: float) -> None:
        """Take what it says, waiting so long at most for the first word: a worker's end is known at once by it."""
        stdout = self._child.stdout if self._child else None
        if stdout is None or stdout.closed:
            time.sleep(within_s)
            return
        while select.select([stdout], [], [], within_s)[0]:
            chunk = os.read(stdout.fileno(), 2**16)
            if not chunk:
                stdout.close()
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                try:
                    self._hear(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    self._give_up(f"expected a line of JSON from it, found {line[:200]!r}")
                    return
            within_s = 0.0

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "ended" in message:
            self.ends[message["ended"]] = message["code"]
        elif "forked" in message:
            self._forked = message["forked"]
            self.ends.pop(message["forked"], None)  # of an earlier process with this pid
        elif message["unfit"]:
            self._unfit = message["unfit"]
            say(f"warm process: {self._unfit}; each worker imports the libraries itself")
        else:
            self._imported = True

    def lives(self) -> bool:
        """Whether there is such a process now."""
        return self._child is not None and self._child.poll() is None

    def _start(self, python: str) -> None:
        self.close()
        if self._starts == STARTS:
            self._give_up(f"it ended {STARTS} times")
            return
        self._starts += 1
        self._python, self._imported, self._buffer = python, False, b""
        self._deadline = time.monotonic() + IMPORT_S
        argv = [python, "-m", "worker", "warm", "--root", str(self._folder.root), "--host", self._host]
        # One thread until it forks: what a library starts by itself does not live on in a fork.
        environment = {**os.environ, **dict.fromkeys(THREADS, "1"), **ALWAYS, **NO_CUDA_YET}
        environment.pop(GPUS, None)
        log = self._folder.log(f"host_{self._host}")
        try:
            make_folder(log.parent, 0o700)
            with open_private(log, os.O_APPEND) as errors:
                self._child = subprocess.Popen(
                    [*argv, "--room", "." * ROOM],
                    cwd=self._folder.root,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    preexec_fn=_end_with_us,
                )
        except OSError as error:
            self._give_up(f"cannot start {python}: {error}")

    def _give_up(self, why: str) -> None:
        self._unfit = why
        say(f"warm process: {why}; each worker imports the libraries itself")
        self.close()

    def close(self) -> None:
        """End it; the workers that it forked live on."""
        if self._child:
            assert self._child.stdin is not None and self._child.stdout is not None
            with contextlib.suppress(OSError):
                self._child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(CLOSE_S if self._imported else 0.0)
            self._child.kill()
            self._child.wait()
            self._child.stdout.close()
        self._child = None
