"""Machines that join a run under way and leave it: real supervisors and workers, the profile edited by hand."""

import dataclasses
import json
import os

import pytest
import yaml
from local_run import executable, folder, host, numbered
from vanishing import go, gone
from waiting import wait_for

from runbook_lib.errors import RunbookError
from runbook_lib.phases import download, joining, launch, preflight, staging, tend, workers
from runbook_lib.profile import profile
from runbook_lib.run import driver, opening
from runbook_lib.run.plan import problems
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.layout import committed


def edit(this, change):
    """Edit the hosts of the profile's file; give the profile."""
    file = this.folder.parents[1] / "profile.yaml"
    value = yaml.safe_load(file.read_text())
    change(value["hosts"])
    file.write_text(yaml.safe_dump(value))
    return profile.load(file)


def with_three(this):
    return edit(this, lambda hosts: hosts.append({**hosts[0], "name": "three", "workdir": "three"}))


def without(name):
    return lambda hosts: hosts.remove(next(each for each in hosts if each["name"] == name))


def planned_again(this, cores=2, left_out=()):
    """The plan's part of the preflight, for hosts whose facts are known."""
    facts = {spec.name: {"cores": cores, "gpus": []} for spec in this.profile.hosts if spec.name not in left_out}
    checks, _ = preflight.the_plan(this, *numbered(this), facts)
    return checks


def launched_again(this):
    assert staging.stage(this).ok
    assert launch.start(this).ok


def to_the_end(this, within_s=60.0):
    watcher = Watcher(this, this.plan())

    def look():
        tend.tend(this, watcher.poll())
        return watcher.poll().done

    wait_for(look, "every row is committed", within_s)
    download.collect(this)
    assert download.complete(this).ok
    return watcher.poll()


def rows_of(this, name):
    return sum(stop - start for slot in this.plan().of_host(name) for start, stop in this.plan().ranges(slot))


def begun(this):
    wait_for(lambda: len(committed(folder(this, "two").parts)) >= 2, "two has begun")


def test_a_host_that_joins_is_given_rows_of_the_others_and_the_journal_says_so(make):
    this = make(waits=(0, 30), count=48)
    begun(this)
    said = []
    after = opening.current(with_three(this), new=True, say=said.append)
    assert after.folder == this.folder and "three joins the run" in said[0]
    checks = planned_again(after)
    assert checks.ok, checks
    plan = after.plan()
    assert plan.epoch == 2 and not problems([r for s in plan.slots for r in plan.ranges(s)], plan.rows)
    assert rows_of(after, "three") > 0
    (joined,) = after.journal.events("host joined")
    assert (joined["host"], joined["rows"], joined["epoch"]) == ("three", rows_of(after, "three"), 2)
    launched_again(after)
    go(after, "one", "two")
    to_the_end(after)
    assert committed(folder(after, "three").parts)
    assert not after.journal.problems()
    assert len(list((this.folder.parent).iterdir())) == 1, "no second run was begun"


def test_a_host_that_leaves_is_stopped_what_it_committed_counts_and_the_rest_goes_to_the_others(make):
    this = make(waits=(0, 36), count=48)
    begun(this)
    living = host(this, "two").workers(host(this, "two").poll())
    after = opening.current(edit(this, without("two")), new=True)
    assert [spec.name for spec in after.profile.hosts] == ["one"] and [spec.name for spec in after.left] == ["two"]
    checks = planned_again(after)
    assert checks.ok, checks
    assert living and not [each for each in living if process.alive(each)], "its workers were stopped"
    theirs = [part for part in committed(folder(this, "two").parts)]
    assert set(theirs) <= set(committed(after.local.parts)), "its parts are home"
    (left,) = after.journal.events("host left")
    assert left["host"] == "two" and left["rows"] == 24 - sum(b - a for a, b in theirs) and left["epoch"] == 2
    launched_again(after)
    go(after, "one")
    state = to_the_end(after)
    assert state.rows == after.plan().rows, "rows of the host that left are counted too"
    home = set(committed(after.local.parts))
    assert set(theirs) <= home, "and none of them was done again"


def test_a_host_that_leaves_and_cannot_be_reached_is_a_warning_and_its_rows_are_done_again(make):
    this = make(waits=(0, 36), count=48)
    begun(this)
    gone.add("two")
    after = opening.current(edit(this, without("two")), new=True)
    checks = planned_again(after)
    (told,) = [check for check in checks if check.name == "left"]
    assert checks.ok and told.verdict == "warning" and "runbook stop" in told.remedy
    assert rows_of(after, "two") == 0 and rows_of(after, "one") == 48
    launched_again(after)
    go(after, "one")
    to_the_end(after)
    gone.clear()
    assert workers.stop(after).ok and not host(this, "two").poll().supervisor_alive, "stop reaches it later"


def test_when_no_other_host_answers_a_leaving_host_blocks_the_gate_and_says_how_many_rows_are_nobodys(make):
    this = make(waits=(0, 36), count=48)
    begun(this)
    after = opening.current(edit(this, without("two")), new=True)
    checks = planned_again(after, left_out=("one",))
    (failed,) = checks.failed
    assert failed.name == "rows given away" and "put two back into the profile" in failed.remedy
    assert after.plan().epoch == 1
    assert planned_again(after).ok, "and when one answers again, it goes on"


def test_hosts_join_and_leave_in_one_edit(make):
    this = make(waits=(0, 36), count=48)
    begun(this)
    with_three(this)
    after = opening.current(edit(this, without("two")), new=True)
    assert planned_again(after).ok
    plan = after.plan()
    assert plan.epoch == 2, "one revision"
    assert {move.epoch for move in plan.moves} == {2} and rows_of(after, "two") <= 24 and rows_of(after, "three") > 0
    launched_again(after)
    go(after, "one", "three")
    to_the_end(after)


