"""Planning: draw the plan of a run, hold one that stands against what the profile says now, add slots to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worker.rows import Range

from ..corpus import corpus as corpora
from ..profile.profile import HostSpec
from . import model as models
from . import moves
from . import plan as plans
from .machine_facts import MachineFacts
from .plan import ModelIdentity, Plan, Slot
from .run import Run


def draw(run: Run, model: models.Model, corpus: corpora.Corpus, facts: dict[str, MachineFacts]) -> Plan:
    """The plan that follows from profile, model, corpus and hosts; the same again from the same."""
    profile = run.profile
    places = [
        (number, host, index)
        for number, host in enumerate(profile.hosts)
        for index in range(slots_of(host, facts[host.name]))
    ]
    ranges = plans.cut(corpus.rows, len(places))
    # Local hosts share this machine's cores; a machine of its own has its own.
    here = [host.name for _, host, _ in places if host.is_here and host.device == "cpu"]
    workers = {host.name: len(here) if host.is_here else slots_of(host, facts[host.name]) for _, host, _ in places}
    largest = max(stop - start for start, stop in ranges)
    # One size for all, as rows move in whole parts: that of the slowest kind of device, whatever host comes first.
    part_rows = profile.part_rows or min(
        plans.part_rows_for(device, largest, model.weights_bytes) for device in {host.device for _, host, _ in places}
    )
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
        max_tokens=profile.model.max_tokens,
        part_rows=part_rows,
        slots=slots,
        run_id=run.id,
    )


def enough(host: HostSpec, facts: MachineFacts) -> bool:
    """Whether a machine has a GPU that works for each slot asked of it, and one at least."""
    return host.device == "cpu" or len(facts["gpus"]) >= (host.slots or 1)


def slots_of(host: HostSpec, facts: MachineFacts) -> int:
    """How many slots a host has: as many as the profile says, else what suits its GPUs or cores."""
    if host.slots is not None:
        return host.slots
    return len(facts["gpus"]) if host.device == "cuda" else max(1, facts["cores"] // 4)


def differences(run: Run, plan: Plan, model: models.Model, corpus: corpora.Corpus) -> list[tuple[str, object, object]]:
    """What keeps a plan from being the one of this profile, model and corpus: (what, as planned, as it is now)."""
    spec = run.profile.model
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
        ("max_tokens", plan.max_tokens, spec.max_tokens),
        ("part_rows", plan.part_rows, run.profile.part_rows or plan.part_rows),
    ]
    return [fact for fact in facts if fact[1] != fact[2]]


def grown(run: Run, plan: Plan, facts: dict[str, MachineFacts], have: Sequence[Range]) -> Plan:
    """`plan` with slots for the hosts (and slots) that were added to the profile, and with rows for them.

    They get their share of the last parts that nobody has of `have`; where none are left the plan stays as it is.
    """
    new = _added(run, plan, facts)
    wider = replace(plan, slots=(*plan.slots, *new))
    working = {host.name for host in run.profile.hosts}
    sources = [slot for slot in plan.used if slot.host in working]
    chosen = moves.tail(wider, have, sources, new, {}, "slots were added to the profile") if new and sources else []
    return wider.moved(chosen) if chosen else plan


def _added(run: Run, plan: Plan, facts: dict[str, MachineFacts]) -> list[Slot]:
    """A slot for each place of the profile that the plan does not have, where its host answers and has a GPU for it."""
    free = 1 + max(_cluster(slot) for slot in plan.slots)
    added = []
    for host in run.profile.hosts:
        planned = [slot for slot in plan.slots if slot.host == host.name]
        if host.name not in facts or not enough(host, facts[host.name]):
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
