"""Recover: what should run and does not is started; what was stopped, given up or switched off is not."""

import asyncio
import signal
import threading
from dataclasses import replace

import made_up
import pytest
import states as states_of
from local_run import alive, commit_all, folder, look, worker
from waiting import wait_for

from runbook_lib.hosts import hosts
from runbook_lib.hosts.local import LocalTransport
from runbook_lib.hosts.ssh.refused import HostKeyRefused, LoginRefused
from runbook_lib.phases import launch, monitor, recover, staging, tend, workers
from runbook_lib.run import opening
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.files import read_json, write_json
from worker.layout import committed


@pytest.fixture
def make(make):
    """Makes a staged run; its processes are ended when the test ends."""

    def new(**options):
        this = make(**options)
        assert staging.stage(this).ok
        return this

    return new


def states(this):
    return {slot.host: slot.state for slot in look(this).slots}


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.process
def test_a_dead_supervisor_is_started_again_and_takes_over_its_worker(make):
    this = make(names=("one",))
    launch.start(this)
    before = worker(this)
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    assert states(this) == {"one": "dead"}
    (did,) = recover.Recovery()(this, look(this))
    assert did.startswith("one: started (pid ")
    assert worker(this) == before
    assert process.alive(before)
    assert [event["seen"] for event in this.journal.events("revived")] == [did]


@pytest.mark.process
def test_a_supervisor_whose_code_was_damaged_comes_back_with_the_right_one(make):
    """Found by the chaos suite: it was started again and again, and died of the same line."""
    this = make(names=("one",))
    launch.start(this)
    worker(this)
    code = folder(this).root / "worker" / "supervise.py"
    good = code.read_bytes()
    code.write_bytes(b"raise SystemExit(1)\n" + good)
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    assert len(recover.Recovery()(this, look(this))) == 1
    assert code.read_bytes() == good and alive(this)


@pytest.mark.process
@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("harm", [{"exits": 7, "slots": []}, {"slots": {"cluster0_gpu0": 7}}, {"process": 1}])
def test_a_report_that_cannot_be_true_is_written_anew_though_its_writer_is_dead(make, harm, edited):
    """Found by the chaos suite: nobody was left to write it, and nobody started what was never read.

    And what would have written it may be damaged too.
    """
    this = make(names=("one",))
    launch.start(this)
    before = worker(this)
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    write_json(folder(this).supervisor("one"), harm)
    write_json(folder(this).exits("cluster0_gpu0"), {"exits": 7})
    code = folder(this).root / "worker" / "supervise.py"
    if edited:
        code.write_bytes(b"raise SystemExit(1)\n" + code.read_bytes())
    watcher = Watcher(this, this.plan())
    assert watcher.poll().invalid == {"one"}
    recover.Recovery()(this, watcher.poll())
    wait_for(lambda: not watcher.poll().invalid)
    assert process.alive(before)
    assert watcher.poll().silent_s == {}


@pytest.mark.parametrize("why", [LoginRefused("one: wants a second factor"), HostKeyRefused("one: another key")])
def test_a_host_that_refuses_us_is_unreachable_and_nothing_is_done_to_it(make, monkeypatch, why):
    """As when the connection ends that its person opened by `runbook login`: its workers go on."""
    this = make(names=("one",))
    watcher = Watcher(this, this.plan())

    def refuse(host):
        raise why

    monkeypatch.setattr(hosts.Host, "poll", refuse)
    state = watcher.poll()
    assert state.invalid == set() and state.silent_s.keys() == {"one"}
    assert {slot.state for slot in state.slots} == {"unreachable"}
    assert recover.Recovery().jobs(this, state).keys() == {recover.ALL}


def test_a_host_whose_reading_cannot_be_true_is_started_as_the_preflight_found_it_needs(make, monkeypatch):
    this = make()
    this.save_json("hosts.json", {"hosts": {"one": {"unit": True}, "two": {"unit": False}}})
    asked = {}
    monkeypatch.setattr(hosts.Host, "launch", lambda host, by: asked.setdefault(host.name, by))
    launch.start_without_reading(this, {"one", "two"})
    assert asked == {"one": "unit", "two": "process"}


@pytest.mark.process
def test_a_living_supervisor_is_left_alone(make):
    this = make(names=("one",))
    launch.start(this)
    worker(this)
    assert recover.Recovery()(this, look(this)) == []


