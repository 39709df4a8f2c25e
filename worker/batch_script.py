"""The batch scripts that Slurm runs for us: readable, and the same by hand with `sbatch` in the run's folder.

Standard library only.
"""

from __future__ import annotations

import re
import shlex
from typing import Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from .launcher import QUIET, supervise
from .layout import HostFolder
from .wire import Job, SlurmOptions

EARLY_S = 120  # before the time limit a task is told; Slurm's clock for it is off by up to 20 s
# What a task gets of the login's environment: no variable in which a secret may be.
EXPORTED = "HOME,USER,LOGNAME,SHELL,PATH,LANG,LC_ALL,LD_LIBRARY_PATH,TZ"
TASK = "$((OFFSET+SLURM_ARRAY_TASK_ID))"


def arrays(tasks: Sequence[int], limit: int) -> list[tuple[int, tuple[int, ...]]]:
    """(offset, tasks) of each array: the limit is on the index, not on the number of tasks."""
    groups: dict[int, list[int]] = {}
    for task in tasks:
        groups.setdefault(task // limit * limit, []).append(task)
    return [(offset, tuple(group)) for offset, group in groups.items()]


def of_tasks(folder: HostFolder, cluster: str, chosen: SlurmOptions, job: Job, python: str) -> str:
    """The script of an array: a task is a host, and this starts its supervisor."""
    options = {
        "array": _listed([task - job.offset for task in job.tasks]),
        "output": f"slurm/{cluster}_{job.offset}_%a.log",
        "open-mode": "append",  # a requeue would cut it
        "signal": f"B:USR1@{early_s(chosen.time)}",  # to the supervisor alone, which lets parts be finished
        "requeue": None,
    }
    host = f"{cluster}.{TASK}"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Hosts {cluster}.{job.tasks[0]} to {cluster}.{job.tasks[-1]} of a run. A task is a host: this starts",
            "# its supervisor, which starts its workers. Made by runbook; by hand: sbatch in the run's folder.",
            *_directives(chosen, job.name, options),
            "trap '' USR1  # until the supervisor listens",
            f"OFFSET={job.offset}",
            *_begun(folder),
            f'exec >>"logs/host_{host}.log" 2>&1',
            f"exec {shlex.join(supervise(folder, python))} {host}",
            "",
        ]
    )


def of_command(chosen: SlurmOptions, folder: HostFolder, name: str, argv: Sequence[str]) -> str:
    """The script of a job that is one command, in a place like those of our tasks; its exit code goes to a file."""
    options = {"output": f"slurm/{name}.out", "error": f"slurm/{name}.err"}
    ended = f"echo $? >slurm/{name}.exit.part && mv slurm/{name}.exit.part slurm/{name}.exit"
    lines = ["#!/bin/bash", *_directives(chosen, name, options), *_begun(folder), shlex.join(argv), ended, ""]
    return "\n".join(lines)


def _begun(folder: HostFolder) -> list[str]:
    """The lines that bring a script into the run's folder."""
    there = f"cd {shlex.quote(str(folder.root))} || exit 1"
    return ["umask 077", there, *(f"export {name}={value}" for name, value in QUIET.items())]


def _directives(chosen: SlurmOptions, name: str, options: Mapping[str, str | None]) -> list[str]:
    """The lines of a script that say what is asked of the scheduler; the profile's own words come last, and win."""
    asked = {
        "clusters": chosen.clusters,
        "partition": chosen.partition,
        "account": chosen.account,
        "time": chosen.time,
        "gres": chosen.gres,
        "cpus-per-task": chosen.cpus and str(chosen.cpus),
    }
    words = [f"--job-name={name}", "--nodes=1", "--ntasks=1", f"--export={EXPORTED}"]
    words += [f"--{key}={value}" for key, value in asked.items() if value]
    words += [f"--{key}" if value is None else f"--{key}={value}" for key, value in options.items()]
    return [f"#SBATCH {word}" for word in (*words, *chosen.extra)]


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as Slurm lists them: 0-3,7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if low != high else f"{low}" for low, high in ranges)


def seconds(limit: str) -> int | None:
    """A time limit in Slurm's words as seconds; None for one without bounds, or in other words."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not match:
        return None
    days, first, second, third = (int(number) if number else 0 for number in match.groups())
    if match.group(1):  # days-hours:minutes:seconds
        return ((days * 24 + first) * 60 + second) * 60 + third
    if match.group(4):  # hours:minutes:seconds
        return (first * 60 + second) * 60 + third
    return first * 60 + second  # minutes:seconds


def early_s(limit: str | None) -> int:
    """How long before its end a task is told: enough for a part, and a small share of a short task."""
    whole = seconds(limit) if limit else None
    return EARLY_S if whole is None else max(1, min(EARLY_S, whole // 3))
