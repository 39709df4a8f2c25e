"""Which rows a worker computes next: its own, then its neighbours'; never two of them the same."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest
from box import HOST, MakeBox, put_shard
from waiting import wait_for

from worker.files import write_json
from worker.rows import planned_parts
from worker.share import Claims, Refused, Share

ONE, TWO = "cluster0_gpu0", "cluster0_gpu1"
TEXTS = [f"text {row}" for row in range(16)]
HOLD = """
import sys, time
from pathlib import Path
from worker.layout import HostFolder
from worker.share import Claims
assert Claims(HostFolder(Path(sys.argv[1]))).take((int(sys.argv[2]), int(sys.argv[3])))
print("held", flush=True)
time.sleep(300)
"""


@pytest.fixture
def holding(make_box: MakeBox):
    """Claims rows in a process of its own, as another worker does: `holding(box, 0, 4)`."""
    started = []

    def hold(box, start, stop):
        argv = [sys.executable, "-c", HOLD, str(box.root), str(start), str(stop)]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=box.root)
        started.append(child)
        assert child.stdout.readline() == b"held\n"
        return child

    yield hold
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def sharing():
    """A slot's share, closed when the test ends: `sharing(box, slot)`."""
    with contextlib.ExitStack() as stack:
        yield lambda box, slot: stack.enter_context(contextlib.closing(Share(box.folder, HOST, slot)))


def taken(share: Share) -> list[tuple[tuple[int, int], str]]:
    """What a share hands out, each committed as it comes."""
    found = []
    while task := share.next():
        found.append((task[0], task[2]))
        path = share.folder.part(*task[0]).with_suffix(".json")
        path.parent.mkdir(exist_ok=True)
        path.touch()
        share.release(task[0])
    return found


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ((0, 10, 4, 0), [(0, 4), (4, 8), (8, 10)]),
        ((4, 12, 4, 0), [(4, 8), (8, 12)]),
        ((6, 12, 4, 0), [(6, 8), (8, 12)]),  # the rest of a part stays a part of its own
        ((13, 20, 4, 10), [(13, 14), (14, 18), (18, 20)]),
        ((5, 7, 4, 4), [(5, 7)]),
        ((4, 4, 4, 0), []),
    ],
)
def test_parts_are_cut_where_the_first_plan_cuts_them(rows, parts):
    assert planned_parts(*rows) == parts


def test_own_rows_come_in_order_and_the_neighbours_from_the_end(make_box: MakeBox, sharing) -> None:
    share = sharing(make_box(TEXTS, slots=2), ONE)
    assert taken(share) == [((0, 4), ONE), ((4, 8), ONE), ((12, 16), TWO), ((8, 12), TWO)]


@pytest.mark.process
def test_what_another_worker_computes_is_left_to_it(make_box: MakeBox, sharing, holding) -> None:
    box = make_box(TEXTS, slots=2)
    holding(box, 12, 16)
    assert taken(sharing(box, ONE)) == [((0, 4), ONE), ((4, 8), ONE), ((8, 12), TWO)]


@pytest.mark.process
def test_own_rows_that_another_one_computes_are_waited_for(make_box: MakeBox, sharing, holding) -> None:
    """It may die: then they are done here after all."""
    box = make_box(TEXTS[:4])
    child = holding(box, 0, 4)
    share = sharing(box, ONE)
    os.kill(child.pid, signal.SIGKILL)
    assert taken(share) == [((0, 4), ONE)]


@pytest.mark.process
def test_a_claim_ends_with_its_process_and_covers_its_rows_only(make_box: MakeBox, holding) -> None:
    box = make_box(TEXTS)
    child = holding(box, 4, 8)
    claims = Claims(box.folder)
    assert not claims.take((4, 8)) and not claims.take((0, 5)) and claims.take((0, 4)) and claims.take((8, 12))
    child.kill()
    child.wait()
    assert claims.take((4, 8))
    claims.close()


