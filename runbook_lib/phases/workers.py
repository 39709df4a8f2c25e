"""A person's commands for a run's workers: stop, restart, start from row zero."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum

from worker import verbs
from worker.escape import safe_text
from worker.wire import Reading

from ..errors import HostError, LinkLost, ProfileError, RunbookError
from ..hosts import hosts as machines
from ..hosts import together
from ..hosts.content import json_content
from ..profile.profile import HostSpec
from ..run import acts, fences
from ..run.checks import Checks
from ..run.opening import limited
from ..run.plan import Slot
from ..run.run import PHASES, Run
from ..slots import incidents
from . import fencing, launch, staging, tasks

RESTART_S = 30.0  # time for a supervisor to end a worker and start the next


class StopOutcome(StrEnum):
    """The outcome of stopping the workers of a host."""

    STOPPED = "stopped"
    NOTHING_RAN = "nothing was running"
    NOTHING_STAGED = "nothing was staged here"


def stop(run: Run) -> Checks:
    """Stop the supervisors and workers of this run only, also on hosts that left it; committed rows stay."""
    with acts.act(run, "stop"):
        return _stop(run if run.only else run.everywhere)


def _stop(run: Run) -> Checks:
    checks = Checks("Workers stopped")

    def one(host: machines.Host) -> StopOutcome:
        reading = _reading(host)
        incidents.record(run, host.name, reading)
        supervisors, workers = host.living(reading)
        if not (
            reading.assigned or reading.supervisor or supervisors or workers
        ):  # a file may be lost, so processes count too
            return StopOutcome.NOTHING_STAGED
        host.put(host.folder.stop_request(host.name), json_content({"stop": True}))
        for identity in supervisors:  # a supervisor stops its workers itself and gives each ten seconds
            host.stop(identity, 10.0 + 12.0 * max(len(workers), len(reading.slots)))
        survivors = [identity for group in host.living(_reading(host)) for identity in group]
        for identity in survivors:  # their supervisor was dead already
            host.stop(identity)
        if left := [identity["pid"] for group in host.living(_reading(host)) for identity in group]:
            raise HostError(f"{host.name}: processes {left} did not end")
        return StopOutcome.STOPPED if supervisors or survivors else StopOutcome.NOTHING_RAN

    results = machines.Results[StopOutcome]()
    if alone := [spec.name for spec in run.hosts if not spec.is_task]:
        results.update(machines.side_by_side(limited(run, ",".join(alone)), one))
    for specs in together.groups(spec for spec in run.hosts if spec.is_task):
        results.update(_stop_tasks(run, specs))
    for name, result in results.items():
        ok = name in results.ok
        checks.add("stopped", ok, result, "no process of this run", "look at that machine", where=name)
    if results.failures or StopOutcome.STOPPED in results.ok.values():  # without an effect there is no event
        run.journal.write("workers stopped", seen={check.where: check.seen for check in checks})
    return checks


def _stop_tasks(run: Run, specs: Sequence[HostSpec]) -> dict[str, StopOutcome | RunbookError]:
    """Stop the tasks of a cluster, and return the outcome for each."""
    done = machines.ask_host(run, specs[0], lambda host: tasks.stop(run, specs))
    outcome = done if isinstance(done, RunbookError) else StopOutcome.STOPPED if done else StopOutcome.NOTHING_RAN
    return dict.fromkeys([spec.name for spec in specs], outcome)


def _reading(host: machines.Host) -> Reading:
    """Read a host; an invalid reading counts as empty: running processes are then found by their locks."""
    try:
        return host.poll()
    except LinkLost:
        raise
    except HostError:
        return Reading(0.0, True, False, False, {}, None, (), (), (), None)


def restart(run: Run, what: str = "all") -> Checks:
    """Stop and start workers, from their committed rows: `all` of the selected hosts, of one host, or of one slot.

    Raises ProfileError if `what` is neither a host nor a slot of this run and the selected hosts.
    """
    if what in {name for spec in run.hosts for name in (spec.name, spec.reached)}:
        run = limited(run, what)
    elif what != "all":
        return _restart_slot(run, what)
    checks = Checks("Workers restarted")
    with acts.act(run, f"restart {what}"):
        checks.extend(_stop(run))
        if checks.ok and any(run.journal.events("staged")):  # a host may have missed the launch, or lost a file
            checks.extend(staging.stage(run))
        if checks.ok:
            checks.extend(launch.start(run))
    return checks


def from_scratch(run: Run) -> Checks:
    """Stop all workers, set all computed files aside, here and on the hosts, and start again from row zero.

    Nothing is deleted: the old parts are in `aside/<time>/` of the run's folders. Plan and staged files stay.
    """
    checks = Checks("Started from scratch")
    with acts.act(run, "restart all --from-scratch"):
        _from_scratch(run, checks)
    return checks


def _from_scratch(run: Run, checks: Checks) -> None:
    checks.extend(_stop(run))
    if not checks.ok:
        return
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = ["parts", "quarantine"]
    results = machines.side_by_side(run, lambda host: host.set_aside(names, stamp))
    for name, result in results.items():
        ok = name in results.ok
        checks.add("old parts", ok, result, "set aside", "see the message; nothing was started", where=name)
    if checks.ok:
        files = [f"report/{run.result_file(phase).name}" for phase in PHASES[1:]]
        moved = verbs.set_aside(str(run.folder), [*names, "incoming", "merged", *files], stamp)
        checks.add("old parts", True, f"set aside: {', '.join(moved) or 'nothing was there'}")
        run.journal.write("started from scratch", aside=f"aside/{stamp}")
        checks.extend(launch.start(run))


def _restart_slot(run: Run, name: str) -> Checks:
    """Restart one slot's worker, by its supervisor, or by a new one if none lives, which takes over the others."""
    slots = {slot.slot: slot for slot in run.plan().used if slot.host in {spec.name for spec in run.hosts}}
    if name not in slots:
        known = ", ".join([*slots, *(spec.name for spec in run.hosts)])
        raise ProfileError(f"no slot or host {safe_text(name)!r} in this run; there are: {known}, all")
    spec = next(spec for spec in run.hosts if spec.name == slots[name].host)
    with acts.act(run, f"restart {name}"):
        return _new_worker(run, name, slots[name], spec)


