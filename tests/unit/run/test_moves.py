"""Which rows move, and where to: every row keeps exactly one owner, parts stay whole, whoever is faster gets more."""

import random

import made_up
import pytest

from runbook_lib.errors import DataError
from runbook_lib.run import moves, plan
from worker.rows import count, planned_parts


@pytest.fixture
def drawn(tmp_path):
    """A plan of 4 slots with 25 rows each but the last, in parts of 4; two slots a host."""
    made = made_up.run_folder(tmp_path, count=98, slots=4).plan
    slots = tuple(
        plan.Slot(f"cluster{i // 2}_gpu{i % 2}", ("one", "two")[i // 2], i % 2, "cpu", 1, slot.start, slot.stop)
        for i, slot in enumerate(made.slots)
    )
    return plan.Plan(**{**made.__dict__, "slots": slots})


def all_parts(made):
    return sorted(
        part
        for slot in made.slots
        for start, stop in made.ranges(slot)
        for part in planned_parts(start, stop, made.part_rows, made.grid(start))
    )


def test_all_that_is_left_of_a_host_goes_to_the_other_in_whole_parts(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    home = [(0, 4), (8, 12)]
    found = moves.evacuate(drawn, home, one, two, {}, "why")
    after = drawn.moved(found)
    assert after.epoch == 2 and {move.epoch for move in found} == {2}
    assert [after.ranges(slot) for slot in one] == [[(0, 4), (8, 12)], []]
    assert all_parts(after) == all_parts(drawn)
    sizes = [count(after.ranges(slot)) - slot.rows for slot in two]
    assert sum(sizes) == one[-1].stop - 8 and abs(sizes[0] - sizes[1]) <= 8
    assert len(found) <= 5  # side by side goes as one


def test_who_is_faster_gets_more(drawn):
    found = moves.evacuate(
        drawn, [], drawn.slots[:1], drawn.slots[2:], {drawn.slots[2].slot: 30.0, drawn.slots[3].slot: 10.0}, ""
    )
    got = {
        slot.slot: sum(move.stop - move.start for move in found if move.target == slot.slot) for slot in drawn.slots[2:]
    }
    assert got[drawn.slots[2].slot] > got[drawn.slots[3].slot]


def test_nothing_moves_to_nobody_and_nothing_that_is_home(drawn):
    assert moves.evacuate(drawn, [], drawn.slots[:2], [], {}, "") == []
    assert moves.evacuate(drawn, [(0, drawn.rows)], drawn.slots[:2], drawn.slots[2:], {}, "") == []


def test_a_tail_leaves_the_first_parts_to_who_has_them(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    home = [(two[0].start, drawn.rows), (0, 4)]
    found = moves.rebalance(drawn, home, one, two, {}, "idle")
    after = drawn.moved(found)
    for slot in one:
        assert len(moves.left(after, slot, home)) >= moves.AHEAD
        assert after.ranges(slot)[0][0] == slot.start
    moved = sum(move.stop - move.start for move in found)
    assert 0 < moved <= count(moves.left(drawn, one[0], home) + moves.left(drawn, one[1], home)) / 2


def test_a_short_tail_stays(drawn):
    one, two = drawn.slots[:1], drawn.slots[2:]
    assert moves.rebalance(drawn, [(0, one[0].stop - 5)], one, two, {}, "idle") == []


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_lost_one_after_another_every_row_keeps_one_owner(drawn, seed):
    """Random losses and splits in a row; parts that were never committed stay those of the first plan."""
    rng, now, home = random.Random(seed), drawn, []
    for _ in range(6):
        left = [part for part in all_parts(now) if part not in home]
        home += rng.sample(left, min(len(left), rng.randrange(4)))
        slots = rng.sample(list(now.slots), 2)
        rates = {slot.slot: rng.uniform(0.1, 50) for slot in now.slots if rng.random() < 0.7}
        others = [slot for slot in now.slots if slot not in slots]
        found = rng.choice([moves.evacuate, moves.rebalance])(now, home, slots, others, rates, "")
        if found:
            now = now.moved(found)  # which refuses gaps and overlaps
        assert all_parts(now) == all_parts(drawn)
        for slot in now.slots:
            files = now.files(slot)
            assert all(any(a <= low and high <= b for a, b in files) for low, high in now.ranges(slot))


def test_rows_that_are_not_the_sources_are_refused(drawn):
    move = plan.Move(2, 30, 34, drawn.slots[0].slot, drawn.slots[2].slot, "mistaken")
    with pytest.raises(DataError, match="overlap: rows 30-34 belong to 2 ranges"):
        drawn.moved([move])


def test_a_revised_plan_is_read_back_as_it_was(drawn, tmp_path):
    after = drawn.moved(moves.evacuate(drawn, [], drawn.slots[:1], drawn.slots[2:], {}, "silent"))
    after.save(tmp_path / "plan.json")
    assert plan.load(tmp_path / "plan.json") == after
    assert after.first() == drawn


def test_rows_never_go_back_to_a_host_that_had_them(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    home = [(two[0].start, drawn.rows)]
    moved = drawn.moved(moves.rebalance(drawn, home, one, two, {}, "idle"))
    given = [(move.start, move.stop) for move in moved.moves]
    assert given
    home = [(0, given[0][0])]  # now the first is done, and the second has what it was given and its own
    back = moves.rebalance(moved, home, two, one, {}, "idle")
    assert back and all(move.start >= two[0].start for move in back)
    rest = moved.moved(back)
    assert moves.rebalance(rest, [(two[0].start, rest.rows)], two, one, {}, "idle") == []  # its given rows only


def test_a_move_that_gains_no_more_than_loading_the_model_is_none(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    home = [(two[0].start, drawn.rows)]
    rates = {slot.slot: 1.0 for slot in drawn.slots}
    gained = moves.rebalance(drawn, home, one, two, rates, "idle")
    rows = sum(move.stop - move.start for move in gained)
    assert moves.rebalance(drawn, home, one, two, rates, "idle", load_s=rows / 2 + 1) == []
    assert moves.rebalance(drawn, home, one, two, rates, "idle", load_s=rows / 2 - 1) == gained
    late = moves.rebalance(drawn, home, one, two, rates, "idle", begin_s=8.0)
    assert 0 < sum(move.stop - move.start for move in late) < rows


def test_who_is_nearly_done_gets_less_than_who_is_done(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    rates = {slot.slot: 1.0 for slot in drawn.slots}
    rows = [
        sum(move.stop - move.start for move in moves.rebalance(drawn, home, one, two, rates, "soon"))
        for home in ([(two[0].start, drawn.rows)], [(two[0].start + 16, drawn.rows)], [])
    ]
    assert rows[0] > rows[1] > rows[2] == 0


@pytest.mark.parametrize("seed", range(20))
def test_tails_that_are_shared_again_and_again_come_to_an_end(drawn, seed):
    """However rates change and whoever is idle: no row is twice at the same host, so there are few moves."""
    rng, now, home = random.Random(seed), drawn, []
    for _ in range(12):
        home += rng.sample([p for p in all_parts(now) if p not in home], 1)
        names = ["one", "two"]
        rng.shuffle(names)
        sources, targets = ([slot for slot in now.slots if slot.host == name] for name in names)
        rates = {slot.slot: rng.uniform(0.5, 50) for slot in now.slots}
        found = moves.rebalance(now, home, sources, targets, rates, "")
        now = now.moved(found) if found else now
    owners = {row: ["one" if row < now.slots[2].start else "two"] for row in range(now.rows)}
    for move in now.moves:
        host = next(slot.host for slot in now.slots if slot.slot == move.target)
        for row in range(move.start, move.stop):
            assert host not in owners[row]
            owners[row].append(host)


@pytest.mark.parametrize(
    ("ends", "early", "late"),
    [
        ({}, "", ""),
        ({"a": (0.0, 0.0), "b": (30.0, 10.0)}, "a", "b"),  # one that is done counts as fast as the others
        ({"a": (0.0, 0.0)}, "a", ""),
        ({"a": (50.0, 10.0), "b": (300.0, 10.0), "c": (400.0, 10.0)}, "a", "bc"),
        ({"a": (90.0, 10.0), "b": (300.0, 10.0)}, "", "b"),  # too soon: it has enough to do
        ({"a": (20.0, 10.0), "b": (21.0, 10.0), "c": (23.0, 10.0)}, "", "c"),  # they end together
        ({"a": (10.0, 10.0), "b": (40.0, 10.0), "c": (25.0, 10.0)}, "a", "bc"),
        ({"a": (10.0, 10.0), "b": (40.0, 1000.0)}, "a", "b"),
        ({"new": (0.0, 0.0)} | {str(i): (300.0, 10.0) for i in range(9)}, ("new",), "012345678"),
    ],
)
def test_who_ends_soon_and_before_the_others_gets_rows_of_who_ends_after_them(ends, early, late):
    assert moves.early_and_late(ends, 60.0) == (set(early), set(late))


def test_a_slot_keeps_what_it_begins_before_it_hears_of_the_move(drawn):
    one, two = drawn.slots[:2], drawn.slots[2:]
    home = [(two[0].start, drawn.rows)]
    for rate, kept in ((0.1, 1), (0.4, 2), (0.8, 3)):  # parts of 4 rows, and 10 s until a plan is there
        rates = {slot.slot: rate for slot in drawn.slots} | {slot.slot: 1e9 for slot in two}
        after = drawn.moved(moves.rebalance(drawn, home, one, two, rates, "idle"))
        assert [after.ranges(slot) for slot in one] == [[(slot.start, slot.start + 4 * kept)] for slot in one]
