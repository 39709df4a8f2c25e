"""The table of states: every word that a host or a judge may say is a row, and is written once on either side."""

import ast
from itertools import product
from pathlib import Path

import pytest
import wired

from runbook_lib.show import panel
from runbook_lib.slots import observed, states, verdicts
from runbook_lib.slots.snapshot import SlotState
from worker import states as wire
from worker.wire import Reading, SupervisedSlot, WorkerReport

ROOT = Path(__file__).parents[3]


def words(module: object) -> dict[str, str]:
    """The words of a module of states, by the names of its constants."""
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


OURS = words(states)
THEIRS = {name: word for name, word in words(wire).items() if name != "BY_A_PERSON"}
SUPERVISED = (None, wire.RUNNING, wire.DONE, wire.STOPPED, wire.WAITING, wire.FENCED)
REPORTED = (None, wire.STARTING, wire.LOADING, wire.RUNNING, wire.DONE, wire.STOPPED, wire.FAILED)
# The same words where they speak of something else: a phase, a run, an environment, a page, a key, a field.
ELSEWHERE = {
    "chain": {"done", "failed"},
    "cli_run": {"refused"},
    "facts": {"done", "failed"},
    "attempts": {"done", "failed"},
    "endings": {"failed"},
    "hosts": {"running"},
    "inventory": {"failed", "unreachable"},
    "launch": {"running"},
    "observed": {"helping"},
    "outcome": {"done", "failed"},
    "panel": {"done"},
    "live": {"done"},
    "notify_spec": {"done", "failed"},
    "pictures": {"done", "failed"},
    "run": {"refused"},
    "staging": {"failed"},
    "workers": {"stopped"},
}


def test_the_two_sides_say_the_same_words() -> None:
    assert {name: OURS[name] for name in THEIRS} == THEIRS
    assert verdicts.BY_A_PERSON == wire.BY_A_PERSON


def test_every_state_that_is_judged_is_a_row_of_the_table() -> None:
    judged = {
        observed.judge(whole, alive, reading, WorkerReport(state=report, helping=helping), by, launched)
        for whole, alive, stop, lives, launched, report, helping, said in product(
            *[(False, True)] * 5, REPORTED, (None, "cluster0_gpu1"), SUPERVISED
        )
        for reading in [Reading.from_json(wired.reading(stop_requested=stop, supervisor_alive=lives))]
        for by in [SupervisedSlot.from_json({"state": said})]
    }
    assert judged <= set(states.NAMED)
    assert {*OURS.values()} - {states.WAITING} <= set(states.NAMED)


def test_a_state_rests_is_settled_and_takes_rows_as_the_table_says() -> None:
    assert {"done", "moved", "fenced", "stopped"} == states.REST
    assert {"running", "helping", "done", "moved", "works on unseen"} == states.SETTLED
    not_there = {"waiting in the queue", "requeued", "held in the queue", "silent", "ended by the scheduler"}
    assert {"dead", "stopped", "fenced", "unreachable", "not launched", *not_there} == states.TAKES_NO_ROWS
    assert {"dead", "restarting", "fenced", "failed"} == states.ENDED
    assert {"starting", "loading model"} == states.LOADS


@pytest.mark.parametrize(("folder", "words"), [("runbook_lib", OURS), ("worker", THEIRS)])
def test_a_word_is_written_once(folder: str, words: dict[str, str]) -> None:
    elsewhere = ELSEWHERE if folder == "runbook_lib" else {"environment": {"failed", "starting"}}
    for path in (ROOT / folder).rglob("*.py"):
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        allowed = set(words.values()) if path.stem == "states" else elsewhere.get(path.stem, set())
        assert strings & set(words.values()) <= allowed, path


@pytest.mark.parametrize("state", ["helping", "moved"])
def test_a_slot_that_is_well_is_not_shown_as_one_in_trouble(state: str) -> None:
    assert panel.BADGES[state] != panel.TROUBLE
    assert panel._concern(SlotState("cluster0_gpu0", "here", 9, 7, 0, state)) == panel.CALM


def test_a_word_that_no_table_knows_is_shown_as_trouble() -> None:
    assert panel._concern(SlotState("cluster0_gpu0", "here", 9, 7, 0, "a word of its own")) == 0
