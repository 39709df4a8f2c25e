"""Incidents: what went wrong with a slot and when it worked again, once each, in the journal and the failure log."""

import json
import re
from dataclasses import replace

import pytest
import wired
from made_up import run_folder
from states import Hands, slot, state

from runbook_lib.report import report
from runbook_lib.result import facts
from runbook_lib.run.journal import Journal
from runbook_lib.slots import incidents, observed
from runbook_lib.slots.incidents import BEGAN, ENDED, Incidents
from runbook_lib.slots.snapshot import Refusal
from worker.wire import Exit, Reading, SlotReading


def events(run, *names):
    return [event for event in run.journal.events() if event["event"] in names]


def reading(**said):
    return Reading.from_json(wired.reading(**said))


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


def test_the_failure_log_dates_its_lines_as_the_command_date_does_on_any_day(tmp_path):
    run = run_folder(tmp_path).run
    run.journal.path.parent.mkdir(parents=True, exist_ok=True)
    moments = ("2026-12-01T00:04:55.123+00:00", "2026-02-10T23:59:59+00:00", "2026-03-09T01:30:00+02:00")
    lines = [{"seq": i, "at": at, "event": "note", "text": "a  b\nc"} for i, at in enumerate(moments)]
    run.journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dates = [line.partition(": ")[0] for line in report.failure_log(run).read_text().splitlines()]
    assert dates == [
        "Tue Dec  1 00:04:55 UTC 2026",
        "Tue Feb 10 23:59:59 UTC 2026",
        "Sun Mar  8 23:30:00 UTC 2026",
    ]


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


# ------------------------------------------------------------------------------------------- how workers ended, on file


def died(at, reason="killed by SIGKILL", **more):
    return Exit(**{"at": at, "code": -9, "reason": reason, "left": 5, "deaths": 1, "state": "waiting", **more})


def told(run):
    return [(event["verdict"], event.get("exit_at")) for event in events(run, BEGAN)]


def test_two_deaths_between_two_looks_are_two_incidents_and_a_third_is_a_third(tmp_path):
    restarting = {"state": "restarting", "verdict": "out of memory", "evidence": "killed by SIGKILL"}
    run = noted(
        tmp_path,
        WORKS,
        {**restarting, "exits": (died(1.0), died(2.0))},
        {**restarting, "exits": (died(1.0), died(2.0))},
        {**WORKS, "exits": (died(1.0), died(2.0))},
        {**restarting, "exits": (died(1.0), died(2.0), died(3.0, "Errno 28: No space left on device"))},
    )
    assert [at for _, at in told(run)] == [1.0, 2.0, 3.0]
    assert told(run)[-1][0] == "disk full"
    assert len(events(run, ENDED)) == 1


def test_what_happened_while_nobody_looked_is_told_once_whoever_looks(tmp_path):
    run = run_folder(tmp_path).run
    exits = [died(1.0), died(2.0, "Xid 79"), died(3.0, "restarted by a person", code=None)]
    seen = reading(slots={"cluster0_gpu0": wired.slot_reading(exits=[each.to_json() for each in exits])})
    for _ in range(2):
        incidents.record(run, "tensor00", seen)
    works = replace(state(1), slots=(slot(0, **{"verdict": "", **WORKS, "exits": tuple(exits)}),))
    for _ in range(2):
        Incidents(run, Hands()).note(works)
    assert [at for _, at in told(run)] == [1.0, 2.0] and told(run)[1][0] == "GPU lost"
    assert len(events(run, ENDED)) == 1
    assert report.failure_log(run).read_text().count("slot in trouble") == 2


def test_a_slot_that_waits_and_fails_in_turn_is_one_incident_a_death(tmp_path):
    """Its worker says `failed`, then its supervisor says that it waits; nothing else happened."""
    one = (died(1.0, "RuntimeError: broken"),)
    failed, waiting = ({"state": s, "verdict": "restarting", "evidence": "broken"} for s in ("failed", "restarting"))
    run = noted(tmp_path, *[{**changes, "exits": one} for changes in (failed, waiting) * 4])
    assert told(run) == [("died", 1.0)]


