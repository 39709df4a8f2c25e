"""`runbook watch`: the monitor's panel in a terminal, drawn again at every poll. It only watches; it never acts.

If the output is not a terminal (a pipe, a log), it prints lines of text, as the notebooks do.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..run.run import Run
from ..slots.snapshot import SlotState, Snapshot
from ..slots.watcher import Watcher
from . import listed, markup, panel, words
from .live import Terminal
from .words import one_line

STYLES = {
    markup.GREEN: "green",
    markup.BLUE: "blue",
    markup.AMBER: "yellow",
    markup.RED: "bold red",
    markup.PURPLE: "magenta",
    markup.GREY: "dim",
}


def watch(run: Run, every_s: float, console: Console | None = None) -> Snapshot:
    """Poll every `every_s` seconds until every row is committed or no worker works any more; return the last state."""
    console = console or Console()
    watcher = Watcher(run, run.plan())
    state = watcher.poll()
    if not console.is_terminal:
        lines = Terminal(out=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
        while True:
            last = state.done or state.resting
            lines.show(markup.Markup(""), panel.progress_text(state), panel.log_lines(state), last)
            if last:
                return state
            time.sleep(every_s)
            state = watcher.poll()
    # No alternate screen: the last picture stays on the screen.
    with Live(picture(state), console=console, auto_refresh=False, vertical_overflow="ellipsis") as shown:
        while not (state.done or state.resting):
            time.sleep(every_s)
            state = watcher.poll()
            shown.update(picture(state), refresh=True)
    return state


def picture(state: Snapshot) -> Group:
    """Return all rows, alerts, and a line for each slot to list. A host's text is never used as markup or an escape."""
    head = Text(f"{one_line(state.run, 100)}: {panel.headline(state)}", style="bold")
    alerts = [Text(f"! {one_line(alert, 500)}", style="bold red") for alert in state.alerts[: listed.ALERTS]]
    shown = listed.slots(state)
    which = [] if len(shown) == len(state.slots) else [Text(listed.caption(state, shown), style="dim")]
    bar = ProgressBar(total=max(1, state.rows), completed=state.committed)
    return Group(head, bar, *alerts, *which, _slots(shown))


def _slots(shown: Sequence[SlotState]) -> Table:
    with_gpu = any(slot.gpu for slot in shown)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("slot", "state", "host", "committed"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "rate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("of late", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    for name in (*(["GPU"] if with_gpu else []), "last contact"):
        table.add_column(name, no_wrap=True)
    table.add_column("restarts and reason", overflow="fold")
    for slot in shown:
        table.add_row(*_cells(slot, with_gpu))
    return table


def _cells(slot: SlotState, with_gpu: bool) -> list[Text | ProgressBar]:
    shape, colour = listed.BADGES.get(slot.verdict or slot.state, listed.TROUBLE)
    bar = ProgressBar(total=max(1, slot.rows), completed=slot.committed, width=12)
    gpu = [Text(panel.gpu(slot))] if with_gpu else []
    return [
        Text(one_line(slot.slot, 40)),
        Text(f"{shape} {one_line(slot.verdict or slot.state, 40)}", style=STYLES[colour]),
        Text(one_line(slot.host, 64)),
        bar,
        Text(f"{slot.committed:,}/{slot.rows:,}"),
        Text(words.rate(slot.rate)),
        Text(words.spark(slot.trend), style="blue"),
        Text(words.duration(slot.eta_s)),
        *gpu,
        Text(panel.contact(slot)),
        Text(panel.notes(slot)),
    ]


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show a bar in a terminal while something is counted; yield what takes (done, total)."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.completed:,}/{task.total:,} {task.description}"), BarColumn(30), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)
