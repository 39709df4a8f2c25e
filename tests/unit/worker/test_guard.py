"""A supervisor that was killed is started again by its workers; one that was stopped, or ended in order, is not."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from box import HOST, SLOT, Box, MakeBox, waiting
from waiting import wait_for

from worker import process
from worker.files import read_json, write_json
from worker.guard import lost

DEAD = {"pid": 2**22 + 1, "start": "1", "boot": "of another time"}


def supervisors(box: Box) -> list[int]:
    """The living supervisors of this folder."""
    return [each.process["pid"] for each in process.running(str(box.root), HOST) if each.verb == "supervise"]


def stop(box: Box) -> None:
    write_json(box.folder.stop_request(HOST), {"stop": True})
    box.go()
    wait_for(lambda: not supervisors(box) and not box.alone(), "all of it stopped")


@pytest.mark.process
def test_nobody_watches_the_supervisor_is_killed_then_a_worker_and_the_host_goes_on(make_box: MakeBox) -> None:
    box = make_box(waiting(6, 14), slots=2, light=True, look_s=0.1)
    names = [SLOT, "cluster0_gpu1"]
    first = box.supervisor()
    wait_for(lambda: [box.at_hand(name) for name in names] == [[6], [14]], "both at their second part")
    first.kill()
    box.end(first)
    wait_for(lambda: box.logs().count("taken over") >= 2, "another supervisor takes both over")

    def report() -> dict[str, Any]:
        return read_json(box.folder.supervisor(HOST)) or {}

    wait_for(lambda: report()["process"]["pid"] != first.pid, "its first report")
    second = report()["process"]["pid"]
    assert report()["predecessor"]["pid"] == first.pid
    # Both workers may start one, and not at the same moment: whichever comes to no lock ends at once.
    wait_for(lambda: supervisors(box) == [second], "one supervisor, and that one")
    worker = box.alone()
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    box.go()
    wait_for(lambda: len(box.parts()) == 4, "all rows")
    wait_for(lambda: not supervisors(box), "it ends when all is done")
    assert len(box.sums()) == 4


@pytest.mark.process
def test_a_worker_that_ends_by_itself_leaves_no_host_without_a_supervisor(make_box: MakeBox) -> None:
    """It had no time to look: it looks once more as it ends."""
    box = make_box(waiting(6), light=True, look_s=600.0)
    first = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    first.kill()
    box.end(first)
    (box.root / f"device.{SLOT}").write_text("nan")
    box.go()
    wait_for(lambda: "another one is started" in box.logs(), "another supervisor")
    (box.root / f"device.{SLOT}").unlink()
    wait_for(lambda: len(box.parts()) == 4 and not supervisors(box), "all rows")
    assert "a known text" in box.exits()[0]["reason"], "what nobody saw is told all the same"


@pytest.mark.process
def test_an_end_that_no_supervisor_saw_is_on_file(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, look_s=600.0)
    first = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    worker = box.alone()
    assert worker is not None
    for pid in (first.pid, worker):
        os.kill(pid, signal.SIGKILL)
    box.end(first)
    wait_for(lambda: not box.alone(), "both gone")
    box.go()
    assert box.end(box.supervisor()) == 0, box.logs()
    assert [entry["reason"] for entry in box.exits()] == ["ended while no supervisor lived: how is not known"]
    for part in box.parts():
        box.folder.part(*part).with_suffix(".json").unlink()
    assert box.end(box.supervisor()) == 0
    assert len(box.exits()) == 1, "told once"


@pytest.mark.parametrize("wish", ["a stop request", "no work", "it lives", "the lock is held", "no report", "gone"])
def test_nobody_misses_a_supervisor_that(make_box: MakeBox, wish: str) -> None:
    box = make_box(waiting())
    path = box.folder.supervisor(HOST)
    write_json(path, {"process": DEAD, "working": True})
    assert lost(box.folder, HOST)
    if wish == "a stop request":
        write_json(box.folder.stop_request(HOST), {"stop": True})
    elif wish == "no work":
        write_json(path, {"process": DEAD, "working": False})
    elif wish == "it lives":
        write_json(path, {"process": process.identify(os.getpid()), "working": True})
    elif wish == "the lock is held":
        from worker.encode import take_lock

        assert take_lock(box.folder.supervisor_lock(HOST)) is not None
    elif wish == "no report":
        path.unlink()
    else:
        box.folder.assignment(HOST).unlink()
    assert not lost(box.folder, HOST)


@pytest.mark.process
def test_a_supervisor_that_was_stopped_is_not_started_again(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True, look_s=0.1)
    first = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    first.terminate()
    box.end(first)
    assert supervisors(box) == [] and not box.alone()
    assert "another one is started" not in box.logs()


@pytest.mark.process
def test_many_workers_start_one_supervisor(make_box: MakeBox) -> None:
    texts = [f"WAIT {i}" for i in range(16)]
    box = make_box(texts, slots=4, part_rows=4, light=True, look_s=0.1)
    names = [f"cluster0_gpu{k}" for k in range(4)]
    first = box.supervisor()
    wait_for(lambda: all(box.at_hand(name) for name in names), "all at work")
    first.kill()
    box.end(first)
    wait_for(lambda: box.logs().count("taken over") >= 4, "another supervisor takes all over")
    wait_for(lambda: len(supervisors(box)) == 1, "the others leave")
    stop(box)
