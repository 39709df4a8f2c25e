"""A run's status for programs: in the founding plan's progress.json form, and for Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from ..run.plan import Plan
from ..show.words import one_line
from ..slots.snapshot import Snapshot
from .outcome import Outcome


def founding_form(plan: Plan, state: Snapshot, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return the founding progress.json: an entry for each slot and `_summary`, with the founding names of the fields.

    `output_file` is the pattern of the slot's parts; `percent_complete` is of all rows. Fields that the founding plan
    did not have (state, reason, restarts) follow.
    """
    slots = {slot.slot: slot for slot in plan.slots}
    form: dict[str, Any] = {}
    for now in state.slots:
        slot = slots[now.slot]
        form[now.slot] = {
            "start_index": slot.start,
            "end_index": slot.stop,
            "items_processed": now.committed,
            "processing_time": now.processing_s,
            "rate": now.rate or (round(now.committed / now.processing_s, 3) if now.processing_s else None),
            "completed_at": _iso(now.ended_at or state.at) if now.done else None,
            "output_file": f"parts/rows_{slot.start:09d}_*.npy",
            "host": now.host,
            "state": now.state,
            "verdict": now.verdict or now.state,
            "reason": now.reason,
            "restarts": now.restarts,
            "last_contact_s": None if now.age_s is None else round(now.age_s, 1),
        }
    form["_summary"] = {
        "total_workers_completed": sum(now.done for now in state.slots),
        "total_items_processed": state.committed,
        "target_items": state.rows,
        "percent_complete": 10_000 * state.committed // state.rows / 100,  # rounded down: 100 means every row
        "last_updated": _iso(state.at),
        "run": state.run,
        "eta_s": state.eta_s,
        "given_up": list(state.quarantined),
        "alerts": list(state.alerts),
    }
    if outcome:
        form["_summary"] |= outcome.as_dict()
    return form


def prometheus(state: Snapshot) -> str:
    """Return the state in Prometheus's text format, for a node exporter's textfile folder or a pushgateway.

    Unknown values (a rate before the first rows, a GPU without figures) are left out, never 0. The names contain the
    units. Times are by the run's clock; Prometheus adds its own.
    """
    registry = CollectorRegistry()

    def gauge(name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"runbook_{name}", what, ("run", *labels), registry=registry)

    run = state.run
    for name, what, value in (
        ("rows", "rows of the run", state.rows),
        ("rows_committed", "rows in committed parts", state.committed),
        ("rows_given_up", "rows that were given up", len(state.quarantined)),
        ("alerts", "alerts of this look", len(state.alerts)),
        ("rate_rows_per_second", "rows a second over the last minute", state.rate),
        ("eta_seconds", "time left at that rate", state.eta_s),
    ):
        if value is not None:
            gauge(name, what).labels(run).set(value)
    silent = gauge("host_silent_seconds", "time since a host last answered; 0: it answers", "host")
    for host in {slot.host: None for slot in state.slots}:
        silent.labels(run, host).set(round(state.silent_s.get(host, 0.0), 1))
    of_slot = {
        name: gauge(f"slot_{name}", what, "host", "slot")
        for name, what in (
            ("rows", "rows of the slot"),
            ("rows_committed", "rows of the slot in committed parts"),
            ("rate_rows_per_second", "rows a second over the last minute"),
            ("heartbeat_age_seconds", "time since its worker's last heartbeat, by its host's clock"),
            ("restarts", "how often its worker ended"),
            ("gpu_utilization_percent", "use of its GPU"),
            ("gpu_memory_used_mebibytes", "memory in use on its GPU"),
            ("gpu_temperature_celsius", "temperature of its GPU"),
            ("gpu_power_watts", "power that its GPU draws"),
        )
    }
    states = gauge("slot_state", "1 for the state that the slot is in", "host", "slot", "state")
    for slot in state.slots:
        sample = slot.gpu or (None,) * 4
        values = (slot.rows, slot.committed, slot.rate, slot.age_s, slot.restarts, *sample)
        for metric, number in zip(of_slot.values(), values, strict=True):
            if number is not None:
                metric.labels(run, slot.host, slot.slot).set(number)
        states.labels(run, slot.host, slot.slot, one_line(slot.state, 40)).set(1)
    return generate_latest(registry).decode()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
