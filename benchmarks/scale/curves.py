"""The curves of docs/scale.md: what a look costs by the size of a fleet, and what memory a run takes by its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Curves:
    """A picture: one line a step, over sizes."""

    file: str
    title: str
    x: str
    y: str
    steps: Sequence[tuple[str, str]]  # (step, its name on the picture)
    figure: str  # which of a step's figures


FLEET = Curves(
    "scale-look.svg",
    "What one round costs the operator's machine",
    "million rows on thousand slots",
    "CPU seconds",
    (("poll", "a look"), ("collect", "collecting, nothing new"), ("move", "a move of rows"), ("shown", "the panel")),
    "s",
)
WHOLE = Curves(
    "scale-memory.svg",
    "Memory that a step takes at most",
    "rows",
    "MB",
    (("build", "numbering"), ("merge", "merge"), ("merge_again", "merge again"), ("validate", "validation")),
    "peak_mb",
)


def draw(results: Results, folder: Path) -> None:
    """Write both pictures; the same figures give the same bytes."""
    fleets = sorted((size for size in results if "x" in size), key=lambda size: [int(n) for n in size.split("x")])
    rows = sorted((size for size in results if "x" not in size), key=int)
    _draw(FLEET, [(_fleet(size), results[size]) for size in fleets], folder)
    _draw(WHOLE, [(f"{int(size):,}", results[size]) for size in rows], folder)


def _fleet(size: str) -> str:
    rows, slots = map(int, size.split("x"))
    return f"{rows / 1e6:g} M on {slots:,}"


def _draw(what: Curves, sizes: Sequence[tuple[str, Mapping[str, Any]]], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "runbook", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7.0, 3.2), layout="constrained")
        for step, name in what.steps:
            points = [(at, found[step][what.figure]) for at, (_, found) in enumerate(sizes) if step in found]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.4, label=name)
        axes.set_yscale("log")
        axes.set_xticks(range(len(sizes)), [label for label, _ in sizes])
        axes.set_xlabel(what.x)
        axes.set_ylabel(what.y)
        axes.set_title(what.title, fontsize=9, loc="left")
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(folder / what.file, format="svg", metadata={"Date": None})
        plt.close(figure)
