"""Needs: what waits for a person, by the journal, once for each machine and cause."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from made_up import run_folder
from states import state

from runbook_lib.profile.notify_spec import NotifySpec
from runbook_lib.run import telling
from runbook_lib.slots import needs
from runbook_lib.slots.incidents import BEGAN, ENDED, GIVEN_UP

LATER = datetime.now(UTC) + timedelta(hours=2)


def trouble(run, slot, verdict, host="here"):
    run.journal.write(BEGAN, slot=slot, host=host, verdict=verdict, cause=f"{verdict} there", action="-")


def test_slots_of_one_machine_with_one_cause_are_one_message_and_what_mends_itself_is_none(tmp_path):
    run = run_folder(tmp_path).run
    for slot in ("a", "b"):
        trouble(run, slot, "disk full")
    trouble(run, "c", "out of memory")
    trouble(run, "d", "model refused", "far")
    found = needs.needs(run, LATER)
    assert [message.topic for message in found] == ["disk full here", "model refused far"]
    assert "here (a, b): disk full: disk full there." in found[0].sentence
    assert "You: free space on that machine." in found[0].sentence and run.name in found[0].command


def test_a_trouble_of_before_the_clock_was_put_back_is_told(tmp_path):
    run = run_folder(tmp_path).run
    trouble(run, "a", "disk full")
    assert [message.topic for message in needs.needs(run, datetime.now(UTC) - timedelta(hours=2))] == ["disk full here"]


def test_a_trouble_has_to_stand_for_a_while_and_ends_with_its_recovery(tmp_path):
    run = run_folder(tmp_path).run
    trouble(run, "a", "disk full")
    assert needs.needs(run) == []
    run.journal.write(ENDED, slot="a", host="here", after="disk full", seconds_lost=1.0, rows_again=0)
    assert needs.needs(run, LATER) == []


def test_a_silent_machine_needs_a_person_when_its_rows_cannot_move(tmp_path):
    run = run_folder(tmp_path).run
    trouble(run, "a", "unreachable")
    assert needs.needs(run, datetime.now(UTC) + timedelta(seconds=60)) == []
    assert [message.topic for message in needs.needs(run, LATER)] == ["unreachable here"]
    run.journal.write("rows moved", host="here", to=["far"], rows=1, epoch=2, why="silent")
    assert needs.needs(run, LATER) == []


def test_a_question_of_the_recovery_carries_its_command(tmp_path):
    run = run_folder(tmp_path).run
    run.journal.write("asked", verdict="dead", where="far", command=f"runbook restart {run.name} far")
    (message,) = needs.needs(run)
    assert message.command == f"runbook restart {run.name} far" and "far is dead" in message.sentence


def test_documents_that_were_given_up_need_a_person_until_they_are_amended(tmp_path):
    run = run_folder(tmp_path).run
    for row in (3, 4):
        run.journal.write(GIVEN_UP, row=row, host="here", slot="a", document=f"row {row}", cause="killed", action="-",
                          given_up_at=1.0)  # fmt: skip
    (message,) = needs.needs(run)
    assert "2 documents were given up, the first is row 3: killed" in message.sentence
    assert message.command.startswith("runbook run ") and message.command.endswith("--amend")
    run.journal.write("corpus amended", rows=[3, 4])
    assert needs.needs(run) == []


def test_watching_by_hand_ends_with_a_message_only_when_it_ended_by_itself(tmp_path):
    run = run_folder(tmp_path).run
    done = state(1)
    assert needs.of_watching(run, replace(done, committed=done.rows)).event == "done"
    assert needs.of_watching(run, replace(done, slots=(replace(done.slots[0], state="fenced"),))).event == "failed"
    assert needs.of_watching(run, done) is None


def test_the_teller_looks_now_and_then_and_tells_each_need_once(tmp_path, monkeypatch):
    run = run_folder(tmp_path).run
    run = replace(run, profile=replace(run.profile, notify=NotifySpec(command=("true",))))
    told = []
    monkeypatch.setattr(telling.sending, "start", lambda letter, without: told.append(letter.key))
    run.journal.write("asked", verdict="dead", where="far", command="runbook restart")
    now = [0.0]
    teller = needs.Teller(run, lambda: now[0])
    for now[0] in (0.0, 1.0, 20.0):
        teller.look()
    assert len(told) == 1
