"""`runbook login`: a person answers once, for a password or a second factor, and leaves a connection for what follows.

Their ssh asks them, in the terminal; without one, as in a notebook's cell, through a program that ssh calls for each
question (SSH_ASKPASS) and two pipes in a folder of ours: no answer is ever in a command line or a file.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from worker.escape import safe_text

from ...errors import HostError
from . import alias as aliases
from . import pipes
from .alias import Alias
from .client import by_socket, is_alive, lent
from .folder import Folder
from .session import Patience

KEPT_H = 12  # hours after its last use
LOOK_S, END_S = 0.05, 30.0
NOTICE = "none"  # what SSH_ASKPASS_PROMPT says where nothing is to be answered: touch the key

Ask = Callable[[str], str]


def sign_in(host: str) -> str:
    """Log in to a machine as `ssh HOST` would, asking its person; return in words where to, and until when it holds.

    Raises HostError where the login fails or nobody is there to answer.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        return open_for(Alias(host, host), None)
    try:
        return open_for(Alias(host, host), getpass.getpass)
    except (EOFError, NotImplementedError):  # the second: a kernel without a frontend that asks, as under papermill
        hint = f"log in once from a terminal, runbook login {shlex.quote(host)}, then start this again"
        raise HostError(f"{host}: it asks, and nobody is here to answer; {hint}") from None


def open_for(alias: Alias, ask: Ask | None) -> str:
    """Log in and leave the connection. `ask` gives the answer to a question; None: ssh asks on this terminal."""
    found, _ = aliases.asked(alias)
    path = lent(alias)
    held = f"{alias.name}: logged in to {aliases.where(alias)}; what starts from now on uses this connection, until "
    held += f"{KEPT_H} hours after its last use or `runbook login {shlex.quote(alias.host)} --end`"
    if is_alive(path):
        return held
    _own_folder(path.parent)
    path.unlink(missing_ok=True)  # of a connection that is dead: with it ssh would go on as one that nobody can use
    folder = Folder()
    try:
        config = folder.configuration(found, Patience(), asks=True)
        options = ["ControlMaster=yes", f"ControlPath={path}", f"ControlPersist={KEPT_H}h"]
        argv = ["ssh", "-F", str(config), "-f", "-N", *(part for option in options for part in ("-o", option))]
        said = _ask_there([*argv, *alias.argv()]) if ask is None else _ask_here([*argv, *alias.argv()], folder, ask)
        if not is_alive(path):
            raise HostError(f"{alias.name}: the login failed{f': {said}' if said else ', see what ssh says above'}")
    finally:
        folder.remove()
    return held


def end(host: str) -> str:
    """End the connection that `sign_in` left; return in words whether there was one."""
    path = lent(Alias(host, host))
    if not is_alive(path):
        return f"{host}: no connection of `runbook login` is open"
    deadline = time.monotonic() + END_S
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([*by_socket(path), "-O", "exit", "--", host], capture_output=True, timeout=END_S, check=False)
    while is_alive(path):
        if time.monotonic() > deadline:
            held = f"does not end within {END_S:g} s; end the ssh process that holds {path}"
            raise HostError(f"{host}: its connection {held}")
        time.sleep(LOOK_S)
    return f"{host}: its connection is ended"


def _own_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise HostError(
            f"{folder}: expected a folder that only you can enter, seen another; remove it, or have its owner do so"
        )


def _ask_there(argv: list[str]) -> str:
    subprocess.run(argv, check=False)
    return ""


def _ask_here(argv: list[str], folder: Folder, ask: Ask) -> str:
    """Start ssh without a terminal and answer its questions; return what it said."""
    for name in ("question", "answer"):
        os.mkfifo(folder.path / name, 0o600)
    program, said = folder.path / "askpass", folder.path / "said"
    program.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(folder.path))} || exit 1\n"
        'printf "%s\\n" "$SSH_ASKPASS_PROMPT" "$1" > question\n'
        f'[ "$SSH_ASKPASS_PROMPT" = {NOTICE} ] || cat < answer\n'
    )
    program.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    environment.setdefault("DISPLAY", ":0")  # before 8.4 ssh asks nobody without one
    with said.open("wb") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=environment
        )
    questions = os.open(folder.path / "question", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while child.poll() is None:
            if text := _question(questions):
                kind, _, words = text.partition("\n")
                shown = f"{safe_text(words.strip(), 500)} "
                if kind == NOTICE:
                    print(shown)
                else:
                    _answer(folder.path / "answer", ask(shown), child)
            time.sleep(LOOK_S)
    except BaseException:
        pipes.end(child)  # and the program that still waits for an answer
        raise
    finally:
        os.close(questions)
    return safe_text(said.read_text(errors="replace").strip()[-600:])


def _question(fd: int) -> str:
    """Return a question as soon as it is whole, nothing if there is none."""
    text = b""
    look = select.poll()
    look.register(fd, select.POLLIN)
    while look.poll(0) and (data := os.read(fd, 2**12)):
        text += data
        look.poll(200)
    return text.decode(errors="replace")


def _answer(pipe: Path, answer: str, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None:
        with contextlib.suppress(OSError):  # until the program has opened it
            fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, f"{answer}\n".encode())
                return
            finally:
                os.close(fd)
        time.sleep(LOOK_S)
