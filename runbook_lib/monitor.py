"""Monitor: read every host, judge every slot, show it, until every row is committed. It never changes anything.

Progress is what is committed: rows in parts whose record stands under its final name. What a worker reports beyond
that (rows inside the part at hand, its state) is shown and never counted.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.layout import Range, committed, count, joined, missing, read_json, safe_text

from . import gpus, verdicts
from . import hosts as machines
from .checks import Checks
from .errors import HostError, LinkLost, RunbookError
from .incidents import Incidents
from .plan import Plan, Slot
from .run import Run
from .state import REST, SlotState, State

WINDOW_S = 60.0  # the rate and the ETA look back this far: a cumulative rate stays confidently wrong
BAND_S = 300.0  # and the range of the ETA is that of the rates of the last five
HISTORY = 400  # points of rate kept for the picture; older ones are thinned out
TREND = 16  # rates of a slot kept for its sparkline
GPU_S = 60.0  # a reading of a GPU older than this says nothing about now


class View(Protocol):
    """What shows a `State`; pictures.Live is one."""

    def show(self, state: State) -> None:
        """Show this state instead of the one before."""


@dataclass
class Watcher:
    """Readings of a run over time: turns what the hosts say into a `State`. Holds nothing that files do not."""

    run: Run
    plan: Plan
    began: float = field(default_factory=time.monotonic)
    _rates: list[tuple[float, int]] = field(default_factory=list)
    _slot_rates: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    _trends: dict[str, deque[float]] = field(default_factory=dict)
    _history: list[tuple[float, float]] = field(default_factory=list)
    _last: dict[str, dict[str, Any]] = field(default_factory=dict)
    _home: set[tuple[int, int]] = field(default_factory=set)
    _norms: array[float] = field(default_factory=lambda: array("d"))
    _truncated: int = 0
    _norms_bad: int = 0
    _plan_of: int = 0
    _heard: dict[str, float] = field(default_factory=dict)
    _blank: dict[str, float] = field(default_factory=dict)
    _moved: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)

    def poll(self) -> State:
        """Read all hosts side by side, once, and judge them by the plan of now: rows may have moved."""
        self._renew_plan()
        readings = machines.side_by_side(self.run, lambda host: host.poll())
        now = time.monotonic()
        alerts = []
        for name, reading in readings.items():
            if isinstance(reading, RunbookError):
                alerts.append(
                    str(reading) if str(reading).startswith(name) else f"{name}: {reading}"
                )  # its last reading stays: unreachable is not dead
            else:
                self._last[name] = reading
                self._heard[name] = now
                if reading["assigned"]:
                    self._blank.pop(name, None)
                else:
                    self._blank.setdefault(name, now)
        home = committed(self.run.local.parts)  # also what came from a host that is silent now
        meant = {spec.name for spec in self.run.hosts}
        # What counts for the slots of a host: what is home, and the word of that host and no other's.
        have = {name: joined([*home, *self._last.get(name, {}).get("committed", [])]) for name in meant}
        slots = tuple(
            self._slot(slot, have[slot.host], now, readings, alerts) for slot in self.plan.used if slot.host in meant
        )
        rows, done = sum(slot.rows for slot in slots), sum(slot.committed for slot in slots)
        refused = sorted({row for reading in self._last.values() for row in reading["quarantined"]})
        everywhere = joined([rows for ranges in have.values() for rows in ranges]) if refused else []
        given_up = tuple(row for row in refused if missing(row, row + 1, everywhere))  # another host may have done it
        if given_up:
            alerts.append(f"rows given up: {', '.join(map(str, given_up[:10]))}{' …' if len(given_up) > 10 else ''}")
        elapsed, deadline_s = now - self.began, self.run.profile.monitor.deadline_s
        if elapsed > deadline_s and done < rows:
            alerts.append(f"not finished after {elapsed:.0f} s (the profile expects {deadline_s:g} s)")
        rate = windowed(self._rates, now, done)
        if rate is not None:
            self._history.append((round(elapsed, 2), round(rate, 3)))
            if len(self._history) > HISTORY:
                self._history[:] = self._history[::2]
        left = rows - done
        return State(
            run=self.run.name,
            at=time.time(),
            elapsed_s=elapsed,
            rows=rows,
            committed=done,
            slots=slots,
            rate=rate,
            eta_s=left / rate if rate else None,
            eta_range_s=eta_range(left, self._history),
            history=tuple(self._history),
            norms=self._norms_home(home),
            quarantined=given_up,
            alerts=tuple(safe_text(alert, 500) for alert in alerts),
            there={
                n: [tuple(r) for r in found["committed"]] for n, found in readings.items() if isinstance(found, dict)
            },
            truncated=self._truncated,
            norms_bad=self._norms_bad,
            odd=frozenset(n for n, r in readings.items() if isinstance(r, HostError) and not isinstance(r, LinkLost)),
            busy=frozenset(n for n, found in readings.items() if isinstance(found, dict) and _busy(found)),
            epochs={
                n: found["epoch"] for n, found in readings.items() if isinstance(found, dict) and found["assigned"]
            },
            blank_s={n: now - since for n, since in self._blank.items() if isinstance(readings.get(n), dict)},
            silent_s={n: now - self._heard.get(n, self.began) for n, r in readings.items() if not isinstance(r, dict)},
        )

    def _renew_plan(self) -> None:
        changed = self.run.plan_file.stat().st_mtime_ns
        if changed != self._plan_of:
            self.plan, self._plan_of = self.run.plan(), changed

    def _norms_home(self, home: Sequence[Range]) -> Sequence[float]:
        """The norms of the rows that came home, from the records of the parts that are new since the last look."""
        for low, high in home:
            if (low, high) not in self._home:
                self._home.add((low, high))
                try:
                    record = read_json(self.run.local.part(low, high).with_suffix(".json")) or {}
                    norms, truncated = array("d", record.get("norms", [])), len(record.get("truncated", []))
                except (OSError, ValueError, TypeError, ArithmeticError):
                    continue  # damaged here since it came: the merge refuses it, looking goes on
                self._norms.extend(norms)
                self._norms_bad += sum(not (math.isfinite(norm) and norm > 0) for norm in norms)
                self._truncated += truncated
        return self._norms

    def _slot(
        self,
        slot: Slot,
        have: list[tuple[int, int]],
        now: float,
        readings: Mapping[str, dict[str, Any] | RunbookError],
        alerts: list[str],
    ) -> SlotState:
        reading = self._last.get(slot.host)
        ranges = self.plan.ranges(slot)
        rows = count(ranges)
        done = rows - _left(ranges, have)
        if reading is None or slot.slot not in reading["slots"]:
            state = "moved" if not rows else "done" if done == rows else "not launched" if reading else "unreachable"
            return SlotState(slot.slot, slot.host, rows, done, 0, state)
        entry = reading["slots"][slot.slot]
        report = entry["report"] or {}
        supervised = ((reading["supervisor"] or {}).get("slots") or {}).get(slot.slot, {})
        age = reading["now"] - report["heartbeat_at"] if report.get("heartbeat_at") else None
        settled = [*have, *((row, row + 1) for row in reading["quarantined"])]
        whole = not _left(ranges, settled)
        state = "moved" if not rows else judge(whole, entry["alive"], reading, report, supervised)
        if isinstance(readings.get(slot.host), RunbookError) and state not in REST:
            state = "unreachable"  # which is not dead: its workers may be computing
        exits = entry["exits"]
        reason = str(exits[-1]["reason"]) if exits and state not in ("done", "running") else ""
        rate = windowed(self._slot_rates.setdefault(slot.slot, []), now, done)
        trend = self._trends.setdefault(slot.slot, deque(maxlen=TREND))
        trend.append(0.0 if rate is None else round(rate, 3))
        in_part = int(report.get("rows_in_part") or 0) if entry["alive"] else 0
        moved = self._moved.get(slot.slot)
        if moved is None or moved[0] != (done, in_part) or state != "running":
            moved = self._moved[slot.slot] = ((done, in_part), now)
        verdict, evidence = verdicts.judge(
            verdicts.Seen(
                state=state,
                reason=reason,
                code=exits[-1].get("code") if exits else None,
                rate=rate,
                still_s=now - moved[1],
                age_s=age,
                part_s=self.plan.part_rows / max(trend) if any(trend) else None,
            ),
            self.run.profile.monitor,
        )
        silent = readings.get(slot.host)
        told = isinstance(silent, RunbookError)  # of the whole host, in an alert of its own
        if told and state == "unreachable":
            evidence = str(silent)
        elif verdict.wrong and evidence:
            said = f"{evidence}. By itself: {verdict.by_itself}. You: {verdict.person}."
            alerts.append(f"{slot.slot} on {slot.host}: {verdict.name}: {said}")
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
            device=safe_text(str(report.get("device") or slot.device), 80),
            processing_s=report.get("processing_time"),
            ended_at=report.get("ended_at"),
            trend=tuple(trend),
            gpu=_sample(reading, entry),
            verdict="" if verdict.name == state else verdict.name,
            evidence=safe_text((reason if state in verdicts.ENDED else "") or evidence, 300),
            action=verdict.by_itself if verdict.wrong else "",
        )


def _sample(reading: Mapping[str, Any], entry: Mapping[str, Any]) -> gpus.Sample | None:
    """What a slot's GPU did at its supervisor's last look, unless that is long ago."""
    supervisor = reading["supervisor"] or {}
    at = supervisor.get("gpus_at")
    if not isinstance(at, int | float) or abs(reading["now"] - at) > GPU_S:
        return None
    return gpus.samples(str(supervisor.get("gpus") or "")).get(str(entry.get("gpu")))


def judge(
    whole: bool,
    alive: bool,
    reading: Mapping[str, Any],
    report: Mapping[str, Any],
    supervised: Mapping[str, Any],
) -> str:
    """A slot's state in one word, from what is on file and who lives.

    `whole`: nothing is left to do; `report` is the worker's own word, `supervised` its supervisor's.
    """
    if whole and not (alive and report.get("helping")):
        return "done"
    if alive:
        return "helping" if whole else str(report.get("state") or "starting")
    if reading["stop_requested"]:
        return "stopped"
    said = str(supervised.get("state") or "")
    if not reading["supervisor_alive"]:
        # Given up on purpose, or nobody is left who would start it again.
        return said if said in ("fenced", "stopped") else "dead"
    return {"waiting": "restarting", "running": "starting", "": "starting"}.get(said, said)


def _busy(reading: Mapping[str, Any]) -> bool:
    """Whether a host's supervisor lives and has work, perhaps with the rows of a slot that was given up."""
    return bool(reading["supervisor_alive"] and (reading["supervisor"] or {}).get("working"))


