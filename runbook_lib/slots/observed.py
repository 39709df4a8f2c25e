"""The reading of one slot at one poll, and the state that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.escape import safe_text
from worker.rows import Covered, Range, count
from worker.wire import Reading, SlotReading, SupervisedSlot, WorkerReport

from ..errors import RunbookError
from ..hosts import gpus
from ..run.plan import Slot
from . import queued, states
from .readings import Answer, Late
from .snapshot import SlotState

FRESH_S = 60.0  # older figures of a GPU, or an older rate of a worker, are ignored


@dataclass(frozen=True)
class Observed:
    """One slot in the last reading of its host; of its `rows`, `done` are committed. `state` comes from `judge`.

    `silent`: the error if its host cannot be asked now; None if it answers, or may still answer.
    """

    slot: Slot
    rows: int
    done: int
    state: str
    reading: Reading
    silent: RunbookError | None = None

    @property
    def name(self) -> str:
        """The slot's name."""
        return self.slot.slot

    @property
    def entry(self) -> SlotReading:
        """What its host has stored about it."""
        return self.reading.slots[self.name]

    @property
    def report(self) -> WorkerReport:
        """The last report of its worker."""
        return self.entry.worker

    @property
    def in_part(self) -> int:
        """Rows done of the uncommitted part, as the worker reports."""
        return (self.report.rows_in_part or 0) if self.entry.alive else 0

    @property
    def reason(self) -> str:
        """Why its last worker ended; empty if the slot is done or running."""
        exits = self.entry.exits
        return exits[-1].reason if exits and self.state not in (states.DONE, states.RUNNING) else ""

    @property
    def explained(self) -> bool:
        """Whether the last worker's end explains the present state: no worker has begun since."""
        if not self.entry.exits:
            return False
        began, at = self.report.started_at, self.entry.exits[-1].at
        return began is None or at is None or began <= at

    @property
    def finished(self) -> bool:
        """Whether its supervisor ended because nothing was left."""
        return supervised(self.reading, self.name).state == states.DONE

    @property
    def sample(self) -> gpus.Sample | None:
        """The last GPU figures of its supervisor, unless they are old."""
        supervisor = self.reading.supervised
        if supervisor.gpus_at is None or abs(self.reading.now - supervisor.gpus_at) > FRESH_S:
            return None
        return gpus.samples(supervisor.gpus or "").get(self.entry.gpu or "")


def observe(
    slot: Slot,
    ranges: Sequence[Range],
    have: Covered,
    reading: Reading,
    answer: Answer | None,
    launched: bool,
) -> Observed:
    """Return a slot's state from a reading that contains it; `have`: the rows of its host and of this machine."""
    rows, open_ = count(ranges), left(ranges, have)
    entry = reading.slots[slot.slot]
    state = states.MOVED
    if rows:
        whole = not open_ or not left(_gaps(ranges, have), Covered((row, row + 1) for row in reading.quarantined))
        own = supervised(reading, slot.slot)
        state = judge(whole, entry.alive, reading, entry.worker, own, launched)
    silent = answer if isinstance(answer, RunbookError) else None
    if silent and state not in states.REST:
        state = states.UNREACHABLE  # not dead: its workers may be computing
    return Observed(slot, rows, rows - open_, state, reading, silent)


def unread(slot: Slot, ranges: Sequence[Range], have: Covered, answer: Answer | None, read: bool) -> SlotState:
    """Return the state of a slot that is in no reading; `read`: its host has sent one without it."""
    rows, open_ = count(ranges), left(ranges, have)
    if not rows:
        state = states.MOVED
    elif not open_:
        state = states.DONE
    elif read:
        state = states.NOT_LAUNCHED
    else:
        state = states.NOT_READ if isinstance(answer, Late) else states.UNREACHABLE
    explained = state == states.UNREACHABLE and isinstance(answer, RunbookError)
    evidence = safe_text(str(answer), 300) if explained else ""
    return SlotState(slot.slot, slot.host, rows, rows - open_, 0, state, evidence=evidence)


def judge(
    whole: bool,
    alive: bool,
    reading: Reading,
    report: WorkerReport,
    supervised: SupervisedSlot,
    launched: bool = True,
) -> str:
    """Return a slot's state in one word, from the stored reports and the living processes.

    `whole`: nothing is left to do; `report` comes from the worker, `supervised` from its supervisor; `launched`:
    whether a supervisor was ever started.
    """
    if whole and not (alive and report.helping):
        return states.DONE
    if reading.queued and not reading.supervisor_alive:
        return queued.judge(reading.queued, reading, supervised, launched)
    if alive:
        return states.HELPING if whole else (report.state or states.STARTING)
    if reading.stop_requested:
        return states.STOPPED
    last = supervised.state or ""
    if last == states.STOPPED:  # without a person's request: its supervisor was ended, for example by a reboot
        return states.TAKEN if reading.queued else states.DEAD
    if not reading.supervisor_alive:
        # Given up on purpose, or no supervisor is left to start it again.
        return last if last == states.FENCED else states.DEAD if launched else states.NOT_LAUNCHED
    return {states.WAITING: states.RESTARTING, states.RUNNING: states.STARTING, "": states.STARTING}.get(last, last)


def supervised(reading: Reading, slot: str) -> SupervisedSlot:
    """Return a slot's entry in its supervisor's report; blank if there is none."""
    return reading.supervised.slots.get(slot) or SupervisedSlot.blank()


def idle_s(reading: Reading, entry: SlotReading) -> float | None:
    """Return seconds since a living worker began, by its host's clock, if it still loads; else None."""
    began = entry.worker.started_at
    loads = entry.alive and entry.worker.state in states.LOADS
    return max(0.0, reading.now - began) if loads and began is not None else None


def left(ranges: Sequence[Range], have: Covered) -> int:
    """Return how many rows of `ranges` are not in `have`."""
    return count(_gaps(ranges, have))


def _gaps(ranges: Sequence[Range], have: Covered) -> list[Range]:
    return [gap for start, stop in ranges for gap in have.missing(start, stop)]
