"""Recover: start supervisors that should run, and move rows away from hosts that do not do them.

The verdict and the profile (`recovery`, `policy`) decide what is done, and whether a person is asked first. A host's
supervisor recovers its own workers, also while this machine is off; this module does what needs a view of all hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from worker.escape import safe_text
from worker.layout import committed

from ..errors import ProfileError
from ..hosts import together
from ..run import acts, fences, locks, moves
from ..run.checks import Checks
from ..run.opening import limited
from ..run.plan import Move, Plan, Slot
from ..run.run import Run
from ..slots import states
from ..slots.snapshot import SlotState, Snapshot
from . import launch, staging, tasks

BLANK_S = 60.0  # wait for a launched host that lost its assignment: its folder may be unmounted for a moment
SILENT_S = 20.0  # a silent host keeps its rows at least so long: a link may be slow for a moment
MISSED = 0.9  # of the time between two looks: a host that is silent for longer did not answer one of them
SPLIT_S = 60.0  # hosts that end within this may get rows; also the assumed loading time of a model if unknown
HANGS_S, LOADS_TO_HANG = 60.0, 4.0  # a host hangs after so long without a row, and so many times the usual loading time
ALL = "all hosts"


class Recovery:
    """Do for each host what its verdict requires, as far as the profile allows.

    A call does everything for one state and returns in words what it did. `monitor.watch` runs it as `jobs`, one for
    each host in parallel, so that a slow host does not delay the others. With the policy `ask`, the journal asks once
    and names the command.
    """

    def __call__(self, run: Run, state: Snapshot) -> list[str]:
        """Do everything for this state."""
        did = _side_by_side([partial(self.act_on, run, state, names) for names in _reached_as_one(run)])
        moved = self.act_on_all(run, state)
        return did + moved + (_deliver(run, state) if moved else [])

    def jobs(self, run: Run, state: Snapshot) -> Mapping[str, Callable[[], list[str]]]:
        """Return the same as separate jobs; none for hosts on which a person acts."""
        taken = acts.hosts_in_act(run)
        able = (state.committed_by_host.keys() | state.invalid) - taken
        groups = [names for names in _reached_as_one(run) if able.intersection(names)]
        hosts: dict[str, Callable[[], list[str]]] = {n[0]: partial(self.act_on, run, state, n) for n in groups}
        return hosts if taken else {**hosts, ALL: partial(self.act_on_all, run, state)}

    def act_on_all(self, run: Run, state: Snapshot) -> list[str]:
        """Do what needs a view of all hosts; return in words what was done."""
        return _move(run, state)

    def act_on(self, run: Run, state: Snapshot, names: Collection[str]) -> list[str]:
        """Do what the hosts need that are reached as one; return in words what was done."""
        run, state = limited(run, ",".join(names)), state.for_hosts(names)
        did = _up_to_date(run, state) + _restart_dead(run, state, False) + _launch_late(run, state)
        if state.invalid and run.profile.policy_for(states.DEAD) == "auto":
            staging.stage(run, only=state.invalid)  # not only its report, also its code may be damaged
            launch.start_without_reading(run, state.invalid)
        return did


def _reached_as_one(run: Run) -> list[list[str]]:
    return [[spec.name for spec in specs] for specs in together.groups(run.hosts)]


def _side_by_side(jobs: Sequence[Callable[[], list[str]]]) -> list[str]:
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        return [words for did in pool.map(lambda job: job(), jobs) for words in did]


def restart_refused(run: Run, state: Snapshot) -> list[str]:
    """Start hosts again whose parts were refused: they must do these rows again."""
    return _restart_dead(run, state, True)


def _up_to_date(run: Run, state: Snapshot) -> list[str]:
    """Bring the present plan to a host with an older one: it was away, or rows moved to it or from it."""
    epoch = run.plan().epoch
    old = {name for name, has in state.epochs.items() if has != epoch}
    return _bring_plan(run, old) if old else []


def _bring_plan(run: Run, names: Collection[str]) -> list[str]:
    """Bring hosts the present plan, and start those that have rows in it, except hosts that a person stopped."""
    epoch = run.plan().epoch
    staged = staging.stage(run, only=names)
    did = [f"{check.where}: has the plan of epoch {epoch}" for check in staged if check.ok and check.where in names]
    launch.start(run, retry_given_up=False, only=names, undo_stop=False)
    return did


def _deliver(run: Run, state: Snapshot) -> list[str]:
    """Bring the present plan to every answering host that has another."""
    groups = [[name for name in names if name in state.epochs] for names in _reached_as_one(run)]
    return _side_by_side(
        [partial(_up_to_date, limited(run, ",".join(names)), state.for_hosts(names)) for names in groups if names]
    )


def _restart_dead(run: Run, state: Snapshot, refused: bool) -> list[str]:
    # Never start a stopped or given-up host because of another host.
    gone = (states.DEAD, states.TAKEN)
    wanted = {slot.host for slot in state.slots if slot.state in gone} | set(state.unsupervised)
    if refused:
        resting = {slot.host for slot in state.slots if slot.state in (states.STOPPED, states.FENCED)}
        wanted |= {slot.host for slot in state.slots if slot.state == states.DONE} - resting
    if not wanted or not _allowed(run, states.DEAD, sorted(wanted), "restart"):
        return []
    return _start(run, wanted, "revived")


def _launch_late(run: Run, state: Snapshot) -> list[str]:
    """Start hosts that the launch could not reach and that answer now, or whose folder stays missing."""
    if not state.unassigned_s:
        return []
    launched = {event["host"] for event in run.journal.events("supervisor started")}
    if not launched:
        return []  # this run was not launched yet: watching does not launch it
    left = {slot.host for slot in state.slots if not slot.done}
    late = {name for name, since_s in state.unassigned_s.items() if name not in launched or since_s > BLANK_S} & left
    if not late or not _allowed(run, states.DEAD, sorted(late), "restart"):
        return []
    return _start(run, late, "launched late")


def _start(run: Run, names: set[str], event: str) -> list[str]:
    """Start hosts again. A damaged file may be the cause of death, so check each file's sum before."""
    staging.stage(run, only=names)
    _, outcomes = launch.start_hosts(run, retry_given_up=False, only=names, undo_stop=False)
    began = {n: each for n, each in outcomes.ok.items() if not isinstance(each, tasks.LeftAlone) and each.started}
    started = [f"{name}: {each}" for name, each in began.items()]
    for line in started:
        run.journal.write(event, seen=line)
    return started


