"""Snapshot: a run, and each slot of it, at one moment, as the monitor saw them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from worker.rows import Covered, Range
from worker.wire import Exit

from ..hosts import gpus
from .norms import Norms
from .states import REST

T = TypeVar("T")


@dataclass(frozen=True)
class SlotState:
    """One slot at one moment; `committed` counts, the rest was reported or measured."""

    slot: str
    host: str
    rows: int
    committed: int
    in_part: int  # rows done of the uncommitted part, as the worker reports
    state: str  # of slots.states
    rate: float | None = None  # rows a second
    age_s: float | None = None  # since its last heartbeat
    restarts: int = 0
    reason: str = ""  # why its last worker ended
    device: str = ""
    processing_s: float | None = None  # since its model was loaded
    ended_at: float | None = None
    trend: tuple[float, ...] = ()  # its rate at the last polls, the newest last
    gpu: gpus.Sample | None = None  # the figures of its GPU; None if unknown
    verdict: str = ""  # from the table of verdicts; empty if it is the same word as the state
    evidence: str = ""  # how the verdict is known; empty if nothing is wrong
    action: str = ""  # what happens by itself; empty if nothing is wrong
    exits: tuple[Exit, ...] = ()  # how its workers ended, from its host's record
    canaries: tuple[str, ...] = ()  # what its known texts gave, by digest; see worker.canary
    loaded_s: float | None = None  # how long loading the model took
    idle_s: float | None = None  # time since its worker began, while it lives and still loads

    @property
    def done(self) -> bool:
        """True when every row of the slot is committed."""
        return self.committed >= self.rows

    @property
    def eta_s(self) -> float | None:
        """Seconds for the remaining rows, at the rate of the last minute; None while unknown or done."""
        return (self.rows - self.committed) / self.rate if self.rate and not self.done else None


@dataclass(frozen=True)
class Refusal:
    """Why a host gave up a row; `at` is a time by its clock."""

    row: int
    host: str
    slot: str
    at: float
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """A run, or the selected hosts of it, at one moment; mappings by host use the host's name as key."""

    run: str
    at: float
    elapsed_s: float
    rows: int
    committed: int
    slots: tuple[SlotState, ...]
    rate: float | None  # rows a second over the last minute
    eta_s: float | None  # from that rate; None while unknown
    history: tuple[tuple[float, float], ...]
    norms: Norms  # of the rows at home
    quarantined: tuple[int, ...]  # rows that were given up
    alerts: tuple[str, ...]
    committed_by_host: Mapping[str, Sequence[Range]] = field(default_factory=dict)  # of the hosts that answered
    home: Covered = field(default_factory=lambda: Covered(()))  # the rows that were at home
    silent_s: Mapping[str, float] = field(default_factory=dict)  # hosts that did not: time since their last answer
    eta_range_s: tuple[float, float] | None = None  # from the fastest and the slowest rate of the last five minutes
    truncated: int = 0  # downloaded rows whose text was cut at the model's length
    norms_bad: int = 0  # downloaded rows with a norm that is zero or no number
    busy: frozenset[str] = frozenset()  # hosts whose supervisor has work
    invalid: frozenset[str] = frozenset()  # hosts whose answer is invalid
    unassigned_s: Mapping[str, float] = field(default_factory=dict)  # hosts that answer without an assignment: time
    epochs: Mapping[str, int | None] = field(default_factory=dict)  # the revision of the plan that each host has
    named: Mapping[int, str] = field(default_factory=dict)  # rows given up, with title and id
    refusals: Sequence[Refusal] = ()  # of the first of these
    unsupervised: Mapping[str, str] = field(default_factory=dict)  # the dead supervisor of a host with living workers
    gone: Mapping[str, str] = field(default_factory=dict)  # dead supervisors whose hosts have work
    late: Mapping[str, float] = field(default_factory=dict)  # hosts that have not answered yet: seconds since the query

    @property
    def done(self) -> bool:
        """True when every row is committed."""
        return self.committed >= self.rows

    @property
    def resting(self) -> bool:
        """True when no worker works any more, though rows may be missing."""
        return not self.busy and all(slot.state in REST for slot in self.slots)

    @cached_property
    def slots_by_host(self) -> Mapping[str, tuple[SlotState, ...]]:
        """The slots of each host that has some."""
        by_host: dict[str, list[SlotState]] = {}
        for slot in self.slots:
            by_host.setdefault(slot.host, []).append(slot)
        return {host: tuple(slots) for host, slots in by_host.items()}

    def for_hosts(self, names: Collection[str]) -> Snapshot:
        """Return the snapshot limited to some hosts; the row counts are still those of all."""
        hosts = frozenset(names)

        def own(by_host: Mapping[str, T]) -> dict[str, T]:
            return {name: value for name, value in by_host.items() if name in hosts}

        return replace(
            self,
            slots=tuple(slot for name in self.slots_by_host if name in hosts for slot in self.slots_by_host[name]),
            committed_by_host=own(self.committed_by_host),
            silent_s=own(self.silent_s),
            unassigned_s=own(self.unassigned_s),
            epochs=own(self.epochs),
            unsupervised=own(self.unsupervised),
            gone=own(self.gone),
            late=own(self.late),
            busy=self.busy & hosts,
            invalid=self.invalid & hosts,
        )
