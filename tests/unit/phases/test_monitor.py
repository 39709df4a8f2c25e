"""The monitor: what a slot is, from what is on file and who lives; rates that look back one minute."""

import asyncio
import json
import os
import sys
import time
from dataclasses import replace

import pytest
import wired
from local_run import look, new_run, planned
from waiting import wait_for
from watched import Kept, commit, folder_of, lose, one_host, staged, two_hosts

from runbook_lib import cli
from runbook_lib.errors import DataError, GateError
from runbook_lib.hosts import hosts
from runbook_lib.phases import monitor, tend
from runbook_lib.profile.notify_spec import NotifySpec
from runbook_lib.report import gate
from runbook_lib.run import opening, run
from runbook_lib.slots.movement import TREND
from runbook_lib.slots.observed import judge
from runbook_lib.slots.rates import eta_range, windowed
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.files import write_json
from worker.rows import Covered
from worker.wire import Reading, SupervisedSlot, WorkerReport

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
        (False, False, STOPPING, {"state": "stopped"}, {"state": "stopped"}, "stopped"),
        (False, False, ALONE, {"state": "stopped"}, {"state": "stopped"}, "dead"),  # a signal, but no request
        (False, False, LIVING, {"state": "stopped"}, {"state": "stopped"}, "dead"),
    ],
)
def test_a_slots_state(whole, alive, reading, report, supervised, state):
    seen = Reading.from_json(wired.reading(**reading))
    by = SupervisedSlot.from_json(supervised)
    assert judge(whole, alive, seen, WorkerReport.from_json(report), by) == state


def test_a_worker_whose_heart_beats_but_moves_no_row_is_stuck_and_one_that_was_killed_says_why(tmp_path):
    this = new_run(tmp_path, names=("one",))
    planned(this)
    watcher = Watcher(this, this.plan())
    slot = this.plan().slots[0]
    report = {"state": "running", "heartbeat_at": 100.0, "rows_in_part": 1}
    entry = wired.slot_reading(alive=True, report=report)
    reading = wired.reading(
        supervisor_alive=True,
        supervisor={"slots": {slot.slot: {"state": "running"}}},
        slots={slot.slot: entry},
    )

    def look(now):
        watcher._last["one"] = Reading.from_json(reading)
        state, alert = watcher._slot(slot, Covered([]), now, None, True)
        return state, [alert] if alert else []

    assert look(0.0)[0].verdict == look(119.0)[0].verdict == ""
    state, (alert,) = look(121.0)
    assert (state.state, state.verdict) == ("running", "stuck")
    assert alert.startswith(f"{slot.slot} on one: stuck: no new row for 121 s (expected within 120 s). By itself: ")
    report["rows_in_part"] = 2
    assert look(122.0)[0].verdict == ""

    entry |= {"alive": False, "exits": [{"reason": "killed by SIGKILL (perhaps out of memory)", "code": -9}]}
    reading["supervisor"]["slots"][slot.slot]["state"] = "waiting"
    state, (alert,) = look(123.0)
    assert (state.state, state.verdict) == ("restarting", "out of memory")
    assert "killed by SIGKILL" in alert


def test_the_rate_is_unknown_until_rows_move():
    points = []
    assert windowed(points, 0.0, 0) is None
    assert windowed(points, 5.0, 0) is None
    assert windowed(points, 10.0, 50) == pytest.approx(5.0)


def test_the_rate_forgets_what_is_older_than_the_window():
    points = []
    for second in range(0, 200, 10):
        rate = windowed(points, float(second), 100 * second if second < 100 else 10_000 + 2 * (second - 100))
    assert rate == pytest.approx(2.0)


@pytest.fixture
def made(tmp_path):
    return one_host(tmp_path)


@pytest.fixture
def two(made):
    return two_hosts(made)


def test_a_host_where_nothing_was_launched_is_shown_as_such(made):
    state = Watcher(made, made.plan()).poll()
    assert [slot.state for slot in state.slots] == ["not launched"] * 2
    assert (state.committed, state.rows) == (0, 20)


