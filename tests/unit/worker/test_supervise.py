"""The supervisor of a host: what it does about workers that end, hang, or were there before it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forking
import numpy as np
import pytest
from box import HELPERS, HOST, SLOT, Box, MakeBox, codes, failing, waiting
from waiting import wait_for

from worker import process, supervise
from worker.encode import EXIT_BUSY, EXIT_REFUSED
from worker.files import read_json, write_json
from worker.snapshot import snapshot

BY_SOMEBODY = "killed (SIGKILL): the system's memory killer, or a person"
TEXTS = [f"text {'word ' * (i % 7)}{i}" for i in range(16)]


def workers_started(box: Box) -> int:
    """How many workers the supervisors of this folder started."""
    return box.folder.log(f"host_{HOST}").read_text().count(" started, ")


# ----------------------------------------------------------------------------------------------------- a whole host


@pytest.mark.process
def test_two_slots_do_a_whole_corpus(make_box: MakeBox, tiny_bert: Path) -> None:
    """With a real model and torch; everything else in this file has a light stand-in for the model."""
    box = make_box(TEXTS, slots=2, model=tiny_bert, python=forking.python())
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.parts() == [(0, 4), (4, 8), (8, 12), (12, 16)]
    box.sums()
    assert all(np.load(box.folder.part(*part)).shape == (4, 32) for part in box.parts())
    reading = snapshot(box.root, HOST)
    assert not reading["supervisor"]["working"] and not reading["supervisor_alive"]
    assert {name: slot["report"]["state"] for name, slot in reading["slots"].items()} == {
        "cluster0_gpu0": "done",
        "cluster0_gpu1": "done",
    }


@pytest.mark.process
def test_nothing_left_starts_nothing(make_box: MakeBox) -> None:
    box = make_box(TEXTS, light=True)
    assert box.end(box.supervisor()) == 0
    assert box.end(box.supervisor()) == 0
    assert workers_started(box) == 1


@pytest.mark.process
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_no_assignment_is_refused(make_box: MakeBox, content: bytes | None) -> None:
    box = make_box(TEXTS)
    path = box.folder.assignment(HOST)
    path.unlink() if content is None else path.write_bytes(content)
    assert box.end(box.supervisor()) == EXIT_REFUSED


# ------------------------------------------------------------------------------------------------- workers that end


@pytest.mark.process
def test_a_killed_worker_is_started_again_and_its_end_is_on_file(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True)
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    first = box.alone()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4
    (entry,) = box.exits()
    assert (entry["code"], entry["left"], entry["deaths"]) == (-9, 12, 1)
    assert entry["reason"] == BY_SOMEBODY
    assert workers_started(box) == 2


@pytest.mark.process
def test_the_rows_of_a_slot_that_is_given_up_are_done_by_its_neighbour(make_box: MakeBox) -> None:
    """Though the neighbour was done long before: it is started once more, and nobody had to be there."""
    box = make_box(TEXTS, slots=2, light=True)
    light = box.assignment["python"]
    failing(box, f'case "$*" in *gpu1*) exec {light} "$@";; *) sleep 1; echo no such GPU; exit 1;; esac')
    box.folder.lock("x").parent.mkdir(parents=True)
    hold = os.open(box.folder.rows_lock, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(hold, fcntl.LOCK_EX, 8, 0)  # so that it cannot help before
    child = box.supervisor()
    wait_for(lambda: box.supervised("cluster0_gpu0").get("state") == "fenced", "it is given up")
    assert box.parts() == [(8, 12), (12, 16)]
    os.close(hold)
    wait_for(lambda: len(box.parts()) == 4, "the neighbour does its rows")
    assert box.end(child) == 0, box.logs()
    assert box.record(0, 4)["slot"] == "cluster0_gpu1"
    assert box.supervised("cluster0_gpu0")["state"] == "done"
    assert box.supervised("cluster0_gpu1")["state"] == "done"
    assert "no such GPU" in box.folder.log("cluster0_gpu0").read_text()


@pytest.mark.process
@pytest.mark.parametrize(
    ("commands", "code", "reason"),
    [
        ("exit 1", 1, "exit code 1"),
        ("kill -KILL $$", -9, BY_SOMEBODY),
        ("kill -SEGV $$", -11, "killed by SIGSEGV"),
        ("exit 0", 0, "ended as if done, but rows are left"),
    ],
)
def test_five_deaths_without_progress_are_enough(make_box: MakeBox, commands: str, code: int, reason: str) -> None:
    box = make_box(TEXTS)
    box.save(back_off_s=[0.01] * 5)
    failing(box, commands)
    assert box.end(box.supervisor()) == 1
    assert box.supervised()["state"] == "fenced"
    assert [(e["code"], e["reason"], e["deaths"], e["left"]) for e in box.exits()] == [
        (code, reason, deaths, 16) for deaths in range(1, 6)
    ]


@pytest.mark.process
def test_a_refusal_is_not_tried_again(make_box: MakeBox) -> None:
    box = make_box(TEXTS, light=True)
    box.folder.shard(0, 16).write_text("something else")
    assert box.end(box.supervisor()) == 1
    assert codes(box) == [EXIT_REFUSED]
    assert "expected sha256" in box.exits()[0]["reason"]  # the worker's own words


@pytest.mark.process
def test_a_python_that_is_not_there_is_a_reason_not_a_crash(make_box: MakeBox) -> None:
    box = make_box(TEXTS, python="/no/such/python")
    box.save(back_off_s=[0.01] * 5)
    assert box.end(box.supervisor()) == 1
    assert box.supervised()["state"] == "fenced"
    assert "cannot start /no/such/python" in box.exits()[-1]["reason"]


@pytest.mark.process
def test_progress_makes_up_for_deaths(make_box: MakeBox) -> None:
    """A worker that dies after every part still comes to its end."""
    box = make_box(TEXTS, part_rows=2)
    box.save(back_off_s=[0.01] * 5)
    failing(
        box,
        'n=$(ls parts 2>/dev/null | wc -l); mkdir -p parts; touch "parts/$(printf rows_%09d_%09d.json $((2 * n)) '
        '$((2 * n + 2)))"; exit 1',
    )
    assert box.end(box.supervisor()) == 0
    assert [entry["deaths"] for entry in box.exits()] == [1] * 7 + [2]  # the last one had done it all


@pytest.mark.process
def test_a_hanging_worker_is_ended_and_started_again(make_box: MakeBox) -> None:
    """A worker that is stopped, or waits for a hung device, shows no sign of work."""
    box = make_box(waiting(6), light=True, stall_s=5.0)
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    hanging = box.alone()
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    (entry,) = box.exits()
    assert entry["code"] == -9 and "no sign of work for 5 s" in entry["reason"]


@pytest.mark.process
def test_a_load_that_hangs_holds_no_rows_and_holds_up_nobody(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbour does all of its rows; what hangs is ended then, long before its patience is over."""
    box = make_box(TEXTS, slots=2, light=True, first_progress_s=600.0)
    (box.root / f"device.{SLOT}").write_text("hangs while loading")
    code = box.root / "worker" / "slot.py"
    code.write_text(code.read_text().replace("IDLE_S = 10.0", "IDLE_S = 0.5"))
    child = box.start("supervise", python=box.assignment["python"])
    assert box.end(child) == 0, box.logs()
    assert len(box.sums()) == 4
    assert {box.record(*part)["slot"] for part in box.parts()} == {"cluster0_gpu1"}
    assert "others did its rows" in box.exits()[0]["reason"]