@pytest.mark.process
def test_a_host_that_was_stopped_stays_stopped(make):
    this = make(names=("one",))
    launch.start(this)
    worker(this)
    workers.stop(this)
    assert states(this) == {"one": "stopped"}
    assert recover.Recovery()(this, look(this)) == []
    assert not alive(this)
    assert folder(this).stop_request("one").exists()


@pytest.mark.process
def test_a_host_whose_supervisor_was_ended_by_a_signal_is_started_again(make):
    """As before its machine starts anew: nobody asked for a stop."""
    this = make(names=("one",))
    launch.start(this)
    worker(this)
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGTERM)
    wait_for(lambda: not alive(this))
    state = look(this)
    assert {(slot.state, slot.reason) for slot in state.slots} == {
        ("dead", "with its supervisor, ended by SIGTERM, not by us")
    }
    (did,) = recover.Recovery()(this, state)
    assert did.startswith("one: started")


def test_a_slot_that_was_given_up_stays_so(make):
    this = make(names=("one",))
    write_json(folder(this).supervisor("one"), {"slots": {"cluster0_gpu0": {"state": "fenced"}}})
    assert states(this) == {"one": "fenced"}
    assert recover.Recovery()(this, look(this)) == []
    assert not alive(this)


@pytest.mark.process
@pytest.mark.parametrize("state", ["stopped", "fenced"])
def test_a_dead_host_is_no_reason_to_start_another_one(make, state):
    this = make(policy="{fenced: off}")
    if state == "stopped":
        write_json(folder(this, "two").stop_request("two"), {"stop": True})
    else:
        write_json(folder(this, "two").supervisor("two"), {"slots": {"cluster1_gpu0": {"state": "fenced"}}})
    assert states(this) == {"one": "dead", "two": state}
    (did,) = recover.Recovery()(this, look(this))
    assert did.startswith("one: started")
    assert not alive(this, "two")
    assert states(this)["two"] == state


@pytest.mark.process
def test_rows_given_up_are_not_tried_again_by_it(make):
    this = make(names=("one",))
    write_json(folder(this).quarantined(4), {"row": 4})
    assert recover.Recovery()(this, look(this))[0].endswith("17 rows left")
    assert folder(this).quarantined(4).exists()


@pytest.mark.parametrize("recovery", ["off", "ask"])
def test_without_leave_it_only_brings_parts_home(make, recovery):
    this = make(names=("one",), recovery=recovery)
    commit_all(this)
    folder(this).part(0, 3).with_suffix(".json").unlink()
    assert states(this) == {"one": "dead"}
    assert tend.tend(this, look(this)) == []
    assert not alive(this)
    assert len(committed(this.local.parts)) == 5


def test_finished_parts_come_home_while_others_are_not_done(make):
    this = make()
    commit_all(this)
    assert tend.tend(this, look(this)) == []
    assert len(committed(this.local.parts)) == 6


def test_recovery_alone_brings_nothing_home(make):
    this = make()
    commit_all(this)
    assert recover.Recovery()(this, look(this)) == []
    assert committed(this.local.parts) == []


@pytest.mark.process
def test_a_refused_part_is_told_and_its_rows_are_done_again(make):
    this = make()
    commit_all(this)
    flip_a_bit(folder(this, "two").part(12, 15))
    assert states(this) == {"one": "done", "two": "done"}
    refused, started = tend.tend(this, look(this))
    assert refused.startswith("part refused, its rows are done again: two: ")
    assert started.startswith("two: started (pid ") and started.endswith("3 rows left")
    assert not alive(this, "one")


@pytest.mark.process
def test_a_refused_part_is_no_reason_to_start_a_host_that_was_stopped(make):
    this = make()
    commit_all(this)
    flip_a_bit(folder(this).part(0, 3))
    folder(this, "two").part(12, 15).with_suffix(".json").unlink()
    write_json(folder(this, "two").stop_request("two"), {"stop": True})
    assert states(this) == {"one": "done", "two": "stopped"}
    assert len(tend.tend(this, look(this))) == 2
    assert not alive(this, "two")


@pytest.mark.process
def test_hosts_that_are_not_meant_are_neither_started_nor_fetched_from(make):
    this = make()
    commit_all(this)
    for name, row in (("one", 0), ("two", 12)):
        folder(this, name).part(row, row + 3).with_suffix(".json").unlink()
    only = opening.limited(this, "two")
    (did,) = tend.tend(only, look(only))
    assert did.startswith("two: started (pid ")
    assert not alive(this, "one")
    assert committed(this.local.parts) == [(9, 12), (15, 18)]