def test_watching_before_the_launch_says_what_to_run_and_blames_and_starts_nothing(tmp_path):
    """03 before 02: nothing in the journal may say that a host or a worker failed."""
    this, looks = new_run(tmp_path, monitor="{interval_s: 0.05}"), []
    planned(this)

    async def a_few(seconds):
        looks.append(seconds)
        if len(looks) == 5:
            raise KeyboardInterrupt

    view = Kept()
    before = {event["event"] for event in this.journal.events()}
    state = asyncio.run(monitor.watch(this, view, tend.tend, a_few))
    assert all("run notebook 02_launch" in one.alerts[0] for one in view.states), view.states
    with pytest.raises(GateError, match="02_launch: expected holds, seen no result"):
        gate.gate(this, "03_monitor", monitor.finished(state))
    said = {event["event"] for event in this.journal.events()} - before
    assert said == {"watching", "watching interrupted", "gate"}
    assert not any(hosts.connect(spec, this.name).folder.root.exists() for spec in this.profile.hosts)


def test_only_committed_rows_count_whatever_a_worker_says(made):
    living = {"state": "running", "process": process.identify(os.getpid()), "rows_in_part": 4, "rows_committed": 99}
    folder = staged(made, cluster0_gpu0=living)
    commit(folder, (0, 5))
    state = Watcher(made, made.plan()).poll()
    assert state.committed == 5
    assert (state.slots[0].committed, state.slots[0].in_part, state.slots[0].state) == (5, 4, "running")


def test_overlapping_parts_count_each_row_once(made):
    folder = staged(made)
    commit(folder, (0, 5), (3, 8), (3, 5))
    assert Watcher(made, made.plan()).poll().committed == 8


def test_a_report_that_is_not_json_hides_no_other_slot(made):
    folder = staged(made, cluster0_gpu1={"state": "running", "process": process.identify(os.getpid())})
    folder.progress("cluster0_gpu0").write_text("{half")
    states = Watcher(made, made.plan()).poll().slots
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
    assert any("rows given up: row 7" in alert for alert in state.alerts)
    assert {check.name for check in monitor.finished(state).failed} >= {"rows given up", "rows"}


def test_a_row_that_was_given_up_and_done_after_all_is_not_given_up(made):
    """By a neighbour, or by another host that its rows moved to: the record of the first one stays where it is."""
    folder = staged(made)
    commit(folder, (0, 7), (7, 8), (8, 10), (10, 20))
    write_json(folder.quarantined(7), {"row": 7})
    state = asyncio.run(monitor.watch(made, Kept()))
    assert state.quarantined == () and monitor.finished(state).ok, monitor.finished(state)


def test_what_is_done_about_a_state_keeps_the_watch_going(made):
    folder = staged(made)
    write_json(folder.stop_request("here"), {})

    def act(this, state):
        commit(folder, (0, 10), (10, 20))
        return ["committed them"]

    assert asyncio.run(monitor.watch(made, Kept(), act)).done


def test_norms_come_from_parts_that_are_home(made):
    staged(made)
    write_json(made.local.part(0, 2).with_suffix(".json"), {**wired.PART, "norms": [1.0, 0.5]})
    watcher = Watcher(made, made.plan())
    assert list(watcher.poll().norms) == [1.0, 0.5]
    assert list(watcher.poll().norms) == [1.0, 0.5]


# ---------------------------------------------------------------------------------------------------------- some hosts


def test_only_the_rows_of_the_hosts_that_are_meant_count(two):
    before = two.plan_file.read_bytes()
    state = look(opening.limited(two, "here"))
    assert [slot.slot for slot in state.slots] == ["cluster0_gpu0"]
    assert (state.committed, state.rows, state.done) == (10, 10, True)
    assert monitor.finished(state).ok
    other = look(opening.limited(two, "there"))
    assert (other.committed, other.rows, other.done) == (0, 10, False)
    assert (look(two).committed, look(two).rows) == (10, 20)
    assert two.plan_file.read_bytes() == before


def test_a_host_that_is_not_meant_is_not_asked(two):
    lose(two, "there")
    state = asyncio.run(monitor.watch(opening.limited(two, "here"), Kept()))
    assert state.done
    assert (state.alerts, dict(state.silent_s)) == ((), {})


