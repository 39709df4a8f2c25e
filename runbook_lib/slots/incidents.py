"""Incidents: what went wrong, when, and when it worked again; for the journal, and so for log and report.

Each host keeps a record of how its workers ended. The first command that reads such an end writes it into the journal,
once. Slowness is no incident: it loses nothing, and comes and goes. A person's stop or restart is no incident either.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.escape import safe_text
from worker.fields import Identity
from worker.states import BY_A_PERSON
from worker.wire import Exit, Reading

from ..corpus import corpus as corpora
from ..run import locks
from ..run.run import Run
from . import states, verdicts
from .snapshot import Refusal, SlotState, Snapshot
from .states import NAMED

BEGAN, ENDED, LOST, GIVEN_UP = "slot in trouble", "slot recovered", "supervisor lost", "row given up"
DIED = "died"
STANDS_STILL = (states.UNREACHABLE, states.STUCK)  # its worker has not ended: no row is done again
IDLE = "slot without a row"
LOADS_OF_OTHERS, STARTS_S = 3.0, 5.0  # at the end a worker may take this many times the slowest load, plus seconds
RECENT = 100  # events; the same failure of a host is written again after so many


def record(run: Run, host: str, reading: Reading) -> None:
    """Write into the journal how workers and the supervisor of a host ended, unless it is already there."""
    with contextlib.suppress(OSError):  # a full disk here: written at the next poll
        _record(run, [_Ended(slot, host, entry.exits, 0) for slot, entry in reading.slots.items()])
        _record_lost(run, host, reading.supervised.predecessor)
        _record_given_up(run, refusals(host, reading))


def refusals(host: str, reading: Reading) -> list[Refusal]:
    """Return the rows that a host gave up, with the reasons."""
    return [Refusal(each.row, host, each.slot, each.at, each.reason) for each in reading.given_up]


def _record_given_up(run: Run, refusals: Sequence[Refusal]) -> None:
    """Write into the journal which documents a host gave up, and why; once for each failed try."""
    if not refusals:
        return
    with locks.held(run.faults_lock):
        known = {(e.get("row"), e.get("host"), e.get("given_up_at")) for e in run.journal.events(GIVEN_UP)}
        new = [each for each in refusals if _refusal(each) not in known]
        names = corpora.row_names(run.corpus, {each.row for each in new}) if new else {}
        for each in new:
            run.journal.write(
                GIVEN_UP,
                row=each.row,
                host=each.host,
                slot=safe_text(each.slot, 80),
                document=names[each.row],
                cause=safe_text(each.reason, 300),
                action="its neighbours are done; it is tried once more when a person starts the run again",
                given_up_at=each.at,
            )


def _refusal(each: Refusal) -> tuple[object, ...]:
    return each.row, each.host, each.at


def _record_lost(run: Run, host: str, predecessor: Identity | None) -> None:
    """Write into the journal that a supervisor died while it had work and its workers started another one."""
    if predecessor is None:
        return
    identity = safe_text(f"{predecessor['pid']} {predecessor.get('start')}", 80)
    with locks.held(run.faults_lock):
        if (host, identity) not in {(e.get("host"), e.get("process")) for e in run.journal.events(LOST)}:
            cause = f"process {identity} was gone while it had work"
            run.journal.write(LOST, host=host, process=identity, cause=cause, action="another one took its place")


@dataclass(frozen=True)
class _Ended:
    """How workers of a slot ended, by its host's record; `again`: the rows that are done again."""

    slot: str
    host: str
    exits: Sequence[Exit]
    again: int


def _record(run: Run, ended: Sequence[_Ended]) -> dict[str, list[Exit]]:
    """Write the ends of workers that the journal does not have; return them by slot. The lock prevents doubles.

    All slots at once: the journal is read once, however many of them are in trouble.
    """
    ended = [each for each in ended if any(map(_is_fault, each.exits))]
    if not ended:
        return {}
    new: dict[str, list[Exit]] = {}
    with locks.held(run.faults_lock):
        known = {(e.get("slot"), e.get("exit_at")) for e in run.journal.events(BEGAN)}
        for each in ended:
            for exit in each.exits:
                if _is_fault(exit) and (each.slot, exit.at) not in known:
                    _write_end(run, each, exit)
                    new.setdefault(each.slot, []).append(exit)
    return new


