"""One small picture of a measurement: a bar a row with its lowest and highest, and a line where it must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import spread
from rows import Measurement, ratios
from work import BESIDE_ENCODING, CALLED, NEXT_BATCH_S, Encoding, Int8, Script


@dataclass(frozen=True)
class Bars:
    """What is drawn: (label, [median, lowest, highest]) from top to bottom, and where each must be, if anywhere."""

    axis: str
    bars: list[tuple[str, list[float]]]
    needed: float | None = None


def bars_of(what: Encoding | Int8 | Script, found: Measurement) -> Bars | None:
    """What is drawn of a measurement; None where there is nothing to be seen."""
    if isinstance(what, Encoding | Int8):
        bars = [(CALLED[way].replace("`", ""), spread(ratios(found, way, "encode"))) for way in found["ways"]]
        return Bars("times as fast as encode()", bars, what.needed if isinstance(what, Encoding) else None)
    if what.name == "restart":
        bars = [("killed to next batch", spread(found["kills"])), ("a plain start", spread(found["plain"]))]
        return Bars("seconds", bars, NEXT_BATCH_S)
    if what.name == "whole-run":
        share = 100 * (1 - found["encoding"] / found["whole"])
        return Bars("% of the run", [("everything but encoding", [share] * 3)], 100 * BESIDE_ENCODING)
    if what.name == "transfer":
        bars = [
            (f"{name}, {peer}", spread([each[peer][0] for each in rounds]))
            for name, rounds in found.items()
            for peer in ("ours", "scp", "rsync")
            if all(each[peer] for each in rounds)
        ]
        return Bars("seconds", bars)
    if what.name == "limits":
        ways = (("gemm", "torch"), ("onednn", "oneDNN"))
        bars = [(f"{how}, threads: {n}", spread(v)) for by, how in ways for n, v in found.get(by, {}).items()]
        return Bars("GFLOP/s", bars)
    return None


def draw(title: str, what: Bars, path: Path) -> None:
    """Write it as an SVG file; the same figures give the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "runbook", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.32 * len(what.bars)), layout="constrained")
        labels = [label for label, _ in what.bars][::-1]
        middle, low, high = ([values[k] for _, values in what.bars][::-1] for k in range(3))
        whiskers = np.abs(np.array([low, high]) - middle)
        axes.barh(labels, middle, xerr=whiskers, color="#4c78a8", ecolor="#222222", capsize=2, height=0.65)
        if what.needed is not None:
            axes.axvline(what.needed, color="#c0392b", linewidth=1.2, linestyle="--")
            place: dict[str, Any] = {
                "xycoords": ("data", "axes fraction"),
                "xytext": (3, 3),
                "textcoords": "offset points",
            }
            axes.annotate(f"needed {what.needed:g}", (what.needed, 1), color="#c0392b", fontsize=8, **place)
        axes.set_xlabel(what.axis)
        axes.set_title(title, fontsize=9, loc="left", pad=14)
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
