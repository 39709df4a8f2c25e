"""Launch: start each host's supervisor and wait for a report of every slot. Everything it needs was staged before.

Can be repeated at any time: a living supervisor is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field

from worker.escape import safe_text
from worker.fields import Identity
from worker.rows import Covered
from worker.wire import Reading

from ..errors import InvalidReading, LinkLost, RunbookError
from ..hosts import hosts as machines
from ..hosts import together
from ..run import acts
from ..run.checks import Checks
from ..run.opening import limited
from ..run.plan import Plan
from ..run.run import Run
from ..slots import incidents, states, verdicts
from . import tasks
from .progress import OnProgress, ignore
from .reported import first_rows, not_waited_for, slot_states
from .staging import AWAY, NotStaged, add_failure
from .tasks import LeftAlone

LATE_S, LATE = 30.0, 3.0  # if others are well, the least wait for a slot, and as a multiple of the last one's time


@dataclass(frozen=True)
class Running:
    """A host's supervisor runs and has `left` rows to do; `started`: now, else it ran already and was left alone."""

    pid: int
    left: int
    started: bool

    def __str__(self) -> str:
        return f"{'started' if self.started else 'runs already'} (pid {self.pid}), {self.left} rows left"


Outcome = Running | tasks.Placed | LeftAlone


def start(
    run: Run, *, retry_given_up: bool = True, only: Collection[str] | None = None, undo_stop: bool = True
) -> Checks:
    """Start the supervisor of each host that has rows left and none alive; a living one is reported and left alone.

    Rows that were given up are tried once more, unless `retry_given_up` is False. `only` limits it to these hosts. A
    host that a person stopped is started only with `undo_stop`.
    """
    return start_hosts(run, retry_given_up, only, undo_stop)[0]


def start_hosts(
    run: Run, retry_given_up: bool, only: Collection[str] | None, undo_stop: bool
) -> tuple[Checks, machines.Results[Outcome]]:
    """Do the same as `start`, and return the outcome for each host too."""
    with acts.act(run, "launch") if undo_stop else nullcontext():  # until all have begun, no slot counts as dead
        return _start(run, retry_given_up, only, undo_stop)


def _start(
    run: Run, retry_given_up: bool, only: Collection[str] | None, undo_stop: bool
) -> tuple[Checks, machines.Results[Outcome]]:
    plan = run.plan()
    by = machines.launchers(run)
    checks = Checks("Every host's supervisor runs")

    def one(host: machines.Host) -> Outcome:
        if only is not None and host.name not in only:
            return LeftAlone.NOT_MEANT
        return _start_host(host, plan, retry_given_up, by[host.name], undo_stop)

    results = machines.Results[Outcome]()
    if alone := [spec.name for spec in run.hosts if not spec.is_task]:
        results.update(machines.side_by_side(limited(run, ",".join(alone)), one))
    wanted = tasks.Wanted(only, retry_given_up, undo_stop)
    for specs in together.groups(spec for spec in run.hosts if spec.is_task):
        results.update(tasks.submit(run, plan, specs, wanted))
    for name, result in results.items():
        if name in results.failures:
            add_failure(run, checks, "supervisor", name, results, "running")
            continue
        checks.add("supervisor", True, result, where=name)
        if isinstance(result, Running | tasks.Placed) and result.started:
            run.journal.write("supervisor started", host=name, seen=str(result))
    return checks, results


def _start_host(host: machines.Host, plan: Plan, retry_given_up: bool, by: str, undo_stop: bool) -> Outcome:
    slots = plan.of_host(host.name)
    reading = _not_about_to_end(host, _valid_reading(host, by))
    given_up = [] if retry_given_up else [(row, row + 1) for row in reading.quarantined]
    settled = Covered([*reading.committed, *given_up])
    left = sum(plan.left(slot, settled) for slot in slots)
    if undo_stop and reading.stop_requested:  # also of a host without rows: it may get some later
        host.remove(host.folder.stop_request(host.name))
    if not left:
        return LeftAlone.NO_ROWS
    if not reading.assigned:
        raise NotStaged(host.name)
    if reading.supervisor_alive and (lives := reading.supervised.process):
        return Running(lives["pid"], left, started=False)
    if reading.stop_requested and not undo_stop:
        return LeftAlone.STOPPED
    host.remove(host.folder.stop_request(host.name))
    if retry_given_up:
        for row in reading.quarantined:
            host.remove(host.folder.quarantined(row))
    try:
        identity = host.launch(by)
    except LinkLost:
        # It is not known whether it was started. Look for it; a second one would end by itself (its lock).
        again = _supervisor_there(host)
        identity = host.launch(by) if again is None else again
    _wait_for_its_report(host, identity)
    return Running(identity["pid"], left, started=True)


