"""A host that a scheduler places: its state by its place in the queue and the age of its heartbeat, never by a process.

A fresh heartbeat outweighs the queue, which may have lost a task that works on; a queue that does not answer says
nothing. So no slot counts as dead while it works, and none waits for ever for a task that is gone.
"""

from __future__ import annotations

from worker.escape import safe_text
from worker.wire import Queued, QueueEntry, Reading, SupervisedSlot

from . import states

GIVEN_UP = 5  # submissions in a row without a new row
PENDING, BEGIN_TIME = "PENDING", "BeginTime"
WAITS = frozenset((states.QUEUED, states.REQUEUED, states.HELD))  # for the scheduler: no deadline counts


def judge(queued: Queued, reading: Reading, supervised: SupervisedSlot, launched: bool) -> str:
    """Return the state of a slot with rows left whose host shows no fresh sign of life."""
    entry = queued.entry
    ended = reading.supervised.working is False and not _before_submission(queued)  # by its own word
    if entry is not None and (entry.state == PENDING or not ended):
        return _in_queue(queued, entry)
    if reading.stop_requested:
        return states.STOPPED
    if not queued.known:
        return states.SILENT if queued.silent_s is not None or queued.submitted_s is not None else states.NOT_LAUNCHED
    if queued.fruitless >= GIVEN_UP or supervised.state == states.FENCED:
        return states.FENCED
    return states.TAKEN if launched else states.NOT_LAUNCHED


def _in_queue(queued: Queued, entry: QueueEntry) -> str:
    if entry.state != PENDING:
        began = queued.silent_s is not None and not _before_submission(queued)
        return states.SILENT if began else states.STARTING
    if "held" in entry.reason.casefold():  # JobHeldUser, or "launch failed requeued held"
        return states.HELD
    began = queued.silent_s is not None and not _before_submission(queued)
    return states.REQUEUED if began and entry.reason == BEGIN_TIME else states.QUEUED


def _before_submission(queued: Queued) -> bool:
    """Whether the last heartbeat is one of a task before this one."""
    return queued.silent_s is not None and queued.submitted_s is not None and queued.silent_s > queued.submitted_s


def is_unseen(reading: Reading) -> bool:
    """Whether a host works that its scheduler's queue does not know."""
    queued = reading.queued
    return queued is not None and reading.supervisor_alive and queued.known and queued.entry is None


def words(queued: Queued | None, state: str) -> str:
    """Return what the queue says of a host, in words, for whoever looks at its state; empty where nothing is to say."""
    if queued is None:
        return ""
    entry = queued.entry
    silent = "" if queued.silent_s is None else f"no sign for {queued.silent_s:.0f} s"
    if not queued.known:
        return f"the queue is not known ({safe_text(queued.error or '', 200)}){'; ' if silent else ''}{silent}"
    if entry is None:
        return f"not in the queue; {silent}" if silent else "not in the queue"
    place = f" on {entry.place}" if entry.place else ""
    listed = safe_text(f"job {entry.job} is {entry.state}{place} ({entry.reason})", 200)
    if state == states.HELD:
        return f"{listed}; free it: scontrol release {safe_text(entry.job, 40)}"
    return f"{listed}; {silent}" if state == states.SILENT and silent else listed
