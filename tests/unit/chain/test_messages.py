"""The message at the end of a drive: what it says, that it comes once, and that it ends no run."""

from dataclasses import replace

import made_up
import pytest

from runbook_lib.chain import messages
from runbook_lib.errors import DataError
from runbook_lib.profile.notify_spec import NotifySpec
from runbook_lib.result import parts
from runbook_lib.run import telling


@pytest.fixture
def driven(tmp_path, monkeypatch):
    """A run with somebody to tell, and the letters that would be sent."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path, count=12, dim=8)
    made.commit_all()
    run, letters = made.run, []

    class Sent:
        def wait(self, timeout):
            telling._append(run, {"key": letters[-1].key, "at": 1.0, "to": "command", "why": ""})

        def poll(self):
            return 0

    def start(letter, without):
        letters.append(letter)
        return Sent()

    monkeypatch.setattr(telling.sending, "start", start)
    told = replace(run, profile=replace(run.profile, notify=NotifySpec(command=("true",))))
    return told, letters


def drive(run, error=None, said=None):
    with messages.at_the_end(run, said.append if said is not None else lambda words: None):
        if error:
            raise error


def test_a_run_that_is_done_says_what_was_done_and_how_to_verify_it(driven):
    run, letters = driven
    made_up.published(run)
    run.save_result("04_merge_validate", ok=True, checks=[])
    said = []
    drive(run, said=said)
    assert (letters[0].event, letters[0].title) == ("done", f"runbook: {run.name} is done")
    assert f"runbook verify {run.name}" in letters[0].body and "report.html" in letters[0].body
    assert said == ["told command"]
    drive(run)
    assert len(letters) == 1  # the same result is not told again


def test_a_failed_phase_is_told_with_its_reason_each_time_that_it_was_tried(driven):
    run, letters = driven
    for attempt in (1, 2):
        run.journal.write("phase started", phase="01_preflight", attempt=attempt)
        run.journal.write("phase failed", phase="01_preflight", attempt=attempt, reason="the corpus is gone")
        drive(run)
        drive(run)
    assert [letter.event for letter in letters] == ["failed", "failed"]
    assert "01_preflight: the corpus is gone" in letters[0].body and "runbook run " in letters[0].body


def test_an_error_of_the_drive_is_told_and_raised_and_an_interrupt_is_the_persons_own(driven):
    run, letters = driven
    with pytest.raises(DataError):
        drive(run, DataError("run x was not sealed: a file is lost"))
    assert "was not sealed" in letters[0].body
    with pytest.raises(KeyboardInterrupt):
        drive(run, KeyboardInterrupt())
    assert len(letters) == 1


def test_a_fault_of_the_program_itself_is_told_too(driven):
    run, letters = driven
    with pytest.raises(ValueError, match="no such"):
        drive(run, ValueError("no such axis"))
    assert "no such axis" in letters[0].body


def test_what_keeps_it_from_being_told_does_not_hide_why_it_ended(driven, monkeypatch):
    run, letters = driven

    def unreadable(run, message):
        raise DataError("the journal cannot be read")

    monkeypatch.setattr(telling, "tell", unreadable)
    with pytest.raises(DataError, match="a file is lost"):
        drive(run, DataError("run x was not sealed: a file is lost"))
    assert letters == []


def test_a_run_that_waits_for_other_hosts_tells_nothing(driven):
    run, letters = driven
    run.journal.write("phase started", phase="03_monitor", attempt=1)
    run.journal.write("phase ended", phase="03_monitor", attempt=1, reason="")
    drive(run)
    assert letters == []


def test_a_record_that_cannot_be_read_ends_no_run(driven, monkeypatch):
    run, letters = driven
    run.journal.write("phase failed", phase="01_preflight", attempt=1, reason="x")
    monkeypatch.setattr(telling, "_claimed", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    drive(run)
    assert letters == []
