"""A full disk: waited for, told while it lasts, and no death."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import pytest
from box import HOST, SLOT, Box, MakeBox, waiting
from waiting import wait_for

from worker import reserve
from worker.files import write_json
from worker.reserve import Reserve
from worker.room import has_room
from worker.snapshot import snapshot

TEXTS = [f"text {'word ' * (i % 7)}{i}" for i in range(16)]


def limit(pid: int, size: int) -> None:
    """From now on a process may write no file larger than this: to it, the disk is full."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def told(box: Box) -> list[str]:
    """The reasons that a look at the host gives."""
    return [entry["reason"] for entry in snapshot(box.root, HOST)["slots"][SLOT]["exits"]]


@pytest.mark.process
def test_a_full_disk_is_told_while_it_is_full_and_is_no_death(make_box: MakeBox) -> None:
    """Neither the worker nor its supervisor can write anything; there is room again later, and all goes on."""
    box = make_box(waiting(6), light=True)
    box.save(back_off_s=[0.05] * 5)
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    worker = box.alone()
    assert worker is not None
    limit(worker, 64)
    limit(supervisor.pid, 64)
    box.go()
    wait_for(lambda: told(box), "the reason")
    assert told(box)[-1].startswith("disk full")
    reading = snapshot(box.root, HOST)
    assert reading["supervisor"]["slots"][SLOT]["state"] == "waiting" and not box.exits()
    for _ in range(8):  # more looks than there are deaths before a slot is given up
        at = reading["supervisor"]["heartbeat_at"]
        reading = wait_for(
            lambda at=at: (new := snapshot(box.root, HOST))["supervisor"]["heartbeat_at"] > at and new, "another look"
        )
    assert reading["supervisor"]["slots"][SLOT]["deaths"] == 0
    assert len(told(box)) == 1, "no worker is started where there is no room"
    limit(supervisor.pid, resource.RLIM_INFINITY)
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4 and [entry["code"] for entry in box.exits()] == [5]


def test_a_log_that_cannot_be_opened_for_lack_of_room_is_no_death(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import slot as slots

    box = make_box(TEXTS)

    def full(*words: object) -> subprocess.Popen[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slots, "start_worker", full)
    slot = slots.Slot(box.folder, box.told, box.told.slots[0])
    for _ in range(9):
        slot.not_before = 0.0
        slot.step()
    assert (slot.state, slot.deaths) == ("waiting", 0)
    assert "No space left" in slot.exits[0].reason


def test_what_a_reserve_holds_is_whole_or_nothing(make_box: MakeBox) -> None:
    box = make_box(TEXTS)
    path = box.folder.reserve(HOST)
    held = Reserve(path)
    assert reserve.read(path) == {}
    assert held.write({"a": "x" * 1000}) and reserve.read(path) == {"a": "x" * 1000}
    assert held.write({"b": 1}) and reserve.read(path) == {"b": 1}
    assert not held.write({"b": "x" * reserve.SIZE}) and reserve.read(path) == {"b": 1}
    with path.open("r+b") as file:
        file.seek(80)
        file.write(b"?")
    damaged = path.read_bytes()
    assert reserve.read(path) in ({}, {"b": 1}) and len(damaged) == reserve.SIZE
    path.write_bytes(b"\xff" * 100)
    assert reserve.read(path) == {}
    assert Reserve(path).write({"c": 1}) and reserve.read(path) == {"c": 1}


@pytest.mark.parametrize("kept", [{"report": 7, "exits": 7}, {"report": {"heartbeat_at": "x"}}, {"exits": {SLOT: 3}}])
def test_a_reserve_that_holds_something_else_changes_no_reading(make_box: MakeBox, kept: dict[str, object]) -> None:
    box = make_box(TEXTS)
    before = snapshot(box.root, HOST)
    Reserve(box.folder.reserve(HOST)).write(kept)
    after = snapshot(box.root, HOST)
    assert (after["supervisor"], after["slots"]) == (before["supervisor"], before["slots"])


def test_an_older_word_in_the_reserve_does_not_hide_a_newer_file(make_box: MakeBox) -> None:
    box = make_box(TEXTS)
    write_json(box.folder.supervisor(HOST), {"heartbeat_at": 20.0, "slots": {}})
    write_json(box.folder.exits(SLOT), {"exits": [{"at": 10.0, "reason": "new"}]})
    held = Reserve(box.folder.reserve(HOST))
    held.write({"report": {"heartbeat_at": 10.0}, "exits": {SLOT: {"at": 9.0, "reason": "old"}}})
    reading = snapshot(box.root, HOST)
    assert reading["supervisor"]["heartbeat_at"] == 20.0 and [e["reason"] for e in told_of(reading)] == ["new"]
    held.write({"report": {"heartbeat_at": 30.0}, "exits": {SLOT: {"at": 29.0, "reason": "disk full"}}})
    reading = snapshot(box.root, HOST)
    assert reading["supervisor"]["heartbeat_at"] == 30.0
    assert [e["reason"] for e in told_of(reading)] == ["new", "disk full"]


def told_of(reading: dict[str, dict[str, dict[str, list[dict[str, str]]]]]) -> list[dict[str, str]]:
    return reading["slots"][SLOT]["exits"]


@pytest.mark.process
def test_room_is_what_a_write_finds(make_box: MakeBox) -> None:
    box = make_box(TEXTS)
    box.folder.parts.mkdir()
    assert has_room(box.folder.parts) and list(box.folder.parts.iterdir()) == []
    code = (
        "import resource, sys; from pathlib import Path; from worker.room import has_room; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); sys.exit(has_room(Path(sys.argv[1])))"
    )
    done = subprocess.run([box.assignment["python"], "-c", code, str(box.folder.parts)], cwd=box.root, check=False)
    assert done.returncode == 0 and os.listdir(box.folder.parts) == []  # noqa: PTH208
    assert json.loads(box.folder.assignment(HOST).read_text())