def test_a_device_that_starts_and_does_no_row_has_not_recovered_and_its_giving_up_is_told(tmp_path):
    idle = {"state": "running", "in_part": 0, "committed": 3}
    lost = {"state": "restarting", "verdict": "GPU lost", "evidence": "Xid 79", "committed": 3}
    ends = [tuple(died(float(i), "Xid 79") for i in range(1, n + 1)) for n in range(6)]
    looks = [{**one, "exits": ends[n]} for n in range(1, 5) for one in (lost, {"state": "starting"}, idle)]
    fenced = {"state": "fenced", "verdict": "GPU lost", "evidence": "given up; Xid 79", "exits": ends[5]}
    run = noted(tmp_path, *looks, fenced, fenced, {"state": "done", "exits": ends[5]})
    assert [name for name, _ in told(run)] == ["GPU lost"] * 5 + ["fenced"]
    (ended,) = events(run, ENDED)
    assert ended["after"] == "fenced" and ended["by"] == "others did its rows; it stays given up"


def test_a_persons_stop_is_no_recovery_and_no_fault(tmp_path):
    run = noted(tmp_path, WORKS, KILLED, {"state": "stopped"}, {"state": "stopped"})
    assert len(events(run, BEGAN)) == 1 and not events(run, ENDED)


def test_a_watch_that_begins_again_tells_nothing_anew_and_ends_what_is_open(tmp_path):
    run = noted(tmp_path, WORKS, KILLED)
    again = Incidents(run, Hands())
    for changes in (KILLED, WORKS):
        again.note(replace(state(1), slots=(slot(0, **{"verdict": "", **changes}),)))
    assert len(events(run, BEGAN)) == len(events(run, ENDED)) == 1


def test_a_supervisor_that_is_gone_is_told_once_and_another_one_again(tmp_path):
    run = run_folder(tmp_path).run
    for _ in range(2):
        taking = Incidents(run, Hands())
        for process in ("7 1", "7 1", "9 4"):
            lost = {"tensor00": process}
            taking.note(replace(state(1), slots=(slot(0, verdict="", **WORKS),), gone=lost, unsupervised=lost))
    assert [event["process"] for event in events(run, incidents.LOST)] == ["7 1", "9 4"]
    assert [facts.kind(event) for event in events(run, incidents.LOST)] == ["fault", "fault"]
    assert "its workers live on" in report.failure_log(run).read_text()


def test_a_host_that_fails_in_the_same_way_is_told_once(tmp_path):
    run = run_folder(tmp_path).run
    for seconds in range(4):
        incidents.host_failed(run, "one", "staged", f"one: no answer; next try in {seconds} s")
    incidents.host_failed(run, "one", "staged", "one: Permission denied")
    incidents.host_failed(run, "two", "staged", "one: Permission denied")
    assert len(events(run, "host failed")) == 3


def test_a_supervisor_that_was_replaced_before_anybody_looked_is_told_once(tmp_path):
    this = run_folder(tmp_path).run
    before = {"pid": 4711, "start": "99", "boot": "b"}
    for predecessor in (None, "x", {"pid": "4711"}, before, before):
        incidents.record(this, "here", reading(supervisor={"predecessor": predecessor}))
    incidents.record(this, "here", reading(supervisor=None))
    (event,) = this.journal.events(incidents.LOST)
    assert (event["host"], event["process"], event["kind"]) == ("here", "4711 99", "fault")


REFUSED = {"row": 2, "at": 1.5, "reason": "ValueError: no\x1b[31m", "slot": "cluster0_gpu0"}


