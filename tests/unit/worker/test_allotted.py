"""A host that a scheduler placed: it is told early, or ended; neither is a death, and nothing outlives its place."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from box import HOST, SLOT, Box, MakeBox, waiting
from waiting import wait_for

from worker import allotted, process, states
from worker.fields import read_record
from worker.files import read_json
from worker.wire import Suspected

pytestmark = pytest.mark.process
PLACED = {"scheduler": "slurm", "heartbeat_s": 0.3}


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of the node's own: all boxes are of one run."""
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    monkeypatch.setattr(tempfile, "tempdir", None)


def at_hand(box: Box) -> list[int]:
    """The rows that the worker computes now, by its notes, which do not lie in the shared folder."""
    folder = allotted.placed(box.folder, allotted.assignment_of(box.folder, HOST))
    return list(read_record(Suspected, folder.suspects(SLOT)).rows)


def test_told_early_a_worker_ends_after_its_part_and_none_begins(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    supervisor.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert supervisor.poll() is None and box.parts() == [(0, 4)], "the part at hand is not given up"
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert box.parts() == [(0, 4), (4, 8)], box.logs()
    assert box.supervised()["state"] == states.TAKEN and box.supervised()["deaths"] == 0
    assert box.report()["reason"] == states.TAKEN and box.report()["exit_code"] != 0
    again = box.supervisor()
    assert box.end(again) == 0 and len(box.parts()) == 4, "the rest is done by the next one"
    assert not box.folder.notes and not list(box.folder.root.glob("progress/*.suspects.json"))


def test_told_before_it_has_begun_it_ends_at_once(make_box: MakeBox) -> None:
    box = make_box(waiting(0), light=True, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: box.folder.supervisor(HOST).exists(), "its first report")
    supervisor.send_signal(signal.SIGUSR1)
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.parts()) <= 1


@pytest.mark.parametrize("to_all", [False, True])
def test_ended_in_the_middle_of_a_part_it_is_no_death_and_no_persons_stop(make_box: MakeBox, to_all: bool) -> None:
    box = make_box(waiting(6), light=True, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    worker = box.alone()
    supervisor.send_signal(signal.SIGTERM)
    if to_all and worker:  # as a scheduler does that ends all processes of a task
        os.kill(worker, signal.SIGTERM)
    assert box.end(supervisor) == 0, box.logs()
    assert {entry["reason"] for entry in box.exits()} == {states.TAKEN}
    assert {entry["deaths"] for entry in box.exits()} == {0}
    assert box.supervised()["state"] in (states.TAKEN, states.WAITING)
    assert "operator" not in str(box.report()["reason"])
    box.go()
    assert box.end(box.supervisor()) == 0 and len(box.sums()) == 4


def test_a_worker_alone_that_is_ended_is_started_again_and_it_is_no_death(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    os.kill(box.alone() or 0, signal.SIGTERM)
    wait_for(lambda: box.exits(), "its end is on file")
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4
    assert [entry["deaths"] for entry in box.exits()] == [0]


def test_a_stop_of_a_person_is_that_also_where_the_scheduler_ends_the_task(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    box.folder.stop_request(HOST).touch()
    supervisor.send_signal(signal.SIGTERM)
    box.end(supervisor)
    assert box.supervised()["state"] == states.STOPPED and box.exits() == []


def test_without_its_supervisor_a_worker_ends_and_starts_no_other(make_box: MakeBox) -> None:
    """Its place is gone with it: what it would start there, no scheduler knows of."""
    box = make_box(waiting(6), light=True, look_s=0.2, **PLACED)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    worker = box.report()["process"]
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not process.alive(worker), "the worker has ended")
    assert box.folder.log(f"host_{HOST}").read_text().count("supervisor of") <= 2
    assert not process.alive((read_json(box.folder.supervisor(HOST)) or {})["process"])


def test_a_report_that_says_nothing_new_is_written_seldom(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, scheduler="slurm", heartbeat_s=30.0)
    supervisor = box.supervisor()
    wait_for(lambda: at_hand(box) == [6], "in the middle of its second part")
    paths = [box.folder.supervisor(HOST), box.folder.progress(SLOT)]
    before = [path.stat().st_mtime_ns for path in paths]
    time.sleep(3.0)  # longer than the heartbeat of a worker elsewhere
    assert [path.stat().st_mtime_ns for path in paths] == before
    box.go()
    assert box.end(supervisor) == 0