def _left(ranges: list[Range], have: list[Range]) -> int:
    """How many rows of `ranges` nobody of `have` has."""
    return sum(count(missing(start, stop, have)) for start, stop in ranges)


def windowed(points: list[tuple[float, int]], now: float, rows: int, window_s: float = WINDOW_S) -> float | None:
    """Rows a second over the last `window_s`, from (time, rows) points that this call extends; None while unknown."""
    points.append((now, rows))
    while len(points) > 2 and points[1][0] < now - window_s:
        points.pop(0)
    began, before = points[0]
    return (rows - before) / (now - began) if now > began and rows > before else None


def eta_range(left: int, history: Sequence[tuple[float, float]], band_s: float = BAND_S) -> tuple[float, float] | None:
    """(earliest, latest) seconds to do `left` rows at the rates of the last `band_s`; None with fewer than three."""
    rates = [rate for at, rate in history if at >= history[-1][0] - band_s and rate > 0]
    return (left / max(rates), left / min(rates)) if len(rates) >= 3 else None


async def watch(
    run: Run,
    view: View,
    act: Callable[[Run, State], list[str]] | None = None,
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> State:
    """Look again and again, show each state in `view`, until every row is committed or nobody works any more.

    `rest(seconds)` is awaited between two looks. `act(run, state)` may do something about what is seen (see recover)
    and tells in words what it did. Interrupting this leaves the workers computing; calling it again takes up where they
    are.
    """
    watcher, incidents = Watcher(run, run.plan()), Incidents(run)
    interval = run.profile.monitor.interval_s
    run.journal.write("watching", rows=watcher.plan.rows)
    state = await asyncio.to_thread(watcher.poll)
    acting: asyncio.Task[list[str]] | None = None  # bringing parts home may take longer than a look
    try:
        while True:
            incidents.note(state)
            view.show(state)
            if state.done:
                break
            if act and acting is None:
                acting = asyncio.create_task(asyncio.to_thread(act, run, state))
            acted = []
            if acting and (state.resting or (await asyncio.wait([acting], timeout=0.05))[0]):
                acted, acting = await acting, None
            if (state.resting and not acted) or _given_up(state, run.profile.monitor.deadline_s):
                break
            await rest(interval)
            state = await asyncio.to_thread(watcher.poll)
        if acting:
            await acting
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.journal.write("watching interrupted", committed=state.committed)
        print("Watching stopped. The workers go on; run this cell again to take up where they are.")
        return state
    run.journal.write("watched", committed=state.committed, rows=state.rows, seconds=round(state.elapsed_s, 1))
    return state


def _given_up(state: State, deadline_s: float) -> bool:
    """Whether everybody who still has rows, and does not rest, has been silent for longer than the deadline."""
    left = [slot for slot in state.slots if not slot.done and slot.state not in REST]
    return bool(left) and all(state.silent_s.get(slot.host, 0.0) > deadline_s for slot in left)


def finished(state: State) -> Checks:
    """Whether every row is committed and none was given up: what the gate of this phase asks."""
    checks = Checks("Every row is committed")
    for slot in state.slots:
        seen = f"{slot.committed:,} of {slot.rows:,} rows" + ("" if slot.done else f"; {slot.state} {slot.reason}")
        checks.add(slot.slot, slot.done, seen, f"{slot.rows:,}", f"runbook logs {state.run} {slot.slot}", slot.host)
    given_up = ", ".join(map(str, state.quarantined[:10]))
    checks.add("rows given up", not state.quarantined, given_up or "none", "none", "mend or take out these documents")
    checks.add("rows", state.done, f"{state.committed:,}", f"{state.rows:,}", "run this notebook again")
    return checks
