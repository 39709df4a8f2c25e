"""Fences: whose work counts, before a fence, behind it, and after it was lifted."""

from __future__ import annotations

from dataclasses import replace

import made_up

from runbook_lib.run import fences, plan


def test_nothing_that_a_fenced_slot_did_counts_until_a_person_lifts_it():
    known = fences.added((), 2, {"a": "off by much"})
    assert fences.behind(known) == {"a": "off by much"}
    assert [fences.why_not(known, slot, epoch) for slot, epoch in (("a", 1), ("a", 9), ("a", None), ("b", 1))] == [
        "off by much", "off by much", "off by much", "",
    ]  # fmt: skip
    again = fences.lifted(known, 5, "a")
    assert fences.behind(again) == {}
    assert [fences.why_not(again, "a", epoch) for epoch in (4, 5, None)] == ["off by much", "", "off by much"]
    assert fences.behind(fences.added(again, 6, {"a": "again"})) == {"a": "again"}


def test_a_plan_with_fences_is_read_as_it_was_written_and_one_without_has_the_digest_of_before(tmp_path):
    made = made_up.run_folder(tmp_path).plan
    assert made.sha256 == replace(made, fences=()).sha256
    after = made.with_fences(fences.added((), 2, {"cluster0_gpu0": "why"}))
    assert after.epoch == made.epoch + 1 and after.sha256 != made.sha256
    after.save(tmp_path / "plan.json")
    assert plan.load(tmp_path / "plan.json") == after
