"""Launchers: what starts a host's supervisor so that it outlives the process that asked.

Two rows: a process of its own session, and a unit of the user's systemd, for where logging out ends everything that a
login started. A scheduler is asked by other verbs, as it starts many hosts at once and knows no process: `worker.slurm`
submits, asks the queue, cancels. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from . import commands, process
from .fields import Identity
from .files import make_folder, open_private
from .layout import HostFolder

PROCESS, UNIT = "process", "unit"
ANSWER_S = 30.0  # for systemd
QUIET = {"PYTHONDONTWRITEBYTECODE": "1"}

# Children that outlive a request but end while this process still lives must be reaped, or they look alive as zombies.
_children: list[subprocess.Popen[bytes]] = []


def command(folder: HostFolder, host: str, python: str) -> list[str]:
    """The command line of a host's supervisor; by these words `worker.process.running` knows it again."""
    return [*supervise(folder, python), host]


def supervise(folder: HostFolder, python: str) -> list[str]:
    """The same up to the host's name."""
    return [python, "-m", "worker", "supervise", "--root", str(folder.root), "--host"]


def detached(argv: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A command in a session of its own: its output appended to `log`, its input closed. Raises OSError."""
    make_folder(log.parent, 0o700)
    with open_private(log, os.O_APPEND) as out:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def outliving(argv: Sequence[str], log: Path, cwd: Path) -> Identity:
    """Start a command that outlives us, and give the record that names it. Raises OSError."""
    child = detached(argv, log, cwd, {**os.environ, **QUIET})
    _children.append(child)
    return process.identify(child.pid)


def reap() -> None:
    """Let those of our children go that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def _as_process(folder: HostFolder, host: str, python: str) -> Identity:
    return outliving(command(folder, host, python), folder.log(f"host_{host}"), folder.root)


def _as_unit(folder: HostFolder, host: str, python: str) -> Identity:
    unit, log = f"runbook-{folder.root.name}-{host}", folder.log(f"host_{host}")
    make_folder(log.parent, 0o700)
    open_private(log, os.O_APPEND).close()  # systemd appends to it, but it was made for us only
    # Of the process alone: its workers outlive it.
    settings = ["KillMode=process", f"WorkingDirectory={folder.root}", f"StandardOutput=append:{log}"]
    settings += [f"StandardError=append:{log}", *(f"Environment={name}={value}" for name, value in QUIET.items())]
    options = [option for setting in settings for option in ("--property", setting)]
    argv = ["systemd-run", "--user", "--quiet", "--collect", f"--unit={unit}", *options, "--"]
    done = commands.ask([*argv, *command(folder, host, python)], ANSWER_S)
    if done.returncode != 0:
        raise OSError(f"systemd-run --user did not start {unit}: {done.stderr.strip() or done.returncode}")
    show = ["systemctl", "--user", "show", "--property=MainPID", "--value", unit]
    shown = commands.ask(show, ANSWER_S).stdout.strip()
    return process.identify(int(shown) if shown.isdigit() else 0)


# What starts a supervisor, given a run's folder on this host, the host's name and a Python; it raises OSError.
# What names it from then on is a process in either case: `worker.process` sees it alive, and stops it.
LAUNCHERS: Mapping[str, Callable[[HostFolder, str, str], Identity]] = {PROCESS: _as_process, UNIT: _as_unit}
