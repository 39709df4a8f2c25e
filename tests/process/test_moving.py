"""Rows that move while real workers compute them: hosts that vanish, slots that are given up, hosts that come back."""

import dataclasses
import hashlib
import signal
import subprocess
import sys
from threading import Timer

import numpy as np
import pytest
from local_run import executable, folder, host
from vanishing import SUPERVISE, go, gone
from waiting import wait_for

from runbook_lib.phases import download, launch, recover, tend, workers
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.files import read_json
from worker.layout import committed


def kill(this, name):
    """End all processes of a host at once, as a power cut does."""
    there = folder(this, name)
    reports = [read_json(path) or {} for path in there.progress("x").parent.glob("*.json")]
    supervisor = read_json(there.supervisor(name)) or {}
    found = [supervisor, *supervisor.get("slots", {}).values(), *reports]
    for report in sorted(found, key=lambda entry: "slots" not in entry):
        process.send(report.get("process") or {}, signal.SIGKILL)


def follow(this, until, within_s=60.0):
    """Watch as notebook 03 does, until `until(state)`; gives all that was done."""
    watcher, did = Watcher(this, this.plan()), []

    def look():
        state = watcher.poll()
        did.extend(tend.tend(this, state))
        return until(watcher.poll())

    wait_for(look, "it comes to that", within_s)
    return did


def done(state):
    return state.done


