"""Watcher: turns the readings of a run into a `Snapshot`. It changes nothing.

Progress is what is committed: rows in parts whose record has its final name. Everything else that a worker reports
(rows of the unfinished part, its rate, its state) is shown and never counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from worker.escape import safe_text
from worker.layout import committed
from worker.rows import Covered
from worker.wire import Reading

from ..corpus import corpus as corpora
from ..errors import HostError, LinkLost, RunbookError
from ..hosts.ssh.refused import Refused
from ..run.plan import Plan, Slot
from ..run.run import Run
from . import alerts, queued, states, verdicts
from .arrived import Arrived
from .incidents import refusals
from .movement import Movement
from .observed import Observed, idle_s, observe, unread
from .rates import AwakeClock, eta_range
from .readings import Answer, Late, Readings
from .snapshot import Refusal, SlotState, Snapshot

AWAKE_S = 60.0  # added to the pause between two polls: a longer gap means that this machine slept


@dataclass
class Watcher:
    """Turns the hosts' readings over time into a `Snapshot`. Its state can always be rebuilt from files.

    `within_s`: how long a poll waits for slow hosts; None waits for all of them, as in a single poll.
    """

    run: Run
    plan: Plan
    within_s: float | None = None
    _last: dict[str, Reading] = field(default_factory=dict)
    _plan_mtime_ns: int = 0
    _answered_at: dict[str, float] = field(default_factory=dict)
    _unassigned_since: dict[str, float] = field(default_factory=dict)
    _no_sign_since: dict[str, float] = field(default_factory=dict)
    _given_up_names: dict[int, str] = field(default_factory=dict)
    _offsets: dict[str, float] = field(default_factory=dict)
    _launched_at: float | None = None
    _journal_size: int = -1

    def __post_init__(self) -> None:
        """Start the clocks."""
        self._readings = Readings(self.run)
        self._awake = AwakeClock(self.run.profile.monitor.interval_s + AWAKE_S)
        self._since = self._awake.now()
        self._movement = Movement(self._since)
        self._arrived = Arrived(self.run.local)
        self._in_profile = {spec.name for spec in self.run.profile.hosts}

    def poll(self) -> Snapshot:
        """Read all hosts in parallel, once, and judge them by the current plan: rows may have moved."""
        self._renew_plan()
        readings = self._readings.look(self.within_s)
        now = self._awake.now()
        for name, answer in readings.items():
            self._keep(name, answer, now)
        self._find_launch()
        home = committed(self.run.local.parts)  # also parts from a host that is silent now
        self._arrived.update(home)
        here = Covered(home)  # sorted once, not once a host
        have = self._have(here)
        launched = self._was_launched(readings)
        judged = [
            self._slot(slot, have[slot.host], now, readings.get(slot.host), launched)
            for slot in self.plan.used
            if slot.host in have
        ]
        slots = tuple(slot for slot, _ in judged)
        given_up = self._given_up(have)
        gone = self._gone(readings, slots)
        shown = [
            *(alerts.of_host(name, answer) for name, answer in readings.items()),
            *(alert for _, alert in judged),
            alerts.of_rows(given_up, self._given_up_names, self._refusals()),
            *(alerts.of_unsupervised(name, alive) for name in gone if (alive := self._alive(name))),
            self._about_all(slots, launched),
        ]
        alerts_shown = tuple(safe_text(alert, 500) for alert in shown if alert)
        return replace(self._state(readings, slots, given_up, gone, alerts_shown, now), home=here)

    def _state(
        self,
        readings: Mapping[str, Answer],
        slots: tuple[SlotState, ...],
        given_up: tuple[int, ...],
        gone: Mapping[str, str],
        shown: tuple[str, ...],
        now: float,
    ) -> Snapshot:
        rows, done = sum(slot.rows for slot in slots), sum(slot.committed for slot in slots)
        rate = self._movement.rate_of_all(slots, now)
        fresh = {name: reading for name, reading in readings.items() if isinstance(reading, Reading)}
        return Snapshot(
            run=self.run.name,
            at=time.time(),
            elapsed_s=now - self._since,
            rows=rows,
            committed=done,
            slots=slots,
            rate=rate,
            eta_s=(rows - done) / rate if rate else None,
            eta_range_s=eta_range(rows - done, self._movement.history),
            history=tuple(self._movement.history),
            norms=self._arrived.norms.copy(),
            norms_bad=self._arrived.norms.bad,
            truncated=self._arrived.truncated,
            quarantined=given_up,
            named=self._given_up_names,
            refusals=self._refusals(),
            alerts=shown,
            committed_by_host={name: reading.committed for name, reading in fresh.items()},
            invalid=frozenset(
                n for n, e in readings.items() if isinstance(e, HostError) and not isinstance(e, LinkLost | Refused)
            ),
            busy=frozenset(n for n, answer in readings.items() if _busy(self._last.get(n), answer)),
            epochs={name: reading.epoch for name, reading in fresh.items() if reading.assigned},
            unassigned_s={name: now - since for name, since in self._unassigned_since.items() if name in fresh},
            silent_s=self._silent_s(readings, now) | self._without_sign_s(slots, now),
            unsupervised={name: process for name, process in gone.items() if self._alive(name)},
            gone=gone,
            late={name: reading.asked_s for name, reading in readings.items() if isinstance(reading, Late)},
        )

    # ------------------------------------------------------------------------------------------------------- reading

    def _renew_plan(self) -> None:
        mtime_ns = self.run.plan_file.stat().st_mtime_ns
        if mtime_ns != self._plan_mtime_ns:
            self.plan, self._plan_mtime_ns = self.run.plan(), mtime_ns

    def _keep(self, name: str, answer: Answer, now: float) -> None:
        """Keep a new reading; for a host that failed or has not answered yet, the last reading stays."""
        if not isinstance(answer, Reading):
            return
        self._last[name] = answer
        self._answered_at[name] = now
        self._offsets[name] = time.time() - answer.now
        if answer.assigned:
            self._unassigned_since.pop(name, None)
        else:
            self._unassigned_since.setdefault(name, now)

    def _silent_s(self, readings: Mapping[str, Answer], now: float) -> dict[str, float]:
        failed = [name for name, answer in readings.items() if isinstance(answer, RunbookError)]
        return {name: now - self._answered_at.get(name, self._since) for name in failed}

    def _without_sign_s(self, slots: Sequence[SlotState], now: float) -> dict[str, float]:
        """Return for how long hosts that a scheduler runs have shown no sign: none of their slots counts as dead."""
        tasks = {name for name, reading in self._last.items() if reading.queued and not reading.supervisor_alive}
        silent = {slot.host for slot in slots if slot.host in tasks and slot.state in (states.SILENT, states.STARTING)}
        self._no_sign_since = {name: self._no_sign_since.get(name, now) for name in silent}
        return {name: now - since for name, since in self._no_sign_since.items()}

    def _have(self, home: Covered) -> dict[str, Covered]:
        """Return the committed rows that count for each host: those at home, and those that the host itself reports."""
        theirs = {name: reading.committed for name, reading in self._last.items()}
        left = [] if self.run.only else [name for name in self.plan.hosts if name not in self._in_profile]
        here = {spec.name: Covered(theirs.get(spec.name, ()), home) for spec in self.run.hosts}
        return {**here, **{name: home for name in left}}

    def _find_launch(self) -> None:
        """Find the time of the launch in the journal: the deadline counts from there, in every watching command."""
        path = self.run.journal.path
        size = path.stat().st_size if path.exists() else 0
        if self._launched_at is None and size != self._journal_size:
            self._journal_size = size
            for event in self.run.journal.events("supervisor started"):
                self._launched_at = datetime.fromisoformat(event["at"]).timestamp()
                return

    def _was_launched(self, readings: Mapping[str, Answer]) -> bool:
        """Return whether this run was ever launched: by the journal, or by files that supervisors and workers left."""
        if self._launched_at is not None or any(isinstance(answer, RunbookError) for answer in readings.values()):
            return True  # not known for a host that cannot be asked
        return any(self._left_traces(name, reading) for name, reading in self._last.items())

    def _left_traces(self, host: str, reading: Reading) -> bool:
        if reading.supervisor is not None or reading.stop_requested or reading.quarantined:
            return True
        if any(entry.report is not None or entry.exits for entry in reading.slots.values()):
            return True
        own = self.plan.rows_ever_given(host)
        return any(low < stop and start < high for low, high in reading.committed for start, stop in own)

    # ------------------------------------------------------------------------------------------------------- judging

    def _slot(
        self, slot: Slot, have: Covered, now: float, answer: Answer | None, launched: bool
    ) -> tuple[SlotState, str]:
        """Return a slot's state by its host's last reading, with rate and verdict; and its alert, or an empty text."""
        reading = self._last.get(slot.host)
        ranges = self.plan.ranges(slot)
        if reading is None or slot.slot not in reading.slots:
            return unread(slot, ranges, have, answer, reading is not None), ""
        observed = observe(slot, ranges, have, reading, answer, launched)
        age_s = self._movement.age_s(observed, now)
        rate = self._movement.rate(observed, age_s, now)
        verdict, evidence = self._verdict(observed, rate, age_s, now)
        return self._slot_state(observed, rate, age_s, verdict, evidence), alerts.of_slot(observed, verdict, evidence)

    def _verdict(
        self, observed: Observed, rate: float | None, age_s: float | None, now: float
    ) -> tuple[states.Verdict, str]:
        trend = self._movement.trend(observed.name)
        signs = verdicts.Signs(
            state=observed.state,
            reason=observed.reason if observed.explained else "",
            code=observed.entry.exits[-1].code if observed.explained else None,
            rate=rate,
            still_s=self._movement.still_s(observed, now),
            age_s=None if observed.reading.queued else age_s,  # seldom; its supervisor sees it from near
            part_s=self.plan.part_rows / max(trend) if any(trend) else None,
            finished=observed.finished,
            queue=queued.words(observed.reading.queued, observed.state),
            unseen=queued.is_unseen(observed.reading),
        )
        verdict, evidence = verdicts.judge(signs, self.run.profile.monitor)
        return verdict, str(observed.silent) if observed.silent and observed.state == states.UNREACHABLE else evidence

    def _slot_state(
        self, observed: Observed, rate: float | None, age_s: float | None, verdict: states.Verdict, evidence: str
    ) -> SlotState:
        report, exits, ended_at = observed.report, observed.entry.exits, observed.report.ended_at
        ended = observed.reason if observed.explained and observed.state in states.ENDED else ""
        return SlotState(
            slot=observed.name,
            host=observed.slot.host,
            rows=observed.rows,
            committed=observed.done,
            in_part=observed.in_part,
            state=observed.state,
            rate=rate,
            age_s=age_s,
            restarts=len(exits),
            reason=safe_text(observed.reason, 300),
            device=safe_text(report.device or observed.slot.device, 80),
            processing_s=report.processing_time,
            ended_at=None if ended_at is None else ended_at + self._offsets.get(observed.slot.host, 0.0),
            trend=self._movement.trend(observed.name),
            gpu=observed.sample,
            verdict="" if verdict.name == observed.state else verdict.name,
            evidence=safe_text(ended or evidence, 300),
            action=verdict.by_itself if verdict.wrong else "",
            exits=exits,
            canaries=report.canaries or (),
            loaded_s=report.loaded_s,
            idle_s=idle_s(observed.reading, observed.entry),
        )

    def _given_up(self, have: Mapping[str, Covered]) -> tuple[int, ...]:
        refused = sorted({row for reading in self._last.values() for row in reading.quarantined})
        # Another host may have done it.
        lost = tuple(row for row in refused if all(each.missing(row, row + 1) for each in have.values()))
        if set(lost) - set(self._given_up_names):
            self._given_up_names = corpora.row_names(self.run.corpus, lost)
        return lost

    def _refusals(self) -> list[Refusal]:
        """Return which rows the hosts gave up, and why, by their last readings."""
        return [each for name, last in self._last.items() for each in refusals(name, last)]

    def _gone(self, readings: Mapping[str, Answer], slots: Sequence[SlotState]) -> dict[str, str]:
        """Return the hosts whose supervisor ended though it has work, each with the process that ended."""
        waiting = {s.host for s in slots if s.state not in states.REST and s.verdict != states.MORE_TO_DO}
        processes: dict[str, str] = {}
        for name, reading in readings.items():
            if not isinstance(reading, Reading) or reading.supervisor_alive or reading.stop_requested:
                continue
            if reading.queued:  # its task has ended, as tasks do; what was killed says the next one
                continue
            gone = reading.supervised.process
            if name in waiting and gone:
                processes[name] = f"{gone['pid']} {gone.get('start')}"
        return processes

    def _alive(self, host: str) -> int:
        """Return how many workers of a host live, by its last reading."""
        return sum(entry.alive for entry in self._last[host].slots.values())

    def _about_all(self, slots: Sequence[SlotState], launched: bool) -> str:
        """Return an alert about the whole run, or an empty text."""
        if all(slot.done for slot in slots):
            return ""
        if not launched and any(slot.state == states.NOT_LAUNCHED for slot in slots):
            return "not launched: run notebook 02_launch (or `runbook run`) first; watching starts nothing"
        launched_s = 0.0 if self._launched_at is None else time.time() - self._launched_at
        deadline_s = self.run.profile.monitor.deadline_s
        if launched_s > deadline_s and not any(slot.state in queued.WAITS for slot in slots):
            return f"not finished {launched_s:.0f} s after the launch (the profile expects {deadline_s:g} s)"
        return ""


def _busy(last: Reading | None, answer: Answer) -> bool:
    """Return whether a host's supervisor lives and has work, perhaps the rows of a slot that was given up.

    For a host that has not answered yet, the last reading decides; a host that never answered may have work.
    """
    if isinstance(answer, RunbookError):
        return False
    if last is None:
        return True
    return bool(last.supervisor_alive and last.supervised.working)
