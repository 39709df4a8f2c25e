"""Rows that two slots did, as after a move: the second vectors are held against the first before they are let go."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..run import fences
from ..run.checks import Check
from ..run.journal import Event, Journal
from . import parts

NAME = "rows done twice agree"
EVENT = "rows done twice"
# Half the squared distance as a share of the squared length; in 16 bits two kinds of devices differ by much more.
LIMIT = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}
LOOKED_AT = 3  # rows of each range that differs, computed again first
REMEDY = "one of these hosts computes wrong: runbook verify --recompute N tells which; have it looked at"


def furthest(one: Path, other: Path) -> float:
    """Return how far the two arrays of one part are apart, in the row where they are furthest."""
    if one.read_bytes() == other.read_bytes():
        return 0.0
    ours, theirs = (np.load(path, allow_pickle=False).astype(np.float64) for path in (one, other))
    if ours.shape != theirs.shape:
        return float("inf")
    sizes = np.maximum(np.einsum("ij,ij->i", ours, ours), 1e-30)
    apart = np.einsum("ij,ij->i", ours - theirs, ours - theirs)
    return float((apart / sizes / 2.0).max())


def note(journal: Journal, host: str, home: Path, other: Path, apart: float) -> None:
    """Write down that the part at `home` came once more, from `host` as `other`, and how far apart the two are."""
    part = parts.read(other)
    journal.write(
        EVENT, host=host, start=part.start, stop=part.stop, furthest=apart, slot=_slot_of(home), by=part.record.slot
    )


def _slot_of(path: Path) -> str:
    try:
        return parts.read(path).record.slot
    except DataError:
        return ""


def open_(journal: Journal, dtype: str) -> tuple[list[Event], list[Event]]:
    """Return the rows that came home twice, and those of them that differ too much.

    Where one of the two slots was fenced since, what it did is refused and the other's stands: nothing is open.
    """
    events: list[Event] = []
    for event in journal.events(EVENT, fences.FENCED):
        if event["event"] == EVENT:
            events.append(event)
        else:
            events = [each for each in events if event["slot"] not in (each.get("slot"), each.get("by"))]
    return events, [event for event in events if not event["furthest"] <= LIMIT[dtype]]


def rows_first(journal: Journal, dtype: str) -> list[int]:
    """Return some rows of those that differ: which of the two slots is wrong, the audit can say."""
    _, wrong = open_(journal, dtype)
    return [row for event in wrong for row in range(event["start"], min(event["stop"], event["start"] + LOOKED_AT))]


def check(journal: Journal, dtype: str) -> Check:
    """Return the check of all rows that came home twice, by the journal."""
    events, differ = open_(journal, dtype)
    wrong = [
        f"rows {event['start']}-{event['stop']} of {event['host']} are {event['furthest']:.2g} off the ones of before"
        for event in differ
    ]
    rows = sum(event["stop"] - event["start"] for event in events)
    return Check(NAME, not wrong, "; ".join(wrong[:10]) or f"{rows} rows came home twice", "", REMEDY)
