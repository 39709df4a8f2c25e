"""Watcher: readings of a run over time, made into a `State`. It changes nothing.

Progress is what is committed: rows in parts whose record stands under its final name. What a worker reports beyond
that (rows inside the part at hand, its rate, its state) is shown and never counted.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from worker.escape import safe_text
from worker.files import read_json
from worker.layout import committed
from worker.rows import Range, count, joined, missing
from worker.wire import Exit, PartRecord, Reading, SlotReading, SupervisedSlot, WorkerReport

from ..corpus import corpus as corpora
from ..errors import HostError, LinkLost, RunbookError
from ..hosts import gpus
from ..run.plan import Plan, Slot
from ..run.run import Run
from . import verdicts
from .incidents import refusals
from .rates import Awake, eta_range, windowed
from .readings import Answer, Late, Readings
from .state import REST, Refusal, SlotState, State

HISTORY = 400  # points of rate kept for the picture; older ones are thinned out
TREND = 16  # rates of a slot kept for its sparkline
FRESH_S = 60.0  # a GPU's figures, or a worker's rate, that are older say nothing about now
AWAKE_S = 60.0  # beyond the pause between two looks: what takes longer is our own sleep
TOLD_LATE_S = 10.0  # a host that takes longer to answer is named


@dataclass
class Watcher:
    """Readings of a run over time: turns what the hosts say into a `State`. Holds nothing that files do not.

    `within_s`: how long a look waits for hosts that are slow; all of them are waited for where there is no next look.
    """

    run: Run
    plan: Plan
    began: float = field(default_factory=time.monotonic)
    within_s: float | None = None
    _rates: list[tuple[float, int]] = field(default_factory=list)
    _slot_rates: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    _trends: dict[str, deque[float]] = field(default_factory=dict)
    _history: list[tuple[float, float]] = field(default_factory=list)
    _last: dict[str, Reading] = field(default_factory=dict)
    _home: set[tuple[int, int]] = field(default_factory=set)
    _norms: array[float] = field(default_factory=lambda: array("d"))
    _truncated: int = 0
    _norms_bad: int = 0
    _plan_of: int = 0
    _heard: dict[str, float] = field(default_factory=dict)
    _blank: dict[str, float] = field(default_factory=dict)
    _moved: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)
    _named: dict[int, str] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)
    _beats: dict[str, tuple[object, float]] = field(default_factory=dict)
    _offsets: dict[str, float] = field(default_factory=dict)
    _launched_at: float | None = None
    _journal_of: int = -1

    def __post_init__(self) -> None:
        """Begin to count."""
        self._readings = Readings(self.run)
        self._awake = Awake(self.run.profile.monitor.interval_s + AWAKE_S)
        self._since = self._awake.now()

    def poll(self) -> State:
        """Read all hosts side by side, once, and judge them by the plan of now: rows may have moved."""
        self._renew_plan()
        readings = self._readings.look(self.within_s)
        now = self._awake.now()
        alerts: list[str] = []
        self._take(readings, now, alerts)
        self._see_launch()
        home = committed(self.run.local.parts)  # also what came from a host that is silent now
        meant = {spec.name for spec in self.run.hosts}
        # What counts for the slots of a host: what is home, and the word of that host and no other's.
        have = {name: joined([*home, *self._committed_by(name)]) for name in meant}
        slots = tuple(
            self._slot(slot, have[slot.host], now, readings, alerts) for slot in self.plan.used if slot.host in meant
        )
        rows, done = sum(slot.rows for slot in slots), sum(slot.committed for slot in slots)
        given_up = self._given_up(have, alerts)
        gone = self._gone(readings, slots)
        unsupervised = self._unsupervised(gone, alerts)
        alerts += self._about_all(slots, done < rows, self._was_launched(readings))
        rate = self._rate(slots, now, done)
        left = rows - done
        fresh = {name: found for name, found in readings.items() if isinstance(found, Reading)}
        return State(
            run=self.run.name,
            at=time.time(),
            elapsed_s=now - self._since,
            rows=rows,
            committed=done,
            slots=slots,
            rate=rate,
            eta_s=left / rate if rate else None,
            eta_range_s=eta_range(left, self._history),
            history=tuple(self._history),
            norms=self._norms_home(home),
            quarantined=given_up,
            named=self._named,
            refusals=self._refusals(),
            alerts=tuple(safe_text(alert, 500) for alert in alerts),
            there={name: found.committed for name, found in fresh.items()},
            truncated=self._truncated,
            norms_bad=self._norms_bad,
            odd=frozenset(n for n, r in readings.items() if isinstance(r, HostError) and not isinstance(r, LinkLost)),
            busy=frozenset(n for n, answer in readings.items() if _busy(self._last.get(n), answer)),
            epochs={name: found.epoch for name, found in fresh.items() if found.assigned},
            blank_s={name: now - since for name, since in self._blank.items() if name in fresh},
            silent_s={
                name: now - self._heard.get(name, self._since)
                for name, found in readings.items()
                if isinstance(found, RunbookError)
            },
            unsupervised=unsupervised,
            gone=gone,
            late={name: found.asked_s for name, found in readings.items() if isinstance(found, Late)},
        )

    def _take(self, readings: Mapping[str, Answer], now: float, alerts: list[str]) -> None:
        """Keep what is new; of a host that failed, or has not answered yet, its last reading stays."""
        for name, reading in readings.items():
            if isinstance(reading, RunbookError):  # unreachable is not dead
                alerts.append(str(reading) if str(reading).startswith(name) else f"{name}: {reading}")
            elif isinstance(reading, Late):
                if reading.asked_s > TOLD_LATE_S:
                    alerts.append(f"{name}: no answer for {reading.asked_s:.0f} s; what it said last is shown")
            else:
                self._last[name] = reading
                self._heard[name] = now
                self._offsets[name] = time.time() - reading.now
                if reading.assigned:
                    self._blank.pop(name, None)
                else:
                    self._blank.setdefault(name, now)

    def _renew_plan(self) -> None:
        changed = self.run.plan_file.stat().st_mtime_ns
        if changed != self._plan_of:
            self.plan, self._plan_of = self.run.plan(), changed

    def _see_launch(self) -> None:
        """When the run was launched: the deadline counts from there, whoever watches."""
        path = self.run.journal.path
        size = path.stat().st_size if path.exists() else 0
        if self._launched_at is None and size != self._journal_of:
            self._journal_of = size
            for event in self.run.journal.events("supervisor started"):
                self._launched_at = datetime.fromisoformat(event["at"]).timestamp()
                return

    def _was_launched(self, readings: Mapping[str, Answer]) -> bool:
        """Whether this run was ever launched: by the journal, or by what supervisors and workers left on hosts."""
        if self._launched_at is not None or any(isinstance(answer, RunbookError) for answer in readings.values()):
            return True  # of a host that cannot be asked it is not known
        return any(self._left_traces(name, reading) for name, reading in self._last.items())

    def _left_traces(self, host: str, reading: Reading) -> bool:
        if reading.supervisor is not None or reading.stop_requested or reading.quarantined:
            return True
        if any(entry.report is not None or entry.exits for entry in reading.slots.values()):
            return True
        own = self.plan.ever(host)
        return any(low < stop and start < high for low, high in reading.committed for start, stop in own)

    def _given_up(self, have: Mapping[str, Sequence[Range]], alerts: list[str]) -> tuple[int, ...]:
        refused = sorted({row for reading in self._last.values() for row in reading.quarantined})
        everywhere = joined([rows for ranges in have.values() for rows in ranges]) if refused else []
        found = tuple(row for row in refused if missing(row, row + 1, everywhere))  # another host may have done it
        if found:
            if set(found) - set(self._named):
                self._named = corpora.named(self.run.corpus, found)
            named = ", ".join(self._named[row] for row in found[:10])
            why = next((each.reason for each in self._refusals() if each.row == found[0]), "")
            alerts.append(
                f"rows given up: {named}{' …' if len(found) > 10 else ''}{f'; the first: {why}' if why else ''}"
            )
        return found

    def _refusals(self) -> list[Refusal]:
        """What the hosts told last of rows that were given up, and why."""
        return [each for name, last in self._last.items() for each in refusals(name, last)]

    def _committed_by(self, host: str) -> Sequence[Range]:
        return self._last[host].committed if host in self._last else ()

    def _gone(self, readings: Mapping[str, Answer], slots: Sequence[SlotState]) -> dict[str, str]:
        """The hosts whose supervisor ended though there is work for it, with the process that it was."""
        found: dict[str, str] = {}
        for name, reading in readings.items():
            if not isinstance(reading, Reading) or reading.supervisor_alive or reading.stop_requested:
                continue
            gone = reading.supervised.process
            work = any(slot.host == name and slot.state not in REST and slot.verdict != "more to do" for slot in slots)
            if gone and work:
                found[name] = f"{gone['pid']} {gone.get('start')}"
        return found

    def _unsupervised(self, gone: Mapping[str, str], alerts: list[str]) -> dict[str, str]:
        """Those of them whose workers go on: one that dies then would not be started again."""
        found = {}
        for name, process in gone.items():
            alive = sum(entry.alive for entry in self._last[name].slots.values())
            if alive:
                found[name] = process
                verdict = verdicts.NAMED["unsupervised"]
                alerts.append(
                    f"{name}: {verdict.name}: its supervisor is gone, {alive} of its workers live and would not be "
                    f"started again. By itself: {verdict.by_itself}. You: {verdict.person}."
                )
        return found

    def _about_all(self, slots: Sequence[SlotState], unfinished: bool, launched: bool) -> list[str]:
        """What is to be said of the whole run."""
        if unfinished and not launched and any(slot.state == "not launched" for slot in slots):
            return ["not launched: run notebook 02_launch (or `runbook run`) first; watching starts nothing"]
        launched_s = 0.0 if self._launched_at is None else time.time() - self._launched_at
        deadline_s = self.run.profile.monitor.deadline_s
        if unfinished and launched_s > deadline_s:
            return [f"not finished {launched_s:.0f} s after the launch (the profile expects {deadline_s:g} s)"]
        return []

    def _rate(self, slots: Sequence[SlotState], now: float, done: int) -> float | None:
        """Rows a second of all: what the workers say of themselves; where none says anything, by what is committed."""
        by_commits = windowed(self._rates, now, done)
        said = [rate for slot in slots if (rate := self._said.get(slot.slot)) is not None]
        rate = sum(said) if said else by_commits
        if not rate:
            return None
        self._history.append((round(now - self._since, 2), round(rate, 3)))
        if len(self._history) > HISTORY:
            self._history[:] = self._history[::2]
        return rate

    def _norms_home(self, home: Sequence[Range]) -> Sequence[float]:
        """The norms of the rows that came home, from the records of the parts that are new since the last look."""
        for low, high in home:
            if (low, high) not in self._home:
                self._home.add((low, high))
                try:
                    record = PartRecord.from_json(read_json(self.run.local.part(low, high).with_suffix(".json")))
                except (OSError, ValueError):  # damaged here since it came: the merge refuses it, looking goes on
                    continue
                norms = array("d", record.norms)
                self._norms.extend(norms)
                self._norms_bad += sum(not (math.isfinite(norm) and norm > 0) for norm in norms)
                self._truncated += len(record.truncated)
        return self._norms

    # -------------------------------------------------------------------------------------------------- one slot

    def _slot(
        self,
        slot: Slot,
        have: list[tuple[int, int]],
        now: float,
        readings: Mapping[str, Answer],
        alerts: list[str],
    ) -> SlotState:
        reading = self._last.get(slot.host)
        ranges = self.plan.ranges(slot)
        rows = count(ranges)
        done = rows - _left(ranges, have)
        answer = readings.get(slot.host)
        silent = answer if isinstance(answer, RunbookError) else None
        self._said.pop(slot.slot, None)
        if reading is None or slot.slot not in reading.slots:
            state = "moved" if not rows else "done" if done == rows else "not launched" if reading else ""
            state = state or ("not read yet" if isinstance(answer, Late) else "unreachable")
            told = safe_text(str(silent), 300) if silent and state == "unreachable" else ""
            return SlotState(slot.slot, slot.host, rows, done, 0, state, evidence=told)
        entry = reading.slots[slot.slot]
        report = entry.worker
        supervised = reading.supervised.slots.get(slot.slot) or SupervisedSlot.blank()
        settled = [*have, *((row, row + 1) for row in reading.quarantined)]
        whole = not _left(ranges, settled)
        launched = self._was_launched(readings)
        state = "moved" if not rows else judge(whole, entry.alive, reading, report, supervised, launched)
        if silent and state not in REST:
            state = "unreachable"  # which is not dead: its workers may be computing
        exits = entry.exits
        reason = exits[-1].reason if exits and state not in ("done", "running") else ""
        age = self._age_s(slot.slot, reading, report, now)
        rate = self._slot_rate(slot.slot, entry, report, state, age, now, done)
        trend = self._trends.setdefault(slot.slot, deque(maxlen=TREND))
        trend.append(0.0 if rate is None else round(rate, 3))
        in_part = (report.rows_in_part or 0) if entry.alive else 0
        explained = bool(exits) and not _began_after(report, exits[-1])
        verdict, evidence = verdicts.judge(
            verdicts.Seen(
                state=state,
                reason=reason if explained else "",
                code=exits[-1].code if explained else None,
                rate=rate,
                still_s=self._still_s(slot.slot, state, (done, in_part), now),
                age_s=age,
                part_s=self.plan.part_rows / max(trend) if any(trend) else None,
                finished=supervised.state == "done",
            ),
            self.run.profile.monitor,
        )
        if silent and state == "unreachable":  # told of the whole host, in an alert of its own
            evidence = str(silent)
        elif verdict.wrong and evidence:
            said = f"{evidence}. By itself: {verdict.by_itself}. You: {verdict.person}."
            alerts.append(f"{slot.slot} on {slot.host}: {verdict.name}: {said}")
        ended_at = report.ended_at
        return SlotState(
            slot=slot.slot,
            host=slot.host,
            rows=rows,
            committed=done,
            in_part=in_part,
            state=state,
            rate=rate,
            age_s=age,
            restarts=len(exits),
            reason=safe_text(reason, 300),
            device=safe_text(report.device or slot.device, 80),
            processing_s=report.processing_time,
            ended_at=None if ended_at is None else ended_at + self._offsets.get(slot.host, 0.0),
            trend=tuple(trend),
            gpu=_sample(reading, entry),
            verdict="" if verdict.name == state else verdict.name,
            evidence=safe_text((reason if explained and state in verdicts.ENDED else "") or evidence, 300),
            action=verdict.by_itself if verdict.wrong else "",
            exits=exits,
            loaded_s=report.loaded_s,
            idle_s=_idle_s(reading, entry),
        )

    def _age_s(self, slot: str, reading: Reading, report: WorkerReport, now: float) -> float | None:
        """Since the worker's heartbeat, by its host's clock; as that may be set, by ours where it has beaten since."""
        if not report.heartbeat_at:
            return None
        age = max(0.0, reading.now - report.heartbeat_at)
        beat, before = report.heartbeat, self._beats.get(slot)
        self._beats[slot] = (beat, now)
        return min(age, now - before[1]) if before and beat is not None and beat != before[0] else age

    def _still_s(self, slot: str, state: str, place: tuple[int, int], now: float) -> float:
        """How long a running slot has shown no new row."""
        moved = self._moved.get(slot)
        if moved is None or moved[0] != place or state != "running":
            moved = self._moved[slot] = (place, now)
        return now - moved[1]

    def _slot_rate(
        self,
        slot: str,
        entry: SlotReading,
        report: WorkerReport,
        state: str,
        age: float | None,
        now: float,
        done: int,
    ) -> float | None:
        """Rows a second: the worker's own word while it computes, else by what is committed (neighbours may help)."""
        by_commits = windowed(self._slot_rates.setdefault(slot, []), now, done)
        if state not in ("running", "helping") or not entry.alive:
            return by_commits if state != "unreachable" else None
        said = report.rows_per_s
        said = report.rate if said is None else said  # since it began: its last minute is not known yet
        if said is None or (age is not None and age > FRESH_S):
            return by_commits
        self._said[slot] = said
        return said or None


