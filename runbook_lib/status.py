"""A run's status as text for people and, in the founding plan's progress.json form, for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .monitor import State
from .plan import Plan


def founding_form(plan: Plan, state: State) -> dict[str, Any]:
    """The founding progress.json: an entry a slot and `_summary`, its fields under their founding names.

    `output_file` is the pattern of the slot's parts; `percent_complete` is of all rows. What the founding plan did not
    have (state, reason, restarts) follows them.
    """
    slots = {slot.slot: slot for slot in plan.slots}
    found: dict[str, Any] = {}
    for seen in state.slots:
        slot = slots[seen.slot]
        found[seen.slot] = {
            "start_index": slot.start,
            "end_index": slot.stop,
            "items_processed": seen.committed,
            "processing_time": seen.processing_s,
            "rate": seen.rate or (round(seen.committed / seen.processing_s, 3) if seen.processing_s else None),
            "completed_at": _iso(seen.ended_at or state.at) if seen.done else None,
            "output_file": f"parts/rows_{slot.start:09d}_*.npy",
            "host": seen.host,
            "state": seen.state,
            "reason": seen.reason,
            "restarts": seen.restarts,
            "last_contact_s": None if seen.age_s is None else round(seen.age_s, 1),
        }
    found["_summary"] = {
        "total_workers_completed": sum(seen.done for seen in state.slots),
        "total_items_processed": state.committed,
        "target_items": state.rows,
        "percent_complete": 10_000 * state.committed // state.rows / 100,  # rounded down: 100 means every row
        "last_updated": _iso(state.at),
        "run": state.run,
        "eta_s": state.eta_s,
        "given_up": list(state.quarantined),
        "alerts": list(state.alerts),
    }
    return found


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
