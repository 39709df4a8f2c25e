"""Waits at the pid of a process that is forked elsewhere: what the command of forking.py runs.

It hands over its files, folder, variables and words, passes signals on, and ends as the forked process ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

MODULES = ("runbook_lib.cli", "runbook_lib.chain.execution", "papermill", "ipykernel_launcher")
SCRIPTS = {  # whose libraries they need
    "benchmarks/kill_cost.py": "driver",
    "benchmarks/all.py": "driver",
    "benchmarks/ways.py": "worker",
    "benchmarks/packing.py": "worker",
    "benchmarks/device_waits.py": "worker",
    "benchmarks/faults.py": "worker",
}
AROUND = ("helpers/wrong_slot.py",)  # programs that do what follows, `-m worker ...`, in a way of their own
PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(python: str, folder: str, verbs: tuple[str, ...]) -> None:
    """Have it forked and wait for its end; or become the plain `python`."""
    command, *words = sys.argv
    kind = of_kind(words, verbs)
    if not kind:
        os.execv(python, [python, *words])
    link = socket.socket(socket.AF_UNIX)
    link.connect(f"{folder}/{kind}")
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    order = {
        "command": command,
        "words": words,
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": os.umask(0o077),
        "leads": os.getsid(0) == os.getpid(),
        "environment": dict(os.environ),
        "ignored": ignored,
    }
    socket.send_fds(link, [json.dumps(order).encode() + b"\n"], [0, 1, 2])
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # that pipes are closed when the other ends
        os.dup2(null, fd)
    for signum in PASSED:
        if not (ignored and signum == signal.SIGINT):
            signal.signal(signum, lambda number, frame: link.sendall(b"%d\n" % number))
    end(wait(link, kernel="ipykernel_launcher" in words[:2]))


def of_kind(words: list[str], verbs: tuple[str, ...]) -> str:
    """From which process it is forked; empty: from none."""
    given = words[1:] if words[:1] and words[0].endswith(AROUND) else words
    if given[:2] == ["-m", "worker"] and given[2:3] and given[2] in verbs:
        return "worker"
    if words[:1] == ["-m"] and words[1:] and words[1] in MODULES:
        return "driver"
    return next((kind for script, kind in SCRIPTS.items() if words[:1] and words[0].endswith(script)), "")


def wait(link: socket.socket, kernel: bool) -> int:
    """Its status as of waitpid; a kernel ends with the process that started it, as it would by itself."""
    parent = os.getppid()
    while not select.select([link], [], [], 1.0)[0]:
        if kernel and os.getppid() != parent:
            return 0
    told = link.recv(64)
    return int(told) if told else 1 << 8


def end(status: int) -> None:
    """End as it ended."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)