@pytest.mark.process
def test_the_rows_that_a_worker_died_of_are_its_neighbours_once_it_hangs_when_it_loads(make_box: MakeBox) -> None:
    """What it was at is not taken from it while it may try again; one that hangs does not."""
    box = make_box(waiting(6, 14), slots=2, light=True, first_progress_s=600.0)
    code = box.root / "worker" / "slot.py"
    code.write_text(code.read_text().replace("IDLE_S = 10.0", "IDLE_S = 0.5"))
    child = box.start("supervise", python=box.assignment["python"])
    wait_for(lambda: (box.at_hand(), box.at_hand("cluster0_gpu1")) == ([6], [14]), "both at their second part")
    (box.root / f"device.{SLOT}").write_text("hangs while loading")
    worker = box.alone()
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    box.go()
    assert box.end(child) == 0, box.logs()
    assert len(box.sums()) == 4
    assert box.record(4, 8)["slot"] == "cluster0_gpu1"
    reasons = [entry["reason"] for entry in box.exits()]
    assert "SIGKILL" in reasons[0] and "no sign of work" in reasons[1]


# ------------------------------------------------------------------------------------------------ documents that kill


@pytest.mark.process
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("poison", ["POISON", "TOKENIZE"])
def test_a_document_that_kills_its_worker_is_found_and_all_others_are_done(
    make_box: MakeBox, poison: str, ahead: bool
) -> None:
    """`ahead`: batches are begun, and the next part is tokenized, before others have ended, so more is suspected."""
    texts = [*TEXTS[:9], f"{TEXTS[9]} {poison}", *TEXTS[10:]]
    box = make_box(texts, part_rows=8, light=True)
    if ahead:
        (box.root / "ahead").touch()
    box.save(back_off_s=[0.01] * 5)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == [9]
    record = json.loads(box.folder.quarantined(9).read_text())
    assert record["reason"] == "ended 4 workers, the last ones alone; on the processor: killed by SIGKILL"
    assert record["slot"] == SLOT
    assert box.parts() == [(0, 8), (8, 9), (10, 16)]
    assert codes(box) == [-9] * 4