def vectors(this):
    """Every row at home, from whichever part has it; each part whole."""
    download.collect(this)
    rows = this.plan().rows
    found = np.full((rows, 8), np.nan, np.float32)
    for start, stop in committed(this.local.parts):
        path = this.local.part(start, stop)
        assert read_json(path.with_suffix(".json"))["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        found[start:stop] = np.load(path)
    return found.tobytes()


@pytest.fixture(scope="module")
def undisturbed():
    return {}


def test_a_host_that_vanishes_loses_its_rows_to_the_other_and_its_late_ones_do_no_harm(make, undisturbed):
    this = make(waits=(4, 20))
    wait_for(lambda: committed(folder(this, "two").parts) == [(12, 15), (15, 18)], "it comes to that")
    go(this, "one")
    gone.add("two")
    did = follow(this, done)
    (moved,) = [event for event in this.journal.events("rows moved")]
    assert (moved["host"], moved["to"], moved["epoch"], moved["rows"]) == ("two", ["one"], 2, 12)
    assert moved["why"].startswith("silent for ")
    assert "12 rows of two moved to one" in " ".join(did)
    assert this.plan().epoch == 2 and read_json(this.revision_file(1))["epoch"] == 1
    before = vectors(this)
    gone.clear()  # it comes back, and goes on with what it had
    go(this, "two")
    follow(this, lambda state: state.done and state.epochs.get("two") == 2 and not state.busy)
    assert vectors(this) == before
    assert [slot["shards"] for slot in read_json(folder(this, "two").assignment("two"))["slots"]] == [[]]
    records = [read_json(this.local.part(*part).with_suffix(".json")) for part in committed(this.local.parts)]
    assert {record["epoch"] for record in records} == {1, 2}
    assert sorted((r["start"], r["stop"]) for r in records) == [(low, low + 3) for low in range(0, 24, 3)]


def test_a_host_that_died_with_what_it_had_is_done_again_elsewhere(make):
    this = make(waits=(20,))
    wait_for(lambda: len(committed(folder(this, "two").parts)) == 2, "it comes to that")
    gone.add("two")
    kill(this, "two")
    go(this, "one")
    follow(this, done)
    assert this.plan().ranges(this.plan().slots[1]) == []
    assert np.isfinite(np.frombuffer(vectors(this), np.float32)).all()


def test_parts_that_are_home_stay_with_the_host_that_made_them(make):
    this = make(waits=(20,))
    wait_for(lambda: len(committed(folder(this, "two").parts)) == 2, "it comes to that")
    download.collect(this)
    gone.add("two")
    kill(this, "two")
    go(this, "one")
    follow(this, done)
    assert this.plan().ranges(this.plan().slots[1]) == [(12, 18)]


def test_slots_that_are_all_given_up_lose_their_rows_to_another_host(make, tmp_path):
    broken = executable(tmp_path / "bin" / "broken", f"{SUPERVISE}echo no GPU; exit 2\n")
    entries = "\n".join(
        f"  - {{name: {name}, kind: local, slots: 1, device: cpu, workdir: {name}, environment: {python}}}"
        for name, python in (("one", tmp_path / "bin" / "python"), ("two", broken))
    )
    this = make(hosts=f"\n{entries}")
    follow(this, done)
    (moved,) = this.journal.events("rows moved")
    assert (moved["host"], moved["rows"]) == ("two", 12) and moved["why"].startswith("given up: ")


def test_the_tail_of_a_slow_host_goes_to_an_idle_one(make, monkeypatch):
    monkeypatch.setattr(recover, "SPLIT_S", 0.0)
    monkeypatch.setattr(recover, "_eta_s", lambda slots: 100.0)
    this = make(waits=(0,), count=48)
    wait_for(lambda: len(committed(folder(this, "two").parts)) == 8, "it comes to that")
    wait_for(lambda: not host(this, "two").poll().supervisor_alive, "it comes to that")
    did = follow(this, lambda state: state.committed >= 24 + 9)
    assert "moved to two (others were idle)" in " ".join(did)
    assert committed(folder(this, "one").parts) == []  # it still waits in its first part
    monkeypatch.setattr(recover, "_eta_s", lambda slots: 0.0)  # from here on nobody works for long
    go(this, "one")
    follow(this, done)
    kept = this.plan().ranges(this.plan().slots[0])
    assert kept[0][0] == 0 and 6 <= kept[0][1] < 24
    assert committed(folder(this, "one").parts)[-1][1] <= kept[0][1]  # it left the rest to the other


def test_a_policy_of_asking_asks_once_and_a_person_can_say_yes(make):
    this = make(waits=(20,), policy="{unreachable: ask}")
    wait_for(lambda: len(committed(folder(this, "two").parts)) == 2, "it comes to that")
    gone.add("two")
    watcher = Watcher(this, this.plan())
    looks = [watcher.poll() for _ in range(2)]
    wait_for(lambda: looks.append(watcher.poll()) or looks[-1].silent_s["two"] > 0.6, "it comes to that")
    for _ in range(3):
        tend.tend(this, looks[-1])
    (asked,) = this.journal.events("asked")
    assert (asked["verdict"], asked["where"]) == ("unreachable", "two")
    assert asked["command"] == f"runbook move {this.name} two" and this.plan().epoch == 1
    checks = recover.move(this, watcher.poll(), "two")
    assert checks.ok and "rows of two moved to one (a person said so)" in repr(checks)
    go(this, "one")
    follow(this, done)


def test_when_nobody_answers_nothing_moves(make):
    """It is this machine's own network."""
    this = make(waits=(4, 20))
    watcher = Watcher(this, this.plan())
    watcher.poll()
    gone.update({"one", "two"})
    wait_for(lambda: watcher.poll().silent_s.get("one", 0.0) > 0.6, "it comes to that")
    assert tend.tend(this, watcher.poll()) == []
    assert this.plan().epoch == 1


def test_rows_of_a_host_that_was_stopped_stay(make):
    this = make(waits=(20,))
    wait_for(lambda: len(committed(folder(this, "two").parts)) == 2, "it comes to that")
    workers.stop(this)
    watcher = Watcher(this, this.plan())
    assert tend.tend(this, watcher.poll()) == [] and this.plan().epoch == 1


def test_launch_goes_on_without_a_host_that_cannot_be_reached(make):
    this = make(waits=(20,))
    gone.add("two")
    for checks in (launch.start(this), launch.verify(this, 5.0)):
        assert checks.ok, checks
        (told,) = [check for check in checks if check.where == "two"]
        assert told.verdict == "warning" and "silent for 0.5 s, they move to others" in told.seen
    gone.add("one")
    assert not launch.start(this).ok  # nobody answers


def test_a_host_that_the_launch_could_not_reach_is_launched_when_it_answers(make, monkeypatch):
    """It has no assignment, so nothing says that it is dead, and it is not silent either: nobody would do its rows."""
    gone.add("two")
    this = make(monitor="{interval_s: 0.2, unreachable_s: 600}")
    follow(this, lambda state: len(committed(folder(this, "one").parts)) == 4)
    gone.clear()
    follow(this, done)
    assert [event["host"] for event in this.journal.events("staged")] == ["one", "two"]
    assert len(list(this.journal.events("launched late"))) == 1 and this.plan().epoch == 1


def test_where_a_person_is_to_be_asked_a_host_that_was_away_at_the_launch_is_named_and_restart_launches_it(make):
    gone.add("two")
    this = make(monitor="{interval_s: 0.2, unreachable_s: 600}", policy="{dead: ask}")
    gone.clear()
    watcher = Watcher(this, this.plan())
    for _ in range(3):
        assert tend.tend(this, watcher.poll()) == []
    (asked,) = this.journal.events("asked")
    assert (asked["verdict"], asked["where"]) == ("dead", "two")
    assert asked["command"] == f"runbook restart {this.name} two"
    checks = workers.restart(this, "two")
    assert checks.ok, checks
    follow(this, done)


def test_launch_waits_for_nobody_who_was_away_when_the_others_were_launched(make):
    gone.add("two")
    this = make(waits=(4,))
    gone.clear()
    for checks in (launch.start(this), launch.verify(this, 60.0), launch.first_progress(this, 60.0)):
        (told,) = [check for check in checks if check.where == "two"]
        assert checks.ok and told.verdict == "warning" and "It was away; 03_monitor launches it" in told.seen, checks
    profile = dataclasses.replace(this.profile, policy=dataclasses.replace(this.profile.policy, dead="off"))
    assert not launch.verify(dataclasses.replace(this, profile=profile), 60.0).ok, "nobody would launch it"
    go(this, "one")
    follow(this, done)


@pytest.mark.parametrize("reports", [None, b"[1]", b'{"exits": 7, "slots": []}'])
@pytest.mark.parametrize("supervised", [True, False])
def test_workers_of_a_host_whose_assignment_was_overwritten_are_stopped(make, supervised, reports):
    """And where the reports are overwritten too: by the locks that they hold; who only looks alike lives on."""
    this = make(waits=(20,))
    wait_for(lambda: committed(folder(this, "two").parts), "it has begun")
    there = folder(this, "two")
    living = host(this, "two").workers(host(this, "two").poll())
    if not supervised:
        process.send((read_json(there.supervisor("two")) or {})["process"], signal.SIGKILL)
    there.assignment("two").write_bytes(b'{"slots": 7}')
    words = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "worker", "encode", "--root"]
    neighbours = [subprocess.Popen([*words, f"{there.root}{end}", "--host", "two"]) for end in ("", "-2", "/x")]
    writers = [*living, (read_json(there.supervisor("two")) or {})["process"]]
    if reports:
        for identity in writers:  # or they would report again before anybody looks
            process.send(identity, signal.SIGSTOP)
        for path in there.supervisor("two").parent.glob("*.json"):
            path.write_bytes(reports)
        Timer(1.0, lambda: [process.send(identity, signal.SIGCONT) for identity in writers]).start()
    assert workers.stop(this).ok
    assert [each.poll() for each in neighbours] == [None, None, None], "they hold no lock of ours"
    for each in neighbours:
        each.kill()
        each.wait()
    assert living and not [identity for identity in living if process.alive(identity)]