def _allowed(run: Run, verdict: str, names: Sequence[str], verb: str) -> bool:
    """Return whether the profile allows us to act; with `ask`, write a request into the journal once for each case."""
    policy = run.profile.policy_for(verdict)
    if policy == "ask":
        asked = {(event["verdict"], event["where"]) for event in run.journal.events("asked")}
        for name in names:
            if (verdict, name) not in asked:
                run.journal.write("asked", verdict=verdict, where=name, command=f"runbook {verb} {run.name} {name}")
    return policy == "auto"


# ------------------------------------------------------------------------------------------------------- moving rows


def _move(run: Run, state: Snapshot) -> list[str]:
    """Move the rows of silent or given-up hosts to the working ones; else the last rows of a slow host."""
    if not state.committed_by_host:  # no host answers: the network of this machine is down
        return []
    lost = _lost(run, state)
    did = _given_away(run, state)
    for verdict in (states.UNREACHABLE, states.FENCED):
        names = sorted(name for name, (why, _) in lost.items() if why == verdict)
        if names and _allowed(run, verdict, names, "move"):
            for name in names:
                did += _revise(run, state, [name], moves.evacuate, lost[name][1])
    return did or _share_tail(run, state)


def _given_away(run: Run, state: Snapshot) -> list[str]:
    """Move the rows of hosts that left the profile: the preflight does it, unless it was killed before."""
    here = {spec.name for spec in run.profile.hosts}
    gone = sorted({slot.host for slot in state.slots if slot.host not in here and not slot.done})
    return [line for name in gone for line in _revise(run, state, [name], moves.evacuate, "it left the profile")]


