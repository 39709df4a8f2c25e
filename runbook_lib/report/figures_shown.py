"""The key figures of a run, as the report shows them; each comes from files, and an empty value means missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.wire import PACKED

from ..result.facts import DatedEvent, RunFacts, covered
from ..result.figures import Figures
from ..result.manifest import Manifest, Since
from ..run.plan import Slot
from ..run.run import PHASES
from ..show.words import exactly, many


@dataclass(frozen=True)
class Figure:
    """One figure: its name, its value (empty if missing) and its meaning; `exact`: the value for programs."""

    name: str
    value: str
    note: str = ""
    exact: str = ""


def key_figures(run_facts: RunFacts) -> list[Figure]:
    """Return the most important figures."""
    return [*_extent(run_facts), *_speed(run_facts), *_model(run_facts), *_quality(run_facts)]


def period(run_facts: RunFacts) -> tuple[datetime | None, datetime | None]:
    """Return when the run was made, and when its last phase ended; else the time of the last event."""
    if not run_facts.events:
        return None, None
    ends = [span.stop for span in run_facts.spans if span.phase == PHASES[-1] and span.stop]
    return run_facts.events[0]["when"], ends[-1] if ends else run_facts.events[-1]["when"]


def worked_s(run_facts: RunFacts) -> float | None:
    """Return the seconds in which phases were executed, without the pauses between them."""
    times = [(span.start.timestamp(), (span.stop or span.last_event_at).timestamp()) for span in run_facts.spans]
    return covered(times) if times else None


def _extent(run_facts: RunFacts) -> list[Figure]:
    plan = run_facts.plan
    if plan is None:
        return [Figure("documents", ""), Figure("vectors", "")]
    asked = f"and {many(plan.questions, 'question')}" if plan.questions else "no questions"
    documents = run_facts.documents or 0
    vectors = f"{documents:,} × {plan.model.dim:,}"
    size = documents * plan.model.dim * 4
    return [
        Figure("documents", f"{documents:,}", asked, str(documents)),
        Figure("vectors", vectors, f"float32, {size:,} bytes; computed in {plan.dtype}"),
        *_since(run_facts.since),
    ]


def _since(since: Since | None) -> list[Figure]:
    """Return what was taken from an earlier run, what is new, and which runs computed the rows."""
    if since is None:
        return []
    by = "; ".join(f"{each.rows:,} rows computed by {each.run}" for each in since.runs if each.rows)
    new = f"{since.added:,} added, {since.changed:,} changed, {since.removed:,} removed since that run"
    computed = f"different texts; {since.spot:,} reused rows were computed again as a check"
    return [
        Figure("reused", f"{since.reused:,}", f"rows taken from run {since.run}: {by}"),
        Figure("added and changed", f"{since.added + since.changed:,}", new),
        Figure("computed now", f"{since.computed:,}", computed),
    ]


def _by_whom(devices: Sequence[str], idle: Sequence[Slot]) -> str:
    sources = [", ".join(devices)] if devices else []
    if idle:
        sources.append(f"no row is from {', '.join(slot.slot for slot in idle[:5])}{' …' if len(idle) > 5 else ''}")
    return "; ".join(sources)


def _speed(run_facts: RunFacts) -> list[Figure]:
    done, rate = run_facts.encoding, run_facts.encoding.rate
    start, end = period(run_facts)
    worked = worked_s(run_facts)
    took = "" if worked is None else exactly(worked)
    between = f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC" if start and end else ""
    plan = run_facts.plan
    idle = run_facts.without_rows
    slots = [slot for slot in plan.used if slot not in idle] if plan else []
    hosts = len(plan.hosts) if plan else 0
    return [
        Figure(
            "rate",
            f"{rate:,.1f} rows/s" if rate else "",
            f"{done.rows:,} rows in {exactly(done.busy_s)} of computing",
            f"{rate:.4g}" if rate else "",
        ),
        Figure("duration", took, f"of phases at work; {between}" if between else "", f"{worked or 0:.0f}"),
        Figure("slots", f"{len(slots)} on {many(hosts, 'host')}" if plan else "", _by_whom(done.devices, idle)),
        *_came_and_left(run_facts.events),
        Figure("parts", f"{done.parts:,}" if done.parts else "", _twice(run_facts.manifest), str(done.parts)),
        *_amended(run_facts.manifest),
    ]


def _came_and_left(events: Sequence[DatedEvent]) -> list[Figure]:
    """Return which hosts joined and left the run under way, and when, if any did."""
    verbs = {"host joined": "joined", "host left": "left"}
    told = [
        f"{e.get('host')} {verbs[e['event']]} {e['when']:%Y-%m-%d %H:%M:%S} UTC" for e in events if e["event"] in verbs
    ]
    return [Figure("joined or left", many(len(told), "host"), "; ".join(told))] if told else []


def _amended(manifest: Manifest | None) -> list[Figure]:
    """Return the number of rows whose texts were corrected during the run, if there are any."""
    rows = sorted({row for amended in (manifest.amended if manifest else ()) for row in amended.rows})
    if not rows:
        return []
    first = ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")
    return [Figure("rows amended", f"{len(rows):,}", f"their texts were corrected in the run (--amend): rows {first}")]


def _twice(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    twice = manifest.rows_done_twice
    return f"{twice:,} rows were done twice" if twice else "no row was done twice"


def _model(run_facts: RunFacts) -> list[Figure]:
    plan = run_facts.plan
    if plan is None:
        return [Figure("model", "")]
    about = f"revision {plan.model.revision}, digest {plan.model.digest[:16]}, {plan.dtype}"
    read = f"reads {plan.max_tokens:,} tokens" if plan.max_tokens else "reads as many tokens as the model takes"
    if plan.chunk_tokens:
        read = f"long documents are read whole, in chunks of at most {plan.chunk_tokens:,} tokens"
    batches = "no padding" if plan.batching == PACKED else plan.why_padded
    return [
        Figure("model", plan.model.name, about),
        Figure("batches", plan.batching, batches),
        Figure("prompt of documents", repr(plan.prompt) if plan.prompt else "none", read),
    ]


def _quality(run_facts: RunFacts) -> list[Figure]:
    return [_truncation(run_facts), _norms(run_facts.figures), _retrieval(run_facts), _distinct(run_facts.figures)]


def _truncation(run_facts: RunFacts) -> Figure:
    manifest = run_facts.manifest
    if manifest is None or not manifest.documents:
        return Figure("documents cut", "")
    stated = run_facts.figures.lengths or manifest.lengths.documents
    note = f"{stated.truncated_rows:,} documents; {100 * stated.share_cut:.2f} % of all tokens were not read"
    if chunked := manifest.chunked:
        note = f"{chunked.documents:,} documents were longer than {chunked.tokens:,} tokens: each of these has the "
        note += f"mean of its chunks; {chunked.chunks:,} chunks in all"
    share = f"{100 * stated.truncated_rows / manifest.documents:.2f} %"
    return Figure("documents cut", share, note, str(stated.truncated_rows))


def _norms(shown: Figures) -> Figure:
    norms = shown.norms
    if norms is None or norms.min is None or norms.mean is None or norms.max is None:
        return Figure("norms", "")
    return Figure("norms", f"mean {norms.mean:.7f}", f"{norms.min:.9f} to {norms.max:.9f}", f"{norms.mean:.9g}")


def _retrieval(run_facts: RunFacts) -> Figure:
    stated, name = run_facts.figures.retrieval, "questions answered"
    if run_facts.plan and not run_facts.plan.questions:
        return Figure(name, "none asked")
    if stated is None or stated.with_answer is None:
        return Figure(name, "")
    if not stated.with_answer:
        return Figure(name, "not known", "no question names its document")
    later = f"by the nearest document; {stated.top10} within the nearest ten"
    return Figure(name, f"{stated.top1} of {stated.with_answer}", later, str(stated.top1))


def _distinct(shown: Figures) -> Figure:
    duplicates = shown.duplicates
    if duplicates is None:
        return Figure("equal vectors", "")
    groups = f"{duplicates.groups} groups" if duplicates.groups else "none"
    return Figure("equal vectors", groups, f"{duplicates.unexplained} not explained by text", str(duplicates.groups))
