"""The message at the end of a drive: done or failed, to whom the profile names; see `run.telling`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import RunbookError
from ..profile.notify_spec import DONE, FAILED
from ..report import verdict
from ..result import facts, publication
from ..run import telling
from ..run.run import Run

WAIT_S = 20.0  # for the message to leave: a machine may be shut down when the command ends; it goes on without us


@contextmanager
def at_the_end(run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Tell how a drive ended; a person who interrupted it is told nothing."""
    try:
        yield
    except Exception as error:
        with suppress(RunbookError, OSError):  # what else is wrong must not hide why it ended
            _tell(run, _failed(run, str(error) or type(error).__name__), say)
        raise
    with suppress(RunbookError, OSError):  # what cannot be told in words stands in the report, and ends no run
        _tell(run, _ending(run), say)


def _ending(run: Run) -> telling.Message | None:
    """Return the message for the state that the run is in now; None while other hosts still work on it."""
    if run.finished:
        sentence = f"{verdict.sentence(facts.gather(run))} Report: {run.report / 'report.html'}"
        published = publication.published(run)
        key = f"done {published.at if published else ''}"
        return telling.Message(DONE, sentence, f"runbook verify {run.name}", key)
    ends = [event for event in run.journal.events("phase failed", "phase ended")]
    if not ends or ends[-1]["event"] == "phase ended":
        return None
    return _failed(run, f"{ends[-1].get('phase')}: {ends[-1].get('reason')}")


def _failed(run: Run, why: str) -> telling.Message:
    attempts = sum(1 for _ in run.journal.events("phase started"))
    command = f"runbook run {run.made_from} --run {run.name}"
    return telling.Message(FAILED, why, command, f"failed after {attempts} {why[:200]}")


def _tell(run: Run, message: telling.Message | None, say: Callable[[str], None]) -> None:
    """Send a message and say what became of it, if that is known soon."""
    child = telling.tell(run, message) if message else None
    if message is None or child is None:
        return
    with suppress(subprocess.TimeoutExpired):
        child.wait(WAIT_S)
    for line in telling.told(run):
        if line.get("key") == message.key and "to" in line:
            why = telling.clean(str(line.get("why") or ""))
            say(f"could not tell {line['to']}: {why}" if why else f"told {line['to']}")
    if child.poll() is None:
        say("the message that the run has ended is still being sent, by a process of its own")
