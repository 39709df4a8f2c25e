"""The console: its buttons do what the command line does, through the same functions, and the watching ends well."""

import asyncio
import time

import pytest
from local_run import commit_all, look, new_run, planned, worker
from waiting import wait_for

from runbook_lib.errors import GateError, ProfileError
from runbook_lib.phases import launch, staging, tend, workers
from runbook_lib.show import console, live
from runbook_lib.slots.watcher import Watcher
from worker.files import read_json


@pytest.fixture
def staged(tmp_path):
    """A run that is staged; its processes are ended when the test ends."""
    this = new_run(tmp_path, 400, names=("one",))
    planned(this)
    assert staging.stage(this).ok
    yield this
    workers.stop(this)


class Spot:
    """What goes to the notebook."""

    def __init__(self, beside=None):
        self.beside, self.shown = beside, []
        Spot.made = self

    def show(self, html, plain, line, last):
        self.shown.append((html, last))


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setattr(console, "Spot", Spot)


def said(made):
    return made.message.value


def press(made, *steps, act=None):
    """Watch, and take one step after another meanwhile; gives the last state and the seconds after the last step."""

    async def both():
        watching = asyncio.create_task(made.watch(act))
        for step in steps:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(step)  # a button is heard on another thread than the cell's
        last = time.monotonic()
        state = await watching
        return state, time.monotonic() - last

    return asyncio.run(both())


@pytest.mark.process
def test_stop_watching_answers_at_once_though_the_next_look_is_far_and_the_workers_go_on(staged, seen):
    launch.start(staged)
    first = worker(staged)
    made = console.Console(staged)
    state, took = press(made, made.leave.click)
    assert took < 1.0
    assert not state.done
    assert worker(staged) == first
    assert [event["event"] for event in staged.journal.last(1)] == ["watching interrupted"]
    assert made.leave.disabled and "run this cell again" in said(made)


def test_a_paused_console_does_not_look_until_it_is_resumed(staged, seen, monkeypatch):
    looks = []
    poll = Watcher.poll
    monkeypatch.setattr(Watcher, "poll", lambda self: looks.append(1) or poll(self))
    made = console.Console(staged)
    counted = []

    def count():
        time.sleep(1.0)
        counted.append(len(looks))

    steps = (made.pause.click, count, count, made.refresh.click, count, made.pause.click, count)
    press(made, *steps, made.leave.click, act=lambda run, state: ["waiting"])
    assert counted[0] == counted[1]
    assert counted[2] == counted[1] + 1  # one look, and it stays paused
    assert counted[3] > counted[2]
    assert made.pause.description == "Pause watching"


def test_a_note_goes_to_the_journal_as_one_line(staged, seen):
    made = console.Console(staged)
    made.remark.value = "the fan of\nthis one is <b>loud</b>"

    def note():
        made.note.click()
        wait_for(lambda: "in the journal" in said(made))

    press(made, note, made.leave.click, act=lambda run, state: ["waiting"])
    (event,) = staged.journal.events("note")
    assert event["text"] == "the fan of this one is <b>loud</b>"
    assert "<b>loud" not in made._journal()
    assert made.remark.value == ""


@pytest.mark.process
def test_workers_are_stopped_only_by_the_runs_own_name(staged, seen):
    launch.start(staged)
    first = worker(staged)
    made = console.Console(staged)

    def wrong():
        made.name.value = "another"
        made.stop.click()
        wait_for(lambda: "Nothing was stopped" in said(made))
        assert worker(staged) == first

    def right():
        made.name.value = staged.name
        made.stop.click()
        wait_for(lambda: list(staged.journal.events("workers stopped")))

    state, _ = press(made, wrong, right)
    assert {slot.state for slot in state.slots} == {"stopped"}
    assert made.name.value == ""


@pytest.mark.process
def test_restart_gives_the_slot_a_new_worker_and_says_its_pid(staged, seen):
    launch.start(staged)
    first = worker(staged)
    made = console.Console(staged)

    def restart():
        made.restart.click()
        wait_for(lambda: "a new worker" in said(made))

    press(made, restart, made.leave.click)
    (event,) = staged.journal.events("worker restarted")
    assert event["slot"] == "cluster0_gpu0"
    assert worker(staged)["pid"] != first["pid"]


