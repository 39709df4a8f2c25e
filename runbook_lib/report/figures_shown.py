"""The key figures of a run, in the words of the report; each follows from files and says so where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..result.facts import Facts, covered, number, section
from ..run.plan import Slot
from ..run.run import PHASES
from ..show.words import exactly, many


@dataclass(frozen=True)
class Figure:
    """One figure: its name, its value (empty when missing) and what it means."""

    name: str
    value: str
    note: str = ""


def key_figures(found: Facts) -> list[Figure]:
    """What a reader wants to know first."""
    shown = section(found.validation, "figures")
    return [*_extent(found), *_speed(found), *_model(found), *_quality(found, shown)]


def period(found: Facts) -> tuple[datetime | None, datetime | None]:
    """When the run was made, and when its last phase ended; the last event where that has not happened."""
    if not found.events:
        return None, None
    ends = [span.stop for span in found.spans if span.phase == PHASES[-1] and span.stop]
    return found.events[0]["when"], ends[-1] if ends else found.events[-1]["when"]


def worked_s(found: Facts) -> float | None:
    """Seconds in which a phase was executed: a pause between two of them does not count."""
    times = [(span.start.timestamp(), (span.stop or span.seen).timestamp()) for span in found.spans]
    return covered(times) if times else None


def _extent(found: Facts) -> list[Figure]:
    plan = found.plan
    if plan is None:
        return [Figure("documents", ""), Figure("vectors", "")]
    asked = f"and {many(plan.questions, 'question')}" if plan.questions else "no questions"
    vectors = f"{plan.documents:,} × {plan.model.dim:,}"
    size = plan.documents * plan.model.dim * 4
    return [
        Figure("documents", f"{plan.documents:,}", asked),
        Figure("vectors", vectors, f"float32, {size:,} bytes; computed in {plan.dtype}"),
    ]


def _by_whom(devices: Sequence[str], idle: Sequence[Slot]) -> str:
    said = [", ".join(devices)] if devices else []
    if idle:
        said.append(f"no row is from {', '.join(slot.slot for slot in idle[:5])}{' …' if len(idle) > 5 else ''}")
    return "; ".join(said)


def _speed(found: Facts) -> list[Figure]:
    done, rate = found.encoding, found.encoding.rate
    start, end = period(found)
    worked = worked_s(found)
    took = "" if worked is None else exactly(worked)
    between = f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC" if start and end else ""
    plan = found.plan
    idle = found.without_rows
    slots = [slot for slot in plan.used if slot not in idle] if plan else []
    hosts = len(plan.hosts) if plan else 0
    return [
        Figure(
            "rate", f"{rate:,.1f} rows/s" if rate else "", f"{done.rows:,} rows in {exactly(done.busy_s)} of computing"
        ),
        Figure("duration", took, f"of phases at work; {between}" if between else ""),
        Figure("slots", f"{len(slots)} on {many(hosts, 'host')}" if plan else "", _by_whom(done.devices, idle)),
        Figure("parts", f"{done.parts:,}" if done.parts else "", _twice(found.manifest)),
        *_amended(found.manifest),
    ]


def _amended(manifest: dict[str, Any]) -> list[Figure]:
    """The rows whose texts were mended after others were encoded, where there are any."""
    stated = manifest.get("amended")
    each = [a for a in stated if isinstance(a, dict)] if isinstance(stated, list) else []
    rows = sorted({row for a in each if isinstance(a.get("rows"), list) for row in a["rows"] if isinstance(row, int)})
    if not rows:
        return []
    first = ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")
    return [Figure("rows amended", f"{len(rows):,}", f"their texts were mended in the run (--amend): rows {first}")]


def _twice(manifest: dict[str, Any]) -> str:
    twice = number(manifest.get("rows_done_twice"))
    return "" if twice is None else f"{twice:,.0f} rows were done twice" if twice else "no row was done twice"


def _model(found: Facts) -> list[Figure]:
    plan = found.plan
    if plan is None:
        return [Figure("model", "")]
    about = f"revision {plan.model.revision}, digest {plan.model.digest[:16]}, {plan.dtype}"
    read = f"reads {plan.max_tokens:,} tokens" if plan.max_tokens else "reads as many tokens as the model takes"
    return [
        Figure("model", plan.model.name, about),
        Figure("prompt of documents", repr(plan.prompt) if plan.prompt else "none", read),
    ]


def _quality(found: Facts, shown: dict[str, Any]) -> list[Figure]:
    return [_truncation(found, shown), _norms(shown), _retrieval(found, shown), _distinct(shown)]


def _truncation(found: Facts, shown: dict[str, Any]) -> Figure:
    stated = section(shown, "lengths") or section(found.manifest, "lengths", "documents")
    cut, share = number(stated.get("truncated_rows")), number(stated.get("share_cut"))
    documents = number(found.manifest.get("documents"))
    if cut is None or not documents:
        return Figure("documents cut", "")
    note = f"{cut:,.0f} documents" + ("" if share is None else f"; {100 * share:.2f} % of all tokens were not read")
    return Figure("documents cut", f"{100 * cut / documents:.2f} %", note)


def _norms(shown: dict[str, Any]) -> Figure:
    stated = section(shown, "norms")
    low, mean, high = (number(stated.get(key)) for key in ("min", "mean", "max"))
    if low is None or mean is None or high is None:
        return Figure("norms", "")
    return Figure("norms", f"mean {mean:.7f}", f"{low:.9f} to {high:.9f}")


def _retrieval(found: Facts, shown: dict[str, Any]) -> Figure:
    stated = section(shown, "retrieval")
    if found.plan and not found.plan.questions:
        return Figure("questions answered", "none asked")
    if number(stated.get("with_answer")) == 0:
        return Figure("questions answered", "not known", "no question names its document")
    asked, first, ten = (number(stated.get(key)) for key in ("with_answer", "top1", "top10"))
    if not asked or first is None:
        return Figure("questions answered", "")
    later = "" if ten is None else f"; {ten:.0f} within the nearest ten"
    return Figure("questions answered", f"{first:.0f} of {asked:.0f}", f"by the nearest document{later}")


def _distinct(shown: dict[str, Any]) -> Figure:
    stated = section(shown, "duplicates")
    groups, unexplained = number(stated.get("groups")), number(stated.get("unexplained"))
    if groups is None or unexplained is None:
        return Figure("equal vectors", "")
    return Figure(
        "equal vectors", f"{groups:.0f} groups" if groups else "none", f"{unexplained:.0f} not explained by text"
    )
