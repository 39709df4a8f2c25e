"""Incidents: when something went wrong with a slot, what, and when it worked again; for the journal, and so the report.

Slowness is no incident: nothing is lost by it, and it comes and goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import verdicts
from .run import Run
from .state import SlotState, State

BEGAN, ENDED = "slot in trouble", "slot recovered"
SETTLED = ("running", "helping", "done", "moved", "stopped")  # a worker that starts anew has not recovered yet


@dataclass
class Incidents:
    """Takes note of one state after another, of one watching."""

    run: Run
    clock: Callable[[], float] = time.monotonic
    _open: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)

    def note(self, state: State) -> None:
        """Write into the journal what is new: a slot in trouble, or one that is out of it.

        What cannot be written (a full disk here) is tried again at the next look: it must not end the watching.
        """
        for slot in state.slots:
            with contextlib.suppress(OSError):
                self._note(slot)
            self._before[slot.slot] = slot.in_part

    def _note(self, slot: SlotState) -> None:
        said = slot.verdict or slot.state
        wrong = said != "slow" and said in verdicts.NAMED and verdicts.NAMED[said].wrong
        known = self._open.get(slot.slot)
        if wrong and (known is None or known[0] != said):
            self._begin(slot, said, known)
        elif known and slot.state in SETTLED and not wrong:
            lost_s = round(self.clock() - known[1], 1)
            self.run.journal.write(
                ENDED, slot=slot.slot, host=slot.host, after=known[0], seconds_lost=lost_s, rows_again=known[2]
            )
            del self._open[slot.slot]

    def _begin(self, slot: SlotState, said: str, known: tuple[str, float, int] | None) -> None:
        """One that turns out to be another keeps its beginning. Rows inside a part that was not committed go again."""
        again = 0 if said in ("unreachable", "stuck") else self._before.get(slot.slot, 0)
        began, again = (known[1], max(again, known[2])) if known else (self.clock(), again)
        self.run.journal.write(
            BEGAN, slot=slot.slot, host=slot.host, verdict=said, cause=slot.evidence, action=slot.action
        )
        self._open[slot.slot] = (said, began, again)
