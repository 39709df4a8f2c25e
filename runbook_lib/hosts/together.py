"""Hosts that are reached as one: the tasks of a cluster, which share folder and login, are asked by one question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from worker.wire import Reading

from ..errors import RunbookError
from ..profile.profile import HostSpec
from ..run.run import Run
from .hosts import AT_ONCE, Results, ask_host


def groups(hosts: Iterable[HostSpec]) -> list[list[HostSpec]]:
    """The hosts in groups, each reached as one."""
    by_reach: dict[str, list[HostSpec]] = {}
    for spec in hosts:
        by_reach.setdefault(spec.reached, []).append(spec)
    return list(by_reach.values())


def poll_all(run: Run) -> Results[Reading]:
    """Return the readings of all hosts of the run, or the failures, in the profile's order."""
    reached = groups(run.hosts)
    with ThreadPoolExecutor(min(AT_ONCE, len(reached))) as pool:
        readings = {name: each for answer in pool.map(partial(poll, run), reached) for name, each in answer.items()}
    return Results({spec.name: readings[spec.name] for spec in run.hosts})


def poll(run: Run, specs: Sequence[HostSpec]) -> dict[str, Reading | RunbookError]:
    """Return host -> reading or failure, for the hosts of one group."""
    first = specs[0]
    if not first.is_task:
        return {first.name: ask_host(run, first, lambda host: host.poll())}
    names = [spec.name for spec in specs]
    answer = ask_host(run, first, lambda host: host.scheduler.poll(names))
    return dict.fromkeys(names, answer) if isinstance(answer, RunbookError) else answer
