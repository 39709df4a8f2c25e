"""Whether a part belongs to this run, and everything that can change a vector was as the plan says."""

from __future__ import annotations

from worker.escape import safe_text
from worker.layout import FORMAT
from worker.wire import PartRecord

from ..run import fences
from ..run.plan import Plan, Slot


def differences_from_plan(record: PartRecord, plan: Plan) -> list[str]:
    """Return in words how a part's record differs from the plan; empty for a part of this run and these settings."""
    # A part from before an amendment may be used; rows with a wrong text are found by their fingerprints.
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
        ("batches", plan.batching, record.batching),
        ("prompt", plan.prompt, record.prompt),
        ("question prompt", plan.question_prompt, record.question_prompt),
        ("max_tokens", _limit(record, plan), record.max_tokens),
        ("tokens of a chunk", plan.chunk_tokens, record.chunk_tokens),
    ]
    problems = [
        f"{what}: expected {wanted!r}, found {safe_text(repr(actual), 200)}"
        for what, wanted, actual in facts
        if wanted != actual
    ]
    return [*problems, *filter(None, [fence_of(record, plan)])]


def fence_of(record: PartRecord, plan: Plan) -> str:
    """Return in words that a part is by a slot that was found wrong; empty if it is not."""
    why = fences.why_not(plan.fences, record.slot, record.epoch)
    return f"slot: {record.slot} is fenced: {why}" if why else ""


def slot_of(plan: Plan, name: str, row: int) -> Slot:
    """Return the slot of a part that begins at `row`: the plan's slot of this name, on the plan's host.

    A record may name any slot of the plan, because slots help each other; else it is the slot that has the row.
    """
    named = [slot for slot in plan.slots if slot.slot == name]
    owners = (slot for slot in plan.slots if any(low <= row < high for low, high in plan.ranges(slot)))
    return named[0] if named else next(owners)


def _limit(record: PartRecord, plan: Plan) -> int | None:
    """Return the limit at which texts must be cut: the lower of the plan's and the model's limit, if any."""
    limits = (plan.max_tokens, record.model_max_tokens)
    return min((limit for limit in limits if limit is not None), default=None)