@pytest.mark.process
@pytest.mark.parametrize("ahead", [False, True])
def test_two_such_documents_in_one_part_are_both_found(make_box: MakeBox, ahead: bool) -> None:
    texts = ["POISON word", *TEXTS[1:5], "POISON more words", *TEXTS[6:8]]
    box = make_box(texts, part_rows=8, light=True)
    if ahead:
        (box.root / "ahead").touch()
    box.save(back_off_s=[0.01] * 5)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == [0, 5]
    assert box.parts() == [(1, 5), (6, 8)]


@pytest.mark.process
def test_rows_that_only_kill_together_are_done_in_smaller_batches(make_box: MakeBox) -> None:
    """What the system's own killer does to a worker that takes too much memory leaves no exception to catch."""
    box = make_box(["TWO of many"] * 8, part_rows=8, light=True)
    box.save(back_off_s=[0.01] * 5)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == []
    assert box.parts() == [(0, 8)]
    assert len(box.exits()) == 3


@pytest.mark.process
def test_kills_from_outside_give_up_no_document(make_box: MakeBox) -> None:
    """Three kills, each at the very same row, are chance until the row has killed twice alone."""
    box = make_box(waiting(2)[:4], light=True)
    supervisor = box.supervisor()
    suspects = box.folder.suspects(SLOT)
    for deaths in range(3):
        at_row_2 = {"rows": [2], "deaths": deaths, "boot": process.boot_id()}
        wait_for(lambda expected=at_row_2: read_json(suspects) == expected, "the row at hand")
        pid = box.alone()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert box.given_up() == [] and box.parts() == [(0, 4)]


@pytest.mark.process
@pytest.mark.parametrize("how", ["kill", "raise"])
def test_where_nothing_can_be_encoded_no_document_is_blamed_and_the_slot_is_given_up(
    make_box: MakeBox, how: str
) -> None:
    """A GPU that fails, or software that is damaged, ends the worker at every text, also alone."""
    box = make_box(TEXTS, part_rows=8, light=True)
    box.save(back_off_s=[0.01] * 5)
    broken = box.folder.root / "broken"
    broken.write_text(how)
    box.end(box.supervisor())
    assert box.given_up() == [] and box.parts() == []
    assert len(box.exits()) == 5, "given up after five deaths"
    assert "tried alone" not in box.logs()
    broken.unlink()
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == [] and box.parts() == [(0, 8), (8, 16)]


# ---------------------------------------------------------------------------------------------- before and after it


@pytest.mark.process
def test_its_workers_outlive_it_and_the_next_one_takes_them_over(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True)
    first = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    pid = box.alone()
    first.kill()
    box.end(first)
    second = box.supervisor()
    wait_for(lambda: f"worker {pid} lives on, taken over" in box.logs(), "the worker taken over")
    box.go()
    assert box.end(second) == 0, box.logs()
    assert workers_started(box) == 1 and box.exits() == []
    assert len(box.sums()) == 4


@pytest.mark.process
def test_a_worker_that_has_not_reported_yet_is_taken_over_too(make_box: MakeBox) -> None:
    """Between its start and its first report only the supervisor that started it knows its number."""
    box = make_box(TEXTS)
    failing(box, "exec sleep 600")
    first = box.supervisor()
    mute = wait_for(lambda: box.supervised().get("process"), "a worker on file")
    first.kill()
    box.end(first)
    second = box.supervisor()
    wait_for(lambda: "taken over" in box.logs(), "taken over")
    assert workers_started(box) == 1
    second.terminate()
    box.end(second)
    assert not process.alive(mute)


@pytest.mark.process
def test_a_worker_started_by_hand_is_taken_over_not_doubled(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True)
    by_hand = box.worker()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    supervisor = box.supervisor()
    wait_for(lambda: "taken over" in box.logs(), "taken over")
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert workers_started(box) == 0
    assert by_hand.wait(5) == 0


