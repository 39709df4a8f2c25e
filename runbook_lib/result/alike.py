"""What the canaries of all slots say: which slot gives other vectors for the same texts than it must. Pure.

Slots of one kind must give the same bits where such slots give the same bits each time. Else, and beside this machine's
own vectors, they must be near. Where nobody can say which of two is right, both are named and none is blamed.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.wire import Canary

from ..errors import DataError

# Half the squared distance of two vectors of a text, as a share of the squared length, where both are of this dtype or
# one of float32: in 16 bits two kinds of devices differ by much more. A measured bound comes first.
APART = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Reference:
    """The same texts on this machine's processor in float32, and how far off a slot may be: `canaries/here.json`."""

    tolerance: float
    vectors: tuple[tuple[float, ...], ...]


@dataclass
class Judgement:
    """`wrong`: slot -> why; `unsure`: what differs without anybody knowing who is right; `furthest`: of all from here.

    `all_off`: every slot is off what this machine gives, so this machine may be the wrong one: `wrong` has them all.
    """

    wrong: dict[str, str] = field(default_factory=dict)
    unsure: list[str] = field(default_factory=list)
    furthest: float | None = None
    all_off: bool = False


def vectors_of(canary: Canary) -> np.ndarray:
    """Return the vectors of a canary, float64 (texts, dim). Raises DataError for what is none."""
    try:
        raw = base64.b64decode(canary.vectors, validate=True)
        return np.frombuffer(raw, "<f4").reshape(-1, canary.dim).astype(np.float64)
    except ValueError as error:
        raise DataError(f"canaries of {canary.kind[:80]}: {error}") from None


def furthest(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far two slots are apart in the text where they are furthest; infinite if they cannot be compared."""
    if one.shape != other.shape or not one.size:
        return float("inf")
    with np.errstate(all="ignore"):
        apart = ((one - other) ** 2).sum(axis=1) / (other**2).sum(axis=1) / 2.0
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")


def judge(slots: Mapping[str, Sequence[Canary]], reference: Reference | None, dtype: str) -> Judgement:
    """Judge the canaries of each slot, in the order in which it gave them."""
    found = Judgement()
    heard = {slot: [vectors_of(each) for each in given] for slot, given in slots.items() if given}
    if reference is not None and heard:
        _beside_here(heard, reference, found)
    else:
        _beside_each_other(heard, APART[dtype], found)
    for slot, given in slots.items():
        bits = Counter(each.kind for each in given if each.exact)
        if any(times > 1 for times in bits.values()):
            found.wrong.setdefault(slot, "its device gave other bits for the same texts later")
    if not found.all_off:
        _bit_for_bit(slots, found)
    return found


def _beside_here(heard: Mapping[str, Sequence[np.ndarray]], reference: Reference, found: Judgement) -> None:
    right = np.array(reference.vectors, np.float64)
    off = {slot: max(furthest(each, right) for each in given) for slot, given in heard.items()}
    found.furthest = max(off.values())
    for slot, far in off.items():
        if not far <= reference.tolerance:
            found.wrong[slot] = f"known texts come out {far:.2g} off what this machine gives"
    found.all_off = len(found.wrong) == len(heard)


def _beside_each_other(heard: Mapping[str, Sequence[np.ndarray]], apart: float, found: Judgement) -> None:
    """Where this machine has no vectors of its own, a slot is wrong that is off most of the others."""
    far: dict[str, list[str]] = {}
    for slot, given in heard.items():
        others = [other for other in heard if other != slot]
        far[slot] = [o for o in others if not all(furthest(a, b) <= apart for a in given for b in heard[o])]
    wrong = {slot: others for slot, others in far.items() if 2 * len(others) > len(heard) - 1}
    if wrong and len(wrong) < len(heard):
        for slot, others in wrong.items():
            found.wrong[slot] = f"known texts come out otherwise than on {len(others)} of {len(heard) - 1} other slots"
    elif named := _few([slot for slot, others in far.items() if others]):
        found.unsure.append(f"known texts come out otherwise on {named} than on others, and nobody knows who is right")


def _bit_for_bit(slots: Mapping[str, Sequence[Canary]], found: Judgement) -> None:
    by_kind: dict[str, dict[str, str]] = {}
    for slot, given in slots.items():
        if given and given[-1].exact and slot not in found.wrong:
            by_kind.setdefault(given[-1].kind, {})[slot] = given[-1].vectors
    for kind, bits in by_kind.items():
        ((most, times), *others) = Counter(bits.values()).most_common()
        odd = [slot for slot, vectors in bits.items() if vectors != most]
        if others and 2 * times > len(bits):
            why = f"known texts come out in other bits than on {times} slots of the same kind"
            found.wrong.update(dict.fromkeys(odd, why))
        elif others:
            found.unsure.append(f"known texts come out in other bits on {_few(bits)}, all of one kind: {kind[:120]}")


def _few(slots: Iterable[str]) -> str:
    named = sorted(slots)
    return ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
