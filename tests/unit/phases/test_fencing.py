"""Fencing: what a slot did goes, here and on its host; it is told; it gets nothing more, until a person lifts it."""

from __future__ import annotations

import pytest
from local_run import commit_all, folder, look

from runbook_lib.phases import download, fencing, staging
from runbook_lib.run import fences
from runbook_lib.run.checks import Checks
from worker.files import read_json
from worker.layout import committed
from worker.share import Refused, Share


@pytest.fixture
def make(make):
    """Makes a run of two hosts whose parts are all home."""

    def new(**keys):
        this = make(**keys)
        assert staging.stage(this).ok
        commit_all(this)
        assert download.collect(this).rows == this.plan().rows
        return this

    return new


def test_what_a_fenced_slot_did_goes_here_and_there_and_the_others_work_stays(make):
    this = make()
    (one, two) = this.plan().slots
    assert fencing.fence(this, {two.slot: "off by much"}) == [two.slot]
    assert committed(this.local.parts)[-1][1] == one.stop  # those at home go at once
    download.collect(this)  # those of its host when it is looked at next
    assert committed(this.local.parts)[-1][1] == one.stop and not committed(folder(this, "two").parts)
    assert len(committed(folder(this, "one").parts)) == len(committed(this.local.parts))
    assert not look(this).done and this.plan().epoch == 2
    assert fencing.fence(this, {two.slot: "again"}) == []  # it is known
    commit_all(this)  # it goes on all the same: an older worker, or one that cannot be told
    download.collect(this)
    assert committed(this.local.parts)[-1][1] == one.stop and not committed(folder(this, "two").parts)
    assert any(two.slot in event["reason"] for event in this.journal.events("part refused"))


def test_its_host_is_told_and_its_worker_takes_no_rows(make):
    this = make()
    fencing.fence(this, {"cluster1_gpu0": "off by much"})
    assert staging.stage(this).ok
    (spec,) = read_json(folder(this, "two").assignment("two"))["slots"]
    assert spec["fenced"] == "off by much"
    share = Share(folder(this, "two"), "two", "cluster1_gpu0")
    with pytest.raises(Refused, match="fenced: off by much"):
        share.next()
    share.close()


def test_a_person_lifts_it_and_what_it_did_before_is_not_taken(make):
    this = make()
    fencing.fence(this, {"cluster1_gpu0": "off by much"})
    assert fencing.lift(this, "cluster1_gpu0") and not fencing.lift(this, "cluster1_gpu0")
    assert fences.behind(this.plan().fences) == {} and this.plan().epoch == 3
    commit_all(this)  # by the plan's present revision
    assert download.collect(this).rows == this.plan().rows


def test_a_fence_and_a_lifting_that_a_kill_left_untold_are_told_once(make, monkeypatch):
    this = make()

    def told():
        return [event["event"] for event in this.journal.events(fencing.EVENT, fencing.LIFTED)]

    slot = this.plan().slots[1].slot
    for act in (lambda: fencing.fence(this, {slot: "off by much"}), lambda: fencing.lift(this, slot)):
        before = told()
        with monkeypatch.context() as killed:
            killed.setattr(fencing, "_journal_fences", lambda run: exit("killed"))
            with pytest.raises(SystemExit):
                act()
        assert told() == before
        for _ in range(2):
            fencing.tell_untold(this)
            assert len(told()) == len(before) + 1
    assert told() == [fencing.EVENT, fencing.LIFTED]
    (event,) = this.journal.events(fencing.EVENT)
    assert (event["slot"], event["host"], event["reason"]) == (slot, "two", "off by much")
    assert fencing.fence(this, {slot: "once more"}) == [slot]  # and this one is told, though there was one before
    assert told() == [fencing.EVENT, fencing.LIFTED, fencing.EVENT]


@pytest.mark.parametrize("keys", [{"names": ("one",)}, {"recovery": "ask"}])
def test_no_slot_is_fenced_where_none_would_be_left_or_a_person_decides(make, keys):
    this = make(**keys)
    checks = Checks("a")
    fencing.after_audit(this, checks, {this.plan().slots[-1].slot: "off by much"})
    assert this.plan().fences == () and download.collect(this).rows == this.plan().rows
    (failed,) = checks.failed
    assert "no other slot is left" in failed.seen and "restart" in failed.remedy