@pytest.mark.process
def test_rows_of_a_machine_move_at_a_press_and_never_those_of_a_slot(tmp_path, seen):
    this = new_run(tmp_path, 400)
    planned(this)
    assert staging.stage(this).ok and launch.start(this).ok
    made = console.Console(this)
    assert made.slot.options == ("cluster0_gpu0", "cluster1_gpu0", "one", "two", "all")

    def wrong():
        made.move.click()
        wait_for(lambda: "choose one of one, two first" in said(made))

    def right():
        made.slot.value = "two"
        made.move.click()
        wait_for(lambda: "moved to one" in said(made))

    try:
        press(made, wrong, right, made.leave.click, act=lambda run, state: ["waiting"])
        (event,) = this.journal.events("rows moved")
        assert (event["host"], event["to"], event["epoch"]) == ("two", ["one"], 2)
    finally:
        workers.stop(this)


def test_what_cannot_be_done_is_said_and_the_watching_goes_on(staged, seen, monkeypatch):
    made = console.Console(staged)

    def refuse(run, slot):
        raise ProfileError("no such slot <b>")

    monkeypatch.setattr(workers, "restart", refuse)

    def restart():
        made.restart.click()
        wait_for(lambda: "not done: no such slot &lt;b&gt;" in said(made))
        assert not made._watching.done()

    press(made, restart, made.leave.click, act=lambda run, state: ["waiting"])


def test_watching_ends_by_itself_with_the_last_picture_in_the_notebook(staged, seen):
    commit_all(staged)
    made = console.Console(staged)
    state, _ = press(made, act=tend.tend)
    assert state.done
    assert {last for _, last in Spot.made.shown} == {True}  # twice, where the last parts take a while to come home
    assert Spot.made.shown[-1][0] == made.panel.value
    assert "application/vnd.jupyter.widget-view+json" in Spot.made.beside


def test_without_a_person_no_widget_is_made(staged, monkeypatch):
    commit_all(staged)
    monkeypatch.setattr(console, "Console", None)
    monkeypatch.setattr(console, "in_notebook", lambda: True)
    monkeypatch.setenv(live.HEADLESS, "1")
    assert asyncio.run(console.watch(staged, None)).done


# ------------------------------------------------------------------------------------------------- restart of one slot


@pytest.mark.process
def test_a_slot_that_was_given_up_is_taken_up_again_and_its_deaths_are_forgotten(staged):
    folder = launch.machines.connect(staged.profile.hosts[0], staged.name).folder
    launch.start(staged)
    worker(staged)
    workers.stop(staged)
    assert {slot.state for slot in look(staged).slots} == {"stopped"}
    assert workers.restart(staged, "cluster0_gpu0").ok
    assert read_json(folder.supervisor("one"))["slots"]["cluster0_gpu0"]["deaths"] == 0
    assert not folder.restart_request("cluster0_gpu0").exists()


def test_a_slot_that_has_no_rows_left_is_left_alone(staged):
    commit_all(staged)
    (check,) = workers.restart(staged, "cluster0_gpu0")
    assert check.seen == "no rows left for it"


def test_a_slot_of_another_run_is_refused_by_name(staged):
    with pytest.raises(
        ProfileError, match="no slot or host 'cluster7_gpu0' in this run; there are: cluster0_gpu0, one, all"
    ):
        workers.restart(staged, "cluster7_gpu0")


def test_in_a_large_run_workers_are_listed_by_a_part_of_their_name(staged, monkeypatch):
    monkeypatch.setattr(console, "MANY", 0)
    made = console.Console(staged)
    assert list(made.slot.options) == ["one", "all"]
    state = Watcher(staged, staged.plan()).poll()
    for wanted, listed in ((" gpu0 ", True), ("gpu7", False)):
        made.find.value = wanted
        made._live.show(state)
        assert (">cluster0_gpu0<" in made.panel.value) == listed
    made.slot.value = "cluster0_gpu0"  # any worker can be typed
    assert made.slot.value == "cluster0_gpu0"


def test_watching_before_the_launch_says_which_notebook_comes_first(tmp_path):
    this = new_run(tmp_path, 8, names=("one",))
    planned(this)
    with pytest.raises(GateError, match="run 02_launch first"):
        asyncio.run(console.watch(this))


def test_the_journal_in_the_panel_has_no_long_sums(staged):
    digest, file = "ab" * 32, "canaries/one.json"
    staged.journal.write("canaries", slot="cluster0_gpu0", host="one", digest=digest, wrote={file: "cd" * 32})
    shown = console.Console(staged)._journal()
    assert f"digest: {digest[:12]}…" in shown and digest[:13] not in shown and file not in shown
