"""Records: a JSON file is read into a dataclass once; what does not fit is refused by file, field and what was seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook_lib.errors import DataError
from runbook_lib.records import Written, parse, plain, read


@dataclass(frozen=True)
class Inner:
    rows: tuple[int, ...]
    share: float | None
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    ok: bool
    files: dict[str, Written]
    inner: tuple[Inner, ...] = ()
    point: tuple[float | int | str | None, ...] = ()


WHOLE = {
    "name": "a",
    "ok": True,
    "files": {"f": {"sha256": "00", "bytes": 3}},
    "inner": [{"rows": [1, 2], "share": None}, {"rows": [], "share": 1, "note": "x"}],
    "point": [0.5, 1, "t", None],
}


def test_a_record_comes_back_as_it_was_written() -> None:
    found = parse(Outer, WHOLE, "a.json")
    assert found.files["f"] == Written("00", 3)
    assert found.inner == (Inner((1, 2), None), Inner((), 1.0, "x"))
    assert found.point == (0.5, 1, "t", None)
    assert plain(found) == WHOLE  # a field without a default is null where it is None, one with a default is left out


def test_what_a_later_version_added_is_left_out() -> None:
    assert parse(Outer, {**WHOLE, "new": [1]}, "a.json") == parse(Outer, WHOLE, "a.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": None}, "a.json: name: expected text, found null"),
        ({"ok": 1}, "a.json: ok: expected true or false, found 1"),
        ({"files": []}, r"a.json: files: expected an object, found \[\]"),
        ({"files": {"f": {"sha256": "00"}}}, "a.json: files.f.bytes: expected a whole number, found no such field"),
        ({"files": {"f": {"sha256": "00", "bytes": True}}}, "files.f.bytes: expected a whole number, found True"),
        (
            {"inner": [{"rows": [1, "\x1b"], "share": 1}]},
            r"inner\[0\].rows\[1\]: expected a whole number, found '\\x1b'",
        ),
        ({"inner": [{"rows": [], "share": "x"}]}, r"inner\[0\].share: expected a number, found 'x'"),
        ({"inner": {}}, r"a.json: inner: expected a list, found \{\}"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse(Outer, {**WHOLE, **change}, "a.json")


def test_a_file_is_read_once_and_one_that_is_not_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    assert read(Written, path) is None
    path.write_text(json.dumps({"sha256": "00", "bytes": 3}))
    assert read(Written, path) == Written("00", 3)
    for text, told in (("[1]", "expected a JSON object"), ("{", "not JSON"), ("{}", "w.json: sha256: expected text")):
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            read(Written, path)