def test_a_document_given_up_is_told_once_with_its_title_and_the_reason_whoever_looks(tmp_path):
    run = run_folder(tmp_path).run
    taking = Incidents(run, Hands())
    refused = Refusal(**REFUSED, host="tensor00")
    for refusals in ([], [refused], [refused], [refused, replace(refused, at=9.0)]):
        taking.note(replace(state(1), refusals=refusals))
    incidents.record(run, "tensor00", reading(given_up=[REFUSED]))
    Incidents(run, Hands()).note(replace(state(1), refusals=[refused]))
    first, again = run.journal.events("row given up")
    assert (first["row"], first["host"], first["slot"], again["given_up_at"]) == (2, "tensor00", "cluster0_gpu0", 9.0)
    assert first["document"].startswith("row 2 (title '") and first["cause"] == "ValueError: no\\x1b[31m"
    lines = report.failure_log(run).read_text().splitlines()
    assert len(lines) == 2 and "row given up: row: 2" in lines[0] and "ValueError: no" in lines[0]


def test_a_document_given_up_is_told_by_its_number_where_the_corpus_cannot_be_read(tmp_path):
    run = run_folder(tmp_path).run
    for path in run.corpus.iterdir():
        path.unlink()
    incidents.record(run, "tensor00", reading(given_up=[REFUSED]))
    (event,) = run.journal.events("row given up")
    assert event["document"] == "row 2"


def test_at_the_end_a_worker_without_a_row_is_told_unless_it_had_no_time(tmp_path):
    run = run_folder(tmp_path).run
    idle = {"rows": 5, "committed": 5, "state": "done", "verdict": ""}
    slots = (
        slot(0, **idle, loaded_s=20.0),
        slot(1, **idle, loaded_s=None, idle_s=66.0),
        slot(2, **idle, loaded_s=None, idle_s=64.0),
        slot(3, **{**idle, "rows": 0, "committed": 0, "state": "moved"}, idle_s=600.0),
    )
    Incidents(run, Hands()).note_idle(replace(state(4), slots=slots))
    event, moved = run.journal.events("slot without a row")
    assert (event["slot"], moved["slot"]) == ("cluster0_gpu1", "cluster0_gpu3")
    assert "not one row 66 s after its worker began" in event["cause"]
    assert [facts.kind(each) for each in facts.events(run)][-1] == "fault"


@pytest.mark.parametrize(
    ("state", "alive", "idle_s"),
    [("starting", True, 40.0), ("loading model", True, 40.0), ("running", True, None), ("loading model", False, None)],
)
def test_only_a_living_worker_that_loads_counts_as_one_without_a_row(state, alive, idle_s):
    """One that is ready and waits for a part that its neighbour has claimed hangs as little as one that works."""
    report = {"state": state, "started_at": 60.0, "computed": 0}
    entry = SlotReading.from_json(wired.slot_reading(alive=alive, report=report))
    assert observed.idle_s(reading(now=100.0), entry) == idle_s


def test_however_many_slots_are_in_trouble_the_journal_is_read_once_for_their_ends(tmp_path, monkeypatch):
    run, ends = run_folder(tmp_path).run, tuple(Exit(float(at), 1, "killed", 9, at, "waiting") for at in range(1, 4))
    hit = replace(state(80), slots=tuple(slot(i, **KILLED, exits=ends) for i in range(80)))
    taking, read = Incidents(run, Hands()), []
    real = Journal.events
    monkeypatch.setattr(Journal, "events", lambda self, *names: read.append(names) or real(self, *names))
    taking.note(hit)
    assert read == [(BEGAN,)]
    assert len(events(run, BEGAN)) == 240 and {each["slot"] for each in events(run, BEGAN)} == {
        s.slot for s in hit.slots
    }
    read.clear()
    taking.note(hit)
    assert read == [] and len(events(run, BEGAN)) == 240  # each once
    Incidents(run, Hands()).note(hit)
    assert len(events(run, BEGAN)) == 240
