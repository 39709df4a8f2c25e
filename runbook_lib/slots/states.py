"""The states of a slot and the verdicts on it: one table, one row for each word, with everything that follows from it.

Three steps decide, each from the result of the step before. The host's supervisor (`worker/supervise.py`) sees its own
workers. `observed.judge` derives a state from its report, the worker's report, the committed rows and which hosts
answer. `verdicts.judge` finds the cause: why a worker died, or that it is slow or stuck. No other code does this.
"""

from __future__ import annotations

from dataclasses import dataclass

DONE, MOVED, STOPPED = "done", "moved", "stopped"
NOT_LAUNCHED, NOT_READ, MORE_TO_DO = "not launched", "not read yet", "more to do"
STARTING, LOADING, RUNNING, HELPING = "starting", "loading model", "running", "helping"
SLOW, STUCK, RESTARTING, FAILED, DEAD = "slow", "stuck", "restarting", "failed", "dead"
UNSUPERVISED, UNREACHABLE, REFUSED, FENCED = "unsupervised", "unreachable", "refused", "fenced"
QUEUED, REQUEUED, HELD = "waiting in the queue", "requeued", "held in the queue"  # of a host that a scheduler places
SILENT, UNSEEN, TAKEN = "silent", "works on unseen", "ended by the scheduler"
WAITING = "waiting"  # used by supervisors only: the next worker has not begun


@dataclass(frozen=True)
class Verdict:
    """A state of a slot, or its cause. `by_itself`: what happens without a person; `person`: what a person can do.

    `wrong`: worth an alert. `rests`: no worker works, or starts by itself; `settled`: it works well or is finished;
    `takes`: rows may be moved to it; `ended`: the last worker's end is the cause; `loads`: it has not encoded yet.
    `badge`: its shape, and the name of its colour. `needs`: nothing goes on there before a person acts.
    """

    name: str
    by_itself: str
    person: str = "nothing"
    wrong: bool = True
    rests: bool = False
    settled: bool = False
    takes: bool = True
    ended: bool = False
    loads: bool = False
    badge: tuple[str, str] = ("✕", "red")
    needs: bool = False


