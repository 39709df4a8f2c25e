"""Pictures of the plan: which slot does which rows, and which rows are at home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worker.layout import committed
from worker.rows import Range, count, missing

from ..run.plan import Plan, Slot
from ..run.run import Run
from .drawing import RULE, WIDTH, Picture, calm, figure_of, picture_of
from .markup import AMBER, BLUE, GREEN, PURPLE, RED
from .words import many

if TYPE_CHECKING:
    from .drawing import Axes

STRIPS = 32  # with more slots there is no line for each
TICKS = 200  # with more boundaries of parts they are not drawn


def row_strip(plan: Plan) -> Picture:
    """Draw which rows belong to which slot: all rows as one strip, then a line for each slot with its parts."""
    slots = [slot for slot in plan.slots if slot.rows]
    lines = slots if len(slots) <= STRIPS else []
    figure = figure_of(WIDTH, 1.05 + 0.2 * len(lines))
    if lines:
        top, below = figure.subplots(2, 1, height_ratios=[1, 0.62 * len(lines) + 0.6])
        _draw_lines(below, plan, lines)
    else:
        top = figure.subplots()
    _draw_strip(top, plan, slots)
    sizes = [slot.rows for slot in slots] or [0]
    each = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    parts = sum(-(-slot.rows // plan.part_rows) for slot in slots)
    asked = f" Rows {plan.documents:,} to {plan.rows:,} are questions." if plan.questions else ""
    what = f"{many(plan.documents, 'document')} and {many(plan.questions, 'question')}"
    where = f"{many(len(slots), 'slot')} of {many(len(plan.hosts), 'host')}"
    cut = f"{many(parts, 'part')} of up to {many(plan.part_rows, 'row')}"
    return picture_of(figure, f"{plan.rows:,} rows, {what}, on {where}: {each} rows a slot, {cut}.{asked}")


def part_grid(run: Run) -> Picture:
    """Draw a line for each slot: rows at home are green, with a cut at the end of each part; missing rows are grey."""
    plan, home = run.plan(), committed(run.local.parts)
    slots = [slot for slot in plan.slots if slot.rows]
    gaps = missing(0, plan.rows, home)
    shown = slots if len(slots) <= STRIPS else []
    figure = figure_of(WIDTH, 0.55 + 0.2 * max(2, len(shown)))
    axes = figure.subplots()
    here = plan.rows - count(gaps)
    calm(axes, f"{here:,} of {plan.rows:,} rows are home, in {many(len(home), 'part')}", grid="")
    for place, slot in enumerate(shown):
        _draw_home(axes, place, slot.start, slot.stop, home)
        left = count(missing(slot.start, slot.stop, home))
        progress = f"{slot.rows - left:,} of {slot.rows:,} home" if left else f"all {slot.rows:,} home"
        axes.text(1.01, place, progress, va="center", fontsize=8, color="#424a53", clip_on=False)
    if shown:
        axes.set_yticks(range(len(shown)), [slot.slot for slot in shown])
    else:  # more slots than lines: all rows as one
        _draw_home(axes, 0, 0, plan.rows, home)
        axes.set_yticks([])
    axes.set_xticks([])
    axes.set_xlim(0, 1.26 if shown else 1.0)
    axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)
    axes.spines["bottom"].set_visible(False)
    first = ", ".join(f"[{low:,}, {high:,})" for low, high in gaps[:10]) + (" and more" if len(gaps) > 10 else "")
    alt = f"{here:,} of {plan.rows:,} rows are home, in {many(len(home), 'part')}, from {many(len(slots), 'slot')}."
    return picture_of(figure, f"{alt} {f'Missing rows: {first}.' if gaps else 'No row is missing.'}")


def _draw_home(axes: Axes, place: int, start: int, stop: int, home: Sequence[Range]) -> None:
    """Draw one line of the part grid: rows [start, stop) over the full width."""
    rows = stop - start
    axes.barh(place, 1, height=0.62, color=RULE, linewidth=0)
    gaps = missing(start, stop, home)
    at = start
    for low, high in [*gaps, (stop, stop)]:
        if low > at:
            axes.barh(place, (low - at) / rows, left=(at - start) / rows, height=0.62, color=GREEN, linewidth=0)
        at = high
    cuts = [(low - start) / rows for low, _ in home if start < low < stop]
    if len(cuts) <= TICKS:
        axes.vlines(cuts, place - 0.31, place + 0.31, color="white", linewidth=0.9)


def _shade(plan: Plan, slot: Slot, dark: bool = False) -> str:
    """Return a slot's colour: neighbouring slots and hosts have different ones."""
    pairs = ((BLUE, "#54a0f0"), (GREEN, "#4fb56b"), (PURPLE, "#a98ae6"), (AMBER, "#c69a3a"))
    return pairs[plan.hosts.index(slot.host) % len(pairs)][0 if dark else slot.index % 2]


def _draw_strip(axes: Axes, plan: Plan, slots: Sequence[Slot]) -> None:
    calm(axes, f"{plan.rows:,} rows, {many(len(slots), 'slot')}, {many(len(plan.hosts), 'host')}", grid="")
    for slot in slots:
        axes.barh(0, slot.rows, left=slot.start, height=1, color=_shade(plan, slot), edgecolor="white", linewidth=0.6)
    for host in plan.hosts:
        own = [slot for slot in slots if slot.host == host]
        if own and own[-1].stop - own[0].start > plan.rows * 0.012 * len(host):
            middle = (own[0].start + own[-1].stop) / 2
            box = {"facecolor": _shade(plan, own[0], dark=True), "linewidth": 0, "boxstyle": "round,pad=0.3"}
            axes.text(middle, 0, host, ha="center", va="center", fontsize=8, color="white", fontweight="bold", bbox=box)
    if plan.questions:
        axes.barh(0, plan.questions, left=plan.documents, height=1, color=RED, linewidth=0)
        axes.plot([plan.documents], [0.62], "v", color=RED, markersize=5, clip_on=False)
        axes.text(
            plan.rows, 0.75, f"{many(plan.questions, 'question')} ", ha="right", va="bottom", fontsize=8, color=RED
        )
    axes.set_xlim(0, max(1, plan.rows))
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _draw_lines(axes: Axes, plan: Plan, slots: Sequence[Slot]) -> None:
    """Draw each slot's rows over the full width, with a cut at the end of each part."""
    calm(axes, "Each slot, cut into its parts", grid="")
    for place, slot in enumerate(slots):
        axes.barh(place, 1, height=0.62, color=_shade(plan, slot), linewidth=0)
        cuts = [row / slot.rows for row in range(plan.part_rows, slot.rows, plan.part_rows)]
        if len(cuts) <= TICKS:
            axes.vlines(cuts, place - 0.31, place + 0.31, color="white", linewidth=0.9)
        asked = slot.stop - max(slot.start, plan.documents)
        if asked > 0:
            axes.barh(place, asked / slot.rows, left=1 - asked / slot.rows, height=0.62, color=RED, linewidth=0)
        axes.text(
            1.01,
            place,
            f"[{slot.start:,}, {slot.stop:,})  {many(len(cuts) + 1, 'part')}",
            va="center",
            fontsize=8,
            color="#424a53",
            clip_on=False,
        )
    axes.set_yticks(range(len(slots)), [slot.slot for slot in slots])
    axes.set_xticks([])
    axes.set_xlim(0, 1.26)  # room for the numbers
    axes.set_ylim(len(slots) - 0.4, -0.6)
    axes.spines["bottom"].set_visible(False)
