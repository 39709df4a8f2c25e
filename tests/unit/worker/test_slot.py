"""One slot as its supervisor sees it: pauses, patience, deaths that count and ends that are put on file."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import wired
from box import SLOT, MakeBox, codes, failing
from waiting import wait_for

from worker import locks, process
from worker import slot as slots
from worker.encode import EXIT_BUSY
from worker.files import write_json
from worker.progress import write_report
from worker.wire import Assignment, Holder, WorkerReport

HOLDS = "import sys, time; from pathlib import Path; from worker.encode import take_lock; \
take_lock(Path(sys.argv[1]), verb='encode', host='tensor00'); print(flush=True); time.sleep(600)"
TEXTS = [f"text {'word ' * (i % 7)}{i}" for i in range(16)]


def test_pauses_grow_and_the_last_one_stays() -> None:
    slot = slots.Slot.__new__(slots.Slot)
    slot.assignment = Assignment.from_json(wired.assignment([]))
    assert [slot._pause(deaths) for deaths in range(1, 8)] == [0.2, 10, 20, 40, 60, 60, 60]


def test_only_what_changes_in_a_report_is_a_sign_of_work(make_box: MakeBox) -> None:
    """A heartbeat goes on while a device hangs; and the times in a report, by another clock, are not looked at."""
    box = make_box(TEXTS)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])

    def stalled_after(seconds: float, **report: Any) -> bool:
        write_report(box.folder.progress(SLOT), WorkerReport(**report))
        slot._moved -= seconds
        return slot._stalled()

    assert not stalled_after(0, rows_in_part=1, heartbeat=1, heartbeat_at=5.0)
    assert not stalled_after(800, rows_in_part=1, heartbeat=2, heartbeat_at=9e9)
    assert stalled_after(200, rows_in_part=1, heartbeat=3, heartbeat_at=1.0)
    assert not stalled_after(5000, rows_in_part=2, heartbeat=4, heartbeat_at=2.0)


@pytest.mark.parametrize(
    ("keys", "state", "deaths", "loads", "expected"),
    [
        ({}, "loading model", 0, {}, 900),
        ({"first_progress_s": 60}, "loading model", 0, {}, 60),
        ({"first_progress_s": 60}, "starting", 1, {}, 120),
        ({"first_progress_s": 60}, "loading model", 4, {}, 240),  # a slow load is not cut short for ever
        ({"first_progress_s": 60}, "loading model", 0, {"cluster0_gpu1": 100.0}, 400),  # as another one needed
        ({"first_progress_s": 60}, "loading model", 0, {SLOT: 100.0}, 400),
        ({"first_progress_s": 60}, "running", 3, {}, 60),  # no rate yet
        ({"first_progress_s": 3600}, "loading model", 0, {}, 3600),
        ({"first_progress_s": 60, "stall_s": 5}, "loading model", 0, {}, 5),
    ],
)
def test_patience_with_a_load_follows_the_profile_and_what_loads_took_here(
    make_box: MakeBox, keys: dict[str, float], state: str, deaths: int, loads: dict[str, float], expected: float
) -> None:
    box = make_box(TEXTS, slots=2, **keys)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.identity, slot.deaths = process.identify(os.getpid()), deaths
    for name, loaded_s in loads.items():
        write_json(box.folder.progress(name), {"loaded_s": loaded_s})
    report = WorkerReport(process=slot.identity, state=state)
    assert slot._patience_s(report) == expected


def test_patience_with_a_load_is_what_loads_take_here_where_all_neighbours_wait_for_it(make_box: MakeBox) -> None:
    box = make_box(TEXTS, slots=2, first_progress_s=600.0)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.identity, slot.alone = process.identify(os.getpid()), True
    report = WorkerReport(process=slot.identity, state="loading model")
    assert slot._patience_s(report) == 600.0, "how long it takes here nobody knows yet"
    for loaded_s, deaths, expected in ((30.0, 0, 120.0), (30.0, 1, 240.0), (0.5, 0, 10.0)):
        write_json(box.folder.progress("cluster0_gpu1"), {"loaded_s": loaded_s})
        slot.deaths = deaths
        assert slot._patience_s(report) == expected


def test_a_load_that_reads_from_a_slow_disk_is_no_hang(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(TEXTS, first_progress_s=60.0)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.identity = process.identify(os.getpid())
    write_json(box.folder.progress(SLOT), {"process": slot.identity, "state": "loading model"})
    read = iter([10, 20, 20])
    monkeypatch.setattr(process, "bytes_read", lambda identity: next(read))
    found = []
    for _ in range(3):
        found.append(slot._stalled())
        slot._moved -= 100
    assert found == [False, False, True]


@pytest.mark.process
def test_stopping_takes_a_worker_that_does_not_listen(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(["HANG"], light=True)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.step()
    wait_for(lambda: box.at_hand(), "rows at hand")
    hanging = box.report()["process"]
    monkeypatch.setattr(process, "stop", functools.partial(process.stop, grace_s=0.2))
    slot.stop()
    assert slot.state == "stopped" and not process.alive(hanging)
    assert not box.folder.suspects(SLOT).exists()  # ended by us: no reason to suspect the rows


@pytest.mark.process
def test_a_process_that_cannot_be_ended_is_not_said_to_be_stopped(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for a dead disk takes no signal; the supervisor neither waits for it for ever nor forgets it."""
    box = make_box(TEXTS)
    failing(box, "exec sleep 600")
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.step()
    with monkeypatch.context() as patch:
        patch.setattr(process, "stop", lambda identity: False)
        slot.stop()
    assert slot.state == "running" and slot.identity is not None
    slot.stop()
    assert slot.state == "stopped"