def test_the_status_command_shows_the_hosts_that_are_meant(two, monkeypatch, capsys):
    monkeypatch.setattr(opening, "find", lambda name: two)
    assert cli.main(["status", two.name, "--hosts", "here", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"cluster0_gpu0", "_summary"}
    assert (found["_summary"]["target_items"], found["_summary"]["percent_complete"]) == (10, 100.0)


def test_what_each_host_that_answers_has_is_told_and_who_is_silent(two):
    watcher = Watcher(two, two.plan())
    assert watcher.poll().committed_by_host == {"here": ((0, 5), (5, 10)), "there": ()}
    lose(two, "here")
    state = watcher.poll()
    assert state.committed_by_host == {"there": ()}
    assert list(state.silent_s) == ["here"]
    assert watcher.poll().silent_s["here"] > state.silent_s["here"] > 0
    assert state.alerts[0].startswith("here: ")


def test_a_host_that_was_never_heard_is_unreachable_and_what_came_home_from_it_counts(two):
    lose(two, "here")
    assert [slot.state for slot in look(two).slots] == ["unreachable", "dead"]
    write_json(two.local.part(0, 5).with_suffix(".json"), {})
    slot = look(two).slots[0]
    assert (slot.state, slot.committed) == ("unreachable", 5)
    write_json(two.local.part(5, 10).with_suffix(".json"), {})
    assert look(two).slots[0].state == "done"


def test_watching_ends_when_everybody_who_has_rows_left_is_silent_beyond_the_deadline(two):
    quick = run.Run(two.folder, replace(two.profile, monitor=replace(two.profile.monitor, deadline_s=0.5)))
    lose(quick, "there")
    view = Kept()
    state = asyncio.run(monitor.watch(quick, view))
    assert state.silent_s["there"] > 0.5
    assert len(view.states) > 2  # it was looked for until then
    assert [check.name for check in monitor.finished(state).failed] == ["cluster1_gpu0", "rows"]


def test_a_host_that_rests_does_not_keep_the_watch_of_a_silent_one_going(two):
    quick = run.Run(two.folder, replace(two.profile, monitor=replace(two.profile.monitor, deadline_s=0.5)))
    for path in folder_of(two, "here").parts.iterdir():
        path.unlink()
    write_json(folder_of(two, "here").stop_request("here"), {})
    lose(quick, "there")
    state = asyncio.run(asyncio.wait_for(monitor.watch(quick, Kept()), 60))
    assert [slot.state for slot in state.slots] == ["stopped", "unreachable"]
    assert not any(quick.journal.events("watching interrupted"))


def test_a_silent_host_is_waited_for_while_another_one_works(two):
    quick = run.Run(two.folder, replace(two.profile, monitor=replace(two.profile.monitor, deadline_s=0.3)))
    folder_of(two, "here").part(5, 10).with_suffix(".json").unlink()
    living = {"state": "running", "process": process.identify(os.getpid())}
    write_json(folder_of(two, "here").progress("cluster0_gpu0"), living)
    lose(quick, "there")
    beyond = []

    def act(this, state):
        if state.silent_s["there"] > 1.0:
            beyond.append(state)
            write_json(folder_of(two, "here").part(5, 10).with_suffix(".json"), {})
        return []

    state = asyncio.run(monitor.watch(quick, Kept(), act))
    assert beyond
    assert (state.committed, state.rows) == (10, 20)


def test_the_watch_goes_on_while_what_is_done_about_it_takes_its_time(made):
    folder = staged(made, cluster0_gpu0={"state": "running", "process": process.identify(os.getpid())})
    commit(folder, (0, 10))
    view = Kept()
    at_once, most = 0, 0

    def act(this, state):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        before = len(view.states)
        deadline = time.monotonic() + 60
        while len(view.states) < before + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = len(view.states) - before
        commit(folder, (10, 20))
        at_once -= 1
        assert seen >= 4
        return ["committed them"]

    living = {"state": "running", "process": process.identify(os.getpid())}
    write_json(folder.progress("cluster0_gpu1"), living)
    assert asyncio.run(monitor.watch(made, view, act)).done
    assert most == 1


def test_what_is_under_way_is_waited_for_when_the_watch_ends(made):
    folder = staged(made, cluster0_gpu0={"state": "running", "process": process.identify(os.getpid())})
    ended = []

    def act(this, state):
        commit(folder, (0, 10), (10, 20))
        time.sleep(0.5)  # the next look finds every row committed
        ended.append(state)
        return []

    async def watch():
        assert (await monitor.watch(made, Kept(), act)).done
        assert len(ended) == 1

    asyncio.run(watch())


def test_what_goes_wrong_in_doing_something_about_it_is_raised(made):
    staged(made, cluster0_gpu0={"state": "running", "process": process.identify(os.getpid())})

    def act(this, state):
        raise DataError("the plan is gone")

    with pytest.raises(DataError, match="the plan is gone"):
        asyncio.run(monitor.watch(made, Kept(), act))


CARD = "GPU-11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("age_s", "said", "seen"),
    [
        (1.0, f"{CARD}, 97 %, 4096 MiB, 64, 310.55 W", (97, 4096, 64, 310.55)),
        (1.0, f"{CARD}, [N/A], 4096 MiB, 64, [N/A]", (None, 4096, 64, None)),
        (1.0, "GPU-99999999-2222-3333-4444-555555555555, 97 %, 1 MiB, 64, 310 W", None),
        (1.0, "NVML: Unknown Error", None),
        (3600.0, f"{CARD}, 97 %, 4096 MiB, 64, 310.55 W", None),
    ],
)
def test_what_a_slots_gpu_does_is_its_supervisors_word_while_it_is_fresh(made, age_s, said, seen):
    folder = staged(made)
    slots = [{**wired.slot(f"cluster0_gpu{i}", (10 * i, 10 * i + 10)), "gpu": CARD} for i in range(2)]
    write_json(folder.assignment("here"), wired.assignment(slots))
    write_json(folder.supervisor("here"), {"slots": {}, "gpus": said, "gpus_at": time.time() - age_s})
    assert Watcher(made, made.plan()).poll().slots[0].gpu == seen


