"""Pictures of the progress, the result and the timeline of a run, each with its numbers as alt text.

Questions are numbered in a picture; their words are in the alt text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..result import facts
from ..result.figures import Figures, Point, Projection
from ..run.run import PHASES, Run
from ..slots.norms import Norms
from ..slots.snapshot import Snapshot
from . import panel, words
from .drawing import PALE, WIDTH, Picture, calm, figure_of, label, nothing, picture_of, shaded
from .length_picture import token_lengths
from .markup import AMBER, BLUE, GREEN, RED, Markup
from .nearest import Nearest, nearest
from .panel import progress_text
from .plan_pictures import part_grid, row_strip
from .words import duration, exactly, many

if TYPE_CHECKING:
    from .drawing import Axes

__all__ = [
    "Nearest",
    "Picture",
    "nearest",
    "norm_histogram",
    "part_grid",
    "progress_html",
    "progress_png",
    "progress_text",
    "projection",
    "row_strip",
    "timeline",
    "token_lengths",
]

POINTS = 3000  # of a projection that are drawn; more would hide each other


# ---------------------------------------------------------------------------------------------------------- progress


def progress_html(state: Snapshot, picture: Picture | None = None, only: str = "") -> Markup:
    """Return the panel of a state as self-contained HTML; without a given `picture` it is drawn now.

    There is no picture while there is no data. `only`: of which slots (`listed.slots`).
    """
    something = len(state.history) or len(state.norms)
    return panel.progress_html(state, (picture or progress_png(state)).html() if something else None, only)


def progress_png(state: Snapshot) -> Picture:
    """Draw the rate over time and the norms of the downloaded rows, side by side."""
    figure = figure_of(WIDTH, 1.75)
    left, right = figure.subplots(1, 2)
    alts = [_draw_rate(left, state), _draw_norms(right, *_counted(state.norms))]
    return picture_of(figure, " ".join(alts))


def _draw_rate(axes: Axes, state: Snapshot) -> str:
    calm(axes, "Rate, rows/s, over the last minute")
    if not state.history:
        nothing(axes, "no rate yet")
        return "Rate over time: none yet."
    at, rates = np.asarray(state.history, dtype=float).T
    unit, size = ("min", 60.0) if at[-1] >= 180 else ("s", 1.0)
    axes.plot(at / size, rates, color=BLUE, linewidth=1.6)
    axes.plot(at[-1:] / size, rates[-1:], "o", color=BLUE, markersize=4)
    axes.fill_between(at / size, rates, color=PALE, linewidth=0)
    axes.set_ylim(0, float(rates.max()) * 1.15 or 1.0)
    axes.locator_params(axis="y", nbins=4)
    label(axes, f"{unit} watched")
    return (
        f"Rate over {duration(float(at[-1] - at[0]))}: {rates[-1]:,.1f} rows/s now, "
        f"{rates.min():,.1f} to {rates.max():,.1f} before."
    )


def _counted(norms: Iterable[float], bins: int = 40) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return counts, edges, and min, mean, max of norms; a spread below the rounding of float32 is one bar."""
    norms = norms if isinstance(norms, Norms) else Norms(norms)
    counts, edges = norms.histogram(bins, 2e-7)
    return counts, edges, {"min": norms.min, "mean": norms.mean, "max": norms.max} if len(counts) else {}


def _draw_norms(axes: Axes, counts: np.ndarray, edges: np.ndarray, stated: dict[str, float]) -> str:
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    rows = int(counts.sum())
    calm(axes, f"Norms of {many(rows, 'row')}" if rows else "Norms")
    if not rows or len(edges) != len(counts) + 1:
        nothing(axes, "no rows came home yet")
        return "Norms: no rows yet."
    unit = ""
    if np.abs(edges - 1).max() < 1e-3:  # a unit-norm model: show the deviation from 1
        power = math.floor(math.log10(float(np.abs(edges - 1).max()) or 1e-7))
        edges, unit = (edges - 1) / 10.0**power, f"norm − 1, in units of 1e{power}"
    widths = np.diff(edges)
    # The smallest bar must be visible: this picture must show one bad row among 250,000.
    shown = np.where(counts > 0, np.maximum(counts, counts.max() * 0.012), 0)
    axes.bar(edges[:-1], shown, widths, align="edge", color=BLUE, linewidth=0)
    axes.locator_params(axis="y", nbins=4, integer=True)
    label(axes, unit or "norm", "rows")
    numbers = ", ".join(f"{name} {value:.7g}" for name, value in stated.items())
    return f"Norms of {many(rows, 'row')}: {numbers}."


# ----------------------------------------------------------------------------------------------------------- figures


def norm_histogram(figures: Figures) -> Picture:
    """Draw the norms of all documents, from the figures of the validation."""
    norms, counts, edges, stated = figures.norms, np.zeros(0), np.zeros(0), dict[str, float]()
    if norms:
        measures = {"min": norms.min, "mean": norms.mean, "max": norms.max, "sd": norms.sd}
        stated = {name: value for name, value in measures.items() if value is not None}
        counts, edges = (np.asarray(each, dtype=float) for each in (norms.histogram.counts, norms.histogram.edges))
    figure = figure_of(6.2, 2.3)
    return picture_of(figure, _draw_norms(figure.subplots(), counts, edges, stated))


