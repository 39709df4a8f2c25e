"""Verdicts: what is the matter with a slot, how that is known, what happens by itself, what a person can do.

Two tables and a pure function over them; nothing here acts. What a worker died of is told by the reason that its
supervisor kept: an exit code, or the last words of the worker itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..profile.profile import MonitorSpec


@dataclass(frozen=True)
class Verdict:
    """A name, what happens without a person, and what a person can do; `wrong` where it is worth an alert."""

    name: str
    by_itself: str
    person: str = "nothing"
    wrong: bool = True


TABLE = (
    Verdict("done", "nothing is left to do", wrong=False),
    Verdict("not launched", "nothing: it was not started yet", "run notebook 02, or `runbook run`", wrong=False),
    Verdict("not read yet", "its host's first answer is waited for", wrong=False),
    Verdict("more to do", "its host had finished; it is started again for the rows that it has now", wrong=False),
    Verdict("starting", "its first report is waited for", wrong=False),
    Verdict("loading model", "its first rows are waited for", wrong=False),
    Verdict("running", "its parts are brought home as they are committed", wrong=False),
    Verdict("helping", "its own rows are done; it does those of a neighbour on its host", wrong=False),
    Verdict("moved", "all of its rows are others' now", wrong=False),
    Verdict("stopped", "nothing: it was stopped on purpose", "`runbook run` or `runbook restart` goes on", wrong=False),
    Verdict(
        "slow",
        "idle neighbours take its last parts, an idle host the tail of its host",
        "see who else uses that machine",
    ),
    Verdict(
        "stuck",
        "its supervisor ends it after `stuck_s`, or five parts' time (`first_progress_s` or more while loading); "
        "the next one starts",
        "`runbook restart RUN SLOT` does so at once",
    ),
    Verdict("restarting", "the next worker starts after 5 to 60 s, from the parts", "`runbook logs RUN SLOT`"),
    Verdict(
        "dead",
        "with `recovery: auto`, its host's supervisor is started again while somebody watches",
        "`runbook run` again",
    ),
    Verdict(
        "unsupervised",
        "with `recovery: auto`, its host's supervisor is started again while somebody watches",
        "`runbook restart RUN HOST`",
    ),
    Verdict(
        "unreachable",
        "its workers go on; after `unreachable_s` of silence its rows move to hosts that answer",
        "mend the way to it, or `runbook move RUN HOST` at once",
    ),
    Verdict(
        "out of memory",
        "the batch is halved at the same row and grows back; a worker killed for its memory is started again",
        "free that memory, or give the host fewer slots",
    ),
    Verdict(
        "disk full",
        "nothing half is kept; tried again, up to 60 s after there is room; that is no death",
        "free space on that machine",
    ),
    Verdict("no permission", "tried again after a pause", "give this account the right to write there"),
    Verdict("model refused", "nothing: it would be refused again", "see the model's licence, its name and the token"),
    Verdict(
        "GPU lost",
        "tried again, then given up: neighbours do its rows; no GPU is ever reset",
        "have the machine's owner look at its GPU",
    ),
    Verdict(
        "device wrong",
        "it does known texts wrong, so no text is blamed: tried again, then given up, neighbours do its rows",
        "have the machine's owner look at that device",
    ),
    Verdict("GPU taken", "tried again after a pause", "see whose process holds it; none of theirs is ever ended"),
    Verdict("environment broken", "tried again, then given up", "`runbook check PROFILE` says what is missing there"),
    Verdict("refused", "nothing: what it was given does not fit together", "read the reason; launch again"),
    Verdict(
        "fenced",
        "five deaths without a new part: its rows go to its neighbours, or another host",
        "read the reason, `runbook run`",
    ),
)  # fmt: skip
NAMED = {verdict.name: verdict for verdict in TABLE}

# What a reason says, in the order in which it is looked for: the more telling first.
CAUSES = (
    ("disk full", r"disk full|no space left on device|dis[ck] quota exceeded|Errno (28|69|122)\b"),
    ("GPU lost", r"\bXid\b|fallen off the bus|uncorrectable ecc|gpu is lost|no cuda gpus are available|"
                 r"cuda initialization|unspecified launch failure|illegal memory access|no cuda-capable device"),
    ("GPU taken", r"exclusive.?process|devices? (is|are)[ /]*(busy|unavailable)|busy or unavailable"),
    ("out of memory", r"out of memory|cannot allocate memory|out_of_memory|MemoryError|Errno 12\b"),
    ("device wrong", r"a known text (comes out|cannot be computed)"),
    ("model refused", r"\b40[13]\b (client )?error|gated repo|unauthorized|offline mode|LocalEntryNotFound"),
    ("environment broken", r"no module named|ImportError|cannot start |undefined symbol|shared object file"),
    ("no permission", r"permission denied|read-only file system|operation not permitted"),
    ("stuck", r"no sign of work for"),
)  # fmt: skip
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in CAUSES)
BY_A_PERSON = "restarted by a person"  # as its supervisor has it on file
EXIT_REFUSED = 2  # of a worker: what it was given does not fit together
ENDED = ("dead", "restarting", "fenced", "failed")


def cause(reason: str) -> str:
    """What a worker ended of, by name of a verdict; empty where its reason tells nothing more."""
    return next((name for name, pattern in _PATTERNS if pattern.search(reason)), "")


@dataclass(frozen=True)
class Seen:
    """What is seen of a slot: its state on file, why its last worker ended, and how it has moved.

    `still_s`: how long it has shown no new row, by our clock; `age_s`: since its heartbeat, by its host's; `finished`:
    its supervisor ended because nothing was left, so what is left now came later.
    """

    state: str
    reason: str = ""
    code: int | None = None
    rate: float | None = None
    still_s: float = 0.0
    age_s: float | None = None
    part_s: float | None = None
    finished: bool = False


def judge(seen: Seen, limits: MonitorSpec) -> tuple[Verdict, str]:
    """The verdict on a slot and the evidence for it, in words; no evidence where nothing is the matter."""
    if seen.state == "dead" and seen.finished:
        return NAMED["more to do"], ""
    if seen.state in ENDED:
        name = "refused" if seen.code == EXIT_REFUSED and not cause(seen.reason) else cause(seen.reason)
        name = name or (seen.state if seen.state in NAMED else "dead")
        said = f"{'given up' if seen.state == 'fenced' else seen.state}; {seen.reason or 'no reason on record'}"
        if seen.state == "restarting" and (not seen.reason or seen.reason == BY_A_PERSON):
            return NAMED["starting"], ""  # a first start waits too: nothing has happened yet
        found = NAMED[name]
        if seen.state in ("dead", "fenced") and name != "refused":  # nobody is there, or means, to try again
            found = replace(found, by_itself=NAMED[seen.state].by_itself)
        return found, said
    if seen.state == "running":
        stuck_s = patience_s(seen, limits)
        if seen.age_s is not None and seen.age_s > limits.stuck_s:
            return NAMED["stuck"], f"no heartbeat for {seen.age_s:.0f} s (expected within {limits.stuck_s:g} s)"
        if seen.still_s > stuck_s:
            return NAMED["stuck"], f"no new row for {seen.still_s:.0f} s (expected within {stuck_s:.0f} s)"
        if seen.rate is not None and seen.rate < limits.slow_rows_per_s:
            return NAMED["slow"], f"{seen.rate:.1f} rows/s (the profile expects at least {limits.slow_rows_per_s:g})"
    return NAMED.get(seen.state, Verdict(seen.state, "", wrong=False)), ""


def patience_s(seen: Seen, limits: MonitorSpec) -> float:
    """How long a slot may show no new row: the profile's time, or twice that of one of its parts."""
    return max(limits.stuck_s, 2 * seen.part_s) if seen.part_s else limits.stuck_s
