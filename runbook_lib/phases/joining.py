"""Joining and leaving: what changes when hosts are added to the profile of a run under way, or taken out of it.

A host that left is stopped and what it committed comes home, if it can be reached; the plan then gives its other rows
away. Every step can be repeated: what is still to do follows from profile, plan and journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from worker.layout import committed
from worker.rows import count

from ..hosts import hosts as machines
from ..profile.profile import HostSpec
from ..run import locks, planning
from ..run.checks import Checks
from ..run.choices import A_HOST, NO_HOST
from ..run.machine_facts import MachineFacts
from ..run.plan import Plan
from ..run.run import Run
from . import download, workers

LEFT, JOINED = "host left", "host joined"
COMES = {(A_HOST, NO_HOST): LEFT, (NO_HOST, A_HOST): JOINED}  # before and after a change of the profile


@dataclass(frozen=True)
class _Unrecorded:
    """Hosts that left or joined since the run was launched, and whose event is not in the journal yet."""

    left: frozenset[str]
    joined: frozenset[str]


def _unrecorded(run: Run) -> _Unrecorded:
    """Compare the changes of the profile since the launch with the events of hosts."""
    owed: Counter[tuple[str, str]] = Counter()
    launched = False
    for event in run.journal.events("staged", "profile changed", LEFT, JOINED):
        launched = launched or event["event"] == "staged"
        if event["event"] in (LEFT, JOINED):
            owed[event["event"], str(event.get("host"))] = 0
        elif launched and (name := COMES.get((str(event.get("before")), str(event.get("after"))))):
            host = str(event.get("key")).removeprefix("hosts.")
            owed[name, host] += 1
            owed[JOINED if name == LEFT else LEFT, host] = 0
    waiting = {key for key, times in owed.items() if times}
    return _Unrecorded(*(frozenset(host for name, host in waiting if name == kind) for kind in (LEFT, JOINED)))


def follow_hosts(checks: Checks, run: Run, facts: dict[str, MachineFacts]) -> Plan:
    """Bring the plan up to the profile's hosts: those that left give their rows away, those that joined get some."""
    came = _unrecorded(run)
    gone = planning.rows_of_hosts_that_left(run, run.plan(), committed(run.local.parts))
    checks.extend(_take_leave(run, came.left | {name for name, rows in gone.items() if rows}))
    answers = machines.side_by_side(run, lambda host: host.poll().committed)
    there = [(low, high) for ranges in answers.ok.values() for low, high in ranges]
    with locks.held(run.plan_lock):
        before, have = run.plan(), [*committed(run.local.parts), *there]
        after = planning.follow_hosts(run, before, facts, have, came.joined)
        if after != before:
            before.save(run.revision_file(before.epoch))
            after.save(run.plan_file)
        _record_hosts(run, after, replace(came, joined=came.joined & facts.keys()))
    _tell_moves(checks, run, before, after)
    for name in sorted(came.joined & facts.keys()):
        if not _rows_moved(after, name, "target"):
            checks.add("rows moved", True, "gets none: the others are nearly done with theirs", where=name, warn=True)
    for name, rows in planning.rows_of_hosts_that_left(run, after, have).items():
        remedy = f"make one of the others reachable and run again, or put {name} back into the profile"
        checks.add("rows given away", not rows, f"{rows:,} rows left", "0: another host has them", remedy, where=name)
    return after


def _record_hosts(run: Run, plan: Plan, came: _Unrecorded) -> None:
    """Write into the journal who left and who joined, with the rows that moved by that."""
    for name in sorted(came.left):
        run.journal.write("host left", host=name, rows=_rows_moved(plan, name, "source"), epoch=plan.epoch)
    for name in sorted(came.joined):
        run.journal.write("host joined", host=name, rows=_rows_moved(plan, name, "target"), epoch=plan.epoch)


def _rows_moved(plan: Plan, host: str, side: str) -> int:
    """Return how many rows the last revision that moved some from (`source`) or to (`target`) a host moved."""
    names = {slot.slot for slot in plan.slots if slot.host == host}
    moves = [move for move in plan.moves if getattr(move, side) in names]
    last = max((move.epoch for move in moves), default=0)
    return count((move.start, move.stop) for move in moves if move.epoch == last)


def _tell_moves(checks: Checks, run: Run, before: Plan, after: Plan) -> None:
    """Say how many rows each host was given by a new revision of the plan."""
    if after == before:
        return
    added = [slot.slot for slot in after.slots if slot not in before.slots]
    host_of = {slot.slot: slot.host for slot in after.slots}
    moves = after.moves[len(before.moves) :]
    for name in dict.fromkeys(host_of[move.target] for move in moves):
        rows = count((move.start, move.stop) for move in moves if host_of[move.target] == name)
        checks.add("rows moved", True, f"gets {rows:,} rows of the others, epoch {after.epoch}", where=name)
    if added:
        seen = f"{', '.join(added)}, epoch {after.epoch}"
        checks.add("slots added", True, seen)
        run.journal.write("slots added", slots=added, seen=seen, epoch=after.epoch)


def _take_leave(run: Run, names: frozenset[str]) -> Checks:
    """Stop the workers of these hosts that left, and bring home what they committed.

    A host that cannot be reached is a warning: its rows that are not home are done again, and what it commits later is
    not used.
    """
    checks = Checks("What the hosts that left committed is home")
    for spec in run.left:
        if spec.name in names:
            _leave(run, spec, checks)
    return checks


def _leave(run: Run, spec: HostSpec, checks: Checks) -> None:
    there = replace(run, profile=replace(run.profile, hosts=(spec,)), only=frozenset())
    stopped = workers.stop(there)
    got = download.collect(there) if stopped.ok else None
    trouble = [check.seen for check in stopped.failed] + ([*got.failures, *got.refused] if got else [])
    if trouble:
        seen = f"{trouble[0]}. What it committed and is not home is done again by the others"
        remedy = f"its workers may go on: runbook stop {run.name} stops them when it can be reached"
        checks.add("left", True, seen, "stopped, its parts home", remedy, spec.name, warn=True)
    elif got:
        outcome = next(check.seen for check in stopped)
        checks.add("left", True, f"{outcome}; {got.new} of its parts came home now", where=spec.name)