def test_a_slots_trend_keeps_its_last_looks_only(made):
    folder = staged(made)
    watcher = Watcher(made, made.plan())
    for row in range(10):
        commit(folder, (row, row + 1))
        state = watcher.poll()
    for _ in range(TREND):
        state = watcher.poll()
    assert len(state.slots[0].trend) == TREND
    assert state.slots[0].trend[-1] > 0
    assert not any(state.slots[1].trend)


def test_rows_that_came_home_cut_or_with_a_norm_of_zero_are_counted(made):
    staged(made)
    record = {**wired.PART, "norms": [1.0, 0.0, 0.0, 1.0], "truncated": [0, 3]}
    write_json(made.local.part(0, 4).with_suffix(".json"), record)
    watcher = Watcher(made, made.plan())
    for _ in range(2):  # once each, however often it is looked at
        state = watcher.poll()
        assert (state.truncated, state.norms_bad) == (2, 2)


def test_the_range_of_the_time_left_is_of_the_last_rates_only():
    assert eta_range(100, [(0.0, 5.0), (1.0, 5.0)]) is None
    assert eta_range(100, [(0.0, 100.0), (1000.0, 5.0), (1001.0, 10.0), (1002.0, 20.0)]) == (5.0, 20.0)


@pytest.mark.process
def test_what_needs_a_person_is_told_while_it_is_watched(made, tmp_path):
    taken = tmp_path / "taken"
    told = NotifySpec(command=(sys.executable, "-c", f"import sys; open({str(taken)!r}, 'w').write(sys.stdin.read())"))
    watched = replace(made, profile=replace(made.profile, notify=told))
    watched.journal.write("asked", verdict="dead", where="here", command=f"runbook restart {made.name} here")
    commit(staged(watched), (0, 10), (10, 20))
    assert asyncio.run(monitor.watch(watched, Kept())).done
    wait_for(lambda: taken.exists() and taken.read_text(), "the message arrives", 60)
    assert f"runbook restart {made.name} here" in taken.read_text()