def _write_end(run: Run, ended: _Ended, exit: Exit) -> None:
    name = _name(exit)
    run.journal.write(
        BEGAN,
        slot=ended.slot,
        host=ended.host,
        verdict=name,
        cause=safe_text(exit.reason, 300),
        action=NAMED[states.RESTARTING if name == DIED else name].by_itself,
        exit_at=exit.at,
        rows_again=ended.again,
    )


def _is_fault(exit: Exit) -> bool:
    return exit.at is not None and exit.reason not in (BY_A_PERSON, states.TAKEN)


def _name(exit: Exit) -> str:
    """Return the name of the verdict that says why a worker ended."""
    refused = states.REFUSED if exit.code == verdicts.EXIT_REFUSED else DIED
    return verdicts.cause(exit.reason) or refused


def host_failed(run: Run, host: str, what: str, why: object) -> None:
    """Write a failure of a host into the journal; skip it if a similar one is among the recent events."""
    reason = safe_text(str(why), 500)
    before = [e for e in run.journal.last(RECENT) if e.get("event") == "host failed" and e.get("host") == host]
    if not any(e.get("what") == what and _alike(str(e.get("reason")), reason) for e in before):
        with contextlib.suppress(OSError):
            run.journal.write("host failed", host=host, what=what, reason=reason)


def link_breaks(run: Run, host: str, breaks: Sequence[str]) -> None:
    """Write into the journal which connections to a host broke and were resumed."""
    for words in breaks:
        with contextlib.suppress(OSError):
            run.journal.write("link broke", host=host, seen=words)


def _alike(one: str, other: str) -> bool:
    """Whether two reasons differ in numbers only: seconds, ports, process ids."""
    return re.sub(r"[0-9.]+", "#", one) == re.sub(r"[0-9.]+", "#", other)


@dataclass
class _Trouble:
    """A slot's open trouble: its beginning by our clock (None: not watched then), and how many rows are done again."""

    verdict: str
    began: float | None
    again: int
    committed: int = -1