def test_a_host_that_is_silent_is_neither_started_nor_fetched_from(make, tmp_path):
    this = make()
    commit_all(this)
    watcher = Watcher(this, this.plan())
    watcher.poll()
    (tmp_path / "one").rename(tmp_path / "one as it was")
    (tmp_path / "one").write_text("a file stands where the folder should be")
    state = watcher.poll()
    assert tend.tend(this, state) == []
    assert committed(this.local.parts) == [(9, 12), (12, 15), (15, 18)]
    (tmp_path / "one").unlink()
    (tmp_path / "one as it was").rename(tmp_path / "one")


@pytest.mark.process
def test_a_supervisor_that_is_gone_beside_living_workers_is_told_and_started_again(make):
    this = make(names=("one",))
    launch.start(this)
    before = worker(this)
    report = read_json(folder(this).progress("cluster0_gpu0")) or {}
    write_json(folder(this).progress("cluster0_gpu0"), {**report, "state": "running", "process": before})
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    state = look(this)
    assert [slot.state for slot in state.slots] == ["running"]
    assert any(
        alert.startswith("one: unsupervised: its supervisor is gone, 1 of its workers live") for alert in state.alerts
    )
    (did,) = recover.Recovery()(this, state)
    assert did.startswith("one: started (pid ") and alive(this)
    assert worker(this) == before and process.alive(before)
    assert look(this).unsupervised == {}


@pytest.mark.process
@pytest.mark.parametrize("recovery", ["off", "ask"])
def test_without_leave_a_lost_supervisor_is_only_told(make, recovery):
    this = make(names=("one",), recovery=recovery)
    launch.start(this)
    before = worker(this)
    write_json(folder(this).progress("cluster0_gpu0"), {"state": "running", "process": before})
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    assert recover.Recovery()(this, look(this)) == [] and not alive(this)
    assert len(list(this.journal.events("asked"))) == (recovery == "ask")


@pytest.mark.process
def test_a_host_whose_transfer_hangs_delays_nothing_about_another(make, monkeypatch):
    """The transfer of one host ends only when the other host has been looked after, twice."""
    this = make(monitor="{interval_s: 0.1}")
    commit_all(this)
    for name, row in (("one", 0), ("two", 12)):
        folder(this, name).part(row, row + 3).with_suffix(".json").unlink()
    started, real = [], LocalTransport.get

    def get(self, *words, **more):
        if self.name == "one":
            wait_for(lambda: len(started) == 2)
        return real(self, *words, **more)

    def act(run, state, refused):
        if state.slots[0].host == "two" and (did := restart(run, state, refused)):
            started.append(did)
            process.send(read_json(folder(this, "two").supervisor("two"))["process"], signal.SIGKILL)
        return []

    restart = recover._restart_dead
    monkeypatch.setattr(LocalTransport, "get", get)
    monkeypatch.setattr(recover, "_restart_dead", act)

    async def watch():
        watching = asyncio.create_task(monitor.watch(this, Nobody(), tend.tend))
        while len(started) < 2 or len(committed(this.local.parts)) < 4:
            await asyncio.sleep(0.05)
            assert not watching.done()
        watching.cancel()
        await watching

    asyncio.run(asyncio.wait_for(watch(), 60))


class Nobody:
    def show(self, state):
        pass


def test_a_host_that_is_slow_to_answer_holds_up_no_look_and_is_not_called_unreachable(make, monkeypatch):
    this = make()
    commit_all(this)
    asked, answered = threading.Event(), threading.Event()
    real = hosts.Host.poll

    def poll(self):
        if self.name == "two":
            asked.set()
            assert answered.wait(60)
        return real(self)

    monkeypatch.setattr(hosts.Host, "poll", poll)
    watcher = Watcher(this, this.plan(), within_s=0.2)
    for _ in range(2):
        state = watcher.poll()
        assert [slot.state for slot in state.slots] == ["done", "not read yet"]
        assert set(state.late) == {"two"} and state.silent_s == {} and not state.resting
        assert set(state.committed_by_host) == {"one"}
    assert asked.is_set()
    answered.set()
    wait_for(lambda: not watcher.poll().late)
    assert [slot.state for slot in watcher.poll().slots] == ["done", "done"]


def test_a_host_that_answers_only_between_two_looks_is_heard_at_the_next_one(make, monkeypatch):
    this = make(names=("one",))
    commit_all(this)
    go, ended, real = threading.Semaphore(0), threading.Semaphore(0), hosts.Host.poll

    def poll(self):
        assert go.acquire(timeout=60)
        try:
            return real(self)
        finally:
            ended.release()

    monkeypatch.setattr(hosts.Host, "poll", poll)
    watcher = Watcher(this, this.plan(), within_s=0.1)
    assert watcher.poll().late
    for _ in range(3):  # it always takes longer than a look waits
        go.release()
        assert ended.acquire(timeout=60)
        wait_for(lambda: watcher._readings._queries["one"].answer is not None)
        state = watcher.poll()
        assert not state.late and state.done
    go.release()


