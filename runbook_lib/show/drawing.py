"""Drawing: makes our pictures: small PNGs with their numbers as alt text. The only door to matplotlib.

It is loaded when first needed. Never pyplot: its global state breaks if a notebook draws from two threads. No text of
a corpus is drawn, so none can be read as markup and no glyph can be missing.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from worker.escape import safe_text

from .markup import GREY, Markup, tag, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = object  # a name for the types of those who draw

__all__ = ["PALE", "RULE", "WIDTH", "Axes", "Picture", "calm", "figure_of", "label", "nothing", "picture_of", "shaded"]

DPI = 135  # drawn for high-resolution screens, shown at two thirds
SHOWN_DPI = 90
WIDTH = 10.6  # inches: a picture over the full width of the panel
COLOURS = 48  # size of the palette: flat drawings lose nothing and a picture stays under 40 kB
INK, RULE, PALE = "#1f2328", "#d0d7de", "#b6d4f5"


@dataclass(frozen=True)
class Picture:
    """A PNG and its description with the numbers; a notebook displays it."""

    png: bytes
    alt: str
    width: int = 0
    caption: str = ""

    def html(self) -> Markup:
        """Return the picture as one self-contained element."""
        width = {"width": self.width} if self.width else {}
        data = base64.b64encode(self.png).decode()
        style = "max-width:100%;height:auto;background-color:#ffffff;border-radius:4px"
        return tag("img", alt=text(self.alt, 4000), **width, style=style, src=f"data:image/png;base64,{data}")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.alt}


# ------------------------------------------------------------------------------------------------------- the drawing


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def picture_of(figure: Figure, alt: str, caption: str = "") -> Picture:
    """Render with a small palette: a third of the bytes. `caption` is used instead of a long alt text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return Picture(file.getvalue(), safe_text(alt, 4000), round(image.width * SHOWN_DPI / DPI), caption or alt)


def calm(axes: Axes, title: str, grid: Literal["", "x", "y", "both"] = "y") -> None:
    """Apply the common style of our axes."""
    axes.set_title(title, loc="left", fontsize=9, color=INK, fontweight="bold")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    axes.tick_params(labelsize=8, length=0, colors=GREY, labelcolor="#424a53")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.6)


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """Name the axes."""
    axes.set_xlabel(x, fontsize=8, color="#424a53")
    axes.set_ylabel(y, fontsize=8, color="#424a53")


def shaded(axes: Axes, points: np.ndarray, values: np.ndarray, name: str) -> None:
    """Draw points (n, 2): the lower the value (n,), the darker the point; with a scale."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    dark_to_light = ListedColormap(colormaps["viridis"](np.linspace(0, 0.86, 32)))  # its yellow end is lost on white
    low, high = float(values.min()), float(values.max())
    norm = LogNorm(low, high) if 0 < low < high else None
    drawn = axes.scatter(
        points[:, 0], points[:, 1], c=values, s=9, cmap=dark_to_light, norm=norm, alpha=0.7, linewidths=0
    )
    ticks = np.unique(np.geomspace(low, high, 5).round() if norm else [low])
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.035, pad=0.02, ticks=ticks, format="{x:,.0f}")
    bar.minorticks_off()
    bar.set_label(name, fontsize=8, color="#424a53")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors="#424a53")


def nothing(axes: Axes, why: str) -> None:
    """Write into empty axes why there is nothing to show."""
    axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=9, color=GREY, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
