"""Planning: make the plan of a run, compare a plan with the profile as it is now, follow its hosts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from worker.device import NEW
from worker.rows import Covered, Range
from worker.wire import PACKED, PADDED

from ..corpus import corpus as corpora
from ..profile.profile import HostSpec
from . import fences, moves
from . import model as models
from . import plan as plans
from .machine_facts import MachineFacts
from .plan import ModelIdentity, Plan, Slot
from .reading import Reading
from .run import Run

SLOT_BYTES = 2 * 2**30  # of memory: what a worker with a small model takes, and room for its batches


def make_plan(
    run: Run, model: models.Model, corpus: corpora.Corpus, facts: dict[str, MachineFacts], why_padded: str
) -> Plan:
    """Make the plan from profile, model, corpus and hosts; equal inputs give an equal plan.

    Its batches are packed unless there is a reason in `why_padded`.
    """
    profile = run.profile
    places = [
        (number, host, index)
        for number, host in enumerate(profile.hosts)
        for index in range(slots_of(host, facts[host.name]))
    ]
    ranges = plans.cut(corpus.rows, len(places))
    # Local hosts share this machine's cores; every other host has its own.
    here = [host.name for _, host, _ in places if host.computes_here and host.device == "cpu"]
    workers = {
        host.name: len(here) if host.computes_here else slots_of(host, facts[host.name]) for _, host, _ in places
    }
    largest = max(stop - start for start, stop in ranges)
    # One size for all, as rows move in whole parts: that of the slowest kind of device.
    reading = Reading.of(profile.model, model)
    tokens = plans.row_tokens(corpus.text_bytes, corpus.rows, reading.limit(model))
    usual = min(
        plans.part_rows_for(device, largest, model.weights_bytes, tokens)
        for device in {host.device for _, host, _ in places}
    )
    part_rows = profile.part_rows or plans.part_rows_of_all(usual, corpus.rows, len(places))
    slots = tuple(
        Slot(
            slot=f"cluster{number}_gpu{index}",
            host=host.name,
            index=index,
            device=host.device,
            # A fixed number of threads: the sums of a matrix product, and so the bytes, depend on it.
            threads=host.threads or max(1, facts[host.name]["cores"] // max(1, workers[host.name])),
            start=start,
            stop=stop,
            gpu=facts[host.name]["gpus"][index]["uuid"] if host.device == "cuda" else None,
        )
        for (number, host, index), (start, stop) in zip(places, ranges, strict=True)
    )
    assert model.dim is not None
    return Plan(
        run=run.name,
        epoch=1,
        documents=corpus.documents,
        questions=corpus.questions,
        corpus=corpus.fingerprint,
        model=ModelIdentity(model.name, model.revision, model.digest, model.dim, model.normalises),
        dtype=profile.model.dtype,
        prompt=model.template,
        question_prompt=model.question_template,
        max_tokens=reading.max_tokens,
        chunk_tokens=reading.chunk_tokens,
        part_rows=part_rows,
        slots=slots,
        run_id=run.id,
        batching=PADDED if why_padded else PACKED,
        why_padded=why_padded,
    )


def sharing(run: Run, host: HostSpec, facts: Mapping[str, MachineFacts]) -> tuple[int, int | None]:
    """Return how many slots share the machine of a host, and the threads of each (None on a device)."""
    if host.device != "cpu":
        return slots_of(host, facts[host.name]), None
    beside = [h for h in run.profile.hosts if h.computes_here and h.device == "cpu"] if host.computes_here else [host]
    slots = sum(slots_of(each, facts[each.name]) for each in beside if each.name in facts)
    return slots, host.threads or max(1, facts[host.name]["cores"] // max(1, slots))


def has_enough_gpus(host: HostSpec, facts: MachineFacts) -> bool:
    """Whether a machine has a working GPU for each slot asked for, and at least one; only NVIDIA's are counted."""
    return host.device != "cuda" or len(facts["gpus"]) >= (host.slots or 1)


