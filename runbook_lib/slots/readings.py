"""Readings: each host is polled on its own thread, so that a slow or hanging host does not delay the others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from worker.wire import Reading

from ..errors import LinkLost, RunbookError
from ..hosts import hosts as machines
from ..profile.profile import HostSpec
from ..run.run import Run

SILENT_S = 90.0  # every verb has a shorter deadline; a query that is open for so long hangs below all of them


@dataclass(frozen=True)
class Late:
    """A host that was asked `asked_s` ago and has not answered yet."""

    asked_s: float


Answer = Reading | RunbookError | Late


@dataclass
class _HostQuery:
    """The answer of one host that was not read yet, and the time at which the open query began."""

    asked: float | None = None
    answer: Reading | RunbookError | None = None
    late: bool = False


class Readings:
    """The readings of a run's hosts, poll after poll. Each host has at most one open query."""

    def __init__(self, run: Run):
        self._run = run
        self._queries = {spec.name: _HostQuery() for spec in run.hosts}
        self._changed = threading.Condition()

    def look(self, within_s: float | None = None) -> dict[str, Answer]:
        """Ask every host; after `within_s`, or when all have answered, return the answers so far.

        A host that was late at the last poll is asked like the others, but not waited for.
        """
        for spec in self._run.hosts:
            self._ask(spec)
        began = time.monotonic()
        limit_s = SILENT_S if within_s is None else within_s
        with self._changed:
            prompt = [query for query in self._queries.values() if within_s is None or not query.late]
            self._changed.wait_for(lambda: all(query.asked is None for query in prompt), limit_s)
            return {name: self._take(name, began) for name in self._queries}

    def _ask(self, spec: HostSpec) -> None:
        with self._changed:
            query = self._queries[spec.name]
            if query.asked is not None:
                return
            query.asked = time.monotonic()
        # No thread pool: the interpreter would wait at its end for a thread that hangs.
        threading.Thread(target=self._one, args=(spec,), name=f"reading {spec.name}", daemon=True).start()

    def _one(self, spec: HostSpec) -> None:
        answer = machines.ask_host(self._run, spec, lambda host: host.poll())
        with self._changed:
            self._queries[spec.name].answer, self._queries[spec.name].asked = answer, None
            self._changed.notify_all()

    def _take(self, name: str, began: float) -> Answer:
        query = self._queries[name]
        answer, query.answer = query.answer, None
        query.late = query.asked is not None
        if answer is not None:
            return answer
        asked_s = time.monotonic() - (query.asked or began)
        return LinkLost(f"{name}: no answer for {asked_s:.0f} s") if asked_s >= SILENT_S else Late(asked_s)