@pytest.mark.process
def test_a_file_system_that_fails_for_a_while_loses_no_end(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be looked at is looked at again: the worker's exit code is still known then."""
    box = make_box(TEXTS)
    failing(box, "exit 7")
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.step()
    assert slot.child is not None
    slot.child.wait()
    own = slots.left_to_do

    def stale(*args: Any) -> Any:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(slots, "left_to_do", stale)
    with pytest.raises(OSError, match="Stale"):
        slot.step()
    monkeypatch.setattr(slots, "left_to_do", own)
    slot.step()
    assert codes(box) == [7] and slot.state == "waiting"


@pytest.mark.process
def test_a_clock_that_jumps_changes_no_pause_and_no_verdict(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(TEXTS, back_off_s=[600])
    failing(box, "exit 7")
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    slot.step()
    assert slot.child is not None
    slot.child.wait()
    slot.step()
    monkeypatch.setattr(slots.time, "time", lambda: 4e9)
    slot.step()
    assert slot.state == "waiting" and 590 < slot.report().wait_s <= 600


@pytest.mark.process
@pytest.mark.parametrize("when", ["before the supervisor", "after its own worker began"])
def test_a_worker_that_hangs_before_its_first_report_is_known_by_its_lock_and_ended(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Started by a supervisor that was killed in the same moment: nobody else knows of it."""
    monkeypatch.setattr(slots, "IDLE_S", 0.0)
    box = make_box(TEXTS, light=True)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    argv = [sys.executable, "-c", HOLDS, str(box.folder.lock(SLOT))]
    child = subprocess.Popen(argv, cwd=box.root, stdout=subprocess.PIPE, start_new_session=True)
    box.started.append(child)
    assert child.stdout and child.stdout.readline()
    if when == "before the supervisor":
        slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    else:
        slot.state = "running"
        slot._ended(EXIT_BUSY)
    assert slot.state == "running" and slot.identity == process.identify(child.pid)
    time.sleep(0.1)
    slot.end_idle()
    assert child.wait(10) == -signal.SIGKILL
    child.stdout.close()


def test_a_lock_held_on_another_machine_is_waited_for(make_box: MakeBox) -> None:
    box = make_box(TEXTS, light=True)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    fd = locks.take(box.folder.lock(SLOT))
    assert fd is not None
    locks.sign(fd, Holder({**process.identify(os.getpid()), "boot": "of another machine"}))
    slot.state = "running"
    slot._ended(EXIT_BUSY)
    assert slot.state == "waiting" and slot.identity is None
    os.close(fd)