def _lost(run: Run, state: Snapshot) -> dict[str, tuple[str, str]]:
    """Return host -> (verdict, why) for the hosts that do not work on their remaining rows."""
    reasons, patience_s = {}, _patience_s(run, state)
    for name, slots in state.slots_by_host.items():
        left = [slot for slot in slots if not slot.done]
        silent_s = state.silent_s.get(name, 0.0)
        if left and silent_s > patience_s:
            reasons[name] = (states.UNREACHABLE, f"silent for {silent_s:.0f} s")
        elif left and not silent_s and name not in state.busy and all(slot.state == states.FENCED for slot in left):
            reasons[name] = (states.FENCED, f"given up: {left[0].reason or 'no reason on record'}")
    return reasons


def _patience_s(run: Run, state: Snapshot) -> float:
    """Return how long a silent host keeps its rows: less once others will soon be idle.

    Rows done twice cost nothing then, and workers that still work need not load the model again. So one look without an
    answer is enough where it is the last one at which rows still reach a worker that works.
    """
    watching = run.profile.monitor
    ends = [end[0] for end in _ends(run, state).values() if end is not None]
    if not ends or min(ends) > SPLIT_S:
        return watching.unreachable_s
    last_look = moves.DELIVERED_S <= max(ends) < moves.DELIVERED_S + watching.interval_s
    return min(SILENT_S, watching.unreachable_s, MISSED * watching.interval_s if last_look else SILENT_S)


def _ends(run: Run, state: Snapshot) -> dict[str, tuple[float, float] | None]:
    """Return when each host that answers will have nothing to do, and its rate: see `_end`."""
    part_rows = run.plan().part_rows
    slots = {name: state.slots_by_host.get(name, ()) for name in state.committed_by_host}
    return {name: _end(each, name in state.busy, part_rows) for name, each in slots.items()}


def _share_tail(run: Run, state: Snapshot) -> list[str]:
    """Move the last rows of slow hosts to hosts that are done, or will be soon: before their workers end."""
    answering = {name: state.slots_by_host.get(name, ()) for name in state.committed_by_host}
    ends = _ends(run, state)
    idle, late = moves.early_and_late({name: end for name, end in ends.items() if end}, SPLIT_S)
    idle -= {spec.name for spec in run.hosts if spec.is_task} - state.busy  # a task that ended would have to queue
    working = late & state.busy
    load_s = _load_s([slot for name in idle for slot in answering[name]] or state.slots)
    hanging = {name for name, slots in answering.items() if name in state.busy - idle and _hangs(slots, load_s)}
    if idle and hanging and _allowed(run, states.SLOW, sorted(hanging), "move"):
        why = "it still loads, long after others did, and they were idle"
        if did := _revise(run, state, sorted(hanging), moves.evacuate, why, targets=idle):
            return did
    if not idle or not working or not _allowed(run, states.SLOW, sorted(working), "move"):
        return []
    # A host whose workers have ended, or will before the rows come, must load the model again: others come first.
    soon = {name for name, end in ends.items() if end and end[0] <= moves.DELIVERED_S} | (idle - state.busy)
    awake = {name for name in idle - soon if not any(slot.state in states.OVER for slot in answering[name])}
    begin_s = 0.0 if awake else load_s
    choose = partial(moves.rebalance, load_s=begin_s, begin_s=begin_s)
    return _revise(run, state, sorted(working), choose, "others were idle", targets=awake or idle)


def _hangs(slots: Sequence[SlotState], load_s: float) -> bool:
    """Return whether all workers of a host with rows left still load, long after other hosts loaded the model."""
    left = [slot for slot in slots if not slot.done]
    limit_s = max(HANGS_S, LOADS_TO_HANG * load_s)
    loads = [slot for slot in left if slot.state in states.LOADS]
    return bool(left) and loads == left and all(slot.idle_s is not None and slot.idle_s > limit_s for slot in loads)


def _end(slots: Sequence[SlotState], busy: bool, part_rows: int) -> tuple[float, float] | None:
    """Return seconds until a host has nothing to do, 0 if all is done, and its rows a second; None if unknown.

    Its slots help each other. The last part of a slow slot ends later than the host's share of the rows says: half of
    it more, in the mean.
    """
    rate = sum(slot.rate or 0.0 for slot in slots)
    if all(slot.state in states.OVER for slot in slots):
        return 0.0, rate
    end_s = _eta_s(slots) if busy else None
    last_s = part_rows * len(slots) / 2 / rate if rate and end_s else 0.0
    return None if end_s is None else (end_s + last_s, rate)