def test_a_host_whose_folder_went_is_given_a_while_before_it_is_launched_again(make, monkeypatch):
    this = make(waits=(20,))
    wait_for(lambda: committed(folder(this, "two").parts), "it has begun")
    kill(this, "two")
    folder(this, "two").root.rename(this.folder / "unmounted")
    watcher = Watcher(this, this.plan())
    assert tend.tend(this, watcher.poll()) == [] and not folder(this, "two").root.exists()
    monkeypatch.setattr(recover, "BLANK_S", 0.2)
    go(this, "one")
    wait_for(lambda: tend.tend(this, watcher.poll()), "it is launched again")
    go(this, "two")
    follow(this, done)


def test_a_run_that_nobody_launched_is_not_launched_by_watching_it(make):
    this = make()
    workers.stop(this)
    for name in ("one", "two"):
        folder(this, name).root.rename(this.folder / f"{name}_away")
    this.journal.path.unlink()
    state = Watcher(this, this.plan()).poll()
    assert set(state.unassigned_s) == {"one", "two"}
    assert tend.tend(this, state) == [] and not folder(this, "one").root.exists()


def test_from_scratch_sets_everything_aside_and_begins_again(make):
    this = make()
    follow(this, done)
    before = vectors(this)
    kept = {path.name: path.read_bytes() for path in this.local.parts.iterdir()}
    checks = workers.from_scratch(this)
    assert checks.ok, checks
    aside = sorted((this.folder / "aside").glob("*/parts/*"))
    assert {path.name: path.read_bytes() for path in aside} == kept
    assert len(list((folder(this, "one").root / "aside").glob("*/parts/*.npy"))) == 4
    follow(this, done)
    assert vectors(this) == before
    started = [event["event"] for event in this.journal.events("started from scratch")]
    assert len(started) == 1


