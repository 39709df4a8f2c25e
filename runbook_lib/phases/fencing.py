"""Fencing: a slot that was found wrong gets no further rows, and what it did is done again by others.

That a slot is fenced is part of the plan: each host learns of it with its next assignment, and what the slot did is
refused wherever a part is looked at. The rows then go the way of any refused part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from worker.escape import safe_text

from ..result import home
from ..run import fences, locks
from ..run.checks import Checks
from ..run.plan import Plan
from ..run.run import Run
from ..slots import states
from . import download

NAME = "slots that were found wrong"
EVENT, LIFTED = "slot fenced", "fence lifted"
GOES_ON = "`runbook run` has other slots do their rows; by hand: the notebooks from 02 on"
REPAIRED = "have its machine looked at; `runbook restart RUN SLOT` lets it work again"


def fence(run: Run, found: Mapping[str, str]) -> list[str]:
    """Fence slots, slot -> why, and put aside what they did that is home; return those that are new.

    What is on the hosts is refused when it is fetched. None is fenced where no other slot would be left, or the profile
    leaves it to a person.
    """
    if not found or run.profile.policy_for(states.FENCED) != "auto":
        return []
    with locks.held(run.plan_lock):
        plan = run.plan()
        new = {slot: safe_text(why, 300) for slot, why in found.items() if slot not in fences.behind(plan.fences)}
        if not new or not others(run, plan, new):
            return []
        plan.save(run.revision_file(plan.epoch))  # every revision is kept
        plan.with_fences(fences.added(plan.fences, plan.epoch + 1, new)).save(run.plan_file)
        _journal_fences(run)
    with locks.held(run.landing_lock):  # what lands after this is held against the new plan
        wrong = list(home.plainly_unusable_parts(run))
    for path, words in wrong:
        home.put_aside(run, path, words)
    return list(new)


def others(run: Run, plan: Plan, wrong: Mapping[str, str]) -> list[str]:
    """Return the slots of the profile's hosts that are neither fenced nor among these."""
    here = {spec.name for spec in run.profile.hosts}
    out = {*fences.behind(plan.fences), *wrong}
    return [slot.slot for slot in plan.slots if slot.host in here and slot.slot not in out]


def lift(run: Run, slot: str) -> bool:
    """Let a slot work again, at a person's request; whether it was fenced. What it did before stays refused."""
    with locks.held(run.plan_lock):
        plan = run.plan()
        if slot not in fences.behind(plan.fences):
            return False
        plan.save(run.revision_file(plan.epoch))
        plan.with_fences(fences.lifted(plan.fences, plan.epoch + 1, slot)).save(run.plan_file)
        _journal_fences(run)
    return True


def tell_untold(run: Run) -> None:
    """Write into the journal what the plan says of fences and the journal does not: a process may have been killed
    between the two.
    """
    if run.plan().fences:
        with locks.held(run.plan_lock):
            _journal_fences(run)


def _journal_fences(run: Run) -> None:
    """Write an event for each fence of the plan, and for each lifting, that has none yet; the plan is locked."""
    plan = run.plan()
    hosts = {slot.slot: slot.host for slot in plan.slots}
    told = Counter((event["event"], event["slot"]) for event in run.journal.events(EVENT, LIFTED))
    for each in plan.fences:
        if told[EVENT, each.slot] > 0:
            told[EVENT, each.slot] -= 1
        else:
            more = {"host": hosts.get(each.slot, ""), "reason": each.why, "action": "its rows are done by others"}
            run.journal.write(EVENT, slot=each.slot, **more)
        if each.lifted is not None and told[LIFTED, each.slot] > 0:
            told[LIFTED, each.slot] -= 1
        elif each.lifted is not None:
            run.journal.write(LIFTED, slot=each.slot)


def after_audit(run: Run, checks: Checks, wrong: Mapping[str, str]) -> None:
    """Fence the slots that an audit found wrong, and say what follows."""
    if not wrong:
        return
    named = "; ".join(f"{slot}: {why}" for slot, why in wrong.items())
    if fence(run, wrong):
        download.collect(run)
        checks.add(NAME, False, f"fenced now, their rows are to be done again: {named}", "none", GOES_ON)
    else:
        checks.add(NAME, False, f"{named}; no other slot is left, or the profile leaves it to you", "none", REPAIRED)


def tell(checks: Checks, plan: Plan) -> None:
    """Add the check that names the slots which were fenced in a run; none where there were none."""
    named = [f"{each.slot}: {each.why}" for each in plan.fences]
    if named:
        seen = f"{'; '.join(named)}; other slots did their rows"
        checks.add(NAME, True, seen, "none", REPAIRED, warn=True)
