"""Needs: what in a run waits for a person, by its journal: each with a sentence and the command that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from worker.escape import safe_text

from ..profile.notify_spec import DONE, FAILED, NEEDS_YOU
from ..run import telling
from ..run.journal import Event
from ..run.run import Run
from ..run.telling import Message
from .incidents import BEGAN, ENDED, GIVEN_UP
from .snapshot import Snapshot
from .states import NAMED, UNREACHABLE

STANDS_S = 30.0  # a trouble that goes by itself within so long needs nobody
EVERY_S = 10.0
ASKED, MOVED = "asked", "rows moved"
DONE_AGAIN = ("corpus amended", "started from scratch")


class Teller:
    """Tells a person what a run needs of them, while it is watched; the journal is read now and then only."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self.run, self.clock = run, clock
        self._next = float("-inf")

    def look(self) -> None:
        """Tell what is needed now and was not told before, if anybody is to be told."""
        if not self.run.profile.notify.wanted or self.clock() < self._next:
            return
        self._next = self.clock() + EVERY_S
        with suppress(OSError):  # the journal may be on a failing disk: watching goes on
            for message in needs(self.run):
                telling.tell(self.run, message)


def needs(run: Run, now: datetime | None = None) -> list[Message]:
    """Return what needs a person now, one message for each machine and cause."""
    now = now or datetime.now(UTC)
    open_troubles: dict[str, Event] = {}
    asked, given_up = [], []
    for event in run.journal.events(BEGAN, ENDED, ASKED, GIVEN_UP, MOVED, *DONE_AGAIN):
        slot = str(event.get("slot"))
        if event["event"] == ASKED:
            asked.append(_of_question(event))
        elif event["event"] == GIVEN_UP:
            given_up.append(event)
        elif event["event"] in DONE_AGAIN:
            given_up.clear()
        elif event["event"] == MOVED:
            gone = str(event.get("host")).split(",")
            open_troubles = {name: each for name, each in open_troubles.items() if each.get("host") not in gone}
        elif event["event"] == BEGAN and _needs(event):
            if slot not in open_troubles or open_troubles[slot].get("verdict") != event.get("verdict"):
                open_troubles[slot] = event
        else:
            open_troubles.pop(slot, None)
    by_matter: dict[tuple[str, str], list[Event]] = {}
    for event in open_troubles.values():
        by_matter.setdefault((str(event.get("verdict")), str(event.get("host"))), []).append(event)
    patience_s = run.profile.monitor.unreachable_s + STANDS_S  # until then its rows move by themselves
    stand = [
        events
        for (verdict, _), events in by_matter.items()
        if _age_s(events[0], now) >= (patience_s if verdict == UNREACHABLE else STANDS_S)
    ]
    rows = [_of_rows(run, given_up)] if given_up else []
    return [*asked, *rows, *(_of_trouble(run, events) for events in stand)]


def of_watching(run: Run, state: Snapshot) -> Message | None:
    """Return the message for a person who watches by hand: the watching has ended by itself."""
    if state.done:
        sentence = f"All {state.rows:,} rows are committed."
        return Message(DONE, sentence, "open 04_merge_validate.ipynb", f"committed {state.rows}")
    if state.resting:
        sentence = f"{state.committed:,} of {state.rows:,} rows are committed, and no worker works any more."
        return Message(FAILED, sentence, f"runbook status {run.name}", f"resting at {state.committed}")
    return None


def _needs(event: Event) -> bool:
    name = str(event.get("verdict"))
    return name in NAMED and (NAMED[name].needs or name == UNREACHABLE)


def _age_s(event: Event, now: datetime) -> float:
    """Return how long ago an event was; one of a clock that was put back since is old, not to come."""
    return abs((now - datetime.fromisoformat(event["at"])).total_seconds())


def _of_question(event: Event) -> Message:
    """The profile says `ask`: the journal has the command."""
    verdict, where, command = (str(event.get(name)) for name in ("verdict", "where", "command"))
    sentence = f"{where} is {verdict}, and the profile says to ask you before anything is done about it."
    return Message(NEEDS_YOU, sentence, command, f"asked {event['seq']}", f"asked {verdict} {where}")


def _of_rows(run: Run, events: list[Event]) -> Message:
    first = events[0]
    some = f"{len(events)} documents were" if len(events) > 1 else "A document was"
    sentence = (
        f"{some} given up, the first is {safe_text(str(first.get('document')), 200)}: "
        f"{safe_text(str(first.get('cause')), 300)}. The others go on; correct its text in the corpus."
    )
    command = f"runbook run {run.made_from} --amend"
    return Message(NEEDS_YOU, sentence, command, f"given up {first['seq']}", "given up")


def _of_trouble(run: Run, events: list[Event]) -> Message:
    first = min(events, key=lambda event: event["seq"])
    name, host = str(first.get("verdict")), str(first.get("host"))
    slots = ", ".join(safe_text(str(event.get("slot")), 80) for event in events[:8])
    sentence = (
        f"{host} ({slots}): {name}: {safe_text(str(first.get('cause')), 300)}. By itself: {NAMED[name].by_itself}. "
        f"You: {NAMED[name].person}."
    )
    command = f"runbook status {run.name}"
    return Message(NEEDS_YOU, sentence, command, f"{name} {host} {first['seq']}", f"{name} {host}")