def _began_after(report: WorkerReport, ended: Exit) -> bool:
    """Whether a later worker has begun since this end: then it tells nothing about now."""
    return report.started_at is not None and ended.at is not None and report.started_at > ended.at


def _sample(reading: Reading, entry: SlotReading) -> gpus.Sample | None:
    """What a slot's GPU did at its supervisor's last look, unless that is long ago."""
    at = reading.supervised.gpus_at
    if at is None or abs(reading.now - at) > FRESH_S:
        return None
    return gpus.samples(reading.supervised.gpus or "").get(entry.gpu or "")


def judge(
    whole: bool,
    alive: bool,
    reading: Reading,
    report: WorkerReport,
    supervised: SupervisedSlot,
    launched: bool = True,
) -> str:
    """A slot's state in one word, from what is on file and who lives.

    `whole`: nothing is left to do; `report` is the worker's own word, `supervised` its supervisor's; `launched`:
    whether there ever was one.
    """
    if whole and not (alive and report.helping):
        return "done"
    if alive:
        return "helping" if whole else (report.state or "starting")
    if reading.stop_requested:
        return "stopped"
    said = supervised.state or ""
    if said == "stopped":  # but by no request of a person: its supervisor was ended, as before the machine starts anew
        return "dead"
    if not reading.supervisor_alive:
        # Given up on purpose, or nobody is left who would start it again.
        return said if said == "fenced" else "dead" if launched else "not launched"
    return {"waiting": "restarting", "running": "starting", "": "starting"}.get(said, said)


def _idle_s(reading: Reading, entry: SlotReading) -> float | None:
    """Since a living worker began, by its host's clock, where it still loads."""
    began = entry.worker.started_at
    loads = entry.alive and entry.worker.state in ("starting", "loading model")
    return max(0.0, reading.now - began) if loads and began is not None else None


def _busy(last: Reading | None, answer: Answer) -> bool:
    """Whether a host's supervisor lives and has work, perhaps with the rows of a slot that was given up.

    One that has not answered yet is taken at its last word, and one that never did may have some.
    """
    if isinstance(answer, RunbookError):
        return False
    if last is None:
        return True
    return bool(last.supervisor_alive and last.supervised.working)


def _left(ranges: list[Range], have: list[Range]) -> int:
    """How many rows of `ranges` nobody of `have` has."""
    return sum(count(missing(start, stop, have)) for start, stop in ranges)
