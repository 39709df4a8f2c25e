"""The monitor: what a slot is, from what is on file and who lives; rates that look back one minute."""

import asyncio
import os

import pytest

from runbook_lib import monitor, plan, profile, run
from worker import process
from worker.layout import write_json

LIVING = {"supervisor_alive": True, "stop_requested": False}
ALONE = {"supervisor_alive": False, "stop_requested": False}
STOPPING = {"supervisor_alive": False, "stop_requested": True}


@pytest.mark.parametrize(
    ("whole", "alive", "reading", "report", "supervised", "state"),
    [
        (True, False, ALONE, {}, {}, "done"),
        (True, True, LIVING, {"state": "running"}, {}, "done"),
        (False, True, LIVING, {}, {}, "starting"),
        (False, True, LIVING, {"state": "loading model"}, {"state": "running"}, "loading model"),
        (False, True, ALONE, {"state": "running"}, {"state": "running"}, "running"),
        (False, False, LIVING, {"state": "running"}, {"state": "waiting"}, "restarting"),
        (False, False, LIVING, {"state": "failed"}, {"state": "running"}, "starting"),
        (False, False, LIVING, {}, {}, "starting"),
        (False, False, LIVING, {"state": "failed"}, {"state": "fenced"}, "fenced"),
        (False, False, ALONE, {"state": "failed"}, {"state": "fenced"}, "fenced"),
        (False, False, ALONE, {"state": "running"}, {"state": "running"}, "dead"),
        (False, False, ALONE, {"state": "done"}, {"state": "done"}, "dead"),
        (False, False, STOPPING, {"state": "running"}, {"state": "running"}, "stopped"),
        (False, False, ALONE, {"state": "stopped"}, {"state": "stopped"}, "stopped"),
    ],
)
def test_a_slots_state(whole, alive, reading, report, supervised, state):
    assert monitor.judge(whole, alive, reading, report, supervised) == state


def test_the_rate_is_unknown_until_rows_move():
    points = []
    assert monitor.windowed(points, 0.0, 0) is None
    assert monitor.windowed(points, 5.0, 0) is None
    assert monitor.windowed(points, 10.0, 50) == pytest.approx(5.0)


def test_the_rate_forgets_what_is_older_than_the_window():
    points = []
    for second in range(0, 200, 10):
        rate = monitor.windowed(points, float(second), 100 * second if second < 100 else 10_000 + 2 * (second - 100))
    assert rate == pytest.approx(2.0)


@pytest.fixture
def made(tmp_path):
    text = "run: t\ncorpus: {path: c.jsonl}\nmodel: {name: /nowhere}\nmonitor: {interval_s: 0.05}\n"
    text += "hosts:\n  - {name: here, kind: local, slots: 2, device: cpu, workdir: work}\n"
    (tmp_path / "p.yaml").write_text(text)
    this = run.create(profile.load(tmp_path / "p.yaml"))
    slots = tuple(plan.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, 10 * i, 10 * i + 10) for i in range(2))
    model = plan.ModelIdentity("m", "r", "d", 4, True)
    plan.Plan(this.name, 1, 18, 2, "c", model, "float32", "{text}", "{text}", None, 5, slots).save(this.plan_file)
    return this


def host_folder(made):
    from runbook_lib import hosts

    return hosts.connect(made.profile.hosts[0], made.name).folder


def staged(made, **reports):
    folder = host_folder(made)
    slots = [{"slot": f"cluster0_gpu{i}", "start": 10 * i, "stop": 10 * i + 10} for i in range(2)]
    write_json(folder.assignment("here"), {"slots": slots, "epoch": 1})
    for slot, report in reports.items():
        write_json(folder.progress(slot), report)
    return folder


def commit(folder, *ranges):
    for start, stop in ranges:
        write_json(folder.part(start, stop).with_suffix(".json"), {})


class Kept:
    def __init__(self):
        self.states = []

    def show(self, state):
        self.states.append(state)


def test_a_host_where_nothing_was_launched_is_shown_as_such(made):
    state = monitor.Watcher(made, made.plan()).poll()
    assert [slot.state for slot in state.slots] == ["not launched"] * 2
    assert (state.committed, state.rows) == (0, 20)


def test_only_committed_rows_count_whatever_a_worker_says(made):
    living = {"state": "running", "process": process.identify(os.getpid()), "rows_in_part": 4, "rows_committed": 99}
    folder = staged(made, cluster0_gpu0=living)
    commit(folder, (0, 5))
    state = monitor.Watcher(made, made.plan()).poll()
    assert state.committed == 5
    assert (state.slots[0].committed, state.slots[0].in_part, state.slots[0].state) == (5, 4, "running")


def test_overlapping_parts_count_each_row_once(made):
    folder = staged(made)
    commit(folder, (0, 5), (3, 8), (3, 5))
    assert monitor.Watcher(made, made.plan()).poll().committed == 8


def test_a_report_that_is_not_json_hides_no_other_slot(made):
    folder = staged(made, cluster0_gpu1={"state": "running", "process": process.identify(os.getpid())})
    folder.progress("cluster0_gpu0").write_text("{half")
    states = monitor.Watcher(made, made.plan()).poll().slots
    assert states[1].state == "running"


def test_watching_ends_by_itself_when_every_row_is_committed(made):
    folder = staged(made)
    commit(folder, (0, 10), (10, 20))
    view = Kept()
    state = asyncio.run(monitor.watch(made, view))
    assert state.done
    assert monitor.finished(state).ok
    assert view.states == [state]


def test_watching_ends_when_nobody_works_any_more_and_the_gate_names_the_slot(made):
    folder = staged(made)
    write_json(folder.stop_request("here"), {})
    commit(folder, (0, 10))
    state = asyncio.run(monitor.watch(made, Kept()))
    assert not state.done
    assert [check.name for check in monitor.finished(state).failed] == ["cluster0_gpu1", "rows"]


def test_rows_given_up_are_named_and_do_not_keep_the_watch_going(made):
    folder = staged(made)
    commit(folder, (0, 7), (8, 10), (10, 20))
    write_json(folder.quarantined(7), {"row": 7})
    state = asyncio.run(monitor.watch(made, Kept()))
    assert state.quarantined == (7,)
    assert any("rows given up: 7" in alert for alert in state.alerts)
    assert {check.name for check in monitor.finished(state).failed} >= {"rows given up", "rows"}


def test_what_is_done_about_a_state_keeps_the_watch_going(made):
    folder = staged(made)
    write_json(folder.stop_request("here"), {})

    def act(this, state):
        commit(folder, (0, 10), (10, 20))
        return ["committed them"]

    assert asyncio.run(monitor.watch(made, Kept(), act)).done


def test_norms_come_from_parts_that_are_home(made):
    staged(made)
    write_json(made.local.part(0, 2).with_suffix(".json"), {"norms": [1.0, 0.5]})
    watcher = monitor.Watcher(made, made.plan())
    assert list(watcher.poll().norms) == [1.0, 0.5]
    assert list(watcher.poll().norms) == [1.0, 0.5]
