"""The tasks of a cluster are asked by one question, whatever their number; one bad answer hides no other task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import local_run
import pytest
import wired

from runbook_lib.errors import HostError, InvalidReading, RunbookError
from runbook_lib.hosts import answers
from runbook_lib.hosts.local import LocalTransport
from runbook_lib.phases import staging
from runbook_lib.run import opening, run
from runbook_lib.slots.watcher import Watcher
from worker.files import write_json
from worker.layout import HostFolder
from worker.wire import Reading

CLUSTER = (
    "\n  - {name: c, kind: slurm, tasks: 5, slots: 1, device: cpu, threads: 1, workdir: shared, environment: /bin/true}"
    "\n"
    "  - {name: one, kind: local, slots: 1, device: cpu, workdir: one, environment: /bin/true}\n"
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs that hosts of this machine are asked, in order."""
    verbs: list[str] = []
    call = LocalTransport.call

    def counted(self: LocalTransport, verb: str, timeout_s: float, **arguments: Any) -> Any:
        verbs.append(verb)
        return call(self, verb, timeout_s, **arguments)

    monkeypatch.setattr(LocalTransport, "call", counted)
    return verbs


@pytest.fixture
def this(tmp_path: Path) -> run.Run:
    made = local_run.new_run(tmp_path, hosts=CLUSTER)
    local_run.planned(made)
    return made


def test_one_question_for_all_tasks_of_a_cluster(this: run.Run, asked: list[str]) -> None:
    watcher = Watcher(this, this.plan())
    for _ in range(3):
        state = watcher.poll()
    assert asked.count("poll_tasks") == 3 and asked.count("poll") == 3
    assert {slot.host for slot in state.slots} == {"c.0", "c.1", "c.2", "c.3", "c.4", "one"}
    assert {slot.state for slot in state.slots} == {"not launched"}


def test_what_all_tasks_need_is_brought_once(this: run.Run, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(staging.sent_model, "send", lambda run, host, model, on: sent.append(host.spec.reached) or 0)
    staged = staging.stage(this)
    assert staged.ok, staged
    assert sorted(sent) == ["c", "one"]
    assert asked.count("claim") == 2
    folder = HostFolder(this.profile.path.parent / "shared" / this.name)
    told = [folder.assignment(f"c.{task}").read_text() for task in range(5)]
    assert all('"scheduler": "slurm"' in text and '"heartbeat_s": 30.0' in text for text in told)
    assert "scheduler" not in HostFolder(this.profile.path.parent / "one" / this.name).assignment("one").read_text()


def test_a_task_with_an_invalid_report_hides_no_other(this: run.Run) -> None:
    staging.stage(this)
    folder = HostFolder(this.profile.path.parent / "shared" / this.name)
    write_json(folder.supervisor("c.1"), {"process": {"pid": -5}})
    came = Watcher(this, this.plan())._readings.look()
    wrong = {name for name, answer in came.items() if isinstance(answer, RunbookError)}
    assert wrong == {"c.1"} and isinstance(came["c.1"], InvalidReading)


def test_no_host_but_a_task_has_a_say_in_what_a_scheduler_says() -> None:
    said = {"known": True, "asked_s": 1.0, "fruitless": 9}
    assert answers.reading(wired.reading(queued=said), "box").queued is None
    task = answers.readings({"c.0": wired.reading(queued=said), "c.1": wired.reading()}, "c", ["c.0", "c.1", "c.2"])
    assert isinstance(task["c.0"], Reading) and task["c.0"].queued is not None
    assert isinstance(task["c.1"], InvalidReading) and "what its scheduler says" in str(task["c.1"])
    assert isinstance(task["c.2"], InvalidReading)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "x",
        {"submitted": [0]},
        *({"submitted": [each], "there": {}, "given_up": []} for each in ("0", -1, 9**9)),
    ],
)
def test_an_answer_about_submissions_that_cannot_be_true_is_refused(answer: Any) -> None:
    with pytest.raises(HostError, match="invalid"):
        answers.submitted(answer, "c")


@pytest.mark.parametrize("answer", [None, {"version": 1}, {"version": "22", "partitions": [1], "array_limit": None},
                                    {"version": "22", "partitions": [], "array_limit": "many"}])  # fmt: skip
def test_limits_that_cannot_be_true_are_refused(answer: Any) -> None:
    with pytest.raises(HostError, match="invalid"):
        answers.limits(answer, "c")


@pytest.mark.parametrize("names", ["c", "c.3", "c.1,one"])
def test_a_clusters_name_stands_for_all_of_its_tasks(this: run.Run, names: str) -> None:
    chosen = [host.name for host in opening.limited(this, names).hosts]
    tasks = [f"c.{task}" for task in range(5)]
    assert chosen == {"c": tasks, "c.3": ["c.3"], "c.1,one": ["c.1", "one"]}[names]