def _eta_s(slots: Sequence[SlotState]) -> float | None:
    """Return seconds that a host has work for at its rate; None if that is unknown."""
    rate = sum(slot.rate or 0.0 for slot in slots)
    left = sum(slot.rows - slot.committed - slot.in_part for slot in slots)
    return max(0, left) / rate if rate else None


def _load_s(slots: Sequence[SlotState]) -> float:
    """Return how long loading the model takes, by the workers' reports."""
    return max((slot.loaded_s for slot in slots if slot.loaded_s is not None), default=SPLIT_S)


Chooser = Callable[[Plan, Sequence[tuple[int, int]], Sequence[Slot], Sequence[Slot], dict[str, float], str], list[Move]]


def _revise(
    run: Run,
    state: Snapshot,
    hosts: Sequence[str],
    choose: Chooser,
    why: str,
    targets: Collection[str] | None = None,
    by_person: bool = False,
) -> list[str]:
    """Make the next revision of the plan. Each host's own job brings it there."""
    away = {*hosts, *state.silent_s}
    can = {slot.slot for slot in state.slots if slot.state not in states.TAKES_NO_ROWS and slot.host not in away}
    rates = {slot.slot: slot.rate for slot in state.slots if slot.rate}
    with locks.held(run.plan_lock):  # else two watching commands would make two revisions
        plan = run.plan()
        concerned = {*hosts, *(targets or ())}
        if not by_person and any(state.epochs.get(name, plan.epoch) != plan.epoch for name in concerned):
            return []  # the state is of an older plan: poll again first
        sources = [slot for slot in plan.used if slot.host in hosts]
        can -= fences.behind(plan.fences).keys()
        receivers = [s for s in plan.used if s.slot in can and (targets is None or s.host in targets)]
        have = [*committed(run.local.parts), *_claimed(plan, state, concerned)]
        chosen = choose(plan, have, sources, receivers, rates, safe_text(why, 300))
        if not chosen:
            return []
        after = plan.moved(chosen)
        plan.save(run.revision_file(plan.epoch))  # every revision is kept
        after.save(run.plan_file)
    rows = sum(move.stop - move.start for move in chosen)
    names = {slot.slot: slot.host for slot in after.slots}
    to = sorted({names[move.target] for move in chosen})
    run.journal.write("rows moved", host=",".join(hosts), to=to, rows=rows, epoch=after.epoch, why=safe_text(why, 300))
    return [f"{rows:,} rows of {', '.join(hosts)} moved to {', '.join(to)} ({why}), epoch {after.epoch}"]


def _claimed(plan: Plan, state: Snapshot, names: Collection[str]) -> list[tuple[int, int]]:
    """Return the committed rows that hosts report of their own rows: they will be downloaded, not done again."""
    return [
        (low, high)
        for name in names
        for low, high in state.committed_by_host.get(name, ())
        if any(low < stop and start < high for start, stop in plan.rows_ever_given(name))
    ]


def move(run: Run, state: Snapshot, host: str) -> Checks:
    """Move a host's undone rows to other hosts, at a person's request. Raises ProfileError for an unknown host."""
    known = [spec.name for spec in run.profile.hosts]
    names = [spec.name for spec in run.profile.hosts if host in (spec.name, spec.reached)]
    if not names:
        raise ProfileError(f"no host {safe_text(host, 80)!r} in this profile; there are: {', '.join(known)}")
    checks = Checks("Rows moved")
    with acts.act(run, f"move {host}"):
        did = _revise(run, state, names, moves.evacuate, "a person said so", by_person=True)
        if did:
            _deliver(run, state)
    result = did[0] if did else "nothing was moved: no row is left, or no other host can do them now"
    checks.add("rows moved", bool(did), result, "the rows that are left", f"runbook status {run.name}", where=host)
    return checks