TABLE = (
    Verdict(DONE, "nothing is left to do", wrong=False, rests=True, settled=True, badge=("✓", "green")),
    Verdict(
        NOT_LAUNCHED,
        "nothing: it was not started yet",
        "run notebook 02, or `runbook run`",
        wrong=False,
        takes=False,
        badge=("○", "grey"),
    ),
    Verdict(NOT_READ, "its host's first answer is waited for", wrong=False, badge=("○", "grey")),
    Verdict(
        MORE_TO_DO,
        "its host had finished; it is started again for the rows that it has now",
        wrong=False,
        badge=("◌", "grey"),
    ),
    Verdict(STARTING, "its first report is waited for", wrong=False, loads=True, badge=("◌", "grey")),
    Verdict(LOADING, "its first rows are waited for", wrong=False, loads=True, badge=("◌", "grey")),
    Verdict(
        RUNNING, "its parts are brought home as they are committed", wrong=False, settled=True, badge=("▶", "blue")
    ),
    Verdict(
        HELPING,
        "its own rows are done; it does those of a neighbour on its host",
        wrong=False,
        settled=True,
        badge=("▶", "blue"),
    ),
    Verdict(MOVED, "all of its rows are others' now", wrong=False, rests=True, settled=True, badge=("→", "grey")),
    Verdict(
        STOPPED,
        "nothing: it was stopped on purpose",
        "`runbook run` or `runbook restart` goes on",
        wrong=False,
        rests=True,
        takes=False,
        badge=("■", "grey"),
    ),
    Verdict(FAILED, "its supervisor puts its end on file in a moment", wrong=False, ended=True),
    Verdict(
        SLOW,
        "idle neighbours take its last parts, an idle host the tail of its host",
        "see who else uses that machine",
        badge=("▼", "amber"),
    ),
    Verdict(
        STUCK,
        "its supervisor ends it after `stuck_s`, or five parts' time (`first_progress_s` or more while loading); "
        "the next one starts",
        "`runbook restart RUN SLOT` does so at once",
        badge=("‖", "amber"),
    ),
    Verdict(
        RESTARTING,
        "the next worker starts at once, after more deaths in a row within 60 s, from the parts",
        "`runbook logs RUN SLOT`",
        ended=True,
        badge=("↻", "amber"),
    ),
    Verdict(
        DEAD,
        "with `recovery: auto`, its host's supervisor is started again while somebody watches",
        "`runbook run` again",
        takes=False,
        ended=True,
    ),
    Verdict(
        UNSUPERVISED,
        "with `recovery: auto`, its host's supervisor is started again while somebody watches",
        "`runbook restart RUN HOST`",
    ),
    Verdict(
        UNREACHABLE,
        "its workers go on; after `unreachable_s` of silence its rows move to hosts that answer",
        "repair the connection to it, or `runbook move RUN HOST` at once",
        takes=False,
        badge=("?", "purple"),
    ),
    Verdict(
        QUEUED,
        "the scheduler starts it when it has a place for it; no deadline counts before",
        "`squeue` says why it waits",
        wrong=False,
        takes=False,
        badge=("◷", "grey"),
    ),
    Verdict(
        REQUEUED,
        "the scheduler starts it again in two minutes or more; it goes on from its parts",
        wrong=False,
        takes=False,
        badge=("◷", "amber"),
    ),
    Verdict(
        HELD,
        "nothing: the scheduler holds it until a person lets it go",
        "`scontrol release` with the number that is shown",
        takes=False,
        badge=("‖", "amber"),
        needs=True,
    ),
    Verdict(
        SILENT,
        "its task is taken for one that works; after `unreachable_s` its rows move to hosts that give a sign",
        "see the node that is shown, or `runbook move RUN HOST` at once",
        takes=False,
        badge=("?", "purple"),
    ),
    Verdict(
        UNSEEN,
        "the scheduler has lost it, and it works: its parts count, and no second one is started beside it",
        wrong=False,
        settled=True,
        badge=("▶", "purple"),
    ),
    Verdict(
        TAKEN,
        "with `recovery: auto`, it is submitted again for what is left while somebody watches; five times in a row "
        "without a new row, it is given up",
        "`runbook run` again",
        wrong=False,
        takes=False,
        badge=("↻", "amber"),
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
        needs=True,
    ),
    Verdict("no permission", "tried again after a pause", "give this account the right to write there", needs=True),
    Verdict(
        "model refused",
        "nothing: it would be refused again",
        "see the model's licence, its name and the token",
        needs=True,
    ),
    Verdict(
        "GPU lost",
        "tried again, then given up: neighbours do its rows; no GPU is ever reset",
        "have the machine's owner look at its GPU",
    ),
    Verdict(
        "device wrong",
        "it does known texts wrong, or rows that are done twice: no text is blamed, tried again, then given up",
        "have the machine's owner look at that device",
    ),
    Verdict("GPU taken", "tried again after a pause", "see whose process holds it; none of theirs is ever ended"),
    Verdict("environment broken", "tried again, then given up", "`runbook check PROFILE` says what is missing there"),
    Verdict(REFUSED, "nothing: what it was given does not fit together", "read the reason; launch again", needs=True),
    Verdict(
        FENCED,
        "five deaths without a new part, or its vectors were found wrong: its rows go to its neighbours, or "
        "another host",
        "read the reason, `runbook run`",
        rests=True,
        takes=False,
        ended=True,
    ),
)
NAMED = {verdict.name: verdict for verdict in TABLE}

REST = frozenset(verdict.name for verdict in TABLE if verdict.rests)
SETTLED = frozenset(verdict.name for verdict in TABLE if verdict.settled)
OVER = REST & SETTLED  # nothing of its own is left
TAKES_NO_ROWS = frozenset(verdict.name for verdict in TABLE if not verdict.takes)
ENDED = frozenset(verdict.name for verdict in TABLE if verdict.ended)
LOADS = frozenset(verdict.name for verdict in TABLE if verdict.loads)
