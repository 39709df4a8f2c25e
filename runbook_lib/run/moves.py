"""Moves: which rows go from slots that cannot do them to slots that can. Pure: a plan in, moves out.

Only uncommitted rows move, in whole parts of the first plan, so the bytes do not depend on the slot that does them.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from worker.rows import Covered, Range, count, planned_parts

from .plan import Move, Plan, Slot

AHEAD = 2  # parts that a living slot of unknown rate keeps: its present one, and one that it may begin meanwhile
DELIVERED_S = 10.0  # until a host has a new plan: what a slot begins before, it keeps
APART_S = 2.0  # a host that ends this long before the mean of all is early


def early_and_late(ends: Mapping[str, tuple[float, float]], within_s: float) -> tuple[set[str], set[str]]:
    """Return the hosts that should get rows, and those that may give some, so that all end together.

    `ends`: host -> (seconds until it has nothing to do, rows a second; 0 for a host of unknown speed, which counts as
    the mean of the others). A host gets rows before it has nothing to do, as its workers would end and load the model
    anew: when it will be done `within_s`, and before most others.
    """
    known = [rate for _, rate in ends.values() if rate]
    usual = sum(known) / len(known) if known else 1.0
    speed = sum(rate or usual for _, rate in ends.values())
    mean_s = sum(end_s * (rate or usual) for end_s, rate in ends.values()) / speed if ends else 0.0
    early = {name for name, (end_s, _) in ends.items() if end_s <= min(within_s, max(0.0, mean_s - APART_S))}
    return early, {name for name, (end_s, _) in ends.items() if end_s >= mean_s} - early


def left(plan: Plan, slot: Slot, home: Covered | Sequence[Range]) -> list[Range]:
    """Return the parts of a slot that are not in `home`, in order."""
    covered = Covered.of(home)
    return [
        gap
        for start, stop in plan.ranges(slot)
        for low, high in planned_parts(start, stop, plan.part_rows, plan.grid(start))
        for gap in covered.missing(low, high)
    ]


def evacuate(
    plan: Plan,
    home: Sequence[Range],
    sources: Sequence[Slot],
    targets: Sequence[Slot],
    rates: Mapping[str, float],
    why: str,
) -> list[Move]:
    """Move all that `sources` have not done to `targets`, so that the targets end at about the same time.

    `rates`: rows a second of each target by its name, if known. Empty without rows to move, or without targets.
    """
    here = Covered(home)
    parts = [(part, slot.slot) for slot in sources for part in left(plan, slot, here)]
    return _distribute(plan, here, parts, targets, rates, why)


def rebalance(
    plan: Plan,
    home: Sequence[Range],
    sources: Sequence[Slot],
    targets: Sequence[Slot],
    rates: Mapping[str, float],
    why: str,
    load_s: float = 0.0,
    begin_s: float = 0.0,
) -> list[Move]:
    """Move the last parts of working slots to `targets` that will soon have nothing to do, so that all end together.

    `begin_s`: the time the targets need to begin; `load_s`: a move that gains no more than this is not made. Rows
    never go back to a host that had them before.
    """
    here = Covered(home)
    stays = {slot.slot: left(plan, slot, here) for slot in sources}
    rows_left = {name: count(parts) for name, parts in stays.items()}
    before = Covered(rows for host in {slot.host for slot in targets} for rows in plan.rows_ever_given(host))
    can = {
        name: [part for part in parts[_kept(plan, rates.get(name)) :] if before.missing(*part) == [part]]
        for name, parts in stays.items()
    }
    speed, share = _speed(rates, sources), _speed(rates, targets)
    total = sum(rows_left.values())
    own = sum(count(left(plan, slot, here)) for slot in targets)
    if not any(rates.get(slot.slot) for slot in sources):  # rows cannot be converted into seconds
        load_s = begin_s = 0.0
    wanted = (total * share - own * speed - begin_s * speed * share) / (speed + share)
    parts: list[tuple[Range, str]] = []
    latest = [(-rows_left[name] / rates.get(name, 1.0), at, name) for at, name in enumerate(can) if can[name]]
    heapq.heapify(latest)
    while latest:  # always from the slot that has most left
        _, at, name = heapq.heappop(latest)
        part = can[name].pop()
        size = part[1] - part[0]
        if size > wanted:
            break
        rows_left[name] -= size
        wanted -= size
        parts.append((part, name))
        if can[name]:
            heapq.heappush(latest, (-rows_left[name] / rates.get(name, 1.0), at, name))
    if sum(part[1] - part[0] for part, _ in parts) / speed <= load_s:
        return []
    return _distribute(plan, here, sorted(parts), targets, rates, why)


def _kept(plan: Plan, rate: float | None) -> int:
    """Return how many parts a working slot keeps: its present one, and what it begins before the new plan is there."""
    return 1 + round(DELIVERED_S * rate / plan.part_rows) if rate else AHEAD


def _speed(rates: Mapping[str, float], slots: Sequence[Slot]) -> float:
    """Return the rows a second of all slots; an unknown one counts as the mean of the others."""
    known = [rates[slot.slot] for slot in slots if rates.get(slot.slot)]
    usual = sum(known) / len(known) if known else 1.0
    return sum(rates.get(slot.slot) or usual for slot in slots)


def _distribute(
    plan: Plan,
    home: Covered,
    parts: Sequence[tuple[Range, str]],
    targets: Sequence[Slot],
    rates: Mapping[str, float],
    why: str,
) -> list[Move]:
    """Give each part to the target that would end first with it; adjacent parts then move as one range."""
    if not parts or not targets:
        return []
    known = [rate for slot in targets if (rate := rates.get(slot.slot))]
    usual = sum(known) / len(known) if known else 1.0
    pace = {slot.slot: rates.get(slot.slot) or usual for slot in targets}
    loads = {slot.slot: float(count(left(plan, slot, home))) for slot in targets}
    rows = dict.fromkeys(loads, 0)
    size = max(part[1] - part[0] for part, _ in parts)
    ends = [((loads[name] + size) / pace[name], at, name) for at, name in enumerate(loads)]
    heapq.heapify(ends)
    for part, _ in parts:
        _, at, first = ends[0]
        rows[first] += part[1] - part[0]
        heapq.heapreplace(ends, ((loads[first] + rows[first] + size) / pace[first], at, first))
    moves: list[Move] = []
    names = iter([name for name in rows if rows[name]])
    target, room = "", 0
    for part, source in parts:
        if room <= 0:
            target = next(names, target)
            room = rows[target]
        room -= part[1] - part[0]
        before = moves[-1] if moves else None
        together = before and (before.source, before.target, before.stop) == (source, target, part[0])
        if before and together and plan.grid(before.start) == plan.grid(part[0]):
            moves[-1] = Move(before.epoch, before.start, part[1], source, target, why)
        else:
            moves.append(Move(plan.epoch + 1, *part, source, target, why))
    return moves
