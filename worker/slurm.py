"""Slurm as its login node answers: submit tasks, ask the queue, cancel, and what it allows.

A task of an array is a host of a run: its batch script starts that host's supervisor. Jobs are known by names of ours
that are on file before they are submitted: a controller that crashed gives the number of a lost job to the next one.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import batch_script, commands, locks, owned
from .fields import read_record
from .files import make_folder, write_atomic, write_json
from .layout import HostFolder
from .wire import (
    Job,
    Jobs,
    Limits,
    QueueAnswer,
    Queued,
    QueueEntry,
    SlurmOptions,
    Submitted,
    SupervisorReport,
    Try,
)

FORMAT = "%K|%T|%r|%N|%i|%j"  # index, state, reason, node, number, name
ANSWER_S = 30.0
PLACES = ("/opt/slurm/bin", "/usr/local/slurm/bin", "/cm/shared/apps/slurm/current/bin")  # where no login shell looks
SEEN_S = 60.0  # a job that is in no answer so long after it was submitted is over, or lost
TRIES_TO_GIVE_UP = 5  # submissions in a row without a new row
FRESH, FRESH_S = 4, 10.0  # a heartbeat is fresh for so many intervals, and seconds: a disk, or a node, may be slow
ARRAY_LIMIT = 1001  # Slurm's own default
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
OVER = ENDED | {"COMPLETING"}  # nothing is left to cancel


def host_name(cluster: str, task: int) -> str:
    """The host that a task of a cluster is."""
    return f"{cluster}.{task}"


# ------------------------------------------------------------------------------------------------------- the queue


def queue(root: str, cluster: str, options: Mapping[str, Any], anew: bool = False) -> QueueAnswer:
    """What the queue says of all tasks of a cluster; asked at most every two heartbeats, by whomever, unless `anew`.

    One that does not answer is no empty queue: `error` says why.
    """
    folder, chosen = HostFolder(Path(root)), SlurmOptions.from_json(options)
    now = folder_clock(folder, cluster)
    last = read_record(QueueAnswer, _answer_file(folder, cluster))
    if not anew and last.at is not None and 0 <= now - last.at < 2 * chosen.heartbeat_s:
        return last
    jobs = _jobs(folder, cluster)
    try:
        entries = _entries(jobs.jobs, ask(queue_command(chosen, [job.name for job in jobs.jobs]))) if jobs.jobs else ()
        answer = QueueAnswer(now, None, entries)
    except OSError as error:
        answer = QueueAnswer(now, str(error), ())
    with contextlib.suppress(OSError):  # a full disk: asked again at the next look
        write_json(_answer_file(folder, cluster), answer.to_json())
    return answer


def queue_command(chosen: SlurmOptions, names: Sequence[str]) -> list[str]:
    """The command that asks for jobs of these names; `parse` reads its answer."""
    return ["squeue", "-h", "-r", *cluster_option(chosen), f"--name={','.join(names)}", "-o", FORMAT]


def cluster_option(chosen: SlurmOptions) -> list[str]:
    """The option that names another cluster, for every command."""
    return [f"--clusters={chosen.clusters}"] if chosen.clusters else []


def _entries(jobs: Sequence[Job], text: str) -> tuple[QueueEntry, ...]:
    """The tasks in the queue; where a task is there twice, as one that runs."""
    offsets = {job.name: job.offset for job in jobs}
    by_task: dict[int, QueueEntry] = {}
    for name, entry in parse(text):
        if name in offsets and entry.state not in ENDED:
            task = offsets[name] + entry.task
            if task not in by_task or entry.state == "RUNNING":
                by_task[task] = replace(entry, task=task)
    return tuple(by_task[task] for task in sorted(by_task))


def parse(text: str) -> list[tuple[str, QueueEntry]]:
    """(name of the job, entry) of each line of `squeue -o FORMAT`; other lines, such as a cluster's name, are none."""
    entries = []
    for line in text.splitlines():
        index, *words = line.strip().split("|")
        if len(words) == 5 and re.fullmatch("[0-9]{1,9}", index):
            state, reason, place, job, name = words
            entries.append((name, QueueEntry(int(index), state, reason, place, job)))
    return entries


def folder_clock(folder: HostFolder, cluster: str) -> float:
    """The time by the clock of the disk: a file's age is told by the clock that dated it, whoever wrote it."""
    path = folder.slurm(f"{cluster}.clock.json")
    make_folder(path.parent, 0o700)
    try:
        path.touch(0o600)
        os.utime(path)
        return path.stat().st_mtime
    except OSError:  # a full or read-only disk
        return time.time()


def silent_s(folder: HostFolder, host: str, now: float) -> float | None:
    """Seconds since a supervisor last wrote its report, by the folder's clock; None where none ever did."""
    try:
        return max(0.0, now - folder.supervisor(host).stat().st_mtime)
    except OSError:
        return None


