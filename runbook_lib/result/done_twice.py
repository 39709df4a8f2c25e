"""Rows that two hosts did, as after a move: the second vectors are held against the first before they are let go."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..run.checks import Check
from ..run.journal import Journal

NAME = "rows done twice agree"
EVENT = "rows done twice"
# Half the squared distance as a share of the squared length; in 16 bits two kinds of devices differ by much more.
LIMIT = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}
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


def check(journal: Journal, dtype: str) -> Check:
    """Return the check of all rows that came home twice, by the journal."""
    events = list(journal.events(EVENT))
    wrong = [
        f"rows {event['start']}-{event['stop']} of {event['host']} are {event['furthest']:.2g} off the ones of before"
        for event in events
        if not event["furthest"] <= LIMIT[dtype]
    ]
    rows = sum(event["stop"] - event["start"] for event in events)
    return Check(NAME, not wrong, "; ".join(wrong[:10]) or f"{rows} rows came home twice", "", REMEDY)