def _new_worker(run: Run, name: str, slot: Slot, spec: HostSpec) -> Checks:
    checks, host = Checks("Worker restarted"), machines.connect(spec, run.name)
    reading = launch.poll_staged(host)
    if name in fences.behind(run.plan().fences):
        host.remove(host.folder.progress(name))  # first: it says what the known texts gave before, and is judged
        fencing.lift(run, name)
        checks.add("fence", True, "lifted: it may work again; what it did before is not taken", where=host.name)
        checks.extend(staging.stage(run, only={host.name}))
    if not run.plan().left(slot, reading.committed):
        checks.add(name, True, "no rows left for it", where=host.name)
        return checks
    before = _worker_of(reading, name)
    host.put(host.folder.restart_request(name), json_content({"restart": True}))
    started = [] if reading.supervisor_alive else list(launch.start(run, retry_given_up=False, only={host.name}))
    checks.extend(started)
    deadline = time.monotonic() + RESTART_S
    while (now := _worker_of(host.poll(), name)) in (None, before) and time.monotonic() < deadline:
        time.sleep(0.3)
    anew = now not in (None, before)
    result = f"a new worker, pid {now[0]}" if now and anew else f"no new worker within {RESTART_S:g} s"
    checks.add(name, anew, result, "a new worker", f"runbook logs {run.name} {name}", where=host.name)
    run.journal.write("worker restarted" if anew else "restart failed", slot=name, host=host.name, seen=result)
    return checks


def _worker_of(reading: Reading, slot: str) -> tuple[int, str | None] | None:
    """Return the process that the supervisor reports for a slot: its pid and start."""
    supervised = reading.supervised.slots.get(slot)
    return (supervised.process["pid"], supervised.process.get("start")) if supervised and supervised.process else None
