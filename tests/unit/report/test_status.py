"""A run's status in the founding plan's progress.json form."""

import json
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runbook_lib.hosts import gpus
from runbook_lib.report import status
from runbook_lib.run import plan
from runbook_lib.slots.snapshot import SlotState, Snapshot

FIELDS = {"start_index", "end_index", "items_processed", "processing_time", "rate", "completed_at", "output_file"}
SUMMARY = {"total_workers_completed", "total_items_processed", "target_items", "percent_complete", "last_updated"}
AT = 1_763_134_354.0  # 2025-11-14 15:32:34 UTC

MODEL = plan.ModelIdentity("m", "r", "d", 4, True)
SLOTS = tuple(plan.Slot(f"cluster{i}_gpu0", f"host{i}", 0, "cpu", 1, 10 * i, 10 * i + 10) for i in range(2))
PLAN = plan.Plan("t", 1, 18, 2, "c", MODEL, "float32", "{text}", "{text}", None, 5, SLOTS)
DONE = SlotState(
    "cluster0_gpu0", "host0", 10, 10, 0, "done", rate=5.0, age_s=1.234, restarts=2, reason="killed", processing_s=4.0
)
HALF = SlotState("cluster1_gpu0", "host1", 10, 5, 3, "running", processing_s=2.0)


def state(*slots, committed=15, rows=20, **more):
    fields = {"run": "t", "at": AT, "elapsed_s": 9.0, "rate": 2.5, "eta_s": 2.0, "history": (), "norms": ()}
    fields |= {"quarantined": (), "alerts": (), **more}
    return Snapshot(rows=rows, committed=committed, slots=slots or (DONE, HALF), **fields)


def test_every_slot_and_the_summary_have_the_founding_fields():
    found = status.founding_form(PLAN, state())
    assert list(found) == ["cluster0_gpu0", "cluster1_gpu0", "_summary"]
    assert all(set(found[slot]) >= FIELDS for slot in list(found)[:2])
    assert set(found["_summary"]) >= SUMMARY
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_figures_are_those_of_plan_and_state():
    found = status.founding_form(PLAN, state(quarantined=(7,), alerts=("look",)))
    one = found["cluster0_gpu0"]
    assert (one["start_index"], one["end_index"], one["items_processed"]) == (0, 10, 10)
    assert (one["processing_time"], one["rate"], one["output_file"]) == (4.0, 5.0, "parts/rows_000000000_*.npy")
    assert one["completed_at"] == "2025-11-14T15:32:34+00:00"
    assert (one["host"], one["state"], one["reason"], one["restarts"]) == ("host0", "done", "killed", 2)
    assert one["last_contact_s"] == 1.2
    summary = found["_summary"]
    assert (summary["total_workers_completed"], summary["total_items_processed"], summary["target_items"]) == (
        1,
        15,
        20,
    )
    assert (summary["percent_complete"], summary["last_updated"]) == (75.0, "2025-11-14T15:32:34+00:00")
    assert (summary["eta_s"], summary["given_up"], summary["alerts"]) == (2.0, [7], ["look"])


def test_a_slot_under_way_is_not_completed_and_has_the_rate_of_its_work():
    half = status.founding_form(PLAN, state())["cluster1_gpu0"]
    assert (half["completed_at"], half["last_contact_s"], half["rate"]) == (None, None, 2.5)


def test_a_slot_that_has_not_begun_has_no_rate():
    waiting = replace(HALF, committed=0, processing_s=None, state="not launched")
    found = status.founding_form(PLAN, state(waiting, committed=0))
    assert found["cluster1_gpu0"]["rate"] is None
    assert found["_summary"]["percent_complete"] == 0.0


@pytest.mark.parametrize(
    ("committed", "rows", "percent"), [(1, 3, 33.33), (2, 3, 66.66), (99_999, 100_000, 99.99), (999_999, 10**6, 99.99)]
)
def test_hundred_percent_means_every_row(committed, rows, percent):
    found = status.founding_form(PLAN, state(committed=committed, rows=rows))
    assert found["_summary"]["percent_complete"] == percent
    assert status.founding_form(PLAN, state(committed=rows, rows=rows))["_summary"]["percent_complete"] == 100.0


def metrics(text):
    """(name, labels) -> value, read by Prometheus's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_the_state_says_and_nothing_of_what_is_unknown():
    busy = replace(HALF, gpu=gpus.Sample(97, 4096, None, 310.5))
    found = metrics(status.prometheus(state(DONE, busy, silent_s={"host1": 7.0}, eta_s=None, alerts=("look",))))
    run = ("run", "t")
    assert found["runbook_rows_committed", (run,)] == 15
    assert found["runbook_rate_rows_per_second", (run,)] == 2.5
    assert found["runbook_alerts", (run,)] == 1
    assert ("runbook_eta_seconds", (run,)) not in found
    assert [found["runbook_host_silent_seconds", (("host", h), run)] for h in ("host0", "host1")] == [0.0, 7.0]
    first, second = ((("host", f"host{i}"), run, ("slot", f"cluster{i}_gpu0")) for i in range(2))
    assert (found["runbook_slot_rows_committed", first], found["runbook_slot_rows_committed", second]) == (10, 5)
    assert found["runbook_slot_rate_rows_per_second", first] == 5.0
    assert ("runbook_slot_rate_rows_per_second", second) not in found
    assert found["runbook_slot_gpu_utilization_percent", second] == 97
    assert found["runbook_slot_gpu_power_watts", second] == 310.5
    assert ("runbook_slot_gpu_temperature_celsius", second) not in found
    assert ("runbook_slot_gpu_utilization_percent", first) not in found
    assert found["runbook_slot_state", (*second, ("state", "running"))] == 1


def test_no_word_of_a_host_can_break_a_line_for_prometheus():
    nasty = replace(HALF, state='failed"} 1\nrunbook_rows{run="t"} 0\\\x1b[31m')
    found = metrics(status.prometheus(state(DONE, nasty)))
    assert found["runbook_rows", (("run", "t"),)] == 20
    said = [dict(labels)["state"] for name, labels in found if name == "runbook_slot_state"][-1]
    assert said.startswith("failed")
    assert "\n" not in said and "\x1b" not in said
