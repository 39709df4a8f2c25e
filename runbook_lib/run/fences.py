"""Fences: slots that were found wrong, from which revision of the plan on, and until when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

FENCED = "slot fenced"  # the event of the journal


@dataclass(frozen=True)
class Fence:
    """A slot that was found wrong: nothing that it does counts from the revision `epoch` on, nor what it did before.

    Where a person let it work again (`lifted`: the revision), what it does from then on counts.
    """

    epoch: int
    slot: str
    why: str
    lifted: int | None = None


def added(fences: Iterable[Fence], epoch: int, why: Mapping[str, str]) -> tuple[Fence, ...]:
    """Return the fences with more of them, slot -> why, from this revision on."""
    return (*fences, *(Fence(epoch, slot, words) for slot, words in why.items()))


def lifted(fences: Iterable[Fence], epoch: int, slot: str) -> tuple[Fence, ...]:
    """Return the fences with those of a slot lifted in this revision."""
    return tuple(replace(each, lifted=epoch) if each.slot == slot and not each.lifted else each for each in fences)


def behind(fences: Iterable[Fence]) -> dict[str, str]:
    """Return the slots that must not work now, each with why."""
    return {each.slot: each.why for each in fences if each.lifted is None}


def why_not(fences: Iterable[Fence], slot: str, epoch: int | None) -> str:
    """Return why what a slot did by the plan's revision `epoch` does not count; empty if it does."""
    for each in fences:
        if each.slot == slot and (each.lifted is None or epoch is None or epoch < each.lifted):
            return each.why
    return ""
