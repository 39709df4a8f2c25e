"""Acting: jobs that run beside the polling, one thread a host."""

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
    """An act in pieces: each may run beside the others, and beside later looks, but not beside itself."""

    def jobs(self, run: Run, state: Snapshot) -> Mapping[str, Job]:
        """What to do about this state, by what it is about: a host, or all of them."""


@dataclass
class Acting:
    """What is under way about what was seen: of each host one job at most, so that a slow one holds up no other."""

    act: Act | None
    workers: int
    trouble: dict[str, str] = field(default_factory=dict)
    _under_way: dict[str, asyncio.Future[list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="act")
        self._of: Snapshot | None = None

    def begin(self, run: Run, state: Snapshot) -> None:
        """Begin what is to be done about this state, but for what is under way."""
        if self.act is None or (state.done and not isinstance(self.act, ByHost)):
            return
        self._of = self._of if self._under_way else state
        jobs = self.act.jobs(run, state) if isinstance(self.act, ByHost) else {"": partial(self.act, run, state)}
        for name, job in jobs.items():
            if name not in self._under_way:
                self._under_way[name] = asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def ended(self, within_s: float | None = None) -> list[str]:
        """What was done by all that has ended, or ends in time; without a time everything is waited for."""
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
        except OSError as error:  # such as a full disk here: tried again at the next look
            self.trouble[name] = f"on this machine: {error}"
            return []

    async def to_the_end(self, run: Run, state: Snapshot) -> list[str]:
        """All that is to be done about a state with which the watching may end: what is under way saw an older one."""
        older = self._of is not state
        did = await self.ended()
        if older:
            self.begin(run, state)
            did += await self.ended()
        return did

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
