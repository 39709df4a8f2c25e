"""What a panel lists: all slots of a small run; of a large one those that a person should look at, and the hosts.

Nobody reads a line for each of 8,000 slots, and a notebook that is sent them at every look stands still.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..slots import states
from ..slots.snapshot import SlotState, Snapshot
from .markup import AMBER, BLUE, GREEN, GREY, PURPLE, RED
from .words import many

TALL = 24  # slots; more do not fit on a screen, so the worst come first
MANY = 64  # slots; of more, only the hosts and the slots that are not well are listed, and as many of each
ALERTS = 20
CALM = 2  # from this concern on no attention is needed
# White text on each of these has a contrast of at least 4.5.
COLOURS = {"blue": BLUE, "green": GREEN, "grey": GREY, "amber": AMBER, "purple": PURPLE, "red": RED}
BADGES = {verdict.name: (verdict.badge[0], COLOURS[verdict.badge[1]]) for verdict in states.TABLE}
TROUBLE = ("✕", RED)  # for every other state or verdict


def concern(slot: SlotState) -> int:
    """Return how urgent a slot is; 0 is the most urgent."""
    colour = BADGES.get(slot.verdict or slot.state, TROUBLE)[1]
    return 0 if colour == RED else 1 if colour in (AMBER, PURPLE) else CALM + slot.done


def in_order(slots: Sequence[SlotState]) -> list[SlotState]:
    """Sort the slots if they do not fit on a screen: the worst host first, its slots together, the worst first."""
    if len(slots) <= TALL:
        return list(slots)
    worst: dict[str, int] = {}
    for slot in slots:
        worst[slot.host] = min(worst.get(slot.host, 9), concern(slot))
    place = {host: at for at, host in enumerate(sorted(worst, key=worst.__getitem__))}  # stable for equal hosts
    return sorted(slots, key=lambda slot: (place[slot.host], concern(slot)))


def slots(state: Snapshot, only: str = "") -> list[SlotState]:
    """Return the slots to list: all, or, of more than 64, the worst of those that are not well.

    `only`: instead of these the ones that have this text in their name or their host's, at most 64.
    """
    if only:
        return in_order([slot for slot in state.slots if only in slot.slot or only in slot.host])[:MANY]
    if len(state.slots) <= MANY:
        return in_order(state.slots)
    return sorted((slot for slot in state.slots if concern(slot) < CALM), key=concern)[:MANY]


def caption(state: Snapshot, listed: Sequence[SlotState], only: str = "") -> str:
    """Return how many slots there are and, where they are not all listed, which are and how a person sees others."""
    counted = f"{many(len(state.slots), 'slot')}, {sum(slot.done for slot in state.slots)} done"
    if len(listed) == len(state.slots):
        return counted
    if only:
        return f"{counted}; listed: {len(listed)} with {only!r} in their name or their host's"
    unwell = sum(concern(slot) < CALM for slot in state.slots)
    which = f"the worst {len(listed)} of {unwell} that are not well" if unwell else "none, as all are well"
    return f"{counted}; listed: {which}; others: runbook status {state.run} --hosts HOST"


def hosts(state: Snapshot) -> tuple[list[tuple[str, Sequence[SlotState]]], list[SlotState]]:
    """Return the hosts to list with their slots, the worst first, and the slots of the hosts that are left out."""
    by_host: dict[str, list[SlotState]] = {}
    for slot in in_order(state.slots):
        by_host.setdefault(slot.host, []).append(slot)
    listed = list(by_host.items())
    return list(listed[:MANY]), [slot for _, rest in listed[MANY:] for slot in rest]
