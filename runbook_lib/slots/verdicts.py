"""Verdicts: what is wrong with a slot, and the evidence: a pure function over the table of `states`.

Nothing here acts. The cause of a worker's death comes from the reason that its supervisor stored: an exit code, or the
worker's last line of output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from worker.states import BY_A_PERSON

from ..profile.profile import MonitorSpec
from . import states
from .queued import WAITS
from .states import NAMED, Verdict

# Patterns in a reason, in the order in which they are tried: the more specific first.
CAUSES = (
    ("disk full", r"disk full|no space left on device|dis[ck] quota exceeded|Errno (28|69|122)\b"),
    ("GPU lost", r"\bXid\b|fallen off the bus|uncorrectable ecc|gpu is lost|no cuda gpus are available|"
                 r"cuda initialization|unspecified launch failure|illegal memory access|no cuda-capable device|"
                 r"command buffer|device_lost"),
    ("GPU taken", r"exclusive.?process|devices? (is|are)[ /]*(busy|unavailable)|busy or unavailable"),
    ("out of memory", r"out of memory|cannot allocate memory|out_of_memory|MemoryError|Errno 12\b|invalid buffer size|"
                      r"out_of_(device|host)_memory|failed assertion.*MPSNDArray"),
    ("device wrong", r"a known text (comes out|cannot be computed)|comes out otherwise than on the processor|"
                     r"driver complained|^fenced: "),
    ("model refused", r"\b40[13]\b (client )?error|gated repo|unauthorized|offline mode|LocalEntryNotFound"),
    ("environment broken", r"no module named|ImportError|cannot start |undefined symbol|shared object file"),
    ("no permission", r"permission denied|read-only file system|operation not permitted"),
    (states.STUCK, r"no sign of work for"),
)  # fmt: skip
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in CAUSES)
NO_MORE = (states.DEAD, states.FENCED)  # no supervisor will try again
EXIT_REFUSED = 2  # of a worker: its inputs do not fit together


def cause(reason: str) -> str:
    """Return the name of the verdict that a worker's end reason shows; empty if it shows none."""
    return next((name for name, pattern in _PATTERNS if pattern.search(reason)), "")


@dataclass(frozen=True)
class Signs:
    """The signs by which a slot is judged: its stored state, why its last worker ended, and its progress.

    `still_s`: seconds without a new row, by our clock; `age_s`: seconds since its heartbeat, by its host's clock;
    `finished`: its supervisor ended because nothing was left, so the rows that it has now came later. `queue`: what the
    scheduler says of it, in words; `unseen`: it works, and the scheduler does not know it.
    """

    state: str
    reason: str = ""
    code: int | None = None
    rate: float | None = None
    still_s: float = 0.0
    age_s: float | None = None
    part_s: float | None = None
    finished: bool = False
    queue: str = ""
    unseen: bool = False


def judge(signs: Signs, limits: MonitorSpec) -> tuple[Verdict, str]:
    """Return the verdict on a slot and the evidence in words; empty evidence if nothing is wrong."""
    if signs.state in (states.DEAD, states.TAKEN) and signs.finished:
        return NAMED[states.MORE_TO_DO], ""
    if signs.state in states.ENDED:
        name = states.REFUSED if signs.code == EXIT_REFUSED and not cause(signs.reason) else cause(signs.reason)
        name = name or (states.DEAD if signs.state == states.FAILED else signs.state)
        state = "given up" if signs.state == states.FENCED else signs.state
        evidence = f"{state}; {signs.reason or 'no reason on record'}"
        if signs.state == states.RESTARTING and (not signs.reason or signs.reason == BY_A_PERSON):
            return NAMED[states.STARTING], ""  # a first start waits too: nothing went wrong yet
        verdict = NAMED[name]
        if signs.state in NO_MORE and name != states.REFUSED:
            verdict = replace(verdict, by_itself=NAMED[signs.state].by_itself)
        return verdict, evidence
    if signs.state == states.RUNNING:
        stuck_s = patience_s(signs, limits)
        if signs.age_s is not None and signs.age_s > limits.stuck_s:
            return NAMED[states.STUCK], f"no heartbeat for {signs.age_s:.0f} s (expected within {limits.stuck_s:g} s)"
        if signs.still_s > stuck_s:
            return NAMED[states.STUCK], f"no new row for {signs.still_s:.0f} s (expected within {stuck_s:.0f} s)"
        if signs.rate is not None and signs.rate < limits.slow_rows_per_s:
            expected = f"the profile expects at least {limits.slow_rows_per_s:g}"
            return NAMED[states.SLOW], f"{signs.rate:.1f} rows/s ({expected})"
    if signs.unseen and signs.state in states.SETTLED:
        return NAMED[states.UNSEEN], signs.queue
    of_queue = signs.state in (*WAITS, states.SILENT, states.TAKEN)
    return NAMED.get(signs.state, Verdict(signs.state, "", wrong=False)), signs.queue if of_queue else ""


def patience_s(signs: Signs, limits: MonitorSpec) -> float:
    """Return how long a slot may show no new row: the profile's time, or twice the time of one part if longer."""
    return max(limits.stuck_s, 2 * signs.part_s) if signs.part_s else limits.stuck_s
