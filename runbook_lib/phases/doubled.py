"""Doubled batches: of each slot one whole batch is computed again on another one, as it was laid out, bit for bit.

Drawn by the audit's seed, after all parts are home. It finds what is far below any tolerance, such as one bit of one
weight; who of two is right it cannot say: rows that are far apart are the first that the audit computes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.escape import safe_text
from worker.wire import Doubled, DoubledBatch, PartAgain, PartRecord

from ..corpus.corpus import Corpus
from ..errors import DataError
from ..result import alike, parts, sampling
from ..result.manifest import MergedPart
from ..run.checks import Checks
from ..run.plan import Plan
from ..run.run import Run
from . import elsewhere
from .elsewhere import Kind

NAME, FILE = "batches done again on other slots", "doubled.json"
ALONE = "every slot is this machine's processor, or the only one: nothing else could do its batches again"
TAKEN = "with --since the result's rows are not those of parts"


@dataclass(frozen=True)
class Again:
    """A batch of `slot` that `by` did again: its rows, how many came out the same in every bit, the furthest of them.

    `exact`: both are of one kind whose bits must agree. `far`: the rows beyond the tolerance.
    """

    slot: str
    by: str
    part: str
    rows: int = 0
    equal: int = 0
    furthest: float | None = None
    exact: bool = False
    far: tuple[int, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Drawn:
    """`report/doubled.json`: what was drawn by this seed, and what came of it."""

    seed: str
    batches: tuple[Again, ...]


@dataclass(frozen=True)
class _Part:
    merged: MergedPart
    path: Path
    record: PartRecord
    by: str


def twice(run: Run, plan: Plan, corpus: Corpus, merged: Sequence[MergedPart], seed: str) -> Drawn:
    """Draw a part of each slot and a batch of it, have it done by another slot, and compare it with what is home."""
    drawn = _drawn(run, plan, merged, seed)
    orders: dict[str, list[PartAgain]] = {}
    for part in drawn.values():
        orders.setdefault(part.by, []).append(_order(plan, corpus, part, seed))
    answers = elsewhere.ask(run, plan, orders) if orders else {}
    kinds = {slot: Kind.of(part.record) for slot, part in drawn.items()}
    found = [_compared(slot, part, answers[part.by], kinds[slot], plan.dtype) for slot, part in drawn.items()]
    return Drawn(seed, tuple(found))


def _drawn(run: Run, plan: Plan, merged: Sequence[MergedPart], seed: str) -> dict[str, _Part]:
    """Return slot -> the part that was drawn of it, for the slots that have a partner."""
    by_slot: dict[str, list[MergedPart]] = {}
    for each in merged:
        if each.rows and (run.local.parts / each.name).exists():
            by_slot.setdefault(each.slot, []).append(each)
    chosen = {slot: own[sampling.draw(f"{seed}/{slot}", len(own), 1)[0]] for slot, own in by_slot.items()}
    records = {}
    for slot, each in chosen.items():
        try:
            records[slot] = parts.read(run.local.parts / each.name).record
        except DataError:
            continue  # validation names a part that cannot be read
    partners = elsewhere.partners(run, plan, {slot: Kind.of(record) for slot, record in records.items()})
    return {
        slot: _Part(chosen[slot], run.local.parts / chosen[slot].name, records[slot], by)
        for slot, by in partners.items()
    }


def _order(plan: Plan, corpus: Corpus, part: _Part, seed: str) -> PartAgain:
    rows = range(part.record.start, part.record.stop)
    avoid = {*part.record.redone_float32, *map(int, part.record.done_by_processor or ())}
    draw = int(seed[:12] or "0", 16) if all(c in "0123456789abcdef" for c in seed[:12]) else 0
    return PartAgain(
        part.record.start, plan.documents, tuple(rows), tuple(corpus.texts(rows)), draw, tuple(sorted(avoid))
    )


def _compared(slot: str, part: _Part, answer: Doubled | str, kind: Kind, dtype: str) -> Again:
    again = Again(slot, part.by, part.merged.name)
    if isinstance(answer, str):
        return _failed(again, answer)
    batch = next((each for each in answer.batches if each.start == part.record.start), None)
    if batch is None or batch.error:
        return _failed(again, batch.error if batch else "it says nothing of this part")
    try:
        theirs = vectors(batch)
        ours = np.load(part.path, allow_pickle=False)[[row - part.record.start for row in batch.rows]]
        if theirs.shape != ours.shape or not batch.rows or min(batch.rows) < part.record.start:
            raise ValueError(f"expected vectors of {ours.shape}, found {theirs.shape}")
    except (ValueError, IndexError, OSError) as error:
        return _failed(again, str(error))
    exact = kind.exact and not part.record.out_of_memory and (kind.device, kind.torch) == (answer.device, answer.torch)
    off = [alike.furthest(a[None], b[None]) for a, b in zip(theirs.astype(float), ours.astype(float), strict=True)]
    far = tuple(row for row, each in zip(batch.rows, off, strict=True) if not each <= alike.APART[dtype])
    same = int((theirs.view(np.uint32) == ours.view(np.uint32)).all(axis=1).sum())
    return Again(slot, part.by, part.merged.name, len(batch.rows), same, float(f"{min(max(off), 1e9):.2g}"), exact, far)


def _failed(again: Again, why: str) -> Again:
    return Again(again.slot, again.by, again.part, error=safe_text(why, 300))


def vectors(batch: DoubledBatch) -> np.ndarray:
    """Return the vectors of an answer, float32 (rows, dim). Raises ValueError for what is none."""
    raw = base64.b64decode(batch.vectors, validate=True)
    return np.frombuffer(raw, "<f4").reshape(len(batch.rows), max(1, batch.dim))


def alone(
    run: Run, plan: Plan, corpus: Corpus, merged: Sequence[MergedPart], rows: Mapping[int, str]
) -> dict[int, tuple[np.ndarray | None, str]]:
    """Have rows, each with the slot that did it, computed again by the partners of their slots, each text alone.

    Return row -> its vector, float32 (dim,), or none and why.
    """
    kinds = {}
    for each in merged:
        if each.slot not in kinds and (run.local.parts / each.name).exists():
            kinds[each.slot] = Kind.of(parts.read(run.local.parts / each.name).record)
    partners = elsewhere.partners(run, plan, kinds)
    asked: dict[str, list[int]] = {}
    for row, slot in rows.items():
        if slot in partners:
            asked.setdefault(partners[slot], []).append(row)
    orders = {
        slot: [PartAgain(0, plan.documents, tuple(own), tuple(corpus.texts(own)), alone=True)]
        for slot, own in asked.items()
    }
    found: dict[int, tuple[np.ndarray | None, str]] = dict.fromkeys(rows, (None, ALONE))
    for slot, answer in elsewhere.ask(run, plan, orders).items():
        found.update(_each(answer, asked[slot]))
    return found


def _each(answer: Doubled | str, rows: Sequence[int]) -> dict[int, tuple[np.ndarray | None, str]]:
    if isinstance(answer, str) or len(answer.batches) != 1 or answer.batches[0].error:
        why = answer if isinstance(answer, str) else "".join(each.error for each in answer.batches) or "no answer"
        return dict.fromkeys(rows, (None, safe_text(why, 300)))
    try:
        found = zip(answer.batches[0].rows, vectors(answer.batches[0]), strict=True)
        return {row: (vector, "") for row, vector in found if row in set(rows)}
    except ValueError as error:
        return dict.fromkeys(rows, (None, safe_text(str(error), 300)))


def rows_first(drawn: Drawn) -> list[int]:
    """Return the rows that came out far off, at most three of each batch: for the audit to compute first."""
    return [row for each in drawn.batches for row in each.far[:3]]


def tell(checks: Checks, drawn: Drawn, right: Mapping[int, bool], why: str = "") -> None:
    """Add the check of all doubled batches. `right`: of rows that the audit computed, whether they were not off.

    `why`: why none was done, where it is not that nothing else could do them.
    """
    if not drawn.batches:
        checks.add(NAME, True, f"none: {why or ALONE}", warn=why not in ("", TAKEN))
        return
    done = [each for each in drawn.batches if not each.error]
    exact = [each for each in done if each.exact]
    bits = [each for each in exact if each.equal < each.rows]
    far = [each for each in done if each.far]
    blamed = [each for each in far if not all(right.get(row, False) for row in each.far[:3])]
    seen = f"{len(done)} of {len(drawn.batches)} slots, {sum(each.rows for each in done):,} rows"
    seen += f"; {len(exact)} by slots of the same kind" if done else ""
    seen += f", furthest {max(each.furthest or 0.0 for each in done):.2g}" if done else ""
    words = [
        f"{each.slot} ({each.part}) and {each.by} differ in {len(each.far)} rows, by {each.furthest:.2g}"
        for each in far
    ]
    words += [
        f"{each.slot} ({each.part}) and {each.by} differ in bits of {each.rows - each.equal} rows" for each in bits
    ]
    words += [f"{each.slot}: not done: {each.error}" for each in drawn.batches if each.error][:5]
    remedy = "have both machines looked at: one of the two computes wrong"
    checks.add(
        NAME, not blamed, "; ".join([*words, seen]), "the same in every bit, or near", remedy if words else "",
        warn=bool(words) and not blamed,
    )  # fmt: skip
