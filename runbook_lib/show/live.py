"""Live: one output of a notebook that is updated in place; lines of text outside a notebook.

The only door to IPython.display. One bundle (HTML with its picture inside, and text) goes out under one display_id, so
an executed notebook keeps only the last one, and its size does not grow with time. No threads and no own widgets: the
output needs neither kernel nor network afterwards.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worker.files import write_json

from ..run.run import Run
from ..slots import states
from ..slots.snapshot import Snapshot
from . import markup, panel, pictures, words
from .listed import BADGES
from .markup import CELL, NUMBER, Markup, tag, text
from .words import one_line

HEADLESS = "RUNBOOK_HEADLESS"  # set to 1 by the chain: no person looks, so the output is refreshed less often
DRAW_S = 5.0  # least time between two drawings: a rate over a minute changes slowly
DRAW_SHARE = 0.02  # of a processor, at most: a drawing takes 0.1 s, and several times that on a busy machine
SHOW_S = {False: 0.0, True: 10.0}
BARS_S = {False: 0.5, True: 5.0}
KEEP_S = 1.0  # between two lines for the command that runs the notebook
LOOKS = "looks"  # the unit of a task that is waited for: how often it was looked at says nothing
LINE_S = 5.0  # between two lines of text in a terminal or a log

Clock = Callable[[], float]


class Display(Protocol):
    """Where something is shown: an output in a notebook, or a terminal."""

    def show(self, html: Markup, plain: str, line: str, last: bool) -> None:
        """Replace what is shown; `line`: the same in one line; `last`: nothing will follow."""


class Spot:
    """One display_id of a notebook's output; `beside`: other formats of the same content, such as a widget."""

    def __init__(self, beside: Mapping[str, Any] | None = None) -> None:
        self._id = uuid.uuid4().hex
        self._beside = beside or {}
        self._shown = False

    def show(self, html: Markup, plain: str, line: str, last: bool) -> None:
        """Display the bundle, or update it in place."""
        from IPython.display import display

        bundle = {**self._beside, "text/html": html, "text/plain": plain}
        display(bundle, raw=True, display_id=self._id, update=self._shown)
        self._shown = True


class Terminal:
    """Lines of text: one from time to time, and the full text at the end."""

    def __init__(self, out: Callable[[str], None] = print) -> None:
        self._out, self._next, self._last_text = out, float("-inf"), ""

    def show(self, html: Markup, plain: str, line: str, last: bool) -> None:
        """Print the line if it is new and the last one is not recent; at the end print the full text, once."""
        shown = plain if last else line
        if shown == self._last_text or (time.monotonic() < self._next and not last):
            return
        self._out(shown)
        self._last_text, self._next = shown, time.monotonic() + LINE_S


def in_notebook() -> bool:
    """Return whether we run in an IPython kernel, which can update displays."""
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _display() -> Display:
    return Spot() if in_notebook() else Terminal()


def headless() -> bool:
    """Return whether the chain runs the notebook: it sets a variable, we never guess."""
    return os.environ.get(HEADLESS) == "1"


@dataclass
class Live:
    """Shows the states of a run in one display; pass it to `monitor.watch`.

    `kept`: a file for the rate, the time left and the alerts, which the command that runs the notebook reads.
    `only`: of which slots a person wants to see a line (`listed.slots`).
    """

    display: Display = field(default_factory=_display)
    every_s: float = field(default_factory=lambda: SHOW_S[headless()])
    clock: Clock = time.monotonic
    processor: Clock = time.thread_time
    kept: Path | None = None
    only: str = ""
    _next: float = float("-inf")
    _draw_next: float = float("-inf")
    _drawn: tuple[object, ...] = ()
    _picture: pictures.Picture | None = None

    def show(self, state: Snapshot) -> None:
        """Replace the shown state; the final one is always shown, others not too often."""
        self._keep(state)
        last = state.done or state.resting
        now = self.clock()
        if now < self._next and not last:
            return
        self._next = now + self.every_s
        picture = self._draw(state, now, last)
        self.display.show(
            pictures.progress_html(state, picture, self.only),
            panel.progress_text(state, self.only),
            panel.log_lines(state),
            last,
        )

    def _keep(self, state: Snapshot) -> None:
        if self.kept is None:
            return
        with suppress(OSError):  # such as a full disk: the run does not depend on this file
            write_json(self.kept, {"at": state.at, "pace": panel.outlook(state), "alerts": list(state.alerts)})

    def _draw(self, state: Snapshot, now: float, last: bool) -> pictures.Picture:
        """Return the picture; the last one again if its data did not change or it is recent."""
        data = (state.history, len(state.norms))
        if self._picture is None or (data != self._drawn and (last or now >= self._draw_next)):
            began = self.processor()
            self._picture = pictures.progress_png(state)
            pause_s = max(DRAW_S, (self.processor() - began) / DRAW_SHARE)
            self._drawn, self._draw_next = data, now + pause_s
        return self._picture


# --------------------------------------------------------------------------------------------------------------- bars


@dataclass
class _Bar:
    """The progress of one task; `began` and `before` are the start values of its rate."""

    done: int
    of: int
    began: float
    before: int
    at: float

    @property
    def whole(self) -> bool:
        return self.done == self.of if self.of == 0 else self.done >= self.of

    @property
    def rate(self) -> float | None:
        spent = self.at - self.began
        return (self.done - self.before) / spent if spent > 0.2 and self.done > self.before else None


