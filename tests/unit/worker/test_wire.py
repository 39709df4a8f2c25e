"""The wire: each record comes back as it went; what nobody honest writes is refused, and named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from box import HOST, MakeBox
from wired import PART, assignment, reading, slot, slot_reading

from worker import fields, wire
from worker.files import write_json
from worker.snapshot import snapshot

ME = {"pid": 7, "start": "1", "boot": "b"}
EXIT = {"at": 1.5, "code": -9, "reason": "killed", "left": 5, "deaths": 1, "state": "waiting"}
SLOT = {"state": "running", "process": ME, "deaths": 0, "wait_s": 0.0, "hung": False}
REPORT = {
    **{"slot": "cluster0_gpu0", "host": "one", "run": "t", "epoch": 1, "process": ME, "state": "running"},
    **{"started_at": 1.0, "loaded_s": 2.5, "rows_committed": 4, "computed": 4, "part": [4, 8], "rows_in_part": 2},
    **{"helping": "cluster0_gpu1", "rate": 0.5, "rows_per_s": 0.5, "heartbeat": 3, "heartbeat_at": 2.0, "broken": ""},
}
SUPERVISOR = {
    **{"host": "one", "process": ME, "predecessor": None, "heartbeat_at": 1.5, "working": True},
    **{"slots": {"cluster0_gpu0": SLOT}, "gpus": "", "gpus_at": 0.0},
}
READING = reading(
    slots={"cluster0_gpu0": slot_reading(ranges=[[0, 8]], report=REPORT, exits=[EXIT], alive=True)},
    supervisor=SUPERVISOR, supervisor_alive=True, committed=[[0, 4]], quarantined=[5],
    given_up=[{"row": 5, "at": 1.0, "reason": "why", "slot": "cluster0_gpu0"}],
)  # fmt: skip

RECORDS: dict[str, tuple[type[fields.Record], dict[str, Any]]] = {
    "part": (wire.PartRecord, PART),
    "assignment": (wire.Assignment, assignment([slot("cluster0_gpu0", (0, 4), (8, 12))], documents=12, stuck_s=60.0)),
    "worker": (wire.WorkerReport, REPORT),
    "worker that says nothing": (wire.WorkerReport, {}),
    "exits": (wire.Exits, {"slot": "cluster0_gpu0", "exits": [EXIT]}),
    "supervisor": (wire.SupervisorReport, SUPERVISOR),
    "suspected": (wire.Suspected, {"rows": [4, 5], "deaths": 1, "boot": "b"}),
    "holder": (wire.Holder, {"process": ME, "verb": "encode", "host": "one"}),
    "running": (wire.Running, {"verb": "encode", "process": ME}),
    "given up": (wire.RowGivenUp, {"row": 5, "at": 1.0, "reason": "", "slot": "x", "sure": True, "format": 1}),
    "greeting": (wire.Greeting, {"home": "/h", "executable": "/p", "python": [3, 9, 1], "pid": 7, "user": 0}),
    "reading": (wire.Reading, READING),
}


@pytest.mark.parametrize(("record", "value"), RECORDS.values(), ids=RECORDS)
def test_a_record_comes_back_as_it_went(record: type[fields.Record], value: dict[str, Any]) -> None:
    assert record.from_json(value).to_json() == value


@pytest.mark.parametrize(("record", "value"), [RECORDS["part"], RECORDS["assignment"]], ids=["part", "assignment"])
def test_a_version_that_knew_only_padded_batches_said_nothing_of_them(
    record: type[fields.Record], value: dict[str, Any]
) -> None:
    before = {name: each for name, each in value.items() if name != "batching"}
    assert record.from_json(before).to_json()["batching"] == wire.PADDED
    with pytest.raises(fields.WireError, match="batching: 'mixed', expected packed or padded"):
        record.from_json({**value, "batching": "mixed"})


@pytest.mark.parametrize(("record", "value"), RECORDS.values(), ids=RECORDS)
def test_what_a_newer_one_says_beside_is_passed_over(record: type[fields.Record], value: dict[str, Any]) -> None:
    assert record.from_json({**value, "of_tomorrow": [1]}) == record.from_json(value)


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_what_is_no_object_is_refused(value: Any) -> None:
    for record, _ in RECORDS.values():
        with pytest.raises(fields.WireError, match=r"^here: .+, expected a JSON object$"):
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
    with pytest.raises(fields.WireError) as caught:
        wire.PartRecord.from_json({**PART, **changes}, "x.json")
    assert str(caught.value) == said


def test_a_record_of_which_all_may_lack_is_blank_where_the_file_is_none(tmp_path: Path) -> None:
    for text in (None, "", "{half", "[]", '{"slots": 7}', '{"process": "x"}'):
        path = tmp_path / "report.json"
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        assert fields.read_record(wire.SupervisorReport, path) == wire.SupervisorReport.blank()


def test_an_assignment_that_is_none_is_refused_by_its_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    assert wire.read_assignment(path) is None
    write_json(path, assignment([{**slot("cluster0_gpu0", (0, 4)), "part_rows": 0}]))
    with pytest.raises(ValueError, match=r"one\.json: part_rows: 0, expected a whole number from 1 on$"):
        wire.read_assignment(path)


def test_what_a_host_answers_has_the_fields_of_a_reading_and_no_others(make_box: MakeBox) -> None:
    box = make_box(["a text"] * 4)
    told = snapshot(box.root, HOST)
    assert told.keys() == {each.name for each in dataclasses.fields(wire.Reading)}
    assert told["slots"]["cluster0_gpu0"].keys() == {each.name for each in dataclasses.fields(wire.SlotReading)}
    assert wire.Reading.from_json(told).slots["cluster0_gpu0"].ranges == ((0, 4),)


@pytest.mark.parametrize(
    ("record", "changes", "kept"),
    [
        (wire.WorkerReport, {"helping": 7, "heartbeat": "x", "part": [5, 3], "epoch": -1}, ()),
        (wire.Exit, {"reason": "", "at": "now", "code": "x", "left": None, "deaths": 1.5, "state": 7}, ("reason",)),
        (wire.SupervisorReport, {"working": "yes", "predecessor": {"pid": "7"}, "gpus_at": "now"}, ("slots",)),
    ],
)
def test_what_nobody_builds_on_counts_as_not_said_where_it_is_of_another_kind(
    record: type[fields.Record], changes: dict[str, Any], kept: tuple[str, ...]
) -> None:
    read = record.from_json(changes)
    assert {each.name for each in dataclasses.fields(record) if getattr(read, each.name) is not None} == set(kept)


def test_a_message_holds_nothing_raw() -> None:
    with pytest.raises(fields.WireError) as caught:
        wire.Reading.from_json({**READING, "slots": {"\x1b[2J": 7}})
    assert "\x1b" not in str(caught.value)
    assert "\x1b" not in str(fields.refuse("\x1b[2J", "\x9b", "\x1b", "a text"))
