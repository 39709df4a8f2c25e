"""Canaries brought home: once each, only what its name says; a wrong slot is fenced, and all of it is in the run."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from local_run import commit_all, folder, look

from runbook_lib.errors import LinkLost, RunbookError
from runbook_lib.phases import canaries, download, fencing, staging
from runbook_lib.run import fences
from runbook_lib.run.checks import Checks
from worker import canaries as of_worker
from worker import canary
from worker.files import write_json
from worker.wire import Canary

RIGHT = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)


def given(vectors, kind="cpu"):
    return Canary(kind, False, 4, base64.b64encode(vectors.tobytes()).decode())


def another_process():
    canaries._heard.clear()
    canaries._judged.clear()


@pytest.fixture
def heard(make):
    """Makes (a run of three hosts, its state) whose slots gave these vectors; their files are on the hosts."""

    def new(*vectors):
        this = make(names=("one", "two", "three"))
        assert staging.stage(this).ok
        slots = []
        for slot, each in zip(look(this).slots, vectors, strict=True):
            made = given(each)
            write_json(folder(this, slot.host).canary(canary.digest(made)), made.to_json())
            slots.append(replace(slot, canaries=(canary.digest(made),)))
        return this, replace(look(this), slots=tuple(slots))

    return new


def test_equal_ones_are_fetched_once_and_nothing_is_done_twice(heard):
    this, state = heard(RIGHT, RIGHT, RIGHT)
    assert canaries.fence_wrong(this, state) == [] and not this.plan().fences
    assert len(list((this.folder / "canaries").iterdir())) == 1
    assert sorted(event["slot"] for event in this.journal.events("canaries")) == [slot.slot for slot in state.slots]
    size = this.journal.path.stat().st_size
    assert not canaries.bring(this, state)
    another_process()
    assert not canaries.bring(this, state) and this.journal.path.stat().st_size == size


def test_the_odd_one_out_is_fenced_its_parts_go_and_a_check_names_it(heard):
    this, state = heard(RIGHT, RIGHT + 1, RIGHT)
    commit_all(this)
    download.collect(this)
    (did,) = canaries.fence_wrong(this, state)
    odd = state.slots[1].slot
    assert did.startswith(f"{odd} is fenced: ") and list(fences.behind(this.plan().fences)) == [odd]
    checks = Checks("a")
    canaries.tell(checks, this)
    assert checks.ok and checks.items[0].warn and odd in checks.items[0].seen
    assert fencing.lift(this, odd)
    assert canaries.fence_wrong(this, state) != []  # it gives the same again


def test_one_that_came_home_just_before_a_kill_is_judged_by_the_next_process(heard):
    this, state = heard(RIGHT, RIGHT + 1, RIGHT)
    assert canaries.bring(this, state)  # and here the process is killed
    another_process()
    assert len(canaries.fence_wrong(this, state)) == 1
    assert list(fences.behind(this.plan().fences)) == [state.slots[1].slot]


def test_one_that_could_not_be_fenced_is_fenced_by_the_next_look(heard, monkeypatch):
    this, state = heard(RIGHT, RIGHT + 1, RIGHT)

    def full(*given):
        raise RunbookError("writing the plan: no space left")

    monkeypatch.setattr(fencing, "fence", full)
    with pytest.raises(RunbookError):
        canaries.fence_wrong(this, state)
    monkeypatch.undo()
    assert len(canaries.fence_wrong(this, state)) == 1


def test_where_every_host_is_this_machine_nothing_is_computed_beforehand_and_it_is_said(make):
    (check,) = canaries.prepare(make())
    assert check.ok and "every host is this machine" in check.seen


def test_a_wrong_slot_that_nobody_may_fence_fails_the_check(heard):
    this, state = heard(RIGHT, RIGHT + 1, RIGHT)
    this = replace(this, profile=replace(this.profile, recovery="off"))
    assert canaries.fence_wrong(this, state) == []
    checks = Checks("a")
    canaries.tell(checks, this)
    assert [check.name for check in checks.failed] == [canaries.NAME]


def test_a_file_that_is_not_what_its_name_says_is_not_taken(heard):
    this, state = heard(RIGHT, RIGHT, RIGHT)
    digest = state.slots[0].canaries[0]
    for name in ("one", "two", "three"):
        write_json(folder(this, name).canary(digest), given(RIGHT + 1).to_json())
    assert not canaries.bring(this, state) and canaries.heard(this) == {}
    assert not list((this.folder / "canaries").glob("*.json"))


def test_a_host_that_is_not_reached_is_asked_once_and_one_that_lies_keeps_nobody_unheard(heard, monkeypatch):
    this, state = heard(RIGHT, RIGHT + 1, RIGHT)
    many = tuple(f"{number:064x}" for number in range(100))
    one, two, three = (replace(slot, canaries=(*many, *slot.canaries)) for slot in state.slots)
    asked, own = [], canaries._bring_one

    def bring_one(run, name, digest):
        asked.append(name)
        if name == "one":
            raise LinkLost("one: no answer")
        own(run, name, digest)

    monkeypatch.setattr(canaries, "_bring_one", bring_one)
    assert canaries.bring(this, replace(state, slots=(one, two, three)))
    assert asked.count("one") == 1 and len(asked) <= 1 + 2 * canaries.KEPT
    assert sorted(canaries.heard(this)) == [two.slot, three.slot]


def test_no_more_is_read_than_a_worker_keeps():
    assert canaries.KEPT == of_worker.KEPT


def test_a_kill_while_a_file_is_looked_at_leaves_none_that_nobody_looked_at(heard, monkeypatch):
    this, state = heard(RIGHT[:3], RIGHT, RIGHT)

    def killed(canary):
        raise KeyboardInterrupt

    monkeypatch.setattr(canaries.alike, "vectors_of", killed)
    with pytest.raises(KeyboardInterrupt):
        canaries.bring(this, state)
    monkeypatch.undo()
    assert canaries.bring(this, state)
    assert state.slots[0].slot not in canaries.heard(this) and len(canaries.heard(this)) == 2


def test_the_check_names_slots_that_did_rows_and_says_what_it_was_not_held_against(heard):
    this, state = heard(RIGHT, RIGHT, RIGHT)
    checks, names = Checks("a"), [slot.slot for slot in state.slots]
    canaries.tell(checks, this, did=names)
    canaries.bring(this, replace(state, slots=state.slots[:2]))
    canaries.tell(checks, this, did=names)
    canaries.tell(checks, this, did=names[:2])
    none, two, all_ = checks
    assert none.warn and "not looked at" in none.seen
    assert two.ok and two.warn and f"{names[2]} did rows and says nothing" in two.seen
    assert all_.verdict == "ok" and "not held against this machine" in all_.seen


@pytest.mark.parametrize("odd", [RIGHT[:3], np.zeros((0, 4), np.float32), np.zeros((16, 8), np.float32)])
def test_what_is_no_such_array_is_not_taken(heard, odd):
    this, state = heard(odd, odd, odd)
    assert not canaries.bring(this, state) and canaries.fence_wrong(this, state) == []


def test_a_host_that_always_says_something_else_is_heard_so_often_and_no_more(heard):
    this, state = heard(RIGHT, RIGHT, RIGHT)
    for number in range(40):
        made = given(RIGHT + 1 + number)
        write_json(folder(this, "one").canary(canary.digest(made)), made.to_json())
        one = replace(state.slots[0], canaries=(canary.digest(made),))
        canaries.bring(this, replace(state, slots=(one, *state.slots[1:])))
    assert len(canaries.heard(this)[state.slots[0].slot]) == canaries.MOST_HEARD