@pytest.mark.process
@pytest.mark.parametrize("taken_over", [False, True])
def test_a_sigterm_from_outside_is_an_end_like_another(make_box: MakeBox, taken_over: bool) -> None:
    """Nobody asked for a stop: the worker is started again, and its end is told as what it was.

    The exit code of one that was taken over cannot be had from the system: it stands in its report.
    """
    box = make_box(waiting(6), light=True)
    box.save(back_off_s=[0.01] * 5)
    by_hand = box.worker() if taken_over else None
    if by_hand:
        wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand() == [6] and box.supervised().get("process"), "a worker at its second part")
    first = box.report()["process"]
    os.kill(first["pid"], signal.SIGTERM)
    if by_hand:
        box.end(by_hand)  # or it would be there as a zombie
    wait_for(lambda: box.alone() not in (None, first["pid"]), "the next worker")
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert [(entry["code"], entry["reason"]) for entry in box.exits()] == [(143, "ended by SIGTERM, not by us")]
    assert box.exits()[0]["state"] == "waiting"
    assert box.given_up() == [] and len(box.sums()) == 4


@pytest.mark.process
def test_an_old_report_is_not_taken_for_a_new_workers_last_words(make_box: MakeBox) -> None:
    box = make_box(TEXTS)
    box.save(back_off_s=[0.01] * 5)
    old = {"pid": 1, "start": "1", "boot": process.boot_id()}
    write_json(box.folder.progress(SLOT), {"process": old, "reason": "of last week", "exit_code": 143})
    failing(box, "exit 4")
    assert box.end(box.supervisor()) == 1
    assert {entry["reason"] for entry in box.exits()} == {"exit code 4"}


@pytest.mark.process
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b'{"exits": ', b"[]"])
def test_reports_damaged_by_a_power_cut_are_no_obstacle(make_box: MakeBox, content: bytes) -> None:
    """They are not fsynced: an empty file under the final name is what a power cut leaves."""
    box = make_box(TEXTS, light=True)
    for path in (
        box.folder.exits(SLOT),
        box.folder.progress(SLOT),
        box.folder.supervisor(HOST),
        box.folder.suspects(SLOT),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert len(box.sums()) == 4


@pytest.mark.process
def test_a_second_supervisor_leaves(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True)
    first = box.supervisor()
    wait_for(lambda: box.supervised(), "the first one's report")
    assert box.end(box.supervisor()) == EXIT_BUSY
    box.go()
    assert box.end(first) == 0
    assert workers_started(box) == 1


@pytest.mark.process
def test_its_lock_is_not_held_by_its_workers(make_box: MakeBox) -> None:
    box = make_box(TEXTS)
    failing(box, "exec sleep 600")
    first = box.supervisor()
    wait_for(lambda: box.supervised().get("process"), "a worker")
    first.kill()
    box.end(first)
    lock = supervise.take_lock(box.folder.supervisor_lock(HOST))
    assert lock is not None
    os.close(lock)
    second = box.supervisor()
    wait_for(lambda: "taken over" in box.logs(), "taken over")
    second.terminate()
    box.end(second)


# ---------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.process
@pytest.mark.parametrize("how", ["a request", "a signal"])
def test_stopping_ends_all_workers_and_keeps_what_is_committed(make_box: MakeBox, how: str) -> None:
    box = make_box(waiting(6, 14), slots=2, light=True)
    names = ["cluster0_gpu0", "cluster0_gpu1"]
    supervisor = box.supervisor()
    wait_for(lambda: [box.at_hand(name) for name in names] == [[6], [14]], "both at their second part")
    pids = [box.report(name)["process"] for name in names]
    if how == "a request":
        write_json(box.folder.stop_request(HOST), {"stop": True})
    else:
        supervisor.terminate()
    assert box.end(supervisor) == 1
    assert not any(map(process.alive, pids))
    assert {box.supervised(name)["state"] for name in names} == {"stopped"}
    assert {box.report(name)["state"] for name in names} == {"stopped"}
    said = [entry["reason"] for name in names for entry in box.exits(name)]
    assert said == ([] if how == "a request" else ["with its supervisor, ended by SIGTERM, not by us"] * 2)
    assert box.parts() == [(0, 4), (8, 12)] and box.leftovers() == []
    box.go()
    box.folder.stop_request(HOST).unlink(missing_ok=True)
    assert box.end(box.supervisor()) == 0
    assert len(box.sums()) == 4


@pytest.mark.process
def test_stopping_ends_the_worker_behind_a_script_too(make_box: MakeBox) -> None:
    """Where the host's Python is a script that does not give way to it, ending the script leaves the worker."""
    box = make_box(waiting(6), light=True)
    light = box.assignment["python"]
    failing(box, f'{light} "$@"')
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand(), "rows at hand")
    behind = box.report()["process"]
    assert behind["pid"] != box.supervised()["process"]["pid"]
    supervisor.terminate()
    box.end(supervisor)
    assert not process.alive(behind)


