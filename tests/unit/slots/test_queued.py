"""A host that a scheduler places, judged by queue and heartbeat: every row of the table, and never "dead"."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import wired

from runbook_lib.profile.profile import MonitorSpec
from runbook_lib.slots import observed, queued, states, verdicts
from worker.wire import Queued, QueueEntry, Reading, SupervisedSlot, WorkerReport

ME = {"pid": 7, "start": "1", "boot": "b"}


def entry(state: str, reason: str = "None") -> QueueEntry:
    return QueueEntry(0, state, reason, "n1", "12_0")


def placed(**more: Any) -> Queued:
    return Queued(**{"known": True, "asked_s": 1.0, "fruitless": 0, "submitted_s": 100.0, **more})


def judged(
    by: Queued,
    *,
    alive: bool = False,
    fresh: bool = False,
    stop: bool = False,
    working: bool | None = True,
    said: str | None = "running",
    whole: bool = False,
    launched: bool = True,
) -> str:
    """The state of a slot; `fresh`: its supervisor's heartbeat is, `alive`: its worker runs by that one's word."""
    report = {"process": ME, "working": working} if fresh or by.silent_s is not None else None
    reading = Reading.from_json(
        wired.reading(supervisor_alive=fresh, stop_requested=stop, supervisor=report, queued=by.to_json())
    )
    worker = WorkerReport(state="running") if alive else WorkerReport()
    return observed.judge(whole, alive, reading, worker, SupervisedSlot.from_json({"state": said}), launched)


# What the queue says, the heartbeat's age (None: there was none), the state.
TABLE = (
    ("it waits", placed(entry=entry("PENDING", "Priority")), "waiting in the queue"),
    ("it waits for resources", placed(entry=entry("PENDING", "Resources")), "waiting in the queue"),
    (
        "it waits for its second time",
        placed(entry=entry("PENDING", "Priority"), silent_s=500.0),
        "waiting in the queue",
    ),
    ("requeued", placed(entry=entry("PENDING", "BeginTime"), silent_s=50.0), "requeued"),
    ("begins later, never began", placed(entry=entry("PENDING", "BeginTime")), "waiting in the queue"),
    ("held by a user", placed(entry=entry("PENDING", "JobHeldUser")), "held in the queue"),
    ("held by an admin", placed(entry=entry("PENDING", "JobHeldAdmin"), silent_s=50.0), "held in the queue"),
    ("held after a failed launch", placed(entry=entry("PENDING", "launch failed requeued held")), "held in the queue"),
    ("runs, no sign yet", placed(entry=entry("RUNNING")), "starting"),
    ("runs, a sign of the task before", placed(entry=entry("RUNNING"), silent_s=500.0), "starting"),
    ("runs, an old sign", placed(entry=entry("RUNNING"), silent_s=50.0), "silent"),
    ("is configured, no sign yet", placed(entry=entry("CONFIGURING")), "starting"),
    ("is ending, an old sign", placed(entry=entry("COMPLETING"), silent_s=50.0), "silent"),
    ("absent, an old sign", placed(silent_s=50.0), "ended by the scheduler"),
    ("absent, no sign ever", placed(), "ended by the scheduler"),
    ("absent, five times for nothing", placed(silent_s=50.0, fruitless=5), "fenced"),
    ("absent, four times for nothing", placed(silent_s=50.0, fruitless=4), "ended by the scheduler"),
    ("no answer, an old sign", placed(known=False, silent_s=50.0, error="no"), "silent"),
    ("no answer, submitted", placed(known=False, error="no"), "silent"),
    ("no answer, never submitted", placed(known=False, submitted_s=None, error="no"), "not launched"),
)


@pytest.mark.parametrize(("case", "by", "state"), TABLE, ids=[row[0] for row in TABLE])
def test_without_a_fresh_sign_the_queue_says_the_state(case: str, by: Queued, state: str) -> None:
    assert judged(by) == state


@pytest.mark.parametrize("by", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_fresh_sign_outweighs_the_queue_whatever_it_says(by: Queued) -> None:
    assert judged(by, fresh=True, alive=True) == "running"
    assert judged(by, fresh=True, said="waiting") == "restarting"


def test_no_slot_of_a_cluster_is_ever_dead() -> None:
    told = (None, "running", "waiting", "fenced", "stopped", "done", states.TAKEN)
    flags = product((False, True), repeat=5)
    for (_, by, _), said, (alive, fresh, stop, whole, launched) in product(TABLE, told, flags):
        for working in (None, False, True):
            state = judged(
                by, alive=alive, fresh=fresh, stop=stop, working=working, said=said, whole=whole, launched=launched
            )
            assert state != states.DEAD and state in states.NAMED, (by, said)


def test_a_task_that_said_that_it_ends_is_not_waited_for_while_the_queue_still_has_it() -> None:
    running = placed(entry=entry("RUNNING"), silent_s=2.0)
    assert judged(running, working=False, said=states.TAKEN) == "ended by the scheduler"
    assert judged(running, working=False, said="fenced") == "fenced"
    assert judged(running, working=False, stop=True) == "stopped"
    assert judged(placed(entry=entry("RUNNING"), silent_s=500.0), working=False) == "starting", (
        "that was an earlier one"
    )
    assert judged(placed(entry=entry("PENDING", "BeginTime"), silent_s=2.0), working=False) == "requeued"


def test_what_is_done_is_done_and_what_a_person_stopped_is_stopped() -> None:
    for _, by, _ in TABLE:
        assert judged(by, whole=True) == "done"
    assert judged(placed(silent_s=50.0), stop=True) == "stopped"
    assert judged(placed(silent_s=50.0, fruitless=5), stop=True) == "stopped"
    assert judged(placed(submitted_s=None), launched=False) == "not launched"


def test_one_that_works_and_is_not_in_the_queue_works_on_unseen() -> None:
    limits = MonitorSpec()
    signs = verdicts.Signs("running", rate=100.0, queue="not in the queue", unseen=True)
    verdict, evidence = verdicts.judge(signs, limits)
    assert (verdict.name, evidence) == ("works on unseen", "not in the queue") and not verdict.wrong
    unseen = [
        queued.is_unseen(
            Reading.from_json(wired.reading(supervisor_alive=fresh, supervisor={"process": ME}, queued=by))
        )
        for fresh, by in (
            (True, placed().to_json()),
            (True, placed(entry=entry("RUNNING")).to_json()),
            (True, placed(known=False).to_json()),
            (False, placed().to_json()),
            (True, None),
        )
    ]
    assert unseen == [True, False, False, False, False]


def test_who_waits_sees_why_and_who_is_held_sees_the_command() -> None:
    waits = queued.words(placed(entry=entry("PENDING", "Priority")), states.QUEUED)
    assert waits == "job 12_0 is PENDING on n1 (Priority)"
    held = queued.words(placed(entry=entry("PENDING", "JobHeldUser")), states.HELD)
    assert held.endswith("free it: scontrol release 12_0")
    assert "on n1" in queued.words(placed(entry=entry("RUNNING"), silent_s=77.0), states.SILENT)
    assert "77 s" in queued.words(placed(entry=entry("RUNNING"), silent_s=77.0), states.SILENT)
    assert "no route" in queued.words(placed(known=False, error="no route"), states.SILENT)
    assert queued.words(None, states.RUNNING) == ""
