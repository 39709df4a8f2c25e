"""Sends one message to all that a profile names, in processes of its own: no answer, slow or none, holds up a run.

`start` begins it and comes back at once. The process it starts tries each address and the command, side by side, each
try in a child that is ended after `timeout_s`. Addresses travel by standard input only. The only door to apprise, which
is loaded in the last child alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from worker.escape import safe_text
from worker.files import json_line

from ..profile import secret

TRIES, WAIT_S = 3, 5.0  # a network that is away for a moment
ONE_TRY = "--one-try"
HIDDEN = "***"


@dataclass(frozen=True)
class Letter:
    """A message with all that is needed to send it; `record`: the file that takes a line an outcome, if any."""

    key: str
    event: str
    run: str
    title: str
    body: str
    urls: tuple[str, ...]
    command: tuple[str, ...]
    timeout_s: float
    record: str = ""
    tries: int = TRIES


@dataclass(frozen=True)
class Outcome:
    """What became of one address or of the command; `why` is empty where it was sent."""

    to: str
    why: str = ""


_begun: list[subprocess.Popen[bytes]] = []  # what sends now: waited for, so that none stays behind as a zombie


def start(letter: Letter, without: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Begin to send in a session of its own, which goes on when we end; `without`: variables it does not inherit."""
    child = subprocess.Popen(
        [sys.executable, "-m", _name()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert child.stdin
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(json.dumps(asdict(letter)).encode())
    _begun[:] = [*(each for each in _begun if each.poll() is None), child]
    return child


def send(letter: Letter) -> list[Outcome]:
    """Send to every address and to the command, side by side; return what became of each."""
    jobs = [(f"address {n} ({_scheme(url)})", url) for n, url in enumerate(letter.urls, 1)]
    jobs += [("command", "")] if letter.command else []
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        return list(pool.map(lambda job: _to_the_end(letter, *job), jobs))


def _scheme(url: str) -> str:
    return safe_text(re.split(r"\W", url, maxsplit=1)[0], 30)


def _to_the_end(letter: Letter, to: str, url: str) -> Outcome:
    """Try until it is sent, or often enough."""
    outcome = Outcome(to, "not tried")
    for number in range(letter.tries):
        time.sleep(WAIT_S * number)
        outcome = Outcome(to, _by_address(letter, url) if url else _by_command(letter))
        if not outcome.why:
            break
    _keep(letter, outcome)
    return outcome


def _name() -> str:
    return __spec__.name if __spec__ else __name__


def _by_address(letter: Letter, url: str) -> str:
    argv = [sys.executable, "-m", _name(), ONE_TRY]
    return _hidden(_run(argv, json.dumps([url, letter.title, letter.body]), letter.timeout_s, {}), url)


def _by_command(letter: Letter) -> str:
    told = {"RUNBOOK_EVENT": letter.event, "RUNBOOK_RUN": letter.run, "RUNBOOK_TITLE": letter.title}
    return _run(list(letter.command), f"{letter.title}\n\n{letter.body}\n", letter.timeout_s, told)


def _run(argv: list[str], text: str, timeout_s: float, more: dict[str, str]) -> str:
    """Run a program with `text` as its input; return why it failed, or nothing. What it started ends with it.

    A trial is sent by the command's own process, which still has the variables that hold secrets: no child gets them.
    """
    hidden = secret.variables()
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**{name: value for name, value in os.environ.items() if name not in hidden}, **more},
            start_new_session=True,
        )
    except OSError as error:
        return f"{safe_text(argv[0], 200)}: {error.strerror}"
    try:
        out, _ = child.communicate(text.encode(), timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # a group of our own making
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()  # a program that left the group may hold the other end
        return f"no answer within {timeout_s:g} s"
    lines = out.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return "" if child.returncode == 0 else safe_text(f"exit code {child.returncode}: {lines[-1]}", 300)


def _hidden(why: str, url: str) -> str:
    """Return `why` without any piece of an address but its first word: a token may be any of the others.

    Nor as it is meant: an address writes the `@` of a password as `%40`, and what failed may say it.
    """
    pieces = {piece for piece in re.split(r"[/:@?&=,#]+", url)[1:] if len(piece) >= 4}
    meant = {unquote(piece) for piece in (url, *pieces)}
    for piece in sorted({url, *pieces, *meant}, key=len, reverse=True):
        why = why.replace(piece, HIDDEN)
    return why


def _keep(letter: Letter, outcome: Outcome) -> None:
    if letter.record:
        with contextlib.suppress(OSError), Path(letter.record).open("ab") as file:
            file.write(json_line(json.dumps({"key": letter.key, "at": time.time(), **asdict(outcome)})))


def _one_try(url: str, title: str, body: str) -> str:
    """Send to one address by apprise; return why it failed, or nothing."""
    import apprise

    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("apprise").addHandler(listener)
    sender = apprise.Apprise()
    if not sender.add(url):
        return "apprise does not know such an address: its documentation lists them"
    sent = sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT, interpret_escapes=False)
    return "" if sent else " ".join((said or ["it was not taken"])[-1].split())


def main() -> int:
    """Read a letter, or with `--one-try` an address and a message, from standard input, and send it."""
    given = json.load(sys.stdin)
    if ONE_TRY in sys.argv:
        why = _one_try(*given)
        print(why)
        return 1 if why else 0
    letter = Letter(**{**given, "urls": tuple(given["urls"]), "command": tuple(given["command"])})
    return 1 if any(outcome.why for outcome in send(letter)) else 0


if __name__ == "__main__":
    sys.exit(main())