def test_a_host_that_comes_back_gets_rows_again_and_is_not_left_stopped(make):
    this = make(waits=(0, 70), count=96)
    begun(this)
    after = opening.current(edit(this, without("two")), new=True)
    assert planned_again(after).ok
    entry = {"kind": "local", "slots": 1, "device": "cpu", "environment": str(this.profile.hosts[0].environment)}
    returned = edit(after, lambda hosts: hosts.append({"name": "two", "workdir": "two", **entry}))
    back = opening.current(returned, new=True)
    assert not back.left
    assert planned_again(back).ok
    launched_again(back)
    assert not host(back, "two").poll().stop_requested
    assert rows_of(back, "two") > 24 - 22
    assert [event["host"] for event in back.journal.events("host left", "host joined")] == ["two", "two"]
    go(back)
    to_the_end(back)


STEPS = ("profile", "stop", "collect", "plan")


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_at_any_step_the_same_command_goes_on(make, monkeypatch, step):
    """What a kill -9 leaves of each step is what there was before the next one began."""

    class Killed(BaseException):
        pass

    def kill(*args, **keys):
        raise Killed

    this = make(waits=(0, 36), count=48)
    begun(this)
    changed = edit(this, without("two"))
    with monkeypatch.context() as patched:
        if step == "profile":
            patched.setattr(opening, "write_atomic", kill)
        if step == "stop":
            patched.setattr(joining.workers, "stop", kill)
        if step == "collect":
            patched.setattr(joining.download, "collect", kill)
        if step == "plan":
            patched.setattr(joining, "_record_hosts", kill)
        with pytest.raises(Killed):
            planned_again(opening.current(changed, new=True))
    after = opening.current(changed, new=True)
    assert planned_again(after).ok
    assert [spec.name for spec in after.left] == ["two"]
    (left,) = after.journal.events("host left")
    assert left["host"] == "two" and left["rows"] > 0
    launched_again(after)
    go(after, "one")
    to_the_end(after)
    assert not after.journal.problems()


def test_watching_gives_the_rows_away_where_the_preflight_was_never_run(make):
    this = make(waits=(0, 36), count=48)
    begun(this)
    after = opening.current(edit(this, without("two")), new=True)
    workers.stop(dataclasses.replace(this, only=frozenset({"two"})))
    go(after, "one")
    to_the_end(after)
    assert "it left the profile" in [event["why"] for event in after.journal.events("rows moved")]


def test_while_another_command_drives_the_run_it_is_named_and_nothing_is_changed(make):
    this = make(waits=(0, 30), count=48)
    begun(this)
    changed = with_three(this)
    before = this.profile_file.read_bytes(), this.journal.path.read_bytes()
    with driver.hold(this):
        with pytest.raises(RunbookError) as refused:
            opening.current(changed, new=True)
        assert f"by process {os.getpid()} since" in str(refused.value) and "hosts.three" in str(refused.value)
        assert "--take-over" in str(refused.value)
        assert (this.profile_file.read_bytes(), this.journal.path.read_bytes()) == before
        unchanged = profile.load(this.profile_file)
        assert opening.current(unchanged, new=True).folder == this.folder, "unchanged, it is opened"
        assert [s.name for s in opening.current(changed, new=True, take_over=True).profile.hosts][-1] == "three"
    go(this)


def test_a_host_that_joins_and_cannot_be_reached_stops_the_gate_and_is_given_nothing(make):
    this = make(waits=(0, 30), count=48)
    begun(this)
    after = opening.current(with_three(this), new=True)
    gone.add("three")
    checks, facts = preflight.the_hosts(after, None)
    assert "three" not in facts
    assert [check.where for check in checks.failed if check.name == "reachable"] == ["three"]
    gone.clear()
    gone.add("two")  # one that computes already is only away
    checks, facts = preflight.the_hosts(after, None)
    (told,) = [check for check in checks if check.where == "two"]
    assert told.verdict == "warning"
    go(this)


def test_a_host_that_joins_is_held_to_every_check_and_gets_no_row_before_they_hold(make, tmp_path):
    this = make(waits=(0, 30), count=48)
    begun(this)
    broken = executable(tmp_path / "bin" / "broken", "#!/bin/sh\necho no torch here >&2; exit 1\n")
    entry = {"name": "three", "kind": "local", "slots": 1, "device": "cpu", "workdir": "three"}
    after = opening.current(edit(this, lambda hosts: hosts.append({**entry, "environment": str(broken)})), new=True)
    model, corpus = numbered(after)
    checks, facts = preflight.the_hosts(after, model)
    assert {check.where for check in checks.failed} == {"three"}, checks
    assert facts.keys() == {"one", "two"}
    assert json.loads(after.hosts_file.read_text())["hosts"].keys() >= {"one", "two"}
    preflight.the_plan(after, model, corpus, facts)
    assert after.plan().epoch == 1 and not list(after.journal.events("host joined"))
    go(this)


def test_a_host_that_computes_and_fails_a_check_holds_up_nobody(make):
    this = make(waits=(0, 30), count=48)
    begun(this)
    after = opening.current(with_three(this), new=True)
    two = this.folder.parents[1] / "two"
    two.chmod(0o777)  # others may write there now: refused, and it computes already
    checks, facts = preflight.the_hosts(after, numbered(after)[0])
    two.chmod(0o700)
    assert checks.ok and [check.where for check in checks if check.verdict == "warning"] == ["two"], checks
    assert "three" in facts
    go(this)
