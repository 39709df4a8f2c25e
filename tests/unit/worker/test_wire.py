"""The wire: each record comes back as it went; what nobody honest writes is refused, and named."""

from __future__ import annotations

from typing import Any

import pytest
from wired import PART

from worker import wire

RECORDS: dict[str, tuple[type[wire.Record], dict[str, Any]]] = {
    "part": (wire.PartRecord, PART),
}


@pytest.mark.parametrize(("record", "value"), RECORDS.values(), ids=RECORDS)
def test_a_record_comes_back_as_it_went(record: type[wire.Record], value: dict[str, Any]) -> None:
    assert record.from_json(value).to_json() == value


@pytest.mark.parametrize(("record", "value"), RECORDS.values(), ids=RECORDS)
def test_what_a_newer_one_says_beside_is_passed_over(record: type[wire.Record], value: dict[str, Any]) -> None:
    assert record.from_json({**value, "of_tomorrow": [1]}) == record.from_json(value)


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_what_is_no_object_is_refused(value: Any) -> None:
    for record, _ in RECORDS.values():
        with pytest.raises(wire.WireError, match=r"^here: .+, expected a JSON object$"):
            record.from_json(value, "here")


def test_a_part_of_before_lacks_what_was_not_told_then() -> None:
    later = ("model_max_tokens", "question_prompt", "run_id", "done_by_processor", "by_processor", "threads")
    old = wire.PartRecord.from_json({name: value for name, value in PART.items() if name not in later})
    assert (old.model_max_tokens, old.run_id, old.question_prompt) == (512, "", None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "A" * 64}, f"x.json sha256: '{'A' * 64}', expected a sha256"),
        ({"dim": 0}, "x.json dim: 0, expected a whole number from 1 on"),
        ({"model": {"name": 7}}, "x.json name: 7, expected a text"),
        ({"slot": "../x"}, "x.json slot: '../x', expected a slot's name"),
        ({"norms": [1.0, -1.0]}, "x.json norms: -1.0, expected a norm"),
        ({"norms": None}, "x.json norms: None, expected a list of at most 1000000"),
        ({"tokens": [True, 1]}, "x.json tokens: True, expected tokens"),
        ({"done_by_processor": {"1": 2}}, "x.json done_by_processor: a dict of 1, expected words by row"),
    ],
)
def test_a_field_is_refused_by_where_its_name_what_was_seen_and_expected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.PartRecord.from_json({**PART, **changes}, "x.json")
    assert str(caught.value) == said