def projection(figures: Figures) -> Picture:
    """Draw documents as points in the plane of their two strongest directions, and questions as numbered marks."""
    projected = figures.projection or Projection((), (), ())
    documents, questions = _points(projected.documents), _points(projected.questions)
    tokens = _tokens(projected.documents, len(documents))
    figure = figure_of(6.2, 4.4)
    axes = figure.subplots()
    calm(axes, "Documents and questions, projected", grid="both")
    if not len(documents):
        nothing(axes, "no projection in the validation")
        return picture_of(figure, "Projection: missing.")
    every = -(-len(documents) // POINTS)
    if tokens is None:
        axes.scatter(documents[::every, 0], documents[::every, 1], s=9, color=BLUE, alpha=0.5, linewidths=0)
    else:
        shaded(axes, documents[::every], tokens[::every], "tokens of the text")
    for place, (x, y) in enumerate(questions, 1):
        axes.plot([x], [y], "D", color=RED, markersize=11, markeredgecolor="white", markeredgewidth=0.8)
        axes.text(x, y, str(place), ha="center", va="center", fontsize=7, color="white", fontweight="bold")
    shares = [share or 0.0 for share in projected.shares]
    names = [f"{axis} ({100 * s:.1f} % of the variance)" for axis, s in zip(("axis 1", "axis 2"), shares, strict=False)]
    label(axes, *(names if len(names) == 2 else ("axis 1", "axis 2")))
    axes.locator_params(nbins=5)
    asked = [str(question[2]) if len(question) > 2 else "" for question in projected.questions]
    listed = "; ".join(f"{i} {words.one_line(name, 120)}" for i, name in enumerate(asked, 1) if name)
    alt = f"{many(len(documents), 'document')} as points, {many(len(questions), 'question')} as numbered marks"
    if tokens is not None:
        alt += f"; documents are shaded by their length, {tokens.min():,} to {tokens.max():,} tokens"
    return picture_of(figure, f"Projection: {alt}{': ' + listed if listed else ''}.", f"{alt}; questions stand below.")


def _tokens(documents: Sequence[Point], count: int) -> np.ndarray | None:
    """Return the lengths of the documents of a projection; None if one of them is unknown."""
    counts = [point[4] for point in documents if len(point) > 4]
    whole = [value for value in counts if isinstance(value, int) and value >= 0]
    return np.asarray(whole) if count and len(whole) == count else None


def _points(points: Sequence[Point]) -> np.ndarray:
    """Return the finite coordinates of points, (n, 2)."""
    pairs = [(facts.number(point[0]), facts.number(point[1])) for point in points if len(point) > 1]
    finite = [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(x + y)]
    return np.asarray(finite, dtype=float).reshape(-1, 2)


# ----------------------------------------------------------------------------------------------------------- timeline


def timeline(run: Run) -> Picture:
    """Draw when each phase ran, and the times of faults and recoveries, from the journal."""
    try:
        events = facts.events(run)
    except OSError:
        events = []
    figure = figure_of(WIDTH, 2.1)
    axes = figure.subplots()
    calm(axes, "What happened when", grid="x")
    if not events:
        nothing(axes, "no journal")
        return picture_of(figure, "Timeline: no journal.")
    began, length = events[0]["when"], (events[-1]["when"] - events[0]["when"]).total_seconds()
    unit, size = ("min", 60.0) if length >= 180 else ("s", 1.0)
    spans = facts.spans(events)
    for span in spans:
        start = (span.start - began).total_seconds() / size
        stop = (span.last_event_at - began).total_seconds() / size
        last = span is [other for other in spans if other.phase == span.phase][-1]
        _draw_span(axes, span, start, max(stop, start + length / size * 0.004), last)  # at least a visible width
    _draw_marks(axes, events, size)
    axes.set_yticks(range(len(PHASES) + 1), [*PHASES, "faults, recoveries"])
    axes.set_ylim(len(PHASES) + 0.5, -0.5)
    axes.set_xlim(0, max(length / size * 1.08, 1e-3))
    label(axes, f"{unit} since the run was made")
    return picture_of(figure, _timeline_alt(events, spans))


def _draw_span(axes: Axes, span: facts.Span, start: float, stop: float, named: bool) -> None:
    """Draw one execution of a phase; a failed one is hatched, not only coloured."""
    lane = PHASES.index(span.phase) if span.phase in PHASES else len(PHASES) - 1
    colour = {"done": BLUE, "failed": RED}.get(span.outcome, AMBER)
    hatch = None if span.outcome == "done" else "////"
    axes.barh(lane, stop - start, left=start, height=0.5, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    if not named:
        return
    took = exactly(span.seconds) if span.outcome == "done" else span.outcome
    axes.text(stop, lane, f" {took}", va="center", fontsize=8, color="#424a53")


def _draw_marks(axes: Axes, events: Sequence[facts.DatedEvent], size: float) -> None:
    for kind, plural, marker, colour in (("fault", "faults", "X", RED), ("recovery", "recoveries", "^", GREEN)):
        marked = [event["when"] - events[0]["when"] for event in events if facts.kind(event) == kind]
        if marked:
            label = f"{len(marked)} {kind if len(marked) == 1 else plural}"
            times = [at.total_seconds() / size for at in marked]
            lane = [len(PHASES)] * len(times)
            axes.plot(times, lane, marker, color=colour, markersize=7, linewidth=0, clip_on=False, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", fontsize=8, frameon=False, ncols=2)


def _timeline_alt(events: Sequence[facts.DatedEvent], spans: Sequence[facts.Span]) -> str:
    phases = "; ".join(f"{s.phase} {s.outcome}{f' after {exactly(s.seconds)}' if s.stop else ''}" for s in spans)
    faults, recoveries = (sum(facts.kind(event) == kind for event in events) for kind in ("fault", "recovery"))
    length = (events[-1]["when"] - events[0]["when"]).total_seconds()
    counted = f"{many(faults, 'fault')}, recoveries: {recoveries}"
    return f"Timeline of {exactly(length)}: {phases or 'no phase ended'}; {counted}."
