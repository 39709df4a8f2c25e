"""The plan: cutting rows into shards, and the independent check of what was cut."""

import json
import random

import pytest

from runbook_lib.errors import DataError
from runbook_lib.run import plan


def made(**changes):
    ranges = plan.cut(10, 3)
    slots = tuple(
        plan.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, start, stop) for i, (start, stop) in enumerate(ranges)
    )
    fields = dict(
        run="r", epoch=1, documents=8, questions=2, corpus="c", model=plan.ModelIdentity("m", "r", "d", 4, True),
        dtype="float32", prompt="{text}", question_prompt="{text}", max_tokens=None, part_rows=2, slots=slots,
    )  # fmt: skip
    return plan.Plan(**{**fields, **changes})


@pytest.mark.parametrize("rows", [0, 1, 7, 16, 250_010])
@pytest.mark.parametrize("pieces", [1, 2, 3, 16, 128])
def test_shards_cover_every_row_once_and_differ_by_at_most_one(rows, pieces):
    ranges = plan.cut(rows, pieces)
    sizes = [stop - start for start, stop in ranges]
    assert len(ranges) == pieces
    assert max(sizes) - min(sizes) <= 1
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(rows))
    assert plan.problems(ranges, rows) == []


def test_the_founding_split_is_16_times_15625():
    assert {stop - start for start, stop in plan.cut(250_000, 16)} == {15_625}


def test_more_slots_than_rows_leaves_some_without_work():
    assert sum(start < stop for start, stop in plan.cut(3, 8)) == 3


def test_a_gap_is_named():
    assert plan.problems([(0, 3), (5, 10)], 10) == ["gap: rows 3-5 belong to nobody"]


def test_a_gap_at_either_end_is_named():
    assert plan.problems([(1, 9)], 10) == ["gap: rows 0-1 belong to nobody", "gap: rows 9-10 belong to nobody"]


def test_an_overlap_is_called_an_overlap():
    assert plan.problems([(0, 6), (4, 10)], 10) == ["overlap: rows 4-6 belong to 2 ranges"]


def test_a_range_outside_the_rows_is_named():
    assert "range 0-12 is not within 0-10" in plan.problems([(0, 12)], 10)


def test_the_older_125_010_split_is_refused():
    assert plan.problems([(0, 125_005), (125_010, 250_000)], 250_000)


def test_the_check_agrees_with_counting_rows_one_by_one():
    dice = random.Random(7)
    for _ in range(300):
        rows = dice.randrange(1, 30)
        ranges = [sorted((dice.randrange(rows + 1), dice.randrange(rows + 1))) for _ in range(dice.randrange(1, 6))]
        counted = [sum(start <= row < stop for start, stop in ranges) for row in range(rows)]
        assert (plan.problems(ranges, rows) == []) == all(n == 1 for n in counted)


def test_a_saved_plan_loads_as_the_same(tmp_path):
    made().save(tmp_path / "plan.json")
    assert plan.load(tmp_path / "plan.json") == made()


def test_a_changed_plan_is_refused_naming_the_file(tmp_path):
    path = tmp_path / "plan.json"
    made().save(path)
    path.write_text(path.read_text().replace('"documents": 8', '"documents": 9'))
    with pytest.raises(DataError, match=r"plan\.json: changed since it was written"):
        plan.load(path)


def test_a_plan_with_a_field_too_many_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    made().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "surprise": 1}))
    with pytest.raises(DataError, match="not a plan of this version"):
        plan.load(path)


def test_no_plan_says_which_notebook_makes_it(tmp_path):
    with pytest.raises(DataError, match="01_preflight"):
        plan.load(tmp_path / "plan.json")


def test_equal_plans_have_equal_digests_and_a_moved_row_changes_it():
    assert made().sha256 == made().sha256
    assert made().sha256 != made(part_rows=3).sha256


def test_a_plan_of_the_version_before_keeps_its_digest_and_is_padded(tmp_path):
    before = "334a958f0bcc7ffa6fb6313cc1ec0e093be73ac1d9c8fcf368377fd115567373"
    assert made().sha256 == before
    made().save(tmp_path / "plan.json")
    value = json.loads((tmp_path / "plan.json").read_text())
    del value["batching"], value["why_padded"]
    (tmp_path / "plan.json").write_text(json.dumps(value))
    assert plan.load(tmp_path / "plan.json") == made(batching="padded")