def slots_of(host: HostSpec, facts: MachineFacts) -> int:
    """Return how many slots a host has: as many as the profile says, else what fits its GPUs or cores."""
    if host.slots is not None:
        return host.slots
    if host.device in NEW:
        return 1
    if host.device == "cuda":
        return len(facts["gpus"])
    memory = facts.get("memory_bytes")
    return max(1, min(facts["cores"] // 4, memory // SLOT_BYTES if memory else facts["cores"]))


def differences(run: Run, plan: Plan, model: models.Model, corpus: corpora.Corpus) -> list[tuple[str, object, object]]:
    """Return where a plan differs from this profile, model and corpus: (what, as planned, as it is now)."""
    spec = run.profile.model
    reading = Reading.of(spec, model)
    facts: list[tuple[str, object, object]] = [
        ("run id", plan.run_id, run.id),
        ("corpus", plan.corpus, corpus.fingerprint),
        ("documents", plan.documents, corpus.documents),
        ("questions", plan.questions, corpus.questions),
        ("model", plan.model.digest, model.digest),
        ("numbers a vector", plan.model.dim, model.dim),
        ("dtype", plan.dtype, spec.dtype),
        ("prompt", plan.prompt, model.template),
        ("question prompt", plan.question_prompt, model.question_template),
        ("max_tokens", plan.max_tokens, reading.max_tokens),
        ("tokens of a chunk", plan.chunk_tokens, reading.chunk_tokens),
        ("part_rows", plan.part_rows, run.profile.part_rows or plan.part_rows),
    ]
    return [fact for fact in facts if fact[1] != fact[2]]


def follow_hosts(
    run: Run, plan: Plan, facts: dict[str, MachineFacts], have: Sequence[Range], joined: Collection[str] = ()
) -> Plan:
    """Return the plan for the hosts of the profile as they are now; the same plan if nothing moves.

    Rows of a host that left, without those in `have`, go to the hosts that answered (they are in `facts`). Slots that
    were added then get their share of the last parts of the others, and so do those of `joined`, if a host came back.
    """
    new = _added(run, plan, facts)
    wider = replace(plan, slots=(*plan.slots, *new))
    here = {host.name for host in run.profile.hosts}
    gone = [slot for slot in plan.used if slot.host not in here]
    stay = [slot for slot in plan.used if slot.host in here and plan.ranges(slot)]
    back = [slot for slot in plan.used if slot.host in joined and slot.host in facts and not plan.ranges(slot)]
    able = [slot for slot in (*stay, *back, *new) if slot.slot not in fences.behind(plan.fences)]
    takers = [slot for slot in able if slot.host in facts]
    left = moves.evacuate(wider, have, gone, takers, {}, "its host was taken out of the profile")
    after = wider.moved(left) if left else wider
    joining = [slot for slot in (*back, *new) if slot in able]
    came = (
        moves.rebalance(after, have, stay, joining, {}, "slots were added to the profile") if stay and joining else []
    )
    chosen = [*left, *(replace(move, epoch=plan.epoch + 1) for move in came)]
    return wider.moved(chosen) if chosen else plan


def rows_of_hosts_that_left(run: Run, plan: Plan, have: Sequence[Range]) -> dict[str, int]:
    """Return host -> how many of its rows are not in `have`, for the hosts of the plan that are not in the profile."""
    here, covered = {host.name for host in run.profile.hosts}, Covered(have)
    rows: dict[str, int] = {}
    for slot in plan.used:
        if slot.host not in here:
            rows[slot.host] = rows.get(slot.host, 0) + plan.left(slot, covered)
    return rows


def _added(run: Run, plan: Plan, facts: dict[str, MachineFacts]) -> list[Slot]:
    """Return a slot for each one of the profile that the plan lacks, if its host answers and has a GPU for it."""
    free = 1 + max(_cluster(slot) for slot in plan.slots)
    added = []
    for host in run.profile.hosts:
        planned = [slot for slot in plan.slots if slot.host == host.name]
        if host.name not in facts or not has_enough_gpus(host, facts[host.name]):
            continue
        wanted = slots_of(host, facts[host.name]) if host.slots or not planned else len(planned)
        number = _cluster(planned[0]) if planned else free
        free += not planned
        taken = {slot.gpu for slot in planned}
        cards = [card["uuid"] for card in facts[host.name]["gpus"] if card["uuid"] not in taken]
        for index in range(len(planned), wanted):
            threads = host.threads or max(1, facts[host.name]["cores"] // wanted)
            gpu = cards[index - len(planned)] if host.device == "cuda" else None
            name = f"cluster{number}_gpu{index}"
            added.append(Slot(name, host.name, index, host.device, threads, plan.rows, plan.rows, gpu))
    return added


def _cluster(slot: Slot) -> int:
    return int(slot.slot.removeprefix("cluster").partition("_")[0])
