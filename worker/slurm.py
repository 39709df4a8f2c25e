"""Slurm as its login node answers: submit tasks, ask the queue, cancel, and run a command on a node.

A task of an array is a host of a run: its batch script starts that host's supervisor. Jobs are known by names of ours
that are on file before they are submitted: a controller that crashed gives the number of a lost job to the next one.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import batch_script, locks, owned
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
    Said,
    SlurmOptions,
    Submitted,
    SupervisorReport,
    Try,
)

FORMAT = "%K|%T|%r|%N|%i|%j"  # index, state, reason, node, number, name
ANSWER_S = 30.0
SEEN_S = 60.0  # a job that is in no answer so long after it was submitted is over, or lost
TRIES_TO_GIVE_UP = 5  # submissions in a row without a new row
FRESH = 4  # a heartbeat is fresh for so many intervals: a shared disk may show a file a minute late
ARRAY_LIMIT = 1001  # Slurm's own default
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}


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
        entries = (
            _entries(jobs.jobs, _ask(_queue_command(chosen, [job.name for job in jobs.jobs]))) if jobs.jobs else ()
        )
        answer = QueueAnswer(now, None, entries)
    except OSError as error:
        answer = QueueAnswer(now, str(error), ())
    with contextlib.suppress(OSError):  # a full disk: asked again at the next look
        write_json(_answer_file(folder, cluster), answer.to_json())
    return answer


def _queue_command(chosen: SlurmOptions, names: Sequence[str]) -> list[str]:
    return ["squeue", "-h", "-r", *_clusters(chosen), f"--name={','.join(names)}", "-o", FORMAT]


def _clusters(chosen: SlurmOptions) -> list[str]:
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
    found = []
    for line in text.splitlines():
        index, *words = line.strip().split("|")
        if len(words) == 5 and re.fullmatch("[0-9]{1,9}", index):
            state, reason, place, job, name = words
            found.append((name, QueueEntry(int(index), state, reason, place, job)))
    return found


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
    return silent is not None and silent < FRESH * heartbeat_s


def evidence(folder: HostFolder, cluster: str, host: str, answer: QueueAnswer, now: float) -> Queued:
    """What is known of a task without looking at a process: its entry in the queue, and its heartbeat's age."""
    jobs, task = _jobs(folder, cluster), int(host[len(cluster) + 1 :])
    times = [job.at for job in jobs.jobs if task in job.tasks]
    tried = jobs.tries.get(str(task))
    return Queued(
        known=answer.error is None,
        asked_s=max(0.0, now - (answer.at or now)),
        fruitless=tried.fruitless if tried else 0,
        entry=next((entry for entry in answer.entries if entry.task == task), None),
        silent_s=silent_s(folder, host, now),
        submitted_s=max(0.0, now - max(times)) if times else None,
        error=answer.error,
    )


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
        _ask(["sbatch", "--parsable", str(path)], folder.root)
    except OSError as error:
        with contextlib.suppress(OSError):
            if parse(_ask(_queue_command(chosen, [name]))):
                return
        raise OSError(f"sbatch refused {path.name}: {error}") from None


# ------------------------------------------------------------------------------------------------------ the other verbs


def cancel(root: str, cluster: str, options: Mapping[str, Any], tasks: Sequence[int]) -> bool:
    """Cancel what the queue has of these tasks; whether there was something. Raises OSError where it does not answer.

    By name and number together, so that a number that went to another job cancels nothing.
    """
    chosen, jobs = SlurmOptions.from_json(options), _jobs(HostFolder(Path(root)), cluster).jobs
    offsets = {job.name: job.offset for job in jobs}
    numbers: dict[str, list[str]] = {}
    for name, entry in parse(_ask(_queue_command(chosen, list(offsets)))) if jobs else ():
        if name in offsets and entry.state not in ENDED and offsets[name] + entry.task in tasks:
            numbers.setdefault(name, []).append(entry.job)
    for name, listed in numbers.items():
        _ask(["scancel", *_clusters(chosen), f"--name={name}", *listed])
    return bool(numbers)


def limits(options: Mapping[str, Any]) -> Limits:
    """What the cluster allows. Raises OSError where it does not answer."""
    chosen = SlurmOptions.from_json(options)
    text = _ask(["scontrol", *_clusters(chosen), "show", "config"])
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    version = re.search(r"^SLURM_VERSION\s*=\s*(\S+)", text, re.MULTILINE)
    listed = _ask(["sinfo", "-h", *_clusters(chosen), "-o", "%R"]).split("\n")
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
        _ask(["sbatch", "--test-only", str(path)], folder.root)
    except OSError as error:
        return str(error)
    return ""


def on_node(root: str, cluster: str, options: Mapping[str, Any], argv: Sequence[str], limit_s: float) -> Said:
    """Run a command in a job like our tasks, from the run's folder; `exit` is None where it did not end in time."""
    folder, chosen = HostFolder(Path(root)), SlurmOptions.from_json(options)
    if why := owned.code(folder.root):
        raise ValueError(why)
    name = f"rb-try-{cluster}-{uuid.uuid4().hex[:8]}"
    out, err, path = (folder.slurm(f"{name}.{suffix}") for suffix in ("out", "err", "sh"))
    write_atomic(path, batch_script.of_command(folder, chosen, name, argv).encode())
    try:
        code, said = _wait(["sbatch", "--wait", "--parsable", str(path)], folder.root, limit_s)
        if code is None:
            waits = [entry for _, entry in parse(_plain(_ask(_queue_command(chosen, [name]))))]
            said = ", ".join(f"{entry.state} ({entry.reason})" for entry in waits)
        return {"exit": code, "out": _read(out), "err": _read(err) or said}
    finally:
        with contextlib.suppress(OSError):
            _ask(["scancel", *_clusters(chosen), f"--name={name}"])
        for file in (path, out, err):
            with contextlib.suppress(OSError):
                file.unlink()


def _plain(text: str) -> str:
    """Lines of jobs that are no arrays, as if each were index 0 of one."""
    return "\n".join(re.sub(r"^N/A\|", "0|", line) for line in text.splitlines())


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[-(2**20) :].decode(errors="replace")
    except OSError:
        return ""


def _wait(argv: Sequence[str], cwd: Path, limit_s: float) -> tuple[int | None, str]:
    """(exit code, what it complained of) of a command; no code where it did not end in time."""
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stderr.strip()


def _ask(argv: Sequence[str], cwd: Path | None = None) -> str:
    """What a command of Slurm prints. OSError with its words where it fails, or takes too long."""
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{argv[0]}: no answer within {ANSWER_S:g} s") from None
    except FileNotFoundError:
        raise OSError(f"{argv[0]}: not found; is this a login node of Slurm, and is Slurm in its PATH?") from None
    if done.returncode:
        raise OSError(f"{argv[0]}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout


def _jobs(folder: HostFolder, cluster: str) -> Jobs:
    return read_record(Jobs, _jobs_file(folder, cluster))


def _jobs_file(folder: HostFolder, cluster: str) -> Path:
    return folder.slurm(f"{cluster}.json")


def _answer_file(folder: HostFolder, cluster: str) -> Path:
    return folder.slurm(f"{cluster}.queue.json")
