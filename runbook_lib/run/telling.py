"""Tells a person, once each, that a run is done, has failed or needs them: by what the profile's `notify` names.

What was told is kept beside the run, outside its seal, so that the same command given again tells nothing twice. A
message that cannot be sent is a line there, and never stops a run.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from worker.escape import safe_text
from worker.files import json_line

from ..errors import RunbookError
from ..profile import secret, tokens
from ..profile.notify_spec import DONE, FAILED, NEEDS_YOU, NotifySpec
from . import locks, sending
from .run import Run

AGAIN_S = 3600.0  # the same trouble of the same machine, begun anew, is told again after so long
LOCK_S = 5.0
LONGEST = 1200  # characters: what a telephone shows
TITLES = {DONE: "is done", FAILED: "has failed", NEEDS_YOU: "needs you"}


@dataclass(frozen=True)
class Message:
    """What a person is told. `key`: which messages are the same one; `topic`: which are about the same matter."""

    event: str
    sentence: str
    command: str
    key: str
    topic: str = ""


def tell(run: Run, message: Message) -> subprocess.Popen[bytes] | None:
    """Begin to send a message, unless it was told before; return the process that sends it. It raises nothing."""
    spec = run.profile.notify
    if not spec.wanted or message.event not in spec.events:
        return None
    try:
        if not _claimed(run, message):
            return None
        return sending.start(letter(spec, run.name, message, str(run.told_file)), secret.variables())
    except (RunbookError, OSError) as error:
        with suppress(OSError):
            _append(run, {"key": message.key, "at": time.time(), "to": "nobody", "why": clean(str(error))})
        return None


def letter(spec: NotifySpec, name: str, message: Message, record: str = "") -> sending.Letter:
    """Return a message with all that is needed to send it. Raises ProfileError for addresses that cannot be read."""
    addresses = spec.addresses()
    here = platform.node() or "this machine"
    body = clean(message.sentence) + (clean(f"\n\nNext, on {here}: {message.command}") if message.command else "")
    urls = tuple(each.reveal() for each in addresses)
    return sending.Letter(
        message.key, message.event, name, clean(f"runbook: {name} {TITLES[message.event]}"), body, urls,
        spec.command, spec.timeout_s, record,
    )  # fmt: skip


def clean(text: str) -> str:
    """Return text that may leave this machine: without secrets, without control characters, not too long."""
    return safe_text(tokens.hide(secret.redact(text)), LONGEST)


def _claimed(run: Run, message: Message) -> bool:
    """Write down that this message is being sent; False if it was before, or its matter was told a short time ago."""
    now = time.time()
    with locks.held(run.told_lock, within_s=LOCK_S):
        for line in told(run):
            recent = abs(now - float(line["at"])) < AGAIN_S  # a clock that was put back must not make it quiet for days
            same = message.topic and line.get("topic") == message.topic and recent
            if line.get("event") and (line.get("key") == message.key or same):
                return False
        claim = {"key": message.key, "topic": message.topic, "event": message.event, "at": now}
        _append(run, {**claim, "sentence": clean(message.sentence)})
    return True


def told(run: Run) -> Iterator[dict[str, Any]]:
    """Yield what was told, and what became of it: a line with `event` for a message, one with `to` for each outcome."""
    with suppress(FileNotFoundError), run.told_file.open("rb") as file:
        for raw in file:
            with suppress(ValueError):  # half a line, after a crash
                line = json.loads(raw)
                if isinstance(line, dict) and isinstance(line.get("at"), int | float):
                    yield line


def _append(run: Run, line: dict[str, Any]) -> None:
    with run.told_file.open("ab") as file:
        file.write(json_line(json.dumps(line)))