def test_from_scratch_asks_for_the_runs_name(make, capsys):
    from runbook_lib import cli

    this = make()
    follow(this, done)
    assert cli.main(["restart", str(this.folder), "all", "--from-scratch", "mistaken"]) == 1
    assert f"Expected {this.name}" in capsys.readouterr().err
    assert not (this.folder / "aside").exists()
    assert cli.main(["restart", str(this.folder), "all", "--from-scratch", this.name]) == 0
    assert (this.folder / "aside").exists()


def a_state(this, **hosts_):
    """A state of these hosts: {name: (committed, rate, loaded_s)}, one slot each, all busy but those that are done."""
    state = Watcher(this, this.plan()).poll()
    slots = []
    for slot in state.slots:
        committed_, rate, loaded_s = hosts_[slot.host]
        word = "done" if committed_ >= slot.rows else "running"
        slots.append(dataclasses.replace(slot, committed=committed_, rate=rate, state=word, loaded_s=loaded_s))
    busy = frozenset(slot.host for slot in slots if not slot.done)
    first = {slot.slot: slot.start for slot in this.plan().slots}
    there = {s.host: [(first[s.slot], first[s.slot] + s.committed)] if s.committed else [] for s in slots}
    return dataclasses.replace(state, slots=tuple(slots), busy=busy, committed_by_host=there)


@pytest.mark.parametrize(
    ("idle_s", "word", "two", "moved"),
    [
        (61.0, "loading model", (150, 1.0, 5.0), True),
        (61.0, "starting", (150, 1.0, 5.0), True),
        (59.0, "loading model", (150, 1.0, 5.0), False),
        (150.0, "loading model", (150, 1.0, 40.0), False),  # where it takes 40 s, 150 may be slow
        (161.0, "loading model", (150, 1.0, 40.0), True),
        (None, "restarting", (150, 1.0, 5.0), False),  # its worker is between two lives
        (900.0, "running", (150, 1.0, 5.0), False),  # in its first batch
        (900.0, "loading model", (0, 0.1, 5.0), False),  # nobody is idle
    ],
)
def test_rows_of_a_host_that_hangs_as_it_loads_go_to_one_that_is_idle(make, idle_s, word, two, moved):
    this = make(waits=(0, 150), count=300)
    state = a_state(this, one=(0, None, None), two=two)
    hanging = dataclasses.replace(state.slots[0], state=word, idle_s=idle_s)
    state = dataclasses.replace(state, slots=(hanging, *state.slots[1:]))
    assert bool(recover._share_tail(this, state)) == moved
    if moved:
        (event,) = this.journal.events("rows moved")
        assert (event["host"], event["to"], event["rows"]) == ("one", ["two"], 150) and "it still loads" in event["why"]
        assert this.plan().ranges(this.plan().slots[0]) == []
    go(this)


@pytest.mark.parametrize(
    ("one", "two", "moved"),
    [
        ((0, 0.1, 5.0), (140, 0.5, 5.0), True),  # done within 20 s: it gets rows before its workers end
        ((0, 0.1, 5.0), (0, 1.0, 5.0), False),  # done in 150 s: not yet
        ((0, 0.1, 5.0), (150, None, 5.0), True),
        ((0, 2.0, 100.0), (150, 2.0, 100.0), False),  # 75 s of work: shared it would save 37, and loading takes 100
        ((0, 2.0, 5.0), (150, 2.0, 5.0), True),
        ((0, None, None), (150, None, None), False),  # nothing is known of how long it takes
        ((149, 0.5, 5.0), (150, 2.0, 5.0), False),  # two seconds of work
    ],
)
def test_a_tail_is_shared_with_who_will_soon_be_done_where_it_gains_more_than_it_costs(make, one, two, moved):
    this = make(waits=(0, 150), count=300)
    state = a_state(this, one=one, two=two)
    did = recover._share_tail(this, state)
    assert bool(did) == moved
    assert recover._share_tail(this, state) == [], "who sees an older plan moves nothing"
    go(this)
