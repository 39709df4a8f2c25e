"""What is asked of Slurm and what its answers mean: the queue's lines, the script, arrays and limits. No Slurm here."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wired
from box import script as executable

from worker import allotted, batch_script, locks, slurm, snapshot
from worker.encode import take_lock
from worker.files import write_json
from worker.layout import HostFolder
from worker.wire import Assignment, Job, Jobs, SlurmOptions, Try

ASKED = SlurmOptions(0.5)
Commands = Callable[..., Path]


# ------------------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("3|PENDING|Priority||17_3|rb-a", ("rb-a", 3, "PENDING", "Priority", "", "17_3")),
        ("0|RUNNING|None|n1|17_0|rb-a", ("rb-a", 0, "RUNNING", "None", "n1", "17_0")),
        ("  12|PENDING|BeginTime||9_12|rb-a ", ("rb-a", 12, "PENDING", "BeginTime", "", "9_12")),
        ("1|PENDING|launch failed requeued held||4_1|b", ("b", 1, "PENDING", "launch failed requeued held", "", "4_1")),
        ("1|PENDING|Nodes are DOWN, DRAINED||4_1|b", ("b", 1, "PENDING", "Nodes are DOWN, DRAINED", "", "4_1")),
    ],
)  # fmt: skip
def test_a_line_of_the_queue_is_an_entry(line: str, found: tuple[Any, ...]) -> None:
    ((name, entry),) = slurm.parse(line)
    assert (name, *dataclasses.astuple(entry)) == found


@pytest.mark.parametrize(
    "text",
    ["", "\n", "CLUSTER: far", "N/A|RUNNING|None|n1|17|wrap", "[0-3]|PENDING|None||17_[0-3]|a", "1|RUNNING|None",
     "slurm_load_jobs error: Unable to contact slurm controller", "1|RUNNING|None|n1|17_1|a|b", "-1|RUNNING|N|n|1|a"],
)  # fmt: skip
def test_what_is_no_task_of_an_array_is_no_entry(text: str) -> None:
    assert slurm.parse(text) == []


def test_a_name_of_the_run_is_told_from_others_and_one_that_runs_from_one_that_waits() -> None:
    jobs = [Job("rb-a", 0, (0, 1), 0.0), Job("rb-b", 1000, (1000, 1001), 0.0)]
    text = "\n".join(
        [
            "0|PENDING|BeginTime||5_0|rb-a",
            "0|RUNNING|None|n1|6_0|rb-a",
            "1|COMPLETED|None|n1|6_1|rb-a",
            "1|PENDING|Priority||7_1|rb-b",
            "9|RUNNING|None|n2|8_9|stranger",
        ]
    )
    assert [(e.task, e.state, e.job) for e in slurm._entries(jobs, text)] == [
        (0, "RUNNING", "6_0"),
        (1001, "PENDING", "7_1"),
    ]


# ----------------------------------------------------------------------------------------------------- script and time


@pytest.mark.process
def test_the_script_is_readable_and_starts_a_supervisor_a_task(tmp_path: Path) -> None:
    asked = SlurmOptions(30.0, "gpu", "me", "4:00:00", "gpu:8", 16, "far", None, ("--qos=low",))
    job = Job("rb-wiki-e1-abc", 1000, (1000, 1001, 1005), 0.0)
    text = batch_script.of_tasks(
        HostFolder(tmp_path / "with blank" / "run1"), "cluster", asked, job, "/usr/bin/python3"
    )
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in (
        "--job-name=rb-wiki-e1-abc", "--array=0-1,5", "--partition=gpu", "--account=me", "--time=4:00:00",
        "--gres=gpu:8", "--cpus-per-task=16", "--clusters=far", "--open-mode=append", "--requeue",
        "--signal=B:USR1@120", "--qos=low",
    ):  # fmt: skip
        assert f"#SBATCH {line}" in lines
    assert lines[-1].endswith("--host cluster.$((OFFSET+SLURM_ARRAY_TASK_ID))") and lines[-1].startswith("exec ")
    assert "OFFSET=1000" in lines
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_no_variable_of_a_login_goes_to_a_task_in_which_a_secret_may_be() -> None:
    text = batch_script.of_tasks(HostFolder(Path("/r")), "c", ASKED, Job("n", 0, (0,), 0.0), "python")
    (line,) = [line for line in text.splitlines() if "--export" in line]
    names = line.partition("=")[2].split(",")
    assert "PATH" in names and not {"ALL", "HF_TOKEN", "KEY_PASSPHRASE"} & set(names)


@pytest.mark.parametrize(
    ("limit", "count"),
    [("30", 1800), ("90:30", 5430), ("4:00:00", 14400), ("1-0", 86400), ("1-12", 129600), ("2-03:30", 185400),
     ("1-00:00:30", 86430), ("UNLIMITED", None), ("", None), ("1:2:3:4", None), ("4h", None)],
)  # fmt: skip
def test_a_time_limit_in_slurms_words_is_so_many_seconds(limit: str, count: int | None) -> None:
    assert batch_script.seconds(limit) == count


@pytest.mark.parametrize(("limit", "early"), [(None, 120), ("1", 20), ("6", 120), ("1-0", 120), ("0:02", 1)])
def test_a_task_is_told_early_enough_for_a_part_and_late_enough_to_work(limit: str | None, early: int) -> None:
    assert batch_script.early_s(limit) == early


@pytest.mark.parametrize(
    ("tasks", "limit", "wanted"),
    [
        (range(4), 1001, [(0, (0, 1, 2, 3))]),
        (range(5), 2, [(0, (0, 1)), (2, (2, 3)), (4, (4,))]),
        ([7, 1, 3], 4, [(4, (7,)), (0, (1, 3))]),
        ([5], 1, [(5, (5,))]),
        ([], 1001, []),
    ],
)
def test_no_index_of_an_array_reaches_the_limit(tasks: Any, limit: int, wanted: list[Any]) -> None:
    found = batch_script.arrays(tasks, limit)
    assert found == wanted
    assert all(0 <= task - offset < limit for offset, group in found for task in group)


# ------------------------------------------------------------------------------------- verbs, with commands that answer


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Stands in for Slurm's commands: each says what the file of its name beside it holds, and notes what was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def say(**said: str) -> Path:
        for name, text in said.items():
            (folder / f"{name}.said").write_text(text)
            executable(
                folder / name,
                f'#!/bin/sh\necho "$@" >> {folder}/{name}.asked\ncat {folder}/{name}.said\n'
                f"[ ! -e {folder}/{name}.fails ]\n",
            )
        return folder

    say(squeue="", sbatch="17", scancel="", scontrol="MaxArraySize = 1001\nSLURM_VERSION = 22.05.8\n", sinfo="work\n")
    return say


@pytest.fixture
def folder(tmp_path: Path) -> HostFolder:
    root = tmp_path / "work" / "run1"
    for name in ("worker", "progress"):
        (root / name).mkdir(parents=True, mode=0o700)
    root.parent.chmod(0o700)
    root.chmod(0o700)
    return HostFolder(root)


def asked(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.asked"
    return path.read_text().splitlines() if path.exists() else []


def submit(folder: HostFolder, left: dict[str, int], **more: Any) -> Any:
    return slurm.submit(str(folder.root), "c", ASKED.to_json(), "python", "rb-run1-e1", left, **more)


def beat(folder: HostFolder, host: str, ago_s: float = 0.0, working: bool = True) -> None:
    """A heartbeat of a supervisor, so long ago."""
    write_json(folder.supervisor(host), {"host": host, "working": working, "process": None})
    at = time.time() - ago_s
    os.utime(folder.supervisor(host), (at, at))


needs_processes = pytest.mark.process


@needs_processes
def test_a_jobs_name_is_on_file_before_it_is_submitted_and_the_queue_is_asked_first(
    folder: HostFolder, commands: Commands
) -> None:
    there = commands()
    executable(there / "sbatch", f"#!/bin/sh\ncp {folder.slurm('c.json')} {there}/on_file; echo 17\n")
    assert submit(folder, {"0": 5, "2": 7})["submitted"] == [0, 2]
    (job,) = Jobs.from_json(json.loads((there / "on_file").read_text())).jobs
    assert job.name.startswith("rb-run1-e1-") and job.tasks == (0, 2)
    assert any(job.name in words for words in asked(there, "squeue"))


@needs_processes
def test_a_task_that_is_in_the_queue_or_works_unseen_is_not_submitted_again(
    folder: HostFolder, commands: Commands
) -> None:
    write_json(folder.slurm("c.json"), {"jobs": [Job("rb-x", 0, (0, 1, 2, 3), time.time()).to_json()], "tries": {}})
    there = commands(squeue="0|PENDING|Priority||17_0|rb-x\n")
    beat(folder, "c.1")
    beat(folder, "c.2", ago_s=100)
    beat(folder, "c.3", working=False)
    answer = submit(folder, {"0": 1, "1": 1, "2": 1, "3": 1})
    assert answer["submitted"] == [2, 3]
    assert set(answer["there"]) == {"0", "1"} and "does not know it" in answer["there"]["1"]
    assert len(asked(there, "sbatch")) == 1


@needs_processes
def test_nothing_is_submitted_where_the_queue_does_not_answer(folder: HostFolder, commands: Commands) -> None:
    write_json(folder.slurm("c.json"), {"jobs": [Job("rb-x", 0, (0,), time.time()).to_json()], "tries": {}})
    there = commands()
    (there / "squeue.fails").touch()
    with pytest.raises(OSError, match="not known"):
        submit(folder, {"0": 1})
    assert asked(there, "sbatch") == []


@needs_processes
def test_where_the_answer_to_sbatch_is_lost_the_job_is_looked_for(folder: HostFolder, commands: Commands) -> None:
    there = commands()
    found = f'name=$(sed -n "s/.*--job-name=//p" {folder.root}/slurm/rb-*.sh)'
    executable(there / "sbatch", "#!/bin/sh\necho 'Socket timed out on send/recv operation' >&2; exit 1\n")
    executable(there / "squeue", f'#!/bin/sh\n{found}\necho "0|PENDING|None||17_0|$name"\n')
    assert submit(folder, {"0": 1})["submitted"] == [0]
    executable(there / "squeue", "#!/bin/sh\n")
    with pytest.raises(OSError, match="Socket timed out"):
        submit(folder, {"1": 1})


@needs_processes
def test_a_refusal_of_the_scheduler_is_told_in_its_words(folder: HostFolder, commands: Commands) -> None:
    there = commands()
    executable(there / "sbatch", "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2; exit 1\n")
    with pytest.raises(OSError, match="invalid partition specified: nope"):
        submit(folder, {"0": 1})
    assert "nope" in slurm.refusal(str(folder.root), "c", ASKED.to_json(), 1, "python")
    executable(there / "sbatch", "#!/bin/sh\nexit 0\n")
    assert slurm.refusal(str(folder.root), "c", ASKED.to_json(), 1, "python") == ""


@needs_processes
def test_five_submissions_without_a_new_row_are_enough_until_a_person_asks(
    folder: HostFolder, commands: Commands
) -> None:
    commands()
    outcomes = [submit(folder, {"0": 9})["submitted"] for _ in range(6)]
    assert outcomes == [[0]] * 5 + [[]]
    assert submit(folder, {"0": 9})["given_up"] == [0]
    assert submit(folder, {"0": 8})["submitted"] == [0], "a new row"
    for _ in range(5):
        submit(folder, {"0": 8})
    assert submit(folder, {"0": 8})["given_up"] == [0]
    assert submit(folder, {"0": 8}, anew=True)["submitted"] == [0]


@needs_processes
def test_the_queue_is_asked_once_in_two_heartbeats_whoever_asks(
    folder: HostFolder, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder.slurm("c.json"), {"jobs": [Job("rb-x", 0, (0,), time.time()).to_json()], "tries": {}})
    there, options = commands(squeue="0|RUNNING|None|n1|17_0|rb-x\n"), SlurmOptions(30.0).to_json()
    clock = [1000.0]
    monkeypatch.setattr(slurm, "folder_clock", lambda *words: clock[0])
    for at, questions in ((1000.0, 1), (1000.0, 1), (1059.0, 1), (1060.0, 2), (900.0, 3)):
        clock[0] = at
        assert slurm.queue(str(folder.root), "c", options).entries[0].state == "RUNNING"
        assert len(asked(there, "squeue")) == questions, at
    assert slurm.queue(str(folder.root), "c", options, anew=True).error is None
    assert len(asked(there, "squeue")) == 4


@needs_processes
def test_an_unanswered_question_is_no_empty_queue(
    folder: HostFolder, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder.slurm("c.json"), {"jobs": [Job("rb-x", 0, (0,), time.time()).to_json()], "tries": {}})
    there = commands()
    executable(there / "squeue", "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    answer = slurm.queue(str(folder.root), "c", ASKED.to_json())
    assert answer.entries == () and "Unable to contact" in (answer.error or "")
    monkeypatch.setenv("PATH", str(folder.root))
    assert "not found" in (slurm.queue(str(folder.root), "c", ASKED.to_json(), anew=True).error or "")


@needs_processes
def test_only_our_jobs_of_these_tasks_are_cancelled_by_name_and_number(folder: HostFolder, commands: Commands) -> None:
    jobs = [Job("rb-x", 0, (0, 1), time.time()), Job("rb-y", 10, (10,), time.time())]
    write_json(folder.slurm("c.json"), {"jobs": [job.to_json() for job in jobs], "tries": {}})
    lines = [
        "0|RUNNING|None|n1|17_0|rb-x",
        "1|PENDING|None||17_1|rb-x",
        "0|RUNNING|None|n1|18_0|rb-y",
        "0|R|N|n|9_0|other",
    ]
    there = commands(squeue="\n".join(lines))
    assert slurm.cancel(str(folder.root), "c", ASKED.to_json(), [1, 10])
    assert asked(there, "scancel") == ["--name=rb-x 17_1", "--name=rb-y 18_0"]
    commands(squeue="")
    assert not slurm.cancel(str(folder.root), "c", ASKED.to_json(), [0])


@needs_processes
@pytest.mark.parametrize("after", ["", "0|COMPLETING|None|n1|17_0|rb-x", "0|COMPLETED|None|n1|17_0|rb-x"])
def test_a_task_that_ends_while_it_is_cancelled_is_no_failure(
    folder: HostFolder, commands: Commands, after: str
) -> None:
    write_json(folder.slurm("c.json"), {"jobs": [Job("rb-x", 0, (0,), time.time()).to_json()], "tries": {}})
    there = commands(squeue="0|RUNNING|None|n1|17_0|rb-x")
    (there / "after").write_text(after)
    error = "scancel: error: Kill job error on job id 17_0: Invalid job id specified"
    executable(there / "scancel", f"#!/bin/sh\ncp {there}/after {there}/squeue.said; echo '{error}' >&2; exit 1\n")
    assert slurm.cancel(str(folder.root), "c", ASKED.to_json(), [0])
    (there / "squeue.said").write_text("0|RUNNING|None|n1|17_0|rb-x")
    executable(there / "scancel", f"#!/bin/sh\necho '{error}' >&2; exit 1\n")
    with pytest.raises(OSError, match="Invalid job id"):
        slurm.cancel(str(folder.root), "c", ASKED.to_json(), [0])


@needs_processes
def test_jobs_that_are_over_are_asked_for_no_more(folder: HostFolder, commands: Commands) -> None:
    jobs = [Job("rb-old", 0, (0,), time.time() - 1000), Job("rb-runs", 0, (1,), time.time() - 1000)]
    write_json(folder.slurm("c.json"), {"jobs": [job.to_json() for job in jobs], "tries": {"0": Try(3, 0).to_json()}})
    commands(squeue="1|RUNNING|None|n1|4_1|rb-runs\n")
    submit(folder, {"0": 2})
    names = [job.name for job in slurm._jobs(folder, "c").jobs]
    assert "rb-old" not in names and "rb-runs" in names and len(names) == 2


# ---------------------------------------------------------------------------------------------------- a shared folder


@needs_processes
def test_all_tasks_are_read_by_one_look_at_their_folder(
    folder: HostFolder, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(snapshot, "committed", lambda parts: looks.append(parts) or [])
    there = commands()
    beat(folder, "c.1")
    beat(folder, "c.2", ago_s=100)
    seen = snapshot.snapshots(folder.root, "c", ["c.0", "c.1", "c.2"], ASKED.to_json())
    assert len(looks) == 1 and len(asked(there, "squeue")) <= 1
    assert [seen[name]["supervisor_alive"] for name in seen] == [False, True, False]
    assert seen["c.0"]["queued"].get("silent_s") is None and seen["c.2"]["queued"]["silent_s"] > 90


def test_on_a_cluster_a_file_system_that_refuses_locks_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    with pytest.raises(OSError, match="cannot lock this file"):
        take_lock(tmp_path / "progress" / "x.lock", "encode", "here")
    lock = take_lock(tmp_path / "progress" / "x.lock", "encode", "here", or_without=True)
    assert lock is not None
    os.close(lock)


@pytest.mark.parametrize(
    ("gpu", "given", "found"),
    [("env:0", "3,5", "3"), ("env:1", "3,5", "5"),
     ("GPU-1", "3,5", "GPU-1"), (None, "3", ""), ("env:0", "MIG-a", "MIG-a")],
)  # fmt: skip
def test_a_slots_gpu_is_one_of_those_that_its_task_was_given(gpu: str | None, given: str, found: str) -> None:
    assert allotted.gpu_of(gpu, {allotted.GPUS: given}) == found


def scheduled(**more: Any) -> Assignment:
    return Assignment.from_json({**wired.assignment([wired.slot("cluster0_gpu0", (0, 4))]), **more})


def test_notes_of_every_batch_lie_on_the_nodes_own_disk_in_a_folder_for_us_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allotted.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = HostFolder(tmp_path / "shared")
    assert allotted.placed(folder, None) == allotted.placed(folder, scheduled()) == folder
    there = allotted.placed(folder, scheduled(scheduler="slurm", heartbeat_s=30.0))
    assert there.notes is not None and there.suspects("cluster0_gpu0").parent.parent == tmp_path
    assert there.notes.stat().st_mode & 0o777 == 0o700
    assert there.progress("cluster0_gpu0").is_relative_to(folder.root)
    there.notes.chmod(0o777)
    assert allotted.placed(folder, scheduled(scheduler="slurm")) == folder, "somebody may have put files there"


@pytest.mark.parametrize("given", ["", "3,5"])
def test_a_task_with_fewer_gpus_than_slots_is_told_so(given: str) -> None:
    with pytest.raises(OSError, match="at least 3 GPUs"):
        allotted.gpu_of("env:2", {allotted.GPUS: given})