def test_without_locks_each_does_its_own(make_box: MakeBox, sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    assert taken(sharing(make_box(TEXTS, slots=2), TWO)) == [((8, 12), TWO), ((12, 16), TWO)]


def test_the_rows_that_a_neighbour_just_died_of_are_left_to_it_until_it_is_given_up(make_box: MakeBox, sharing) -> None:
    """A document that kills workers must not kill those of all slots."""
    box = make_box(TEXTS, slots=2)
    write_json(box.folder.suspects(TWO), {"rows": [13], "deaths": 1})
    share = sharing(box, ONE)
    assert taken(share)[2:] == [((8, 12), TWO)]
    write_json(box.folder.supervisor(HOST), {"slots": {TWO: {"state": "fenced"}}})
    assert taken(share) == [((12, 16), TWO)]


def test_a_neighbours_broken_shard_is_no_reason_to_end(make_box: MakeBox, sharing) -> None:
    box = make_box(TEXTS, slots=2)
    box.folder.shard(8, 16).write_text("something else")
    assert taken(sharing(box, ONE)) == [((0, 4), ONE), ((4, 8), ONE)]
    with pytest.raises(Refused, match="expected sha256"):
        sharing(box, TWO).next()


def test_a_new_assignment_holds_from_the_next_part_on(make_box: MakeBox, sharing) -> None:
    """Rows went to another host, others came; the file that was here before serves for what stayed."""
    box = make_box(TEXTS[:12])
    share = sharing(box, ONE)
    assert share.next()[0] == (0, 4)
    assert share.next()[0] == (4, 8)  # what is claimed does not come again
    for rows in ((0, 4), (4, 8)):
        share.release(rows)
    entry = box.assignment["slots"][0]["shards"][0]
    came = put_shard(box.folder, TEXTS * 3, 40, 44)
    box.assignment["slots"][0]["shards"] = [{**entry, "stop": 8}, {**came, "grid": 38}]
    box.save(epoch=2)
    assert [rows for rows, _ in taken(share)] == [(0, 4), (4, 8), (40, 42), (42, 44)]
    assert (share.assignment.epoch, share.rows) == (2, 12)


@pytest.mark.parametrize("text", ["", "{half", "[]", json.dumps({"slots": []})])
def test_an_assignment_that_cannot_be_read_changes_nothing(make_box: MakeBox, sharing, text: str) -> None:
    box = make_box(TEXTS[:4])
    share = sharing(box, ONE)
    box.folder.assignment(HOST).write_text(text)
    assert taken(share) == [((0, 4), ONE)]


@pytest.mark.process
def test_two_real_workers_never_compute_the_same_rows(make_box: MakeBox) -> None:
    """One of them has all the rows; what each computed stands in its log."""
    box = make_box(TEXTS, slots=2, part_rows=1, light=True)
    for shard in box.assignment["slots"][1]["shards"]:
        box.assignment["slots"][0]["shards"].append(shard)
    box.assignment["slots"][1]["shards"] = []
    box.save()
    children = [box.worker(ONE), box.worker(TWO)]
    assert [box.end(child) for child in children] == [0, 0], box.logs()
    wait_for(lambda: len(box.parts()) == 16, "all rows")
    assert box.logs().count("committed rows ") == 16 and "committed already" not in box.logs()


@pytest.mark.process
def test_a_slot_that_has_not_loaded_holds_none_of_its_rows(make_box: MakeBox):
    box = make_box(TEXTS, slots=2, light=True)
    (box.root / f"device.{ONE}").write_text("hangs while loading")
    hanging = box.worker(ONE)
    wait_for(lambda: box.report(ONE).get("state") == "loading model", "it loads")
    assert box.end(box.worker(TWO)) == 0, box.logs()
    assert {box.record(*part)["slot"] for part in box.parts()} == {TWO} and len(box.parts()) == 4
    hanging.kill()


def test_one_row_is_claimed_like_any_other(make_box: MakeBox, sharing):
    box = make_box(TEXTS, slots=2, part_rows=4)
    share = sharing(box, ONE)
    rows, shard, owner = share.one(10)
    assert (rows, owner, shard.read(*rows)) == ((10, 11), TWO, [TEXTS[10]])
    write_json(box.folder.quarantined(10), {})
    assert share.one(10) is None and share.one(99) is None


def test_rows_that_are_left_to_others_are_not_handed_out_again(make_box: MakeBox, sharing):
    share = sharing(make_box(TEXTS[:4], part_rows=4), ONE)
    share.leave([1])
    assert taken(share) == [((0, 1), ONE), ((2, 4), ONE)]
