"""Moves: which rows go from slots that cannot do them to slots that can. Pure: a plan in, moves out.

Only uncommitted rows move, in whole parts of the first plan, so the bytes do not depend on the slot that does them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worker.rows import Covered, Range, count, planned_parts

from .plan import Move, Plan, Slot

AHEAD = 2  # parts that a living slot keeps: its present one, and one that it may begin meanwhile


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
    before = [rows for host in {slot.host for slot in targets} for rows in plan.rows_ever_given(host)]
    can = {
        name: [part for part in parts[AHEAD:] if not any(low < part[1] and part[0] < high for low, high in before)]
        for name, parts in stays.items()
    }
    speed, share = _speed(rates, sources), _speed(rates, targets)
    total = sum(rows_left.values())
    own = sum(count(left(plan, slot, here)) for slot in targets)
    if not any(rates.get(slot.slot) for slot in sources):  # rows cannot be converted into seconds
        load_s = begin_s = 0.0
    wanted = (total * share - own * speed - begin_s * speed * share) / (speed + share)
    parts: list[tuple[Range, str]] = []
    while any(can.values()):  # always from the slot that has most left
        name = max((slot for slot in can if can[slot]), key=lambda slot: rows_left[slot] / rates.get(slot, 1.0))
        part = can[name].pop()
        size = part[1] - part[0]
        if size > wanted:
            break
        rows_left[name] -= size
        wanted -= size
        parts.append((part, name))
    if sum(part[1] - part[0] for part, _ in parts) / speed <= load_s:
        return []
    return _distribute(plan, here, sorted(parts), targets, rates, why)


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
    for part, _ in parts:
        size = part[1] - part[0]
        first = min(loads, key=lambda name: (loads[name] + size) / pace[name])
        loads[first] += size
        rows[first] += size
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
