"""The check of the second computation: wrong rows by name, and what was not checked is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import pytest

from runbook_lib.errors import DataError
from runbook_lib.phases import merge
from runbook_lib.result import computed_again
from runbook_lib.result.merged import Merged
from runbook_lib.result.parts import read
from runbook_lib.run.checks import Check, Checks

Change = Callable[[Path, dict[str, Any]], None]


def looked_at(tmp_path: Path, change: Change | None = None, **how: Any) -> Check:
    """The check of a run in whose records `change` was made after they were committed."""
    tmp_path.mkdir(exist_ok=True)
    made = made_up.run_folder(tmp_path, **{"count": 40, "part_rows": 10, **how})
    made.commit_all()
    for path in sorted(made.run.local.parts.glob("*.json")):
        record = json.loads(path.read_text())
        if change:
            change(path, record)
        if path.exists():
            path.write_text(json.dumps(record))
    merge.merge(made.run)
    manifest = Merged(made.run.candidate).manifest()
    assert manifest is not None
    checks = Checks("validation")
    computed_again.check(checks, made.run, made.plan, made.corpus, manifest)
    (found,) = checks
    assert found.name == computed_again.NAME
    return found


def cosine(value: float) -> Change:
    def change(path: Path, record: dict[str, Any]) -> None:
        for row in record["again"]:
            row["cosine"] = value

    return change


def test_rows_that_agree_are_counted_with_their_lowest_cosine(tmp_path: Path) -> None:
    found = looked_at(tmp_path, cosine(0.9999988))
    assert found.verdict == "ok"
    assert found.seen == "2 of 41 rows done again on a processor in float32, lowest cosine 0.9999988"
    assert found.expected == "at least 0.99999 (float32)"


def test_a_row_below_the_tolerance_fails_with_its_slot_and_host(tmp_path: Path) -> None:
    found = looked_at(tmp_path, cosine(0.9999))
    assert found.verdict == "FAILED"
    assert found.seen.startswith("row ") and "of cluster0_gpu0 on " in found.seen and "cosine 0.9999" in found.seen
    assert "run again" in found.remedy


def test_the_tolerance_is_that_of_the_dtype(tmp_path: Path) -> None:
    assert looked_at(tmp_path / "one", cosine(0.9999), dtype="bfloat16").verdict == "ok"
    assert looked_at(tmp_path / "two", cosine(0.97), dtype="bfloat16").verdict == "FAILED"


def test_parts_of_a_version_before_are_said_to_be_not_checked(tmp_path: Path) -> None:
    found = looked_at(tmp_path, lambda path, record: record.pop("again"))
    assert found.verdict == "warning"
    assert found.seen.startswith("0 of 41 rows") and "not checked: 2 parts of a version that did not" in found.seen


def test_a_part_that_left_out_a_row_of_the_plan_is_not_passed_in_silence(tmp_path: Path) -> None:
    found = looked_at(tmp_path, lambda path, record: record.update(again=[]))
    assert found.verdict == "warning" and "its record does not have it" in found.seen


def test_a_row_that_could_not_be_done_again_is_told_with_why(tmp_path: Path) -> None:
    def change(path: Path, record: dict[str, Any]) -> None:
        record["again"] = [{"row": row["row"], "why": "no answer in time"} for row in record["again"]]

    found = looked_at(tmp_path, change)
    assert found.verdict == "warning" and "(no answer in time)" in found.seen


@pytest.mark.parametrize(
    "wrong",
    [
        [{"row": 10, "cosine": 1.0}],
        [{"row": 5, "cosine": 1.0}, {"row": 4, "cosine": 1.0}],
        [{"row": 4, "cosine": 1.5}],
        [{"row": 4, "cosine": float("nan")}],
        [{"row": 4, "cosine": True}],
        [{"cosine": 1.0}],
        [4],
        {"row": 4},
    ],
)
def test_what_no_worker_writes_is_refused(tmp_path: Path, wrong: Any) -> None:
    made = made_up.run_folder(tmp_path, count=40, part_rows=10)
    path = made.commit_part(0, 10, again=wrong)
    with pytest.raises(DataError, match=r"rows_000000000_000000010\.json"):
        read(path)
