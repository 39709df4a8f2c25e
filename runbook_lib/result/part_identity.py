"""Whose part it is: of this very run, and made with all that can change a vector as the plan says it."""

from __future__ import annotations

from typing import Any

from worker.escape import safe_text
from worker.layout import FORMAT

from ..run.plan import Plan, Slot


def strange(record: dict[str, Any], plan: Plan) -> list[str]:
    """What a part's record has otherwise than the plan, in words; empty for a part of this run and these settings."""
    model = record["model"]
    # A part from before an amendment is right where its texts are; those that are not are found row by row.
    corpora = (plan.corpus, *(amendment.corpus for amendment in plan.amendments))
    corpus = record.get("corpus")
    facts = [
        ("format", FORMAT, record.get("format")),
        ("run", plan.run, record.get("run")),
        ("run id", plan.run_id, record.get("run_id", "")),
        ("corpus", plan.corpus, plan.corpus if corpus in corpora else corpus),
        ("model name", plan.model.name, model.get("name")),
        ("model revision", plan.model.revision, model.get("revision")),
        ("model digest", plan.model.digest, model.get("digest")),
        ("normalises", plan.model.normalises, record.get("normalises")),
        ("dim", plan.model.dim, record.get("dim")),
        ("dtype", plan.dtype, record.get("dtype")),
        ("prompt", plan.prompt, record.get("prompt")),
        ("question prompt", plan.question_prompt, record.get("question_prompt")),
        ("max_tokens", _limit(record, plan), record.get("max_tokens")),
    ]
    return [
        f"{what}: expected {wanted!r}, found {safe_text(repr(seen), 200)}"
        for what, wanted, seen in facts
        if wanted != seen
    ]


def slot_of(plan: Plan, name: str, row: int) -> Slot:
    """Who is said to have done a part that begins at `row`: the plan's own slot of this name, on the plan's host.

    A record may name a slot that helped, and no other than the plan's: else it is the slot that has the row.
    """
    named = [slot for slot in plan.slots if slot.slot == name]
    owners = (slot for slot in plan.slots if any(low <= row < high for low, high in plan.ranges(slot)))
    return named[0] if named else next(owners)


def _limit(record: dict[str, Any], plan: Plan) -> Any:
    """Where texts must have been cut: at the plan's limit, or the model's own where that is lower or the only one."""
    limits = [plan.max_tokens, record.get("model_max_tokens", record.get("max_tokens"))]
    return min((limit for limit in limits if limit is not None), default=None)
