"""The console: the panel of a run with buttons, for a person in a notebook. The only door to ipywidgets.

The buttons call the same functions as the command line. The thread that receives a press depends on the kernel's
version, so a press is only passed to the loop that the cell awaits; nothing else is done on that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime

import ipywidgets as widgets

from ..errors import GateError, RunbookError
from ..phases import monitor, recover, tend, workers
from ..result import facts
from ..run import telling
from ..run.checks import Checks
from ..run.journal import Event
from ..run.run import PHASES, Run
from ..slots import needs
from ..slots.snapshot import Snapshot
from ..slots.watcher import Watcher
from .listed import MANY, TALL
from .live import Live, Spot, headless, in_notebook
from .markup import MUTED, Markup, joined, tag, text
from .words import one_line

TALLEST = "75vh"  # height of a panel with many slots: the buttons below it stay visible
LINES = 6  # of the journal, below the panel
TYPED_S = 0.1  # text that was typed just before a press may arrive after it, on another thread

Act = Callable[[Run, Snapshot], list[str]]


async def watch(run: Run, act: Act = tend.tend) -> Snapshot:
    """Watch with buttons for a person, without them if the chain runs the notebook; see `monitor.watch`.

    Raises GateError before the launch: it would wait for workers that nobody started.
    """
    if not run.launched:
        raise GateError(
            f"run {run.name}: no host has anything to do yet. Next: run {PHASES[1]} first (or: runbook run)"
        )
    if headless() or not in_notebook():
        return await monitor.watch(run, Live(kept=run.watching_file if headless() else None), act)
    state = await Console(run).watch(act)
    if message := needs.of_watching(run, state):
        telling.tell(run, message)
    return state


class Console:
    """One run's panel, its buttons and the last lines of its journal: the `Display` in which `Live` shows states."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.paused = False
        self._wake = asyncio.Event()
        self._orders: asyncio.Queue[tuple[str, Callable[[], str]]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[Snapshot] | None = None
        wide = widgets.Layout(width="auto")
        self.hosts = [spec.name for spec in run.hosts]
        slots = [slot.slot for slot in run.plan().used if slot.host in self.hosts]
        self.pause = _button("Pause watching", "look no more until resumed; workers go on", self._pause)
        self.refresh = _button("Refresh now", "look at once", self._refresh)
        self.leave = _button("Stop watching", "end this cell; workers go on", self._leave)
        named = [*slots, *self.hosts] if len(slots) <= MANY else self.hosts
        kind = widgets.Dropdown if len(slots) <= MANY else widgets.Combobox  # in which any worker can be typed
        self.slot = kind(options=[*named, "all"], description="worker", layout=wide)
        self.find = widgets.Text(placeholder="workers to list: a part of a name", layout=wide)
        self.find.observe(self._find, "value")
        self.restart = _button("Restart this worker", "a machine's, or all: from what they committed", self._restart)
        self.move = _button("Move its rows", "what a machine has not done goes to the others", self._move)
        self.remark = widgets.Text(placeholder="a remark for the journal", layout=wide)
        self.note = _button("Add note", "into the journal and the report", self._note)
        self.name = widgets.Text(placeholder="this run's name, to confirm", layout=wide)
        self.stop = _button("Stop workers", "all of this run's; committed rows stay", self._stop, "danger")
        # A separate box around the part that every poll replaces, so that its scroll position stays.
        scrolls = {"max_height": TALLEST, "overflow": "auto"} if len(slots) > TALL else {}
        self.panel = widgets.HTML(layout=widgets.Layout(**scrolls))
        self.message, self.journal = widgets.HTML(), widgets.HTML()
        rows = [
            [self.pause, self.refresh, self.leave, self.slot, self.restart, self.move],
            *([[self.find]] if len(slots) > MANY else []),
            [self.remark, self.note, self.name, self.stop],
        ]
        lines = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) for row in rows]
        self.box = widgets.VBox([self.panel, *lines, self.message, self.journal])
        # A saved notebook contains the first and the last picture; a live one shows the widget.
        self._spot = Spot(self.box._repr_mimebundle_())
        self._shown = False
        self._live = Live(display=self, every_s=0.0)

    def show(self, html: Markup, plain: str, line: str, last: bool) -> None:
        """Replace the shown panel."""
        self.panel.value = html
        self.journal.value = self._journal()
        if last or not self._shown:
            self._shown = True
            self._spot.show(html, plain, line, last)

    async def rest(self, seconds: float) -> None:
        """Wait `seconds` before the next poll, or until a button asks for it; while paused, until it is resumed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), None if self.paused else seconds)
        self._wake.clear()

    async def watch(self, act: Act | None) -> Snapshot:
        """Watch and serve the buttons until the watching ends."""
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(monitor.watch(self.run, self._live, act, self.rest))
        serving = asyncio.create_task(self._serve())
        try:
            return await self._watching
        finally:
            serving.cancel()
            self._end()

    def _end(self) -> None:
        for button in (self.pause, self.refresh, self.leave, self.restart, self.move, self.note, self.stop):
            button.disabled = True
        self._say("Watching has ended. To look again, run this cell again.")

    async def _serve(self) -> None:
        """Do one order after the other, on another thread: a hanging host must not block the loop."""
        while True:
            words, order = await self._orders.get()
            self._say(f"{words} …")
            try:
                result = await asyncio.to_thread(order)
            except (RunbookError, OSError) as error:
                result = f"not done: {error}"
            self._say(f"{words}: {result}")
            self._wake.set()

    def _say(self, words: str) -> None:
        self.message.value = tag("div", text(words, 1000), role="status")

    def _journal(self) -> Markup:
        lines = [(_at(e), e.get("event"), facts.briefly(e)) for e in self.run.journal.last(LINES)]
        items = [
            tag("li", joined((text(at), text(event), text(one_line(details, 160))), Markup(" ")))
            for at, event, details in lines
        ]
        style = "margin:0;padding:0;list-style:none;font-size:12px;line-height:1.4"
        return tag("div", Markup("Last in the journal, by this machine's clock"), style=MUTED) + tag(
            "ul", *items, style=style
        )

    # ---------------------------------------------------------------------------------------------------- the buttons

    def _soon(self, do: Callable[..., object], *arguments: object) -> None:
        if self._loop:
            self._loop.call_soon_threadsafe(do, *arguments)

    def _when_typed(self, do: Callable[[], object]) -> None:
        if self._loop:
            self._soon(self._loop.call_later, TYPED_S, do)

    def _order(self, words: str, order: Callable[[], str]) -> None:
        self._orders.put_nowait((words, order))

    def _pause(self, button: widgets.Button) -> None:
        self.paused = not self.paused
        button.description = "Resume watching" if self.paused else "Pause watching"
        paused = "Paused: nothing is looked at or brought home. The workers go on."
        self._say(paused if self.paused else "Watching again.")
        self._soon(self._wake.set)

    def _refresh(self, button: widgets.Button) -> None:
        self._soon(self._wake.set)

    def _find(self, change: dict[str, str]) -> None:
        self._live.only = change["new"].strip()
        self._soon(self._wake.set)

    def _leave(self, button: widgets.Button) -> None:
        if self._watching:
            self._soon(self._watching.cancel)  # monitor.watch takes it as an interrupt: it says so and gives its state

    def _restart(self, button: widgets.Button) -> None:
        self._when_typed(self._restart_slot)

    def _restart_slot(self) -> None:
        what = str(self.slot.value)
        self._order(f"Restart {what}", lambda: _words(workers.restart(self.run, what)))

    def _move(self, button: widgets.Button) -> None:
        self._when_typed(self._move_rows)

    def _move_rows(self) -> None:
        host = str(self.slot.value)
        if host not in self.hosts:
            self._say(f"Nothing was moved. Rows move between machines: choose one of {', '.join(self.hosts)} first")
            return

        def move() -> str:
            state = Watcher(self.run, self.run.plan()).poll()
            return _words(recover.move(self.run, state, host))

        self._order(f"Move the rows of {host}", move)

    def _note(self, button: widgets.Button) -> None:
        self._when_typed(self._take_note)

    def _take_note(self) -> None:
        remark, self.remark.value = str(self.remark.value), ""

        def write() -> str:
            self.run.note(remark)
            return "in the journal"

        self._order("Note", write)

    def _stop(self, button: widgets.Button) -> None:
        self._when_typed(self._stop_workers)

    def _stop_workers(self) -> None:
        if str(self.name.value).strip() != self.run.name:
            self._say(f"Nothing was stopped. To stop all workers of this run, type its name first: {self.run.name}")
            return
        self.name.value = ""
        self._order("Stop workers", lambda: _words(workers.stop(self.run)))


def _button(words: str, tooltip: str, press: Callable[[widgets.Button], None], style: str = "") -> widgets.Button:
    button = widgets.Button(description=words, tooltip=tooltip, button_style=style, layout=widgets.Layout(width="auto"))
    button.on_click(press)
    return button


def _at(event: Event) -> str:
    with contextlib.suppress(ValueError):
        return f"{datetime.fromisoformat(event['at']).astimezone():%H:%M:%S}"
    return ""


def _words(checks: Checks) -> str:
    """Return the checks in one line."""
    return "; ".join(f"{check.where or check.name}: {check.seen}" for check in checks)
