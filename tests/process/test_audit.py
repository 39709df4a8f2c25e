"""The audit with the real model: what a host does to vectors before it hashes them is found; a clean run holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from real_run import real_run, sealed, validated

from benchmarks.edits import swap_rows_everywhere
from runbook_lib import records
from runbook_lib.phases import audit
from runbook_lib.report import archive, verification
from runbook_lib.result import misfits, sampling
from runbook_lib.run.checks import Check, Checks

pytestmark = pytest.mark.usefixtures("forks")


def the_check(checks: Checks, name: str = audit.AUDIT) -> Check:
    return next(check for check in checks if check.name == name)


def failed(checks: Checks) -> set[str]:
    return {check.name for check in checks.failed if not check.name.startswith("9 ")}


def test_a_clean_run_is_bounded_and_its_draw_is_on_file(tmp_path: Path) -> None:
    made = real_run(tmp_path)
    checks, shown = validated(made)
    assert failed(checks) == set(), checks
    assert shown.audit is not None and shown.audit.wrong == 0 and shown.audit.share_at_most == 0.0  # all rows, as few
    assert shown.audit.uniform == made.plan.rows and shown.audit.furthest < 1e-10
    assert "no row off by more than 1e-06" in the_check(checks).seen
    kept = records.read(audit.Audit, made.run.report / audit.FILE)
    (event,) = made.run.journal.events("audit drawn")
    assert (
        kept.seed
        == event["seed"]
        == sampling.seed(
            [part.sha256 for part in audit.Subject.of(made.run, audit.Merged(made.run.candidate)).manifest.parts],
            bytes.fromhex(kept.nonce),
        )
    )


def swapped(vectors: np.ndarray) -> None:
    vectors[[3, 40]] = vectors[[40, 3]]


def as_bfloat16(vectors: np.ndarray) -> None:
    vectors[8:16] = (vectors[8:16].view(np.uint32) & 0xFFFF0000).view(np.float32)
    vectors[8:16] /= np.linalg.norm(vectors[8:16], axis=1, keepdims=True)


def nudged(vectors: np.ndarray) -> None:
    """One value of one row has another sign."""
    at = int(np.abs(vectors[21]).argmax())
    vectors[21, at] *= -1


def question(vectors: np.ndarray) -> None:
    vectors[60] = vectors[5]


@pytest.mark.parametrize(
    ("harm", "rows"),
    [(swapped, (3, 40)), (nudged, (21,)), (question, (60,))],
)
def test_vectors_that_are_not_those_of_their_texts_are_named(
    tmp_path: Path, harm: Callable[[np.ndarray], None], rows: tuple[int, ...]
) -> None:
    checks, shown = validated(real_run(tmp_path), harm)
    assert audit.AUDIT in failed(checks)
    said = the_check(checks)
    assert all(f"row {row} is off by" in said.seen for row in rows)
    assert "of cluster0_gpu" in said.seen and "on here" in said.seen and "runbook move" in said.remedy
    assert shown.audit.share_at_most is None and shown.audit.wrong >= len(rows)


def two_dimensions(vectors: np.ndarray) -> None:
    vectors[16:24, [5, 9]] = vectors[16:24, [9, 5]]


def one_bit(vectors: np.ndarray) -> None:
    """Of the largest value of a row: 0.1 % of it. Its length is off by 1e-5 or so, within what is let pass."""
    at = int(np.abs(vectors[33]).argmax())
    vectors[33].view(np.uint32)[at] ^= np.uint32(1 << 13)


@pytest.mark.parametrize(
    ("harm", "rows"), [(two_dimensions, range(16, 24)), (one_bit, (33,)), (question, (60,))], ids=lambda x: str(x)[:20]
)
def test_of_many_rows_those_that_stand_out_or_stand_for_a_part_are_computed_whatever_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[np.ndarray], None], rows: Sequence[int]
) -> None:
    monkeypatch.setattr(audit, "DRAWN", 1)
    monkeypatch.setattr(misfits, "LOOKED_AT", 1)
    made = real_run(tmp_path)
    checks, _ = validated(made, harm)
    kept = records.read(audit.Audit, made.run.report / audit.FILE)
    assert {row for row in rows if row in {each.row for each in kept.rows if not each.uniform}}
    if harm is not one_bit:  # so little is right within the tolerance
        assert audit.AUDIT in failed(checks)


def test_a_slot_that_computed_in_16_bits_is_known_by_its_digits_and_fenced(tmp_path: Path) -> None:
    made = real_run(tmp_path)
    checks, _ = validated(made, as_bfloat16)
    assert failed(checks) == {"float32 in every digit", "slots that were found wrong"}
    assert "8 rows: 8, 9, 10" in the_check(checks, "float32 in every digit").seen
    assert [each.slot for each in made.run.plan().fences] == ["cluster0_gpu0"]


def test_other_tokens_than_the_texts_have_are_named(tmp_path: Path) -> None:
    made = real_run(tmp_path)
    validated(made)
    part = made.run.local.part(0, 8)
    tokens = [11, *list(range(20, 27))]
    made.change_record(part, tokens=tokens)
    from runbook_lib.phases import merge, validate

    merge.merge(made.run)
    checks, _ = validate.validate(made.run)
    assert "its record says 11" in the_check(checks).seen


def test_without_the_model_nothing_is_computed_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = real_run(tmp_path)
    monkeypatch.setattr(audit, "model_at_hand", _gone)
    checks, shown = validated(made)
    assert failed(checks) == set() and shown.audit is None
    assert the_check(checks).warn and "no such folder" in the_check(checks).seen
    assert shown.fit is not None  # every row was held against its text all the same


def _gone(*_: object) -> None:
    raise audit.DataError("no such folder")


def test_bfloat16_is_held_within_what_that_dtype_does_here(tmp_path: Path) -> None:
    made = real_run(tmp_path, count=20, dtype="bfloat16")
    checks, shown = validated(made)  # float32 vectors: nearer than they need be
    assert failed(checks) == set(), checks
    assert 1e-4 <= shown.audit.tolerance < 5e-3


def test_a_reviewer_draws_his_own_rows_and_learns_of_two_that_changed_places(tmp_path: Path) -> None:
    """In an archive where every array, record, sum and the sealing were made to agree."""
    this = sealed(tmp_path)
    checks = verification.verify(this, again=verification.Again(20, "a seed of mine"))
    assert checks.ok, checks
    said = the_check(checks, verification.ONCE_MORE).seen
    assert "20 of 61 rows drawn by seed a seed of mi" in said and "off by more than 1e-06 (95 %)" in said
    assert "computed again here none is off" in checks.stamp and ", not signed; " in checks.stamp
    swap_rows_everywhere(this)
    archive.write_sums(this)
    checks = verification.verify(this, again=verification.Again(40, "another"))  # all rows, as few as they are
    said = the_check(checks, verification.ONCE_MORE)
    assert not said.ok and "row 3 is off by" in said.seen and "row 40 is off by" in said.seen
    assert not the_check(checks, verification.DRAWN).ok  # drawn of other parts
    assert checks.stamp.startswith(f"Run {this.name}: NOT PROVED: ")


def test_rows_that_are_asked_for_and_cannot_be_computed_are_no_proof(tmp_path: Path) -> None:
    this = sealed(tmp_path)
    checks = verification.verify(this, again=verification.Again(5, "seed", tmp_path))
    assert (
        failed(checks) == {verification.ONCE_MORE} and "modules.json" in the_check(checks, verification.ONCE_MORE).seen
    )