def is_fresh(silent: float | None, heartbeat_s: float) -> bool:
    """Whether a heartbeat of that age shows that its task lives."""
    return silent is not None and silent < max(FRESH_S, FRESH * heartbeat_s)


def evidence(folder: HostFolder, cluster: str, hosts: Sequence[str], answer: QueueAnswer) -> dict[str, Queued]:
    """What is known of each task without looking at a process: its entry in the queue, and its heartbeat's age."""
    jobs, now = _jobs(folder, cluster), folder_clock(folder, cluster)
    entries = {entry.task: entry for entry in answer.entries}
    submitted = {task: job.at for job in sorted(jobs.jobs, key=lambda job: job.at) for task in job.tasks}
    placed = {}
    for host in hosts:
        task = int(host[len(cluster) + 1 :])
        tried, at = jobs.tries.get(str(task)), submitted.get(task)
        placed[host] = Queued(
            known=answer.error is None,
            asked_s=max(0.0, now - (answer.at or now)),
            fruitless=tried.fruitless if tried else 0,
            entry=entries.get(task),
            silent_s=silent_s(folder, host, now),
            submitted_s=None if at is None else max(0.0, now - at),
            error=answer.error,
        )
    return placed


# --------------------------------------------------------------------------------------------------------- submitting


def submit(
    root: str,
    cluster: str,
    options: Mapping[str, Any],
    python: str,
    name: str,
    left: Mapping[str, int],
    anew: bool = False,
) -> Submitted:
    """Submit tasks, by number with the rows that each has left; none that is in the queue, or works unseen by it.

    `name` begins the jobs' names. `anew`: a person asks, so that tasks that were given up are tried again. Raises
    OSError where the queue does not answer, or the scheduler refuses.
    """
    folder, chosen = HostFolder(Path(root)), SlurmOptions.from_json(options)
    if why := owned.code(folder.root):
        raise ValueError(why)
    lock = locks.take(folder.slurm(f"{cluster}.lock"))
    if lock is None:
        raise OSError(f"another command submits tasks of {cluster} just now; nothing was submitted")
    try:
        return _submit(folder, cluster, chosen, python, name, {int(task): rows for task, rows in left.items()}, anew)
    finally:
        os.close(lock)


def _submit(
    folder: HostFolder,
    cluster: str,
    chosen: SlurmOptions,
    python: str,
    name: str,
    left: Mapping[int, int],
    anew: bool,
) -> Submitted:
    answer = queue(str(folder.root), cluster, chosen.to_json(), anew=True)
    if answer.error is not None:
        raise OSError(f"the queue of {cluster} is not known ({answer.error}); nothing was submitted")
    now = folder_clock(folder, cluster)
    there = {entry.task: f"in the queue: {entry.state} {entry.reason}".strip() for entry in answer.entries}
    for task in left:
        silent = silent_s(folder, host_name(cluster, task), now)
        if task not in there and not over(folder, host_name(cluster, task), silent, chosen.heartbeat_s):
            there[task] = f"works, though the queue does not know it (a sign {silent:.0f} s ago)"
    jobs = _forget(_jobs(folder, cluster), answer, now)
    tries = {task: _next_try(jobs.tries.get(str(task)), left[task], anew) for task in left if task not in there}
    given_up = sorted(task for task, each in tries.items() if each.fruitless >= TRIES_TO_GIVE_UP)
    wanted = sorted({*tries} - {*given_up})
    tried = {**jobs.tries, **{str(task): tries[task] for task in tries}}
    jobs = replace(jobs, tries=tried)
    limit = chosen.array_limit or limits(chosen.to_json())["array_limit"] or ARRAY_LIMIT
    for offset, tasks in batch_script.arrays(wanted, limit):
        job = Job(f"{name}-{uuid.uuid4().hex[:8]}", offset, tasks, now)
        jobs = replace(jobs, jobs=(*jobs.jobs, job))
        write_json(_jobs_file(folder, cluster), jobs.to_json())  # first: should the answer be lost, it can be asked for
        _sbatch(folder, job.name, batch_script.of_tasks(folder, cluster, chosen, job, python), chosen)
    if not wanted:
        write_json(_jobs_file(folder, cluster), jobs.to_json())
    queue(str(folder.root), cluster, chosen.to_json(), anew=True)
    return {"submitted": wanted, "there": {str(task): why for task, why in there.items()}, "given_up": given_up}


def over(folder: HostFolder, host: str, silent: float | None, heartbeat_s: float) -> bool:
    """Whether nothing works for a host: its heartbeat is old, or its supervisor wrote that it ends."""
    if not is_fresh(silent, heartbeat_s):
        return True
    return read_record(SupervisorReport, folder.supervisor(host)).working is False


def _next_try(before: Try | None, left: int, anew: bool) -> Try:
    if before is None or anew or left != before.left:
        return Try(left, 0)
    return Try(left, before.fruitless + 1)