class Incidents:
    """Compares one state with the next while a run is watched. Open troubles are read from the journal."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self.run, self.clock = run, clock
        self._before: dict[str, int] = {}
        self._open: dict[str, _Trouble] = {}
        self._known: set[tuple[str, object]] = set()
        self._refused: set[tuple[object, ...]] = set()
        self._lost = {(str(e.get("host")), str(e.get("process"))) for e in run.journal.events(LOST)}
        for event in run.journal.events(BEGAN, ENDED):
            slot = str(event.get("slot"))
            if event["event"] == ENDED:
                self._open.pop(slot, None)
            else:
                self._known.add((slot, event.get("exit_at")))
                began = clock() - (time.time() - datetime.fromisoformat(event["at"]).timestamp())
                self._open[slot] = _Trouble(str(event.get("verdict")), began, int(event.get("rows_again") or 0))

    def note(self, state: Snapshot) -> None:
        """Write into the journal which slots got into trouble, and which recovered.

        A failed write (a full disk here) is tried again at the next poll: it must not end the watching.
        """
        for host, identity in state.gone.items():
            with contextlib.suppress(OSError):
                self._note_lost(host, identity, state)
        if new := [each for each in state.refusals if _refusal(each) not in self._refused]:
            with contextlib.suppress(OSError):
                _record_given_up(self.run, new)
                self._refused |= set(map(_refusal, new))
        with contextlib.suppress(OSError):
            self._note_ends(state.slots)
        for slot in state.slots:
            with contextlib.suppress(OSError):
                self._note(slot)
            self._before[slot.slot] = slot.in_part

    def note_idle(self, state: Snapshot) -> None:
        """At the end, write into the journal which workers still load, far longer than the others took."""
        usual_s = max((slot.loaded_s or 0.0 for slot in state.slots), default=0.0)
        for slot in state.slots:
            if slot.idle_s is not None and slot.idle_s > LOADS_OF_OTHERS * usual_s + STARTS_S:
                with contextlib.suppress(OSError):
                    self.run.journal.write(
                        IDLE,
                        slot=slot.slot,
                        host=slot.host,
                        cause=f"not one row {slot.idle_s:.0f} s after its worker began: it hangs or is slow to load",
                        action="others did its rows",
                    )

    def _note_lost(self, host: str, identity: str, state: Snapshot) -> None:
        if (host, identity) not in self._lost:
            beside = "; its workers live on" if host in state.unsupervised else ""
            by_itself = NAMED[states.UNSUPERVISED].by_itself
            self.run.journal.write(
                LOST, host=host, process=identity, cause=f"process {identity} is gone{beside}", action=by_itself
            )
            self._lost.add((host, identity))

    def _note_ends(self, slots: Sequence[SlotState]) -> None:
        """Write the new ends of the slots' workers; a slot has to recover from its last one."""
        unknown = {
            slot.slot: exits
            for slot in slots
            if (exits := [exit for exit in slot.exits if (slot.slot, exit.at) not in self._known])
        }
        if not unknown:
            return
        changed = [slot for slot in slots if slot.slot in unknown]
        ended = [_Ended(s.slot, s.host, unknown[s.slot], self._before.get(s.slot, 0)) for s in changed]
        new = _record(self.run, ended)
        for slot, each in zip(changed, ended, strict=True):
            self._known |= {(slot.slot, exit.at) for exit in each.exits}
            if slot.slot in new:
                self._open_for(slot, _name(new[slot.slot][-1]), each.again)

    def _open_for(self, slot: SlotState, verdict: str, again: int) -> None:
        """Open a trouble that the journal has; the first beginning of one that was open is kept."""
        before = self._open.get(slot.slot)
        began = self.clock() if slot.slot in self._before else None
        began, again = (before.began, max(again, before.again)) if before else (began, again)
        self._open[slot.slot] = _Trouble(verdict, began, again, slot.committed)

    def _note(self, slot: SlotState) -> None:
        name = slot.verdict or slot.state
        wrong = name != states.SLOW and name in NAMED and NAMED[name].wrong
        name = states.FENCED if slot.state == states.FENCED else name
        known = self._open.get(slot.slot)
        # `_note_ends` writes a worker's end from its host's record; a worker in state FAILED gets its record soon.
        ended = slot.state == states.RESTARTING and bool(slot.exits)
        wrong = wrong and slot.state != states.FAILED
        if wrong and not (known and (ended or known.verdict == name)):
            self._begin(slot, name, known)
        elif known and slot.state == states.STOPPED:
            del self._open[slot.slot]  # stopped by a person: no recovery, and no trouble any more
        elif known and not wrong and self._recovered(slot, known):
            self._end(slot, known)

    def _begin(self, slot: SlotState, verdict: str, known: _Trouble | None) -> None:
        """Open a trouble; a changed verdict keeps the first beginning. Rows of an uncommitted part are done again."""
        again = 0 if verdict in STANDS_STILL else self._before.get(slot.slot, 0)
        began, again = (known.began, max(again, known.again)) if known else (self.clock(), again)
        self.run.journal.write(
            BEGAN, slot=slot.slot, host=slot.host, verdict=verdict, cause=slot.evidence, action=slot.action
        )
        self._open[slot.slot] = _Trouble(verdict, began, again, slot.committed)

    def _recovered(self, slot: SlotState, known: _Trouble) -> bool:
        """Return whether a slot works again: it needs a new row, because a worker on a broken device starts too."""
        if slot.state in states.SETTLED - states.OVER and known.verdict not in STANDS_STILL:
            return slot.in_part > 0 or slot.committed > known.committed >= 0 or slot.state == states.HELPING
        return slot.state in states.SETTLED  # a starting worker has not recovered yet

    def _end(self, slot: SlotState, known: _Trouble) -> None:
        lost_s = None if known.began is None else round(self.clock() - known.began, 1)
        by_others = known.verdict == states.FENCED and slot.state in states.OVER
        self.run.journal.write(
            ENDED,
            slot=slot.slot,
            host=slot.host,
            after=known.verdict,
            seconds_lost=lost_s,
            rows_again=known.again,
            **({"by": "others did its rows; it stays given up"} if by_others else {}),
        )
        del self._open[slot.slot]
