"""Whose part it is: of this very run, and made with all that can change a vector as the plan says it."""

from __future__ import annotations

from worker.escape import safe_text
from worker.layout import FORMAT
from worker.wire import PartRecord

from ..run.plan import Plan, Slot


def differences_from_plan(record: PartRecord, plan: Plan) -> list[str]:
    """What a part's record has otherwise than the plan, in words; empty for a part of this run and these settings."""
    # A part from before an amendment is right where its texts are; those that are not are found row by row.
    corpora = (plan.corpus, *(amendment.corpus for amendment in plan.amendments))
    facts = [
        ("format", FORMAT, record.format),
        ("run", plan.run, record.run),
        ("run id", plan.run_id, record.run_id),
        ("corpus", plan.corpus, plan.corpus if record.corpus in corpora else record.corpus),
        ("model name", plan.model.name, record.model.name),
        ("model revision", plan.model.revision, record.model.revision),
        ("model digest", plan.model.digest, record.model.digest),
        ("normalises", plan.model.normalises, record.normalises),
        ("dim", plan.model.dim, record.dim),
        ("dtype", plan.dtype, record.dtype),
        ("prompt", plan.prompt, record.prompt),
        ("question prompt", plan.question_prompt, record.question_prompt),
        ("max_tokens", _limit(record, plan), record.max_tokens),
    ]
    return [
        f"{what}: expected {wanted!r}, found {safe_text(repr(actual), 200)}"
        for what, wanted, actual in facts
        if wanted != actual
    ]


def slot_of(plan: Plan, name: str, row: int) -> Slot:
    """Who is said to have done a part that begins at `row`: the plan's own slot of this name, on the plan's host.

    A record may name a slot that helped, and no other than the plan's: else it is the slot that has the row.
    """
    named = [slot for slot in plan.slots if slot.slot == name]
    owners = (slot for slot in plan.slots if any(low <= row < high for low, high in plan.ranges(slot)))
    return named[0] if named else next(owners)


def _limit(record: PartRecord, plan: Plan) -> int | None:
    """Where texts must have been cut: at the plan's limit, or the model's own where that is lower or the only one."""
    limits = (plan.max_tokens, record.model_max_tokens)
    return min((limit for limit in limits if limit is not None), default=None)
