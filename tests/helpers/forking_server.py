"""Forks the processes that forking.py describes: `forking_server.py KIND LISTENER`, a listening socket's number.

It imports no code of ours. It has one thread, as a fork of more than one may hang. It ends when nobody holds it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# What is imported before a fork, also what these libraries load only with the first model or picture.
LIBRARIES = {
    "worker": [
        "torch", "sentence_transformers", "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert", "safetensors.torch",
    ],
    "driver": [
        "numpy", "yaml", "paramiko", "papermill", "nbclient", "nbconvert.exporters", "ipykernel.kernelapp",
        "ipykernel.ipkernel", "ipywidgets", "matplotlib.figure", "matplotlib.backends.backend_agg", "rich.console",
        "prometheus_client",
    ],
}  # fmt: skip


class Order:
    """One connection: of a process that waits, of one that holds us, or of one that said nothing yet."""

    def __init__(self, link: socket.socket) -> None:
        self.link, self.pid, self.ended, self.holds = link, 0, False, False
        self.pending, self.fds = b"", list[int]()


def serve(listener: socket.socket) -> None:
    """Fork what is asked for until the last one who held us is gone."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    orders: list[Order] = []
    asked = False
    while not asked or any(order.holds or not order.pid for order in orders):
        ready = select.select([listener, wake, *(order.link for order in orders)], [], [])[0]
        if wake in ready:
            os.read(wake, 2**10)
            tell_ends(orders)
        if listener in ready:
            orders.append(Order(listener.accept()[0]))
            asked = True
        for order in [order for order in orders if order.link in ready]:
            hear(order, [listener.fileno(), wake, woken, *(each.link.fileno() for each in orders)])
            if order.link.fileno() < 0:
                orders.remove(order)


def hear(order: Order, ours: list[int]) -> None:
    """Do what a connection asks; when it closes, what was forked for it ends."""
    try:
        chunk, fds, _, _ = socket.recv_fds(order.link, 2**16, 3)
    except OSError:
        chunk, fds = b"", []
    order.fds += fds
    if not chunk:
        if order.pid and not order.ended:
            os.kill(order.pid, signal.SIGKILL)
        order.link.close()
    *lines, order.pending = (order.pending + chunk).split(b"\n")
    for line in lines:
        if order.pid:
            if not order.ended:
                os.kill(order.pid, int(line))
        elif line == b"hold":
            order.holds = True
        else:
            order.pid = fork(json.loads(line), order.fds, ours)
            for fd in order.fds:
                os.close(fd)


def tell_ends(orders: list[Order]) -> None:
    """Tell each process that waits how its forked one ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            for order in [order for order in orders if order.pid == pid and not order.ended]:
                order.ended = True  # its number may be given to another process now
                with contextlib.suppress(OSError):
                    order.link.sendall(b"%d\n" % status)


def fork(order: dict[str, Any], fds: list[int], ours: list[int]) -> int:
    """Fork a process that does what `python` does with these words."""
    if (threads := threading.active_count()) != 1:
        raise RuntimeError(f"expected one thread before a fork, found {threads}")
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        take_place(order, fds, ours)
        code = run(order["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def take_place(order: dict[str, Any], fds: list[int], ours: list[int]) -> None:
    """Have the files, folder, variables and words of the process that waits."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN if order["ignored"] else signal.default_int_handler)
    if order["leads"]:
        os.setsid()
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    for fd in {*fds, *ours} - {0, 1, 2}:
        os.close(fd)
    os.chdir(order["folder"])
    os.umask(order["umask"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if "JPY_PARENT_PID" in os.environ:
        os.environ["JPY_PARENT_PID"] = str(os.getppid())
    renew_streams(bool(os.environ.get("PYTHONUNBUFFERED")))
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *_ = order["words"]
    sys.path[:] = [order["folder"] if first == "-m" else str(Path(first).parent), *named, *sys.path]
    sys.executable = order["command"]
    sys.argv = order["words"][1:] if first == "-m" else order["words"]
    importlib.invalidate_caches()
    if "torch" in sys.modules and "OMP_NUM_THREADS" not in os.environ:
        sys.modules["torch"].set_num_threads(len(os.sched_getaffinity(0)))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def renew_streams(unbuffered: bool) -> None:
    """Standard input, output and errors as an interpreter makes them."""
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    out, err = (open(fd, "wb", 0 if unbuffered else -1, closefd=False) for fd in (1, 2))  # noqa: SIM115
    lines = os.isatty(1)
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(out, "utf-8", line_buffering=lines, write_through=unbuffered)
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(err, "utf-8", "backslashreplace", line_buffering=True)


def run(words: list[str]) -> int:
    """Run a module, or a file, and give its exit code. It ends with threads, `atexit` and open streams."""
    code = 0
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        code = exit_code(ended)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def exit_code(ended: SystemExit) -> int:
    """What the system is told."""
    if ended.code is None or isinstance(ended.code, int):
        return (ended.code or 0) & 0xFF
    print(ended.code, file=sys.stderr)
    return 1


def clear(path: Path) -> None:
    """Take our files away; who is the last takes the folder too."""
    for file in (path, path.with_name(f"{path.name}.log")):
        file.unlink(missing_ok=True)
    if not any((path.parent / kind).exists() for kind in LIBRARIES):
        shutil.rmtree(path.parent, ignore_errors=True)


if __name__ == "__main__":
    if os.fork():  # nobody has to wait for its end
        os._exit(0)
    sys.path.pop(0)  # the folder of this file
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # as runbook_lib.report.notebook_file has it
    with socket.socket(fileno=int(sys.argv[2])) as listening:
        for name in LIBRARIES[sys.argv[1]]:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collection in what is forked would else copy every page
        serve(listening)
        clear(Path(listening.getsockname()))
