"""Rates and times: what the workers say of themselves, told at a single look; whatever a clock or our sleep does."""

import asyncio
import json
import os
import time
from dataclasses import replace

import pytest
import wired
from local_run import look
from watched import Kept, commit, folder_of, lose, one_host, staged, two_hosts

from runbook_lib import cli
from runbook_lib.phases import monitor
from runbook_lib.run import run
from runbook_lib.show import panel
from runbook_lib.slots.rates import AwakeClock
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.files import write_json
from worker.progress import Pace
from worker.verbs import VERBS

HOURS = 5 * 3600.0
HOME = {**wired.PART, "norms": [1.0] * 10}


@pytest.fixture
def made(tmp_path):
    return one_host(tmp_path)


@pytest.fixture
def two(made):
    return two_hosts(made)


def living(**more):
    now = time.time()
    report = {"state": "running", "process": process.identify(os.getpid()), "heartbeat": 1, "heartbeat_at": now}
    return {**report, "started_at": now - 60, **more}


def test_a_single_look_tells_rate_and_time_left_by_the_workers_own_word(made, capsys):
    staged(made, cluster0_gpu0=living(rows_per_s=1.5), cluster0_gpu1=living(rows_per_s=0.5, rate=7.0))
    state = look(made)
    assert [slot.rate for slot in state.slots] == [1.5, 0.5]
    assert (state.rate, state.eta_s) == (2.0, 10.0)
    assert "2.0 rows/s, about 10 s left" in panel.headline(state)
    assert cli.main(["status", str(made.folder)]) == 0
    assert "0 of 20 rows (0.0 %), 2.0 rows/s, about 10 s left" in capsys.readouterr().out
    assert cli.main(["status", str(made.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["_summary"]["eta_s"] == 10.0 and found["cluster0_gpu0"]["rate"] == 1.5
    assert cli.main(["status", str(made.folder), "--prometheus"]) == 0
    assert f'runbook_eta_seconds{{run="{made.name}"}} 10.0' in capsys.readouterr().out


def test_before_its_last_minute_is_known_a_worker_is_taken_at_its_rate_since_it_began(made):
    staged(made, cluster0_gpu0=living(rows_per_s=None, rate=4.0))
    assert look(made).rate == 4.0


def test_what_nobody_computes_any_more_has_no_rate(made):
    gone = {"pid": 2**22 + 1, "start": "1", "boot": process.boot_id()}
    staged(made, cluster0_gpu0=living(rows_per_s=9.0, process=gone), cluster0_gpu1=living(rows_per_s=0.0))
    state = look(made)
    assert state.rate is None and state.eta_s is None
    assert [slot.rate for slot in state.slots] == [None, None]


def test_a_watch_that_begins_at_99_percent_shows_the_rate_of_now_and_not_of_what_it_finds(made):
    folder = staged(made, cluster0_gpu1=living(rows_per_s=0.25))
    watcher = Watcher(made, made.plan())
    watcher.poll()
    commit(folder, (0, 10), (10, 19))
    state = watcher.poll()
    assert (state.committed, state.rate, state.eta_s) == (19, 0.25, 4.0)


@pytest.mark.parametrize("off_s", [-HOURS, HOURS])
def test_a_host_whose_clock_is_wrong_by_hours_has_right_rates_ages_and_end(two, off_s, monkeypatch):
    """Its readings carry its own time; `there` is a folder of this machine, so its time is moved in the reading."""
    from worker import snapshot

    write_json(
        folder_of(two, "there").progress("cluster1_gpu0"),
        living(rows_per_s=2.0, heartbeat_at=time.time() + off_s, ended_at=time.time() + off_s),
    )
    real = snapshot.snapshot
    monkeypatch.setattr("worker.verbs.VERBS", {**VERBS, "poll": lambda root, host: off(real(root, host), host, off_s)})
    monkeypatch.setattr(
        "runbook_lib.hosts.local.VERBS", {**VERBS, "poll": lambda root, host: off(real(root, host), host, off_s)}
    )
    slot = look(two).slots[1]
    assert slot.rate == 2.0 and slot.verdict in ("", "slow")
    assert slot.age_s == pytest.approx(0.0, abs=30)
    assert slot.ended_at == pytest.approx(time.time(), abs=30)


def off(reading, host, off_s):
    return {**reading, "now": reading["now"] + off_s} if host == "there" else reading


def test_a_clock_that_is_set_on_between_two_heartbeats_makes_no_worker_stuck(made):
    folder = staged(made, cluster0_gpu0=living(rows_per_s=2.0))
    watcher = Watcher(made, made.plan())
    watcher.poll()
    write_json(folder.progress("cluster0_gpu0"), living(heartbeat=2, heartbeat_at=time.time() - HOURS, rows_per_s=2.0))
    slot = watcher.poll().slots[0]
    assert slot.age_s < 60 and slot.verdict != "stuck"


def test_the_deadline_counts_from_the_launch_and_not_from_the_watching(made):
    quick = run.Run(made.folder, replace(made.profile, monitor=replace(made.profile.monitor, deadline_s=0.001)))
    staged(quick, cluster0_gpu0=living())
    assert not any("not finished" in alert for alert in look(quick).alerts)
    quick.journal.write("supervisor started", host="here", seen="started")
    (alert,) = [alert for alert in look(quick).alerts if "not finished" in alert]
    assert "after the launch (the profile expects 0.001 s)" in alert


def test_what_this_machine_slept_is_nobodys_silence():
    now = [0.0]
    clock = AwakeClock(90.0, lambda: now[0])
    for later, counted in ((30.0, 30.0), (3600.0, 120.0), (30.0, 150.0), (-5.0, 150.0)):
        now[0] += later
        assert clock.now() == counted


def test_after_an_hour_of_sleep_a_silent_host_keeps_its_rows(two, monkeypatch):
    watcher = Watcher(two, two.plan())
    assert not watcher.poll().silent_s
    lose(two, "there")
    slept = time.monotonic() + 3600
    monkeypatch.setattr(watcher._awake, "_clock", lambda: slept)
    state = watcher.poll()
    assert 0 < state.silent_s["there"] < two.profile.monitor.unreachable_s


def test_the_last_picture_is_of_after_the_last_parts_came_home(made):
    folder = staged(made, cluster0_gpu0=living())
    commit(folder, (0, 10), (10, 20))

    class Brings:
        """What `tend.tend` does in pieces."""

        def __call__(self, this, state):
            raise AssertionError

        def jobs(self, this, state):
            return {"here": self.bring}

        def bring(self):
            write_json(made.local.part(0, 10).with_suffix(".json"), {**HOME, "truncated": [3]})
            write_json(made.local.part(10, 20).with_suffix(".json"), {**HOME, "truncated": [11, 12]})
            return []

    view = Kept()
    state = asyncio.run(monitor.watch(made, view, Brings()))
    assert view.states[-1] == state
    assert (len(state.norms), state.truncated) == (20, 3)


def test_a_workers_pace_looks_back_a_minute_and_falls_when_nothing_comes():
    pace = Pace()
    assert pace.rate(0.0) is None
    pace.note(0.0, 0)
    assert pace.rate(5.0) is None
    for second in range(10, 201, 10):  # ten rows a second for a while, then two
        pace.note(float(second), 10 * second if second <= 100 else 1000 + 2 * (second - 100))
    assert pace.rate(200.0) == 2.0
    assert pace.rate(205.0) == 2.0  # the next is not due yet
    assert pace.rate(260.0) < 1.2
    pace.note(261.0, 5)  # a part that is done again
    assert pace.rate(261.0) is None
    pace.note(263.0, 9)
    assert pace.rate(263.0) == 2.0


@pytest.mark.parametrize("slots", [128])
def test_the_rate_of_many_slots_is_their_sum_and_a_single_one_that_stands_still_changes_little(made, slots):
    from runbook_lib.run import plan

    drawn = made.plan()
    many = tuple(plan.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, 10 * i, 10 * i + 10) for i in range(slots))
    replace(drawn, documents=10 * slots - 2, slots=many).save(made.plan_file)
    told = [wired.slot(s.slot, (s.start, s.stop)) for s in many]
    folder = folder_of(made, "here")
    write_json(folder.assignment("here"), wired.assignment(told))
    for s in many:
        write_json(folder.progress(s.slot), living(rows_per_s=0.0 if s.index == 7 else 2.0))
    state = look(made)
    assert state.rate == 2.0 * (slots - 1) and state.slots[7].rate is None