@pytest.mark.process
def test_a_folder_that_vanishes_ends_it_and_nothing_takes_its_place(make_box: MakeBox) -> None:
    box = make_box(waiting(6), light=True)
    supervisor = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    worker = box.report()["process"]
    away = box.root.with_name("away")
    box.root.rename(away)
    try:
        assert box.end(supervisor) == 1
        assert not process.alive(worker)
        assert not box.folder.supervisor(HOST).exists() and not box.folder.exits(SLOT).exists()
    finally:
        shutil.rmtree(box.root, ignore_errors=True)  # a worker's last report, at most
        away.rename(box.root)


@pytest.mark.process
def test_processes_that_only_look_alike_survive(make_box: MakeBox) -> None:
    """The same command line, the same folder, even the same slot: never recorded, so never signalled."""
    box = make_box(waiting(6), light=True)
    idle = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    named = ["-m", "worker", "encode", "--root", str(box.root), "--host", HOST, "--slot", SLOT]
    decoys = [
        subprocess.Popen([*idle, *named], cwd=box.root),
        subprocess.Popen([*idle, "-m", "worker", "supervise", "--root", str(box.root), "--host", HOST]),
        subprocess.Popen(["python", *idle[1:], *named], executable=sys.executable),
    ]
    try:
        for child in decoys:  # a report that names one of them, but not with its start time
            write_json(
                box.folder.progress(SLOT),
                {"process": {**process.identify(child.pid), "start": "1"}, "state": "running"},
            )
        supervisor = box.supervisor()
        wait_for(lambda: box.at_hand(), "rows at hand")
        pid = box.alone()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: box.exits() and box.alone(), "a second worker")
        supervisor.terminate()
        box.end(supervisor)
        assert [child.poll() for child in decoys] == [None] * 3
    finally:
        for child in decoys:
            child.kill()
            child.wait()


# --------------------------------------------------------------------------------------------------- disks and clocks


@pytest.mark.process
def test_a_disk_that_takes_no_report_does_not_end_it(make_box: MakeBox) -> None:
    """A folder where its report should be: every write of it fails, as on a full disk."""
    box = make_box(TEXTS, light=True)
    (box.folder.supervisor(HOST) / "in the way").mkdir(parents=True)
    (box.folder.exits(SLOT) / "in the way").mkdir(parents=True)
    failing(box, f'[ -e tried ] && exec {box.assignment["python"]} "$@"; touch tried; exit 1')
    assert box.end(box.supervisor()) == 0, box.logs()
    assert len(box.sums()) == 4


@pytest.mark.process
def test_a_supervisor_may_be_given_a_relative_folder(make_box: MakeBox) -> None:
    box = make_box(TEXTS, light=True)
    argv = [sys.executable, "-m", "worker", "supervise", "--root", "run1", "--host", HOST]
    environment = {**os.environ, "PYTHONPATH": str(box.root)}
    done = subprocess.run(argv, cwd=box.root.parent, env=environment, stdout=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    assert len(box.sums()) == 4


def test_the_stand_in_has_the_face_of_the_real_encoder() -> None:
    """What the other tests of this file rest on."""
    pytest.importorskip("torch")
    import inspect

    sys.path.insert(0, str(HELPERS))
    import poison

    from worker.encoder import Encoder

    for name in (
        "__init__",
        "lengths",
        "encode",
        "cut",
        "padding",
        "bad_rows",
        "redo",
        "describe",
        "versions",
        "readers",
        "as_the_library",
    ):
        real, stand_in = (inspect.signature(getattr(kind, name)) for kind in (Encoder, poison.Encoder))
        assert list(real.parameters) == list(stand_in.parameters), name


@pytest.mark.process
def test_a_folder_that_went_is_not_made_anew_by_the_last_words_of_its_workers(make_box: MakeBox) -> None:
    """Without its mark it would be nobody's, and refused from then on."""
    box = make_box(waiting(6), light=True)
    child = box.supervisor()
    wait_for(lambda: box.at_hand() == [6], "one part and a bit")
    away = box.root.with_name("away")
    box.root.rename(away)
    assert box.end(child) != 0
    wait_for(lambda: not box.alone(), "its worker is gone")
    assert not box.root.exists()
    away.rename(box.root)
    box.go()
    assert box.end(box.supervisor()) == 0 and len(box.parts()) == 4