def _forget(jobs: Jobs, answer: QueueAnswer, now: float) -> Jobs:
    """Without those that are over: the question for the others must not grow with a run's submissions."""
    live = {entry.task for entry in answer.entries}
    return replace(jobs, jobs=tuple(job for job in jobs.jobs if live & {*job.tasks} or now - job.at < SEEN_S))


def _sbatch(folder: HostFolder, name: str, text: str, chosen: SlurmOptions) -> None:
    """Submit a script under a name of ours. Where the answer is lost, the queue is asked whether it is there."""
    path = folder.slurm(f"{name}.sh")
    write_atomic(path, text.encode())
    make_folder(folder.log("x").parent, 0o700)
    try:
        ask(["sbatch", "--parsable", str(path)], folder.root)
    except OSError as error:
        with contextlib.suppress(OSError):
            if parse(ask(queue_command(chosen, [name]))):
                return
        raise OSError(f"sbatch refused {path.name}: {error}") from None


# ------------------------------------------------------------------------------------------------------ the other verbs


def cancel(root: str, cluster: str, options: Mapping[str, Any], tasks: Sequence[int]) -> bool:
    """Cancel what the queue has of these tasks; whether there was something. Raises OSError where it does not answer.

    By name and number together, so that a number that went to another job cancels nothing.
    """
    chosen, jobs = SlurmOptions.from_json(options), _jobs(HostFolder(Path(root)), cluster).jobs
    numbers = _cancellable(chosen, jobs, tasks)
    for name, listed in numbers.items():
        try:
            ask(["scancel", *cluster_option(chosen), f"--name={name}", *listed])
        except OSError:  # it also fails for a task that ended by itself since the queue was asked
            if name in _cancellable(chosen, jobs, tasks):
                raise
    return bool(numbers)


def _cancellable(chosen: SlurmOptions, jobs: Sequence[Job], tasks: Sequence[int]) -> dict[str, list[str]]:
    """The numbers of these tasks that the queue has and that are not ending, by the name of their job."""
    offsets = {job.name: job.offset for job in jobs}
    numbers: dict[str, list[str]] = {}
    for name, entry in parse(ask(queue_command(chosen, list(offsets)))) if jobs else ():
        if name in offsets and entry.state not in OVER and offsets[name] + entry.task in tasks:
            numbers.setdefault(name, []).append(entry.job)
    return numbers


def limits(options: Mapping[str, Any]) -> Limits:
    """What the cluster allows. Raises OSError where it does not answer."""
    chosen = SlurmOptions.from_json(options)
    text = ask(["scontrol", *cluster_option(chosen), "show", "config"])
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    version = re.search(r"^SLURM_VERSION\s*=\s*(\S+)", text, re.MULTILINE)
    listed = ask(["sinfo", "-h", *cluster_option(chosen), "-o", "%R"]).split("\n")
    names = sorted({line.strip() for line in listed if line.strip() and not line.startswith("CLUSTER:")})
    return {
        "version": version.group(1) if version else "",
        "array_limit": int(limit.group(1)) if limit else None,
        "partitions": names,
    }


def refusal(root: str, cluster: str, options: Mapping[str, Any], tasks: int, python: str) -> str:
    """Why the scheduler would refuse our tasks, in its words; empty where it would take them. Nothing is submitted."""
    folder, chosen = HostFolder(Path(root)), SlurmOptions.from_json(options)
    limit = chosen.array_limit or limits(options)["array_limit"] or ARRAY_LIMIT
    offset, first = batch_script.arrays(range(tasks), limit)[0]
    text = batch_script.of_tasks(folder, cluster, chosen, Job("rb-test-only", offset, first, 0.0), python)
    path = folder.slurm(f"{cluster}.test-only.sh")
    write_atomic(path, text.encode())
    try:
        ask(["sbatch", "--test-only", str(path)], folder.root)
    except OSError as error:
        return str(error)
    return ""


def ask(argv: Sequence[str], cwd: Path | None = None) -> str:
    """What a command of Slurm prints. OSError with its words where it fails, or takes too long."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES])
    try:
        done = commands.ask(argv, ANSWER_S, cwd, {**os.environ, "PATH": path})
    except FileNotFoundError:
        raise OSError(f"{argv[0]}: not found; is this a login node of Slurm, with Slurm in its PATH?") from None
    if done.returncode:
        raise OSError(f"{argv[0]}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout


def _jobs(folder: HostFolder, cluster: str) -> Jobs:
    return read_record(Jobs, _jobs_file(folder, cluster))


def _jobs_file(folder: HostFolder, cluster: str) -> Path:
    return folder.slurm(f"{cluster}.json")


def _answer_file(folder: HostFolder, cluster: str) -> Path:
    return folder.slurm(f"{cluster}.queue.json")
