"""The scheduler of a cluster, asked at its login node: where tasks are, to submit and cancel them, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from worker.escape import safe_text
from worker.fields import shown
from worker.wire import Limits, Reading, SlurmOptions, Submitted

from ..errors import HostError, RunbookError
from ..profile.profile import HostSpec
from ..profile.slurm_entry import HEARTBEAT_S
from . import answers

ASK_S = 60.0  # for one command of the scheduler, which waits 30 s itself


class Asked(Protocol):
    """How the login node is asked."""

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Ask a verb of `worker.verbs`."""


class Scheduler:
    """The scheduler of a task's cluster, for a run whose folder there is `root`."""

    def __init__(self, spec: HostSpec, transport: Asked, root: Path):
        self.spec, self.cluster, self._transport, self._root = spec, spec.cluster, transport, root

    def poll(self, names: Sequence[str]) -> dict[str, Reading | RunbookError]:
        """Take the readings of several tasks by one question; an invalid one is its own failure alone."""
        return answers.readings(self._ask("poll_tasks", ASK_S, hosts=list(names)), self.cluster, names)

    def submit(self, python: str, name: str, left: Mapping[int, int], anew: bool) -> Submitted:
        """Submit tasks, by number with the rows that each has left; see `worker.slurm.submit`."""
        asked = {str(task): rows for task, rows in left.items()}
        answer = self._ask("submit", 3 * ASK_S, python=python, name=name, left=asked, anew=anew)
        return answers.submitted(answer, self.cluster)

    def cancel(self, tasks: Sequence[int]) -> bool:
        """Cancel what the queue has of these tasks of this run; whether there was something."""
        return self._ask("cancel", 3 * ASK_S, tasks=list(tasks)) is True

    def ask_queue(self) -> None:
        """Have the queue asked now, whenever it was asked last: the next poll shows its answer."""
        self._ask("queue", ASK_S)

    def limits(self) -> Limits:
        """Return what the cluster allows. Raises HostError where its scheduler does not answer."""
        options = options_of(self.spec).to_json()
        return answers.limits(self._transport.call("limits", ASK_S, options=options), self.cluster)

    def refusal(self, python: str) -> str:
        """Say why the scheduler would refuse our tasks, in its words; empty where it would take them."""
        answer = self._ask("refusal", 2 * ASK_S, tasks=self.spec.tasks or 1, python=python)
        return safe_text(answer if isinstance(answer, str) else shown(answer), 1000)

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
        """Run a command on a node, by a job; return its exit code and what it printed on either stream."""
        answer = self._ask("on_node", timeout_s + ASK_S, argv=list(argv), limit_s=timeout_s)
        code, out, err = answers.completed(answer, self.cluster)
        if code is None:
            waits = f"; the queue says: {err}" if err else ""
            raise HostError(f"{self.cluster}: a job with {argv[0]} did not end within {timeout_s:g} s{waits}")
        return code, out, err

    def _ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        options = options_of(self.spec).to_json()
        place = {"root": str(self._root), "cluster": self.cluster}
        return self._transport.call(verb, timeout_s, **place, options=options, **arguments)


def options_of(spec: HostSpec) -> SlurmOptions:
    """What is asked of Slurm for a task, by the keys of its entry."""
    cpus = spec.threads and spec.threads * (spec.slots or 1)
    words = spec.partition, spec.account, spec.time, spec.gres
    return SlurmOptions(spec.heartbeat_s or HEARTBEAT_S, *words, cpus, spec.clusters, spec.array_limit, spec.extra)


def is_queued(reading: Reading) -> bool:
    """Whether a scheduler has this host in its queue: waiting, or running."""
    return reading.queued is not None and reading.queued.entry is not None
