"""Fencing: what a slot did goes, here and on its host; it is told; it gets nothing more, until a person lifts it."""

from __future__ import annotations

import pytest
from local_run import commit_all, folder, look

from runbook_lib.errors import HostError
from runbook_lib.hosts.hosts import Host
from runbook_lib.phases import download, fencing, staging, workers
from runbook_lib.run import fences
from runbook_lib.run.checks import Checks
from runbook_lib.run.journal import Journal
from runbook_lib.run.plan import Plan
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


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    ("do", "event", "behind"),
    [
        (lambda run, slot: fencing.fence(run, {slot: "off"}), fencing.EVENT, ["cluster1_gpu0"]),
        (fencing.lift, fencing.LIFTED, []),
    ],
)
def test_after_a_kill_at_any_write_the_next_try_does_it_and_the_journal_says_so(
    make, monkeypatch, do, event, behind, at
):
    this = make()
    if do is fencing.lift:
        fencing.fence(this, {"cluster1_gpu0": "off"})
    writes = []

    def dies(own):
        def write(*given, **more):
            writes.append(own)
            if len(writes) == at + 1:
                raise KeyboardInterrupt
            return own(*given, **more)

        return write

    monkeypatch.setattr(Journal, "write", dies(Journal.write))
    monkeypatch.setattr(Plan, "save", dies(Plan.save))
    try:
        do(this, "cluster1_gpu0")
    except KeyboardInterrupt:
        monkeypatch.undo()
        do(this, "cluster1_gpu0")
    assert list(fences.behind(this.plan().fences)) == behind
    assert any(this.journal.events(event))


def test_a_slot_whose_report_cannot_be_taken_away_stays_fenced(make, monkeypatch):
    this = make()
    fencing.fence(this, {"cluster1_gpu0": "off"})

    def away(*given):
        raise HostError("two: not reached")

    monkeypatch.setattr(Host, "remove", away)  # by it the fence would come back, and the next restart lifts none
    with pytest.raises(HostError):
        workers.restart(this, "cluster1_gpu0")
    assert "cluster1_gpu0" in fences.behind(this.plan().fences)


@pytest.mark.parametrize("keys", [{"names": ("one",)}, {"recovery": "ask"}])
def test_no_slot_is_fenced_where_none_would_be_left_or_a_person_decides(make, keys):
    this = make(**keys)
    checks = Checks("a")
    fencing.after_audit(this, checks, {this.plan().slots[-1].slot: "off by much"})
    assert this.plan().fences == () and download.collect(this).rows == this.plan().rows
    (failed,) = checks.failed
    assert "no other slot is left" in failed.seen and "restart" in failed.remedy
