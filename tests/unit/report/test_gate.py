"""The gate: its result file is a phase's success, and a failing check stops the chain with what to do about it."""

import json

import pytest
from local_run import new_run, planned

from runbook_lib.errors import DataError, GateError
from runbook_lib.report import gate
from runbook_lib.result.placed import Backup, Placed
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES


@pytest.fixture
def this(tmp_path):
    return new_run(tmp_path)


def checks(ok=True, **more):
    found = Checks("what must be true")
    found.add("an easy one", True, "seen")
    found.add("room on the disk", ok, "3 GB", "9 GB", "free 6 GB", where="two", **more)
    return found


def test_a_phase_whose_checks_hold_hands_over_what_it_found(this):
    given = gate.gate(this, PHASES[0], checks(), checks(warn=True), seconds=1.5, names=["a"])
    assert given.ok and len(given) == 4
    result = this.result(PHASES[0])
    assert (result.ok, result.phase, result.run) == (True, PHASES[0], this.name)
    assert result.figures == {"seconds": 1.5, "names": ["a"]}
    assert [check.verdict for check in result.checks] == ["ok", "ok", "ok", "warning"]
    assert result.inputs == gate.inputs(this)
    (event,) = this.journal.events("gate")
    assert (event["phase"], event["ok"], event["checks"], event["failed"]) == (PHASES[0], True, 4, [])


def test_a_failing_check_is_named_with_place_facts_and_remedy_and_the_result_says_so(this):
    with pytest.raises(GateError) as caught:
        gate.gate(this, PHASES[0], checks(), checks(ok=False))
    told = str(caught.value)
    assert told.startswith("01_preflight: 1 of 4 checks do not hold:")
    assert "two: room on the disk: expected 9 GB, seen 3 GB. Next: free 6 GB" in told
    assert "an easy one" not in told
    assert this.result(PHASES[0]).ok is False
    (event,) = this.journal.events("gate")
    assert (event["ok"], event["failed"]) == (False, ["room on the disk"])


def test_running_again_replaces_a_failed_result(this):
    with pytest.raises(GateError):
        gate.gate(this, PHASES[0], checks(ok=False))
    gate.gate(this, PHASES[0], checks())
    assert this.result(PHASES[0]).ok is True
    assert not this.finished


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_phase_does_not_pass_before_the_ones_before_it(this, phase):
    with pytest.raises(GateError, match=r"01_preflight: expected holds, seen no result\. Next: run it first"):
        gate.gate(this, phase, checks())
    assert this.result(phase).ok is False


def test_a_phase_whose_predecessor_failed_does_not_pass(this):
    with pytest.raises(GateError):
        gate.gate(this, PHASES[0], checks(ok=False))
    with pytest.raises(GateError, match="01_preflight: expected holds, seen its checks do not hold"):
        gate.gate(this, PHASES[1], checks())
    gate.gate(this, PHASES[0], checks())
    assert gate.gate(this, PHASES[1], checks()).ok


def test_all_four_in_order_finish_a_run(this):
    for phase in PHASES:
        assert not this.finished
        gate.gate(this, phase, checks())
    assert this.finished


@pytest.mark.parametrize("content", ["{}", '{"phase": "01_preflight"}', '{"ok": 0}'])
def test_a_result_that_does_not_say_ok_does_not_hold(this, content):
    this.report.mkdir()
    this.result_file(PHASES[0]).write_text(content)
    with pytest.raises(GateError, match="01_preflight: expected holds"):
        gate.gate(this, PHASES[1], checks())


def test_a_result_that_is_no_json_is_named(this):
    this.report.mkdir()
    this.result_file(PHASES[0]).write_text("{half")
    with pytest.raises(DataError, match=r"01_preflight\.result\.json: not JSON"):
        gate.gate(this, PHASES[1], checks())


def test_a_result_follows_from_profile_plan_and_code(this, tmp_path, monkeypatch):
    first = gate.inputs(this)
    assert gate.inputs(this) == first
    assert set(first) == {"profile", "library"}
    planned(this)
    with_plan = gate.inputs(this)
    assert set(with_plan) == {"profile", "library", "plan"}
    (this.folder / "profile.yaml").write_text((this.folder / "profile.yaml").read_text() + "# changed\n")
    assert gate.inputs(this)["profile"] != first["profile"]
    code = tmp_path / "code"
    (code / "lib" / "deep").mkdir(parents=True)
    monkeypatch.setattr(gate, "LIBRARY", code / "lib")
    digests = {gate.library_digest()}
    for name in ("lib/a.py", "lib/b.py", "lib/deep/a.py", "worker/a.py"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("1")
        digests.add(gate.library_digest())
    (code / "lib" / "._a.py").write_text("what another disk adds")
    assert gate.library_digest() in digests
    (code / "lib" / "deep" / "a.py").write_text("2")
    digests.add(gate.library_digest())
    assert len(digests) == 6


def test_a_check_reaches_the_message_without_control_characters(this):
    nasty = Checks("nasty")
    nasty.add("text", False, "\x1b[31mred", "\x07", "\u202e")
    with pytest.raises(GateError) as caught:
        gate.gate(this, PHASES[0], nasty)
    assert not {"\x1b", "\x07", "\u202e"} & set(str(caught.value))
    assert "\\u001b" not in this.result_file(PHASES[0]).read_text()


def last_figures(this, **figures):
    for phase in PHASES:
        gate.gate(this, phase, checks(), **figures)
    return json.loads(this.result_file(PHASES[3]).read_text())["figures"]


def test_a_result_that_was_refused_names_no_file(this):
    assert last_figures(this, founding=None, backup=None, given=None) == {"founding": {}, "backup": {}, "given": None}
    assert this.result(PHASES[3]).output("backup") is None


def test_a_result_names_its_files_outside_the_run(this):
    copy = Backup("00", 3, "/a", "/a.json", True, False, "", False, 9)
    figures = last_figures(this, founding=Placed("00", 3, "/f"), backup=copy)
    assert figures["founding"] == {"path": "/f", "sha256": "00", "bytes": 3}
    assert set(figures["backup"]) == {
        "path", "manifest", "sha256", "bytes", "read_back", "same_disk", "warning", "found", "free_bytes",
    }  # fmt: skip
    found = this.result(PHASES[3]).output("backup")
    assert (found.path, found.sha256, found.bytes, found.same_disk) == ("/a", "00", 3, False)
