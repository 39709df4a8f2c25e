"""Snapshot: a run, and each slot of it, at one moment, as the monitor saw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from worker.rows import Range
from worker.wire import Exit

from ..hosts import gpus
from .states import REST

T = TypeVar("T")


@dataclass(frozen=True)
class SlotState:
    """One slot at one moment; `committed` counts, the rest is what was said or measured."""

    slot: str
    host: str
    rows: int
    committed: int
    in_part: int  # rows of the part at hand, by the worker's own word
    state: str  # of slots.states
    rate: float | None = None  # rows a second
    age_s: float | None = None  # since its last heartbeat
    restarts: int = 0
    reason: str = ""  # why its worker ended last
    device: str = ""
    processing_s: float | None = None  # since its model was loaded
    ended_at: float | None = None
    trend: tuple[float, ...] = ()  # its rate at the last polls, the newest last
    gpu: gpus.Sample | None = None  # what its GPU does; None where it is not known
    verdict: str = ""  # of the table of verdicts; empty where it says no more than the state
    evidence: str = ""  # how the verdict is known; empty where nothing is the matter
    action: str = ""  # what happens by itself; empty where nothing is the matter
    exits: tuple[Exit, ...] = ()  # how its workers ended, as its host has it on file
    loaded_s: float | None = None  # what loading the model took
    idle_s: float | None = None  # since its worker began, while it lives and still loads

    @property
    def done(self) -> bool:
        """True when every row of the slot is committed."""
        return self.committed >= self.rows

    @property
    def eta_s(self) -> float | None:
        """Seconds for the slot's rows that are left, at its rate of the last minute; None while unknown or done."""
        return (self.rows - self.committed) / self.rate if self.rate and not self.done else None


@dataclass(frozen=True)
class Refusal:
    """Why a host gave a row up, `at` a time by its clock."""

    row: int
    host: str
    slot: str
    at: float
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """One reading of a run, or of the hosts of it that are meant, at one moment; what is by host is by its name."""

    run: str
    at: float
    elapsed_s: float
    rows: int
    committed: int
    slots: tuple[SlotState, ...]
    rate: float | None  # rows a second over the last minute
    eta_s: float | None  # from that rate; None while unknown
    history: tuple[tuple[float, float], ...]
    norms: Sequence[float]
    quarantined: tuple[int, ...]  # rows that were given up
    alerts: tuple[str, ...]
    committed_by_host: Mapping[str, Sequence[Range]] = field(default_factory=dict)  # of the hosts that answered
    silent_s: Mapping[str, float] = field(default_factory=dict)  # of those that did not: since they last did
    eta_range_s: tuple[float, float] | None = None  # from the fastest and the slowest rate of the last five minutes
    truncated: int = 0  # rows that came home cut at the model's length
    norms_bad: int = 0  # rows that came home with a norm that is zero or no number
    busy: frozenset[str] = frozenset()  # hosts whose supervisor has work
    invalid: frozenset[str] = frozenset()  # hosts whose answer is invalid
    unassigned_s: Mapping[str, float] = field(default_factory=dict)  # hosts that answer and were given nothing, since
    epochs: Mapping[str, int | None] = field(default_factory=dict)  # the revision of the plan that each host has
    named: Mapping[int, str] = field(default_factory=dict)  # rows given up, with title and id
    refusals: Sequence[Refusal] = ()  # of the first of these
    unsupervised: Mapping[str, str] = field(default_factory=dict)  # workers live, the supervisor (named) does not
    gone: Mapping[str, str] = field(default_factory=dict)  # supervisors that are gone
    late: Mapping[str, float] = field(default_factory=dict)  # hosts that were asked and have not answered yet, since

    @property
    def done(self) -> bool:
        """True when every row is committed."""
        return self.committed >= self.rows

    @property
    def resting(self) -> bool:
        """True when nobody works any more, though rows may be missing."""
        return not self.busy and all(slot.state in REST for slot in self.slots)

    def of(self, host: str) -> Snapshot:
        """What concerns one host only; the rows are still those of all."""

        def own(by_host: Mapping[str, T]) -> dict[str, T]:
            return {name: value for name, value in by_host.items() if name == host}

        return replace(
            self,
            slots=tuple(slot for slot in self.slots if slot.host == host),
            committed_by_host=own(self.committed_by_host),
            silent_s=own(self.silent_s),
            unassigned_s=own(self.unassigned_s),
            epochs=own(self.epochs),
            unsupervised=own(self.unsupervised),
            gone=own(self.gone),
            late=own(self.late),
            busy=self.busy & {host},
            invalid=self.invalid & {host},
        )
