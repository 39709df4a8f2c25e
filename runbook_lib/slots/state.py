"""State: a run, and each slot of it, at one moment, as the monitor saw them."""

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
    """One slot at one moment. `committed` counts; `in_part` is the worker's own word; `age_s` since its heartbeat.

    `trend`: its rate at the last looks, the newest last; `gpu`: what its GPU does, None where nobody tells. `verdict`:
    what is the matter with it, by its name in the table of verdicts; empty where that is no more than its state.
    `evidence` is how that is known and `action` what happens by itself; both empty where nothing is the matter.
    `exits`: how its workers ended, as its host has it on file. `loaded_s`: what loading the model took there.
    `idle_s`: since its worker began, where it lives and still loads; None where it does not.
    """

    slot: str
    host: str
    rows: int
    committed: int
    in_part: int
    state: str
    rate: float | None = None
    age_s: float | None = None
    restarts: int = 0
    reason: str = ""
    device: str = ""
    processing_s: float | None = None
    ended_at: float | None = None
    trend: tuple[float, ...] = ()
    gpu: gpus.Sample | None = None
    verdict: str = ""
    evidence: str = ""
    action: str = ""
    exits: tuple[Exit, ...] = ()
    loaded_s: float | None = None
    idle_s: float | None = None

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
class State:
    """The run, or the hosts of it that are meant, at one moment.

    `rate` in rows/s over the last minute, `eta_s` from it, None while unknown; `eta_range_s` from the fastest and the
    slowest such rate of the last five. `truncated` and `norms_bad` count rows that came home cut at the model's length,
    and with a norm that is zero or no number. `there`: what each host that answered has committed. `silent_s`: for each
    that did not, the time since it last did. `busy`: the hosts whose supervisor has work; `odd`: those that answer with
    what cannot be true; `epochs`: the revision of the plan of each; `blank_s`: those that answer and were given nothing
    to do, and for how long. `unsupervised`: the hosts whose workers live and whose supervisor does not, with the one
    that is gone; `late`: those that were asked and have not answered yet, and for how long.
    """

    run: str
    at: float
    elapsed_s: float
    rows: int
    committed: int
    slots: tuple[SlotState, ...]
    rate: float | None
    eta_s: float | None
    history: tuple[tuple[float, float], ...]
    norms: Sequence[float]
    quarantined: tuple[int, ...]
    alerts: tuple[str, ...]
    there: Mapping[str, Sequence[Range]] = field(default_factory=dict)
    silent_s: Mapping[str, float] = field(default_factory=dict)
    eta_range_s: tuple[float, float] | None = None
    truncated: int = 0
    norms_bad: int = 0
    busy: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()
    blank_s: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, int | None] = field(default_factory=dict)
    named: Mapping[int, str] = field(default_factory=dict)  # rows given up, with title and id
    refusals: Sequence[Refusal] = ()  # of the first of these
    unsupervised: Mapping[str, str] = field(default_factory=dict)
    gone: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """True when every row is committed."""
        return self.committed >= self.rows

    @property
    def resting(self) -> bool:
        """True when nobody works any more, though rows may be missing."""
        return not self.busy and all(slot.state in REST for slot in self.slots)

    def of(self, host: str) -> State:
        """What concerns one host only; the rows are still those of all."""

        def own(by_host: Mapping[str, T]) -> dict[str, T]:
            return {name: value for name, value in by_host.items() if name == host}

        return replace(
            self,
            slots=tuple(slot for slot in self.slots if slot.host == host),
            there=own(self.there),
            silent_s=own(self.silent_s),
            blank_s=own(self.blank_s),
            epochs=own(self.epochs),
            unsupervised=own(self.unsupervised),
            gone=own(self.gone),
            late=own(self.late),
            busy=self.busy & {host},
            odd=self.odd & {host},
        )
