"""Every fault is in journal and failure log, wherever it struck and whoever looks first; once each."""

import signal

import pytest
from local_run import folder, host
from vanishing import go, gone
from waiting import wait_for

from runbook_lib.chain import chain
from runbook_lib.phases import download, launch, monitor, workers
from runbook_lib.report import report
from runbook_lib.run import opening
from runbook_lib.slots.incidents import BEGAN
from runbook_lib.slots.watcher import Watcher
from worker import process
from worker.blame import quarantine
from worker.files import read_json
from worker.layout import committed


def kill_a_worker(this, name, signum=signal.SIGKILL):
    """One dies while nobody watches; its supervisor starts the next."""
    before = worker_of(this, name)
    assert process.send(before, signum)
    wait_for(lambda: (read_json(folder(this, name).exits(slot_of(this, name))) or {}).get("exits"))


def worker_of(this, name):
    slots = (read_json(folder(this, name).supervisor(name)) or {}).get("slots") or {}
    return (slots.get(slot_of(this, name)) or {}).get("process")


def slot_of(this, name):
    return next(slot.slot for slot in this.plan().slots if slot.host == name)


LOOKS = {
    "launch": lambda this: launch.verify(this, 60.0),
    "stop": workers.stop,
    "fetch": download.collect,
    "run on what is done": lambda this: chain._all_committed(this),
    "watch": monitor.look,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_worker_that_died_while_nobody_looked_is_told_once_by_whatever_looks(make, look):
    this = make(waits=(4, 20))
    wait_for(lambda: worker_of(this, "one"))
    wait_for(lambda: len(committed(folder(this, "one").parts)) == 1)
    kill_a_worker(this, "one")
    for _ in range(2):
        look(this)
    download.collect(this)
    (event,) = this.journal.events(BEGAN)
    assert (event["slot"], event["host"]) == ("cluster0_gpu0", "one") and "SIGKILL" in event["cause"]
    assert report.failure_log(this).read_text().count("slot in trouble: slot: cluster0_gpu0; host: one") == 1
    go(this)


def test_status_and_watching_without_leave_write_nothing(make):
    """Whoever only looks may be anybody."""
    this = make(waits=(4, 20))
    wait_for(lambda: len(committed(folder(this, "one").parts)) == 1)
    kill_a_worker(this, "one")
    before = this.journal.path.read_bytes()
    state = Watcher(this, this.plan()).poll()
    assert state.slots[0].restarts == 1 and this.journal.path.read_bytes() == before


def test_a_host_that_cannot_be_reached_at_the_launch_or_when_parts_come_home_is_told_once(make):
    this = make(waits=(4,))
    gone.add("two")
    for _ in range(2):
        launch.start(this)
        download.collect(this)
    told = [(event["host"], event["what"]) for event in this.journal.events("host failed")]
    assert told == [("two", "supervisor"), ("two", "parts brought home")]
    go(this, "one")


def test_a_worker_restarted_by_a_person_is_no_fault(make):
    this = make(waits=(4, 20))
    wait_for(lambda: len(committed(folder(this, "one").parts)) == 1)
    assert workers.restart(this, "cluster0_gpu0").ok
    monitor.look(this)
    assert not list(this.journal.events(BEGAN))
    only = opening.limited(this, "one")
    assert workers.stop(only).ok
    monitor.look(this)
    assert not list(this.journal.events(BEGAN))
    assert report.failure_log(this).read_text().count("workers stopped") == 0
    assert host(this).poll().stop_requested


@pytest.mark.parametrize("look", [LOOKS["fetch"], LOOKS["watch"], LOOKS["launch"]], ids=["fetch", "watch", "launch"])
def test_a_document_that_was_given_up_is_told_with_its_reason_by_whatever_looks(make, look):
    this = make(waits=(4, 20))
    wait_for(lambda: len(committed(folder(this, "one").parts)) == 1)
    quarantine(folder(this, "one"), 7, "ValueError: this text cannot be encoded", "cluster0_gpu0", sure=True)
    for _ in range(2):
        look(this)
    (event,) = this.journal.events("row given up")
    assert (event["row"], event["host"]) == (7, "one") and "cannot be encoded" in event["cause"]
    assert "ValueError: this text cannot be encoded" in report.failure_log(this).read_text()
    given_up = next(check for check in monitor.finished(monitor.look(this)) if check.name == "rows given up")
    assert "row 7 (title" in given_up.seen and "ValueError: this text cannot be encoded" in given_up.seen
    go(this)
