"""Readings: each host is polled on its own thread, so that a slow or hanging host does not delay the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from worker.wire import Reading

from ..errors import LinkLost, RunbookError
from ..hosts import together
from ..profile.profile import HostSpec
from ..run.run import Run

SILENT_S = 90.0  # every verb has a shorter deadline; a query that is open for so long hangs below all of them


@dataclass(frozen=True)
class Late:
    """A host that was asked `asked_s` ago and has not answered yet."""

    asked_s: float


Answer = Reading | RunbookError | Late


@dataclass
class _Query:
    """The answers of hosts that are reached as one, not read yet, and the time at which the open query began."""

    hosts: list[HostSpec]
    asked: float | None = None
    answer: dict[str, Reading | RunbookError] | None = None
    late: bool = False


class Readings:
    """The readings of a run's hosts, poll after poll. Each host, or cluster, has at most one open query."""

    def __init__(self, run: Run):
        self._run = run
        self._queries = {hosts[0].reached: _Query(hosts) for hosts in together.groups(run.hosts)}
        self._changed = threading.Condition()

    def look(self, within_s: float | None = None) -> dict[str, Answer]:
        """Ask every host; after `within_s`, or when all have answered, return the answers so far.

        A host that was late at the last poll is asked like the others, but not waited for.
        """
        for query in self._queries.values():
            self._ask(query)
        began = time.monotonic()
        limit_s = SILENT_S if within_s is None else within_s
        with self._changed:
            prompt = [query for query in self._queries.values() if within_s is None or not query.late]
            self._changed.wait_for(lambda: all(query.asked is None for query in prompt), limit_s)
            taken = [self._take(query, began) for query in self._queries.values()]
            answers = {name: answer for each in taken for name, answer in each.items()}
            return {spec.name: answers[spec.name] for spec in self._run.hosts}

    def _ask(self, query: _Query) -> None:
        with self._changed:
            if query.asked is not None:
                return
            query.asked = time.monotonic()
        # No thread pool: the interpreter would wait at its end for a thread that hangs.
        name = f"reading {query.hosts[0].reached}"
        threading.Thread(target=self._one, args=(query,), name=name, daemon=True).start()

    def _one(self, query: _Query) -> None:
        answer = together.poll(self._run, query.hosts)
        with self._changed:
            query.answer, query.asked = answer, None
            self._changed.notify_all()

    def _take(self, query: _Query, began: float) -> Mapping[str, Answer]:
        answer, query.answer = query.answer, None
        query.late = query.asked is not None
        if answer is not None:
            return answer
        asked_s = time.monotonic() - (query.asked or began)
        names = [spec.name for spec in query.hosts]
        if asked_s < SILENT_S:
            return dict.fromkeys(names, Late(asked_s))
        return {name: LinkLost(f"{name}: no answer for {asked_s:.0f} s") for name in names}
