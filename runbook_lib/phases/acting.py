"""Acting: jobs that run in parallel to the polling, one thread for each host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

from ..run.run import Run
from ..slots.snapshot import Snapshot

Job = Callable[[], list[str]]
Act = Callable[[Run, Snapshot], list[str]]


@runtime_checkable
class ByHost(Protocol):
    """An act made of jobs: each may run in parallel to the others and to later polls, but not to itself."""

    def jobs(self, run: Run, state: Snapshot) -> Mapping[str, Job]:
        """Return the jobs for this state, by host; a job may also concern all hosts."""


@dataclass
class Acting:
    """Runs the jobs for the polled states: at most one for each host, so that a slow host does not delay the others."""

    act: Act | None
    workers: int
    trouble: dict[str, str] = field(default_factory=dict)
    _under_way: dict[str, asyncio.Future[list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="act")
        self._of: Snapshot | None = None

    def begin(self, run: Run, state: Snapshot) -> None:
        """Start the jobs for this state, except those that still run."""
        if self.act is None or (state.done and not isinstance(self.act, ByHost)):
            return
        self._of = self._of if self._under_way else state
        jobs = self.act.jobs(run, state) if isinstance(self.act, ByHost) else {"": partial(self.act, run, state)}
        for name, job in jobs.items():
            if name not in self._under_way:
                self._under_way[name] = asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def ended(self, within_s: float | None = None) -> list[str]:
        """Return what the jobs did that end within `within_s`; None waits for all of them."""
        if self._under_way:
            wait = asyncio.ALL_COMPLETED if within_s is None else asyncio.FIRST_COMPLETED
            await asyncio.wait(self._under_way.values(), timeout=within_s, return_when=wait)
        over = [name for name, job in self._under_way.items() if job.done()]
        return [words for name in over for words in self._result(name)]

    def _result(self, name: str) -> list[str]:
        try:
            did = self._under_way.pop(name).result()
            self.trouble.pop(name, None)
            return did
        except OSError as error:  # such as a full disk here: tried again at the next poll
            self.trouble[name] = f"on this machine: {error}"
            return []

    async def to_the_end(self, run: Run, state: Snapshot) -> list[str]:
        """Do everything for a state that may be the last one; jobs that still run were started for an older state."""
        older = self._of is not state
        did = await self.ended()
        if older:
            self.begin(run, state)
            did += await self.ended()
        return did

    def close(self) -> None:
        """Start no more jobs; running jobs end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
