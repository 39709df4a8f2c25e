"""What a reading says of each slot after a launch: whether it has reported, has rows, or is not to be waited for."""

from __future__ import annotations

from worker.escape import safe_text
from worker.rows import count, missing
from worker.wire import Reading, SlotReading, SupervisedSlot

from ..hosts import gpus
from ..slots import queued, states

DEATHS_TO_GO_ON = 2  # if other slots produce, a slot that died this often is not waited for


def not_waited_for(reading: Reading) -> dict[str, str]:
    """Return slot -> why not to wait for it: stopped or fenced; WAITING if it died often and will be tried again."""
    reasons = {}
    for slot, entry in reading.slots.items():
        supervised = reading.supervised.slots.get(slot) or SupervisedSlot.blank()
        if entry.alive:
            continue
        if reading.stop_requested or supervised.state in (states.FENCED, states.STOPPED):
            reasons[slot] = states.FENCED if supervised.state == states.FENCED else states.STOPPED
        elif supervised.state == states.WAITING and (supervised.deaths or 0) >= DEATHS_TO_GO_ON:
            reasons[slot] = states.WAITING
    return reasons


def slot_states(reading: Reading) -> dict[str, tuple[bool, str]]:
    """Return slot -> (has reported, in words)."""
    slots = {}
    for slot, entry in reading.slots.items():
        whole = not _rows_left(reading, entry)[0]
        if waits := _waits(reading):
            slots[slot] = (True, waits)
            continue
        state = entry.worker.state or "no report"
        ok = whole or (entry.alive and state in (*states.LOADS, states.RUNNING))
        last = entry.exits[-1].reason if entry.exits and not ok else ""
        if ok and state == states.LOADING and (held := _gpu_mib(reading, entry)):
            state += f", its GPU holds {held} MiB"
        slots[slot] = (ok, "all rows committed" if whole else f"{state}{': ' + last if last else ''}")
    return slots


def _waits(reading: Reading) -> str:
    """Return how a host's task waits for its scheduler, in words; empty where it does not. No deadline counts then."""
    placed = reading.queued
    if placed is None or reading.supervisor_alive or not placed.entry or placed.entry.state != queued.PENDING:
        return ""
    return safe_text(f"waits in the queue ({placed.entry.reason}), job {placed.entry.job}", 300)


def _rows_left(reading: Reading, entry: SlotReading) -> tuple[int, int]:
    """Return how many of a slot's rows are left, by its host's reading, and how many it has."""
    left = sum(count(missing(low, high, reading.committed)) for low, high in entry.ranges)
    return left, count(entry.ranges)


def _gpu_mib(reading: Reading, entry: SlotReading) -> int | None:
    """Return the used memory of a slot's GPU, by its supervisor's last report: it grows while a model loads."""
    sample = gpus.samples(reading.supervised.gpus or "").get(entry.gpu or "")
    return sample.used_mib if sample else None


def first_rows(reading: Reading) -> dict[str, tuple[bool, str]]:
    """Return slot -> (encodes, or has committed rows; in words)."""
    slots, over = {}, not_waited_for(reading)
    for slot, entry in reading.slots.items():
        if waits := _waits(reading):
            slots[slot] = (True, waits)
            continue
        left, rows = _rows_left(reading, entry)
        rows -= left
        running = entry.alive and entry.worker.state == states.RUNNING
        given_up = over.get(slot) == states.FENCED  # rows that it committed before do not show that it still works
        loaded = f"model loaded in {entry.worker.loaded_s} s, " if entry.worker.loaded_s else ""
        ok = not left or running or (rows > 0 and not given_up)
        last = f": {entry.exits[-1].reason}" if entry.exits and not ok else ""
        slots[slot] = (ok, f"{loaded}{rows} of {rows + left} rows committed{last}")
    return slots