def _valid_reading(host: machines.Host, by: str, within_s: float = 10.0) -> Reading:
    """Read a host. If its reading is invalid, start its supervisor, which writes a damaged report anew.

    A supervisor that lives keeps its lock, so the new one ends at once; if a stop was requested, it stops.
    """
    try:
        return host.poll()
    except InvalidReading:
        host.launch(by)
    deadline = time.monotonic() + within_s
    while True:
        try:
            return host.poll()
        except InvalidReading:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _not_about_to_end(host: machines.Host, reading: Reading, within_s: float = 5.0) -> Reading:
    """Return a reading without a supervisor that looked for the last time: it does nothing of what came since."""
    deadline = time.monotonic() + within_s
    while reading.supervisor_alive and reading.supervised.working is False and time.monotonic() < deadline:
        time.sleep(0.1)
        reading = host.poll()
    return reading


def start_without_reading(run: Run, only: Collection[str]) -> None:
    """Start the supervisor of hosts with an invalid reading: the process that writes it may be dead.

    If one lives, the new one ends at once (its lock); if a stop was requested, it stops.
    """

    by = machines.launchers(run)

    def one(host: machines.Host) -> None:
        if host.name in only and not host.spec.is_task:  # a task is submitted once its reading can be read again
            host.launch(by[host.name])

    machines.side_by_side(run, one)


def _wait_for_its_report(host: machines.Host, identity: Identity, within_s: float = 10.0) -> None:
    """Wait for the first report of a new supervisor: until then the file has the report of its predecessor."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        process = host.poll().supervised.process
        if process and process["pid"] == identity["pid"]:
            return
        time.sleep(0.1)


def _supervisor_there(host: machines.Host, within_s: float = 5.0) -> Identity | None:
    """Return the living supervisor of a host; wait a moment for its first report."""
    deadline = time.monotonic() + within_s
    while True:
        reading = host.poll()
        if reading.supervisor_alive:
            return reading.supervised.process
        if time.monotonic() > deadline:
            return None
        time.sleep(0.5)


def verify(run: Run, within_s: float | None = None, on_progress: OnProgress = ignore) -> Checks:
    """Wait until every slot has reported: alive and loading or running, or done. The checks name the others."""
    return _wait_until(run, "Every slot reports in", "a report", slot_states, within_s, on_progress)


def first_progress(run: Run, within_s: float | None = None, on_progress: OnProgress = ignore) -> Checks:
    """Wait until every slot that still has rows encodes, or has committed some. The checks name the others."""
    return _wait_until(run, "Every slot produces", "rows", first_rows, within_s, on_progress)


@dataclass
class _Look:
    """The last look at all hosts: `reports` slot -> (is well, in words), `over` slot -> why not to wait for it."""

    expected: dict[str, str]  # slot -> host
    readings: machines.Results[Reading] = field(default_factory=machines.Results)
    reports: dict[str, tuple[bool, str]] = field(default_factory=dict)
    over: dict[str, str] = field(default_factory=dict)

    @property
    def well(self) -> set[str]:
        """The slots that are well."""
        return {slot for slot in self.expected if self.reports[slot][0]}

    def take(
        self, readings: machines.Results[Reading], judge: Callable[[Reading], dict[str, tuple[bool, str]]]
    ) -> None:
        """Take over what the hosts answered; a slot that was not read keeps its last report."""
        self.readings, self.over = readings, {}
        for reading in readings.ok.values():
            self.reports.update(judge(reading))
            self.over |= not_waited_for(reading)
        for name, error in readings.failures.items():
            mine = {slot for slot, host in self.expected.items() if host == name}
            self.reports.update(dict.fromkeys(mine, (False, str(error))))
            self.over |= dict.fromkeys(mine, states.DEAD) if isinstance(error, AWAY) else {}

    def waited(self) -> set[str]:
        """Return the slots to wait for: one that died often is not waited for where others are well."""
        well = self.well
        waited = {slot for slot in {*self.expected} - well if self.over.get(slot, states.WAITING) == states.WAITING}
        return waited - (set(self.over) if well else set())


def _wait_until(
    run: Run,
    title: str,
    wanted: str,
    judge: Callable[[Reading], dict[str, tuple[bool, str]]],
    within_s: float | None,
    on_progress: OnProgress,
) -> Checks:
    """Read all hosts until `judge` accepts every slot or the time is over; return a check for each slot.

    If at least one slot is well and the profile allows us to act, a slot that is not well is a warning: other slots do
    its rows, and the run goes on. The wait for it is a multiple of the time that the last good slot took: a slot that
    hangs while loading must not delay the watching of the others.
    """
    within_s = run.profile.monitor.first_progress_s if within_s is None else within_s
    began = last_well = time.monotonic()
    may_act = run.profile.policy_for(states.DEAD) == "auto"
    before: set[str] = set()
    lost: set[str] = set()
    meant = {spec.name for spec in run.hosts}
    look = _Look({slot.slot: slot.host for slot in run.plan().used if slot.host in meant})
    look.reports = {slot: (False, "no report") for slot in look.expected}
    while True:
        look.take(_poll_staged(run), judge)
        well = look.well
        on_progress("slots", len(well), len(look.expected))
        now = time.monotonic()
        last_well = now if well - before else last_well
        before = well
        late = well and may_act and now - began > max(LATE_S, LATE * (last_well - began))
        if not look.waited() or late or now > began + within_s:
            return _slot_checks(run, title, wanted, within_s, look)
        lost_now = {name for name, reading in look.readings.ok.items() if _supervisor_lost(reading)}
        if may_act and (gone := lost & lost_now):  # no watching command runs yet
            start(run, retry_given_up=False, only=gone, undo_stop=False)
        lost = lost_now
        time.sleep(0.3)


def _slot_checks(run: Run, title: str, wanted: str, within_s: float, look: _Look) -> Checks:
    """Return a check for each slot, and write the trouble of slots that others go on without into the journal."""
    well, over = look.well, look.over
    recorded = set()
    for name, reading in look.readings.ok.items():
        incidents.record(run, name, reading)
        ends = {slot: [end.at for end in entry.exits] for slot, entry in reading.slots.items()}
        recorded |= {slot for slot, times in ends.items() if set(times) - {None}}
    checks = Checks(title)
    for slot, host in look.expected.items():
        ok, what = look.reports[slot]
        if isinstance(look.readings[host], AWAY):
            add_failure(run, checks, slot, host, look.readings, wanted)
            continue
        if not ok:
            what += _last_log_line(run, host, slot)
        expects, remedy = f"{wanted} within {within_s:g} s", f"runbook logs {run.name} {slot}"
        verdict = over.get(slot, "") if over.get(slot) in (states.FENCED, states.STOPPED) else states.DEAD
        if ok or not well or verdict == states.STOPPED or run.profile.policy_for(verdict) != "auto":
            checks.add(slot, ok, what, expects, remedy, where=host)
            continue
        _warn(checks, slot, host, what, expects, remedy)
        last = look.readings.ok.get(host)
        if last and _loads(last, slot):  # no trouble yet: the monitor reports it when it is one
            continue
        if slot not in recorded:
            _note_trouble(run, slot, host, verdicts.cause(what) or verdict, what)
        elif verdict == states.FENCED:  # the ends of its workers are in the journal already
            _note_trouble(run, slot, host, verdict, what)
    return checks


def _loads(reading: Reading, slot: str) -> bool:
    """Return whether a worker of this slot lives and still loads, by its own report or its supervisor's."""
    entry = reading.slots.get(slot)
    if not entry:
        return False
    if entry.alive:
        return entry.worker.state in states.LOADS
    supervised = reading.supervised.slots.get(slot)  # before its first report
    return reading.supervisor_alive and supervised is not None and supervised.state == states.RUNNING