@dataclass
class Bars:
    """The progress of several tasks; call it as `(what, done, total)` from any thread.

    `unit` is `bytes`, shown as MB, or another unit such as `parts`. `below` draws a picture under the bars from time
    to time while a task runs. `kept`: a file for one line about all of them, which the command that runs the notebook
    reads.
    """

    title: str
    unit: str = "bytes"
    display: Display = field(default_factory=_display)
    every_s: float = field(default_factory=lambda: BARS_S[headless()])
    clock: Clock = time.monotonic
    below: Callable[[], pictures.Picture] | None = None
    kept: Path | None = None
    _keep_next: float = float("-inf")
    _below: Markup = field(default_factory=Markup)
    _below_next: float = float("-inf")
    _bars: dict[str, _Bar] = field(default_factory=dict)
    _next: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Update one task, and show the bars if they were not shown recently, or the task is done."""
        with self._lock:
            now = self.clock()
            known = self._bars.get(what)
            if known is None or done < known.done:  # new, or it began again
                known = self._bars[what] = _Bar(done, total, now, done, now)
            if done > known.done:
                known.at = now
            known.done, known.of = done, total
            self._keep(what, now)
            if now < self._next and not known.whole:
                return
            self._next = now + self.every_s
            last = all(bar.whole for bar in self._bars.values())
            self.display.show(
                self._html() + self._under(now, last),
                self._text(),
                f"{one_line(self.title)}: {'; '.join(self._lines())}",
                last,
            )

    def _keep(self, what: str, now: float) -> None:
        whole = all(bar.whole for bar in self._bars.values())
        if self.kept is None or (now < self._keep_next and not whole):
            return
        self._keep_next = now + KEEP_S
        with suppress(OSError):  # such as a full disk: nothing depends on this file
            write_json(self.kept, {"at": time.time(), "pace": "" if whole else self._in_short(what), "alerts": []})

    def _in_short(self, what: str) -> str:
        """Return the sum of all tasks; of one that is waited for its name alone, such as a log's last line."""
        if self.unit == LOOKS:
            return one_line(what, 100)
        if len(self._bars) == 1:
            return self._words(self.title, self._bars[what])
        every = self._bars.values()
        began, before = min(bar.began for bar in every), sum(bar.before for bar in every)
        total = _Bar(sum(b.done for b in every), sum(b.of for b in every), began, before, max(b.at for b in every))
        ended = sum(bar.whole for bar in every)
        return f"{self._words(self.title, total)}, {ended} of {len(self._bars)} whole"

    def _under(self, now: float, last: bool) -> Markup:
        """Return the picture under the bars, drawn seldom; none at the end: another cell shows it then."""
        if self.below and not last and now >= self._below_next:
            self._below_next = now + DRAW_S
            try:
                self._below = self.below().html()
            except Exception as error:  # a picture that fails must not stop the transfer
                self._below = tag("p", Markup("This picture cannot be drawn: "), text(error))
        return Markup("") if last else self._below

    def _amount(self, bar: _Bar) -> str:
        scale, digits, unit = (1e6, 1, " MB") if self.unit == "bytes" else (1, 0, f" {self.unit}")
        of = f"/{bar.of / scale:,.{digits}f}" if bar.of > 0 else ""
        return f"{bar.done / scale:,.{digits}f}{of}{unit}"

    def _rate(self, bar: _Bar) -> str:
        if bar.rate is None:
            return ""
        return f"{bar.rate / 1e6:,.1f} MB/s" if self.unit == "bytes" else f"{bar.rate:,.0f} {self.unit}/s"

    def _share(self, bar: _Bar) -> str:
        return words.percent(bar.done, bar.of) if bar.of > 0 else ""

    def _lines(self) -> list[str]:
        return [self._line(what) for what in self._bars]

    def _line(self, what: str) -> str:
        return self._words(what, self._bars[what])

    def _words(self, what: str, bar: _Bar) -> str:
        return " ".join(filter(None, (one_line(what, 100), self._amount(bar), self._share(bar), self._rate(bar))))

    def _text(self) -> str:
        return "\n".join([one_line(self.title), *(f"  {line}" for line in self._lines())])

    def _html(self) -> Markup:
        heads = [("what", CELL), ("done", CELL), ("", NUMBER), ("", NUMBER), ("rate", NUMBER), ("", CELL)]
        rows = [self._row(what, bar) for what, bar in self._bars.items()]
        body = markup.table(self.title, heads, rows)
        style = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45"
        return tag("div", body, style=style)

    def _row(self, what: str, bar: _Bar) -> Markup:
        drawn = [markup.bar(bar.done, bar.of, f"{self.title}: {what}", "14em")] if bar.of > 0 else []
        mark = [markup.badge(states.DONE, *BADGES[states.DONE])] if bar.whole else []
        return tag(
            "tr",
            tag("th", text(what, 100), scope="row", style=f"{CELL};font-weight:600"),
            tag("td", *drawn, style=CELL),
            tag("td", text(self._amount(bar)), style=NUMBER),
            tag("td", text(self._share(bar)), style=NUMBER),
            tag("td", text(self._rate(bar)), style=NUMBER),
            tag("td", *mark, style=CELL),
        )


def bars(title: str, run: Run, unit: str = "bytes", below: Callable[[], pictures.Picture] | None = None) -> Bars:
    """Return progress bars with a title, for `on_progress` of staging.stage, download.collect and merge.merge.

    `below` draws a picture under them while a task runs, such as the part grid.
    """
    return Bars(title, unit, below=below, kept=run.watching_file if headless() else None)
