"""Incidents: what went wrong with a slot and when it worked again, once each, in the journal and the failure log."""

import re
from dataclasses import replace

from made_up import run_folder
from test_pictures import Hands, slot, state

from runbook_lib import report
from runbook_lib.incidents import BEGAN, ENDED, Incidents
from runbook_lib.journal import Journal
from runbook_lib.pages import facts


def events(run, *names):
    return [event for event in run.journal.events() if event["event"] in names]


def noted(tmp_path, *states):
    """The run after these states of its only slot, ten seconds apart."""
    run, clock = run_folder(tmp_path).run, Hands()
    taking = Incidents(run, clock)
    for changes in states:
        taking.note(replace(state(1), slots=(slot(0, **{"verdict": "", **changes}),)))
        clock.now += 10.0
    return run


WORKS = {"state": "running", "in_part": 7}
KILLED = {
    "state": "restarting",
    "verdict": "out of memory",
    "in_part": 0,
    "evidence": "killed by SIGKILL",
    "action": "the batch is halved",
}


def test_a_death_is_one_incident_with_its_cause_its_action_and_what_it_cost(tmp_path):
    run = noted(tmp_path, WORKS, KILLED, KILLED, {"state": "starting"}, {"state": "loading model"}, WORKS, WORKS)
    began, ended = events(run, BEGAN, ENDED)
    assert (began["verdict"], began["cause"]) == ("out of memory", "killed by SIGKILL")
    assert "halved" in began["action"]
    assert (ended["after"], ended["seconds_lost"], ended["rows_again"]) == ("out of memory", 40.0, 7)
    assert [facts.kind(event) for event in facts.events(run)][-2:] == ["fault", "recovery"]


def test_what_turns_out_to_be_something_else_is_told_and_keeps_its_beginning(tmp_path):
    stuck = {"state": "running", "verdict": "stuck", "in_part": 7, "evidence": "no new row for 121 s"}
    run = noted(tmp_path, WORKS, stuck, KILLED, WORKS)
    assert [event.get("verdict") for event in events(run, BEGAN)] == ["stuck", "out of memory"]
    assert events(run, ENDED)[0]["seconds_lost"] == 20.0


def test_slowness_and_a_stop_on_purpose_are_no_incidents(tmp_path):
    run = noted(tmp_path, WORKS, {**WORKS, "verdict": "slow"}, {"state": "stopped"}, {"state": "done"})
    assert not events(run, BEGAN, ENDED)


def test_the_failure_log_has_a_line_an_incident_in_the_founding_form(tmp_path):
    run = noted(tmp_path, WORKS, {**KILLED, "evidence": "killed\nby <b>\x1b[31m"}, WORKS)
    path = report.failure_log(run)
    assert path == run.notes / "failures.log"
    began, ended = path.read_text().splitlines()
    at = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d UTC 20\d\d: "
    assert re.match(at + r"slot in trouble: slot: cluster0_gpu0; host: tensor00; verdict: out of memory; ", began)
    assert "\x1b" not in began
    assert re.match(at + r"slot recovered: .*seconds_lost: 10.0; rows_again: 7", ended)
    (tmp_path / "other").mkdir()
    calm = run_folder(tmp_path / "other").run
    assert report.failure_log(calm).read_text() == ""


def test_the_reports_verdict_says_what_was_in_trouble_and_what_became_of_it(tmp_path):
    (tmp_path / "calm").mkdir()
    (tmp_path / "bad").mkdir()
    run = noted(tmp_path / "calm", WORKS)
    assert "No worker was in trouble." in report.build(run).read_text()
    run = noted(tmp_path / "bad", WORKS, {**KILLED, "evidence": "killed by <b>"}, WORKS, KILLED)
    shown = report.build(run).read_text()
    head = shown[: shown.index("<nav")]
    assert "Workers were in trouble 2 times: cluster0_gpu0 out of memory (killed by SIGKILL), no end on record" in head
    assert "cluster0_gpu0 out of memory (killed by &lt;b&gt;), " in head


def test_two_troubles_of_one_slot_have_each_its_own_end(tmp_path):
    run = noted(tmp_path, WORKS, KILLED, WORKS, {**KILLED, "evidence": "Xid 79"}, KILLED, WORKS)
    shown = report.build(run).read_text()
    head = shown[: shown.index("<nav")]
    assert (
        "(Xid 79), worked again after 20 s; cluster0_gpu0 out of memory (killed by SIGKILL), worked again after" in head
    )
    assert "worked again after 10 s." in head


def test_a_journal_that_cannot_be_written_ends_no_watching_and_is_told_later(tmp_path, monkeypatch):
    run = run_folder(tmp_path).run
    taking = Incidents(run, Hands())
    trouble = replace(state(1), slots=(slot(0, **KILLED),))
    with monkeypatch.context() as full:
        full.setattr(Journal, "write", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        taking.note(trouble)
    assert not events(run, BEGAN)
    taking.note(trouble)
    taking.note(trouble)
    assert len(events(run, BEGAN)) == 1