@pytest.mark.process
def test_what_a_person_stopped_while_a_host_was_looked_after_stays_stopped(make):
    """The look that found it dead is older than the stop."""
    this = make(names=("one",))
    launch.start(this)
    worker(this)
    process.send(read_json(folder(this).supervisor("one"))["process"], signal.SIGKILL)
    wait_for(lambda: not alive(this))
    before = look(this)
    assert before.unsupervised or states(this) == {"one": "dead"}
    workers.stop(this)
    assert recover.Recovery()(this, before) == []
    assert not alive(this) and states(this) == {"one": "stopped"}


def test_a_silent_host_keeps_its_rows_no_longer_than_the_others_have_work(tmp_path):
    run = made_up.run_folder(tmp_path).run
    slots = tuple(states_of.slot(i) for i in range(16))  # of tensor00 and tensor01

    def lost(state, silent_s):
        first = [replace(each, state=state, committed=each.rows) if state == "done" else each for each in slots[:8]]
        seen = replace(
            states_of.state(16),
            slots=(*first, *slots[8:]),
            committed_by_host={"tensor00": ()},
            silent_s={"tensor01": silent_s},
        )
        return recover._lost(run, seen)

    assert run.profile.monitor.unreachable_s == 600
    assert lost("running", 599.0) == {} and "tensor01" in lost("running", 601.0)
    assert lost("done", 19.0) == {} and lost("done", 21.0) == {"tensor01": ("unreachable", "silent for 21 s")}


@pytest.mark.parametrize(
    ("left", "silent_s", "moved"),  # rows of each slot, 45.6 a second
    [
        (15000, 21.0, False),
        (2000, 21.0, True),
        (2000, 10.0, False),
        (600, 10.0, True),  # at the next look, 10 s later, the others' workers will nearly have ended
        (600, 8.0, False),  # it may still answer the look of now
    ],
)
def test_a_silent_hosts_rows_move_before_the_workers_of_others_end(tmp_path, left, silent_s, moved):
    run = made_up.run_folder(tmp_path).run
    run = replace(run, profile=replace(run.profile, monitor=replace(run.profile.monitor, interval_s=10.0)))
    slots = [states_of.slot(i, committed=15625 - left - 64) for i in range(16)]
    seen = replace(
        states_of.state(16), slots=slots, committed_by_host={"tensor00": ()}, busy={"tensor00"},
        silent_s={"tensor01": silent_s},
    )  # fmt: skip
    assert bool(recover._lost(run, seen)) == moved


@pytest.mark.parametrize(
    ("working", "left", "second", "targets", "load_s"),
    [
        (8, 600, "running", {"tensor00"}, 0.0),  # all its workers still have the model
        (8, 80, "running", {"tensor00"}, 30.0),  # but not when the rows come
        (1, 600, "running", {"tensor00"}, 30.0),  # seven have ended: they would load it again
        (1, 600, "soon done", {"tensor02"}, 0.0),  # so those that all work come first
    ],
)
def test_rows_go_to_hosts_whose_workers_all_still_work(tmp_path, monkeypatch, working, left, second, targets, load_s):
    run = made_up.run_folder(tmp_path).run
    chosen = []
    monkeypatch.setattr(
        recover, "_revise", lambda run, state, hosts, choose, why, targets: chosen.append((choose, targets))
    )
    ended = {"state": "done", "committed": 15625, "in_part": 0, "loaded_s": 30.0}
    soon = {"committed": 15000, "loaded_s": 30.0}
    slots = [states_of.slot(i, **({**soon, "committed": 15625 - left} if i < working else ended)) for i in range(8)]
    slots += [states_of.slot(i, loaded_s=30.0) for i in range(8, 16)]
    slots += [states_of.slot(i, **(soon if second == "soon done" else {"loaded_s": 30.0})) for i in range(16, 24)]
    names = ("tensor00", "tensor01", "tensor02")
    seen = replace(states_of.state(24), slots=slots, committed_by_host=dict.fromkeys(names, ()), busy=frozenset(names))
    recover._share_tail(run, seen)
    ((choose, to),) = chosen
    assert to == targets and choose.keywords == {"load_s": load_s, "begin_s": load_s}