def _supervisor_lost(reading: Reading) -> bool:
    """Return whether a supervisor that had work died without a request."""
    if reading.supervisor_alive or reading.stop_requested or reading.queued:
        return False
    return reading.supervised.working is True


def _warn(checks: Checks, slot: str, host: str, what: str, expects: str, remedy: str) -> None:
    """Add a warning for a slot in trouble while others are well."""
    then = "Others produce: 03_monitor goes on, and its rows go to them when it is given up"
    checks.add(slot, True, f"{what}. {then}", expects, remedy, where=host, warn=True)


def _note_trouble(run: Run, slot: str, host: str, cause: str, what: str) -> None:
    """Write a slot's trouble into the journal, unless the last entry says already that the slot was given up."""
    causes = [event["verdict"] for event in run.journal.events(incidents.BEGAN) if event.get("slot") == slot]
    if causes[-1:] == [cause] == [states.FENCED]:
        return
    action = states.NAMED[cause].by_itself
    run.journal.write(incidents.BEGAN, slot=slot, host=host, verdict=cause, cause=safe_text(what, 300), action=action)


def _poll_staged(run: Run) -> machines.Results[Reading]:
    """Read all hosts, the tasks of a cluster by one question; a host without an assignment has failed."""
    readings = together.poll_all(run)
    blank = {name: NotStaged(name) for name, reading in readings.ok.items() if not reading.assigned}
    return machines.Results({**readings, **blank})


def poll_staged(host: machines.Host) -> Reading:
    """Read a host; raise NotStaged if it has no assignment."""
    reading = host.poll()
    if not reading.assigned:
        raise NotStaged(host.name)
    return reading


def _last_log_line(run: Run, name: str, slot: str) -> str:
    """Return the last line of a slot's log, as evidence."""
    spec = next(spec for spec in run.profile.hosts if spec.name == name)
    try:
        host = machines.connect(spec, run.name)
        lines = host.tail(host.folder.log(slot), 1).strip()
    except RunbookError:
        return ""
    return f"; its log ends: {lines[:200]}" if lines else "; its log is empty"
