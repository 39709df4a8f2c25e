"""A cluster before anything starts: its scheduler answers and would take our tasks, a node can do what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.escape import safe_text
from worker.fields import is_count

from ..errors import HostError, RunbookError
from ..hosts import hosts as machines
from ..hosts import inventory
from ..hosts.bundle import bring_bundle
from ..profile.profile import HostSpec
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.run import Run
from . import probe_answer

NODE_S = 300.0  # for a job on a node, the wait for a place included
BUSY = "the cluster is full: try again later, or give `threads` and `slots`, and the plan is made without a look"


def look(run: Run, checks: Checks, specs: Sequence[HostSpec], facts: Mapping[str, MachineFacts]) -> bool:
    """Check one cluster and a node of it, by a job like our tasks; whether its tasks can be planned.

    The facts of its tasks then say what a task is given: cores, and GPUs by their place in it.
    """
    spec = specs[0]
    try:
        host = machines.connect(spec, run.name)
        if not _scheduler(checks, host):
            return False
        host.claim(run.id)
        bring_bundle(host)
        why = host.scheduler.refusal(host.python)
        remedy = "see its words: partition, account, time, gres and extra of this host's entry"
        checks.add("tasks", not why, why or f"{spec.tasks} would be taken", "taken by sbatch", remedy, spec.cluster)
        if why:
            return False
    except RunbookError as error:
        checks.add("scheduler", False, error, "answers", "see its words; is it a login node?", where=spec.cluster)
        return False
    try:
        answer = _ask_node(host)
    except HostError as error:
        known = bool(spec.slots and spec.threads)  # then a plan can be made without a look at a node
        checks.add("node", known, error, "a job on a node that ends", BUSY, where=spec.cluster, warn=known)
        return False
    given = _judge(checks, spec, answer)
    libraries = given is not None and inventory.judge_libraries(checks, spec, facts[spec.name], answer)
    if given is None or not libraries:
        return False
    for each in specs:
        facts[each.name].update(given)
    return True


def _scheduler(checks: Checks, host: machines.Host) -> bool:
    """Check that the scheduler answers, and has the partition that the profile names."""
    spec, limits = host.spec, host.scheduler.limits()
    shown = f"Slurm {limits['version']}, indexes of an array below {limits['array_limit']}"
    checks.add("scheduler", True, f"{shown}; partitions: {', '.join(limits['partitions'][:20])}", where=spec.cluster)
    wrong = sorted({*(spec.partition or "").split(",")} - {"", *limits["partitions"]})
    if wrong:
        there = f"one of {', '.join(limits['partitions'][:20])}"
        checks.add("partition", False, ", ".join(wrong), there, "correct `partition`", where=spec.cluster)
    return not wrong


def _ask_node(host: machines.Host) -> probe_answer.Answer:
    """Return what a node says of itself, its libraries and the shared folder; the answer comes through that folder."""
    argv = [host.python, "-m", "worker", "allotted", "--root", str(host.folder.root), "--device", host.spec.device]
    return probe_answer.parse_answer(host.run_there(argv, NODE_S, host.folder.root))


def _judge(checks: Checks, spec: HostSpec, answer: Mapping[str, Any]) -> MachineFacts | None:
    """Check what a node said; return what a task is given, or None where it will not do."""
    if answer.get("error") and "allotted" not in answer:
        checks.add("node", False, answer["error"], "an answer", f"see {spec.workdir} from a node", where=spec.cluster)
        return None
    allotted = answer.get("allotted")
    given: Mapping[str, Any] = allotted if isinstance(allotted, dict) else {}
    problems = [safe_text(str(given.get(key) or ""), 300) for key in ("not_written", "not_locked")]
    cores, gpus = given.get("cores"), given.get("gpus")
    if not is_count(cores, inventory.CORES + 1) or not cores or not isinstance(gpus, list) or len(gpus) > 1024:
        raise HostError(f"{spec.cluster}: what a node says of itself is invalid; nothing was taken from it")
    shown = f"{safe_text(str(given.get('node')), 100)} gives a task {cores} cores and {len(gpus)} GPUs"
    checks.add("node", True, shown, where=spec.cluster)
    checks.add("node writes", not problems[0], problems[0] or "the shared folder", "writable from a node",
               "give a `workdir` on a disk that all nodes share", spec.cluster)  # fmt: skip
    if problems[1]:
        text = f"{problems[1]}: goes on without; a row that is computed twice is one result"
        checks.add("node locks", True, text, "locks", where=spec.cluster, warn=True)
    enough = spec.device != "cuda" or len(gpus) >= (spec.slots or 1)
    if spec.device == "cuda":
        text = f"{len(gpus)} in a task"
        checks.add("GPUs", enough, text, f"{spec.slots or 'some'}", "ask for them: `gres: gpu:N`", spec.cluster)
    if problems[0] or not enough:
        return None
    return {"cores": int(cores), "gpus": [inventory.env_gpu(place) for place in range(len(gpus))]}
