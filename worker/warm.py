"""The warm process of a host: it imports the libraries once, and forks each worker from itself within milliseconds.

Importing them costs a worker 4 to 8 seconds of processor time, at each start and each restart. A fork is safe only
from a process that has one thread and has not touched a GPU, so both are looked at before each one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import owned
from .device import NO_GPU
from .files import open_private
from .layout import HostFolder
from .starting import NO_CUDA_YET
from .wire import read_assignment


def serve(root: Path, host: str) -> int:
    """Be that process: a request a line on standard input until that is closed, answers and ends on standard output."""
    folder = HostFolder(root)
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints goes to the log
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from . import encode, encoder, second  # noqa: F401  (the libraries)
    except Exception as error:  # each worker will say it better
        _tell(out, {"unfit": f"{type(error).__name__}: {error}"})
        return 1
    _load_model(folder, host)
    gc.collect()
    gc.freeze()  # a collection in a worker would else copy every page of it
    here = ["--root", str(root), "--host", host]
    pending, learner, ours = b"", None, (out, wake, woken)
    while not (why := unfit()):
        if learner is None:
            learner = _learner(folder, host, here, ours)
            _tell(out, {"unfit": ""})
        ready = select.select([0, wake], [], [])[0]
        if wake in ready:
            os.read(wake, 2**10)
        if learner in _tell_ends(out):
            learner = 0
        if 0 not in ready:
            continue
        chunk = os.read(0, 2**16)
        if not chunk:
            if learner:
                os.kill(learner, signal.SIGKILL)
            return 0
        *lines, pending = (pending + chunk).split(b"\n")
        for request in map(json.loads, lines):
            slot = request["slot"]
            words = ["encode", *here, "--slot", slot]
            _tell(out, {"forked": _fork(words, folder.log(slot), request["environment"], ours)})
    _tell(out, {"unfit": why})
    return 1


def _load_model(folder: HostFolder, host: str) -> None:
    """Load the model, where workers compute on the processor: they share its pages, and a restart need not load it."""
    with contextlib.suppress(Exception):  # whatever it is, each worker will say it better
        from .encoder import load_before_forks

        assignment = read_assignment(folder.assignment(host))
        if assignment is None or all(spec.device != "cpu" for spec in assignment.slots):
            return
        model = Path(assignment.model.folder)
        if not owned.used(folder.root, model):
            load_before_forks(model, assignment.dtype)


def _learner(folder: HostFolder, host: str, here: Sequence[str], ours: Sequence[int]) -> int:
    """Have the known texts computed for all workers: each waits for them before it believes its device."""
    try:
        assignment = read_assignment(folder.assignment(host))
    except (OSError, ValueError):  # its supervisor will say it
        assignment = None
    threads = max((spec.threads for spec in assignment.slots), default=1) if assignment else 1
    words = ["second", *here, "--threads", str(threads), "--learn"]
    return _fork(words, folder.log(f"host_{host}"), NO_GPU, ours, silent=True)


def unfit() -> str:
    """Why this process must not fork; empty where it may."""
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads != 1:
        return f"expected one thread after the imports, found {threads}"
    if "/libcuda.so" in Path("/proc/self/maps").read_text(errors="replace"):
        return "the libraries touched the GPU when they were imported"
    return ""


def _tell(out: int, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # its supervisor is gone: it ends when it reads next
        os.write(out, json.dumps(message).encode() + b"\n")


def _tell_ends(out: int) -> list[int]:
    """Tell of all that ended, and give their pids."""
    pids = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            pids.append(pid)
            _tell(out, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})
    return pids


def _fork(
    words: Sequence[str], log: Path, environment: Mapping[str, str], ours: Sequence[int], silent: bool = False
) -> int:
    """Fork a process that does `python -m worker <words>` as if it had been started plainly, and give its pid.

    Its output is appended to `log`; if it is `silent`, only its errors are.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        with Path(os.devnull).open("r+b") as null, open_private(log, os.O_APPEND) as output:
            for source, target in ((null, 0), (null if silent else output, 1), (output, 2)):
                os.dup2(source.fileno(), target)
        for fd in ours:
            os.close(fd)
        os.environ.update(environment)
        for name in NO_CUDA_YET:  # as in a plain start from here on
            os.environ.pop(name, None)
        name_process(words)
        from .__main__ import main

        code = main(list(words))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)  # nothing of the warm process is to be undone here


def name_process(words: Sequence[str]) -> None:
    """Have /proc and `ps` show `python -m worker <words>`, as of a plain start: over the words it was started with."""
    sys.argv = [sys.argv[0], *words]
    line = Path("/proc/self/cmdline").read_bytes()
    head, module, _ = line.partition(b"\0-m\0worker\0")
    named = head + module + b"".join(os.fsencode(word) + b"\0" for word in words)
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, stop = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5); 0 where they are not shown
    if module and start and len(named) <= stop - start == len(line):
        ctypes.memmove(start, named.ljust(stop - start, b"\0"), stop - start)