def test_how_batches_are_made_stays_in_every_revision_and_cannot_be_edited(tmp_path):
    packed = made(batching="packed")
    assert packed.sha256 != made().sha256 != made(why_padded="one computes on a GPU").sha256
    later = packed.moved([plan.Move(2, 0, 1, "cluster0_gpu0", "cluster0_gpu1", "why")]).amended("d", [3])
    later.save(tmp_path / "plan.json")
    assert plan.load(tmp_path / "plan.json").batching == "packed"
    edited = (tmp_path / "plan.json").read_text().replace('"packed"', '"padded"')
    (tmp_path / "plan.json").write_text(edited)
    with pytest.raises(DataError, match="changed since it was written"):
        plan.load(tmp_path / "plan.json")


def test_a_part_is_smaller_for_a_larger_model_on_a_cpu_and_never_more_than_a_quarter_shard():
    assert plan.part_rows_for("cpu", 10_000, 90_000_000, 256) == 256
    assert plan.part_rows_for("cpu", 10_000, 440_000_000, 256) == 48
    assert plan.part_rows_for("cuda", 15_625, 1_200_000_000, 256) == 1024
    assert plan.part_rows_for("cpu", 10, 90_000_000, 256) == 3
    assert plan.part_rows_for("cpu", 0, 90_000_000, 256) == 1


@pytest.mark.parametrize(("tokens", "rows"), [(0, 512), (8, 512), (106, 77), (600, 13), (2048, 4), (9000, 1)])
def test_a_part_on_a_cpu_has_four_full_batches_however_large_the_model_and_long_the_texts(tokens, rows):
    assert plan.part_rows_for("cpu", 10_000, 1_200_000_000, tokens) == rows
    assert rows * tokens <= 4 * 2048 or rows == 1


def test_the_tokens_of_a_row_are_guessed_by_its_bytes_and_the_cut():
    assert plan.row_tokens(100_000, 250, 256) == 100
    assert plan.row_tokens(100_000, 250, 64) == 64
    assert plan.row_tokens(100_000, 250, None) == 100
    assert plan.row_tokens(0, 0, None) == 1


def test_who_has_which_rows_follows_the_moves_one_after_the_other():
    drawn = made(moves=(plan.Move(2, 2, 3, "cluster0_gpu0", "cluster0_gpu2", "x"),
                        plan.Move(3, 2, 3, "cluster0_gpu2", "cluster0_gpu1", "x")))  # fmt: skip
    assert [drawn.ranges(slot) for slot in drawn.slots] == [[(0, 2)], [(3, 6), (2, 3)], [(6, 10)]]
    assert [drawn.files(slot) for slot in drawn.slots] == [[(0, 3)], [(3, 6), (2, 3)], [(6, 10), (2, 3)]]
    assert drawn.hosts == ["here"] and drawn.of_host("here") == list(drawn.slots) == drawn.used
    assert [drawn.grid(row) for row in range(10)] == [0] * 3 + [3] * 3 + [6] * 4
    with pytest.raises(DataError, match="row 10 is not within the plan's 0-10"):
        drawn.grid(10)


def test_what_a_caller_does_to_the_rows_of_a_slot_changes_no_plan():
    drawn = made()
    drawn.ranges(drawn.slots[0]).clear()
    drawn.files(drawn.slots[0]).clear()
    assert drawn.ranges(drawn.slots[0]) == drawn.files(drawn.slots[0]) == [(0, 3)]


def test_a_plan_that_did_not_change_is_not_read_again_and_one_that_did_is_verified(tmp_path, monkeypatch):
    path, read, times = tmp_path / "plan.json", plan.read_json, []
    monkeypatch.setattr(plan, "read_json", lambda file: times.append(file) or read(file))
    made().save(path)
    assert plan.load(path) == plan.load(path) == made()
    assert times == [path]
    made(epoch=2).save(path)
    assert plan.load(path).epoch == 2
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 3'))
    with pytest.raises(DataError, match="changed since it was written"):
        plan.load(path)


@pytest.mark.parametrize(
    ("usual", "rows", "slots", "part_rows"),
    [
        (1024, 250_000, 16, 1024),
        (1024, 2_500_000, 64, 1024),
        (1024, 100_000_000, 16, 5000),  # 20,000 parts in all
        (1024, 100_000_000, 8000, 130),  # 96 parts a slot: the last ones are what all wait for
        (313, 10_000_000, 8000, 128),  # but not of too few rows
        (20, 10_000_000, 8000, 20),
        (4, 20, 2, 4),
        (1, 3, 200, 1),
    ],
)
def test_the_parts_of_a_run_are_neither_too_many_nor_too_large_for_its_slots(usual, rows, slots, part_rows):
    assert plan.part_rows_of_all(usual, rows, slots) == part_rows
