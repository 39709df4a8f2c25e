"""Readings: each host is polled on a thread of its own, so that one that is slow, or hangs, holds up no other."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from worker.wire import Reading

from ..errors import LinkLost, RunbookError
from ..hosts import hosts as machines
from ..profile.profile import HostSpec
from ..run.run import Run

SILENT_S = 90.0  # every verb has a deadline; a question that is open for so long hangs below all of them


@dataclass(frozen=True)
class Late:
    """A host that was asked `asked_s` ago and has not answered yet."""

    asked_s: float


Answer = Reading | RunbookError | Late


@dataclass
class _HostQuery:
    """One host's last answer that nobody took, and since when it has been asked for the next."""

    asked: float | None = None
    answer: Reading | RunbookError | None = None
    late: bool = False


class Readings:
    """The readings of a run's hosts, look after look. Of each host at most one question is under way."""

    def __init__(self, run: Run):
        self._run = run
        self._queries = {spec.name: _HostQuery() for spec in run.hosts}
        self._changed = threading.Condition()

    def look(self, within_s: float | None = None) -> dict[str, Answer]:
        """Ask every host; after `within_s`, or when all have answered, give what there is.

        Who was late at the last look is asked like the others and not waited for.
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
        # Not one of a pool: the interpreter would wait at its end for one that hangs.
        threading.Thread(target=self._one, args=(spec,), name=f"reading {spec.name}", daemon=True).start()

    def _one(self, spec: HostSpec) -> None:
        answer = machines.asked(self._run, spec, lambda host: host.poll())
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
