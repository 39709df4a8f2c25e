"""The steps that are measured: each is one thing the product does, run by `measure.py` in a process of its own.

    python benchmarks/scale/steps.py STEP FOLDER

prints one line of JSON: CPU seconds and peak memory of the step itself, and what else it counts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "tests" / "helpers")]

import fleet  # noqa: E402
import memory  # noqa: E402

Figures = dict[str, float]
found: Figures = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Count the CPU seconds of a part of a step, of all threads."""
    began = time.process_time()
    yield
    found[name] = time.process_time() - began


# ------------------------------------------------------------------------------------------- watching and moving rows


def plan(folder: Path) -> None:
    """The plan read, as each look may do."""
    run = fleet.open_run(folder)
    with timed("s"):
        run.plan()


def poll(folder: Path) -> None:
    """A look at all hosts: the first one, and one where nothing is new."""
    from runbook_lib.slots.watcher import Watcher

    run = fleet.open_run(folder)
    fleet.Fleet(run).install()
    watcher = Watcher(run, run.plan())
    with timed("first_s"):
        watcher.poll()
    with timed("s"):
        watcher.poll()


def collect(folder: Path) -> None:
    """A round of watching after a look that shows nothing new: for each host what it needs, and the parts it has."""
    from runbook_lib.phases import recover, tend
    from runbook_lib.run.opening import limited
    from runbook_lib.slots.watcher import Watcher

    run = fleet.open_run(folder)
    fleet.Fleet(run).install()
    state = Watcher(run, run.plan()).poll()
    with timed("s"):
        for name in state.committed_by_host:
            tend.bring_home(limited(run, name), state.for_hosts([name]))
    with timed("recovery_s"):
        for job in recover.Recovery().jobs(run, state).values():
            job()


def move(folder: Path) -> None:
    """The last rows of all hosts moved to one that is idle, and all rows of a lost host moved to the others."""
    from runbook_lib.run import moves
    from worker.layout import committed

    run = fleet.open_run(folder)
    drawn, home = run.plan(), committed(run.local.parts)
    idle, lost = drawn.hosts[0], drawn.hosts[-1]
    targets = [slot for slot in drawn.used if slot.host == idle]
    others = [slot for slot in drawn.used if slot.host != idle]
    rates = {slot.slot: 50.0 for slot in drawn.slots}
    have = [*home, *((slot.start, slot.stop) for slot in targets)]
    with timed("tail_s"):
        tail = drawn.moved(moves.rebalance(drawn, have, others, targets, rates, "others were idle", 20.0))
    gone = [slot for slot in drawn.used if slot.host == lost]
    rest = [slot for slot in drawn.used if slot.host != lost]
    with timed("away_s"):
        away = drawn.moved(moves.evacuate(drawn, home, gone, rest, rates, "silent"))
    found["s"] = max(found["tail_s"], found["away_s"])
    found["moves"] = len(tail.moves) + len(away.moves)


def shown(folder: Path) -> None:
    """What a look becomes: the panel of a notebook, the text of a terminal, figures for programs."""
    from runbook_lib.report import status
    from runbook_lib.show import panel
    from runbook_lib.slots.watcher import Watcher

    run = fleet.open_run(folder)
    fleet.Fleet(run).install()
    state = Watcher(run, run.plan()).poll()
    with timed("s"):
        html = panel.progress_html(state)
    with timed("text_s"):
        panel.progress_text(state)
    with timed("programs_s"):
        json.dumps(status.founding_form(run.plan(), state))
        status.prometheus(state)
    found["html_kb"] = len(html.encode()) / 1000


def incidents(folder: Path) -> None:
    """Every slot in trouble at one look: each is written into the journal, once."""
    from runbook_lib.slots.incidents import Incidents
    from runbook_lib.slots.watcher import Watcher

    run = fleet.open_run(folder)
    fleet.Fleet(run, died=True).install()
    state = Watcher(run, run.plan()).poll()
    watching = Incidents(run)
    with timed("s"):
        watching.note(state)
    with timed("again_s"):
        watching.note(state)
    found["events"] = sum(1 for _ in run.journal.events())
    run.journal.path.unlink()
    run.journal.write("supervisor started", host=fleet.host_name(0))


def journal(folder: Path) -> None:
    """An event written into a journal with one for every slot, and some of its events asked for."""
    run = fleet.open_run(folder)
    for slot in run.plan().slots:
        run.journal.write("staged", host=slot.host)
    with timed("s"):
        for _ in range(100):
            run.journal.write("staged", host="host0000")
            sum(1 for _ in run.journal.events("supervisor started"))
    found["s"] /= 100
    run.journal.path.unlink()
    run.journal.write("supervisor started", host=fleet.host_name(0))


# ------------------------------------------------------------------------------------------------- rows and documents


def build(folder: Path) -> None:
    """The corpus numbered."""
    import whole

    with timed("s"):
        whole.number(folder)


def merge(folder: Path) -> None:
    """All parts verified and merged."""
    import whole

    from runbook_lib.phases import merge as verb

    run = whole.open_run(folder)
    with timed("s"):
        verb.merge(run)


merge_again = merge


def validate(folder: Path) -> None:
    """Backed up and validated."""
    import whole

    from runbook_lib.phases import backup
    from runbook_lib.phases import validate as verb

    run = whole.open_run(folder)
    with timed("backup_s"):
        copy = backup.backup(run)
    with timed("s"):
        checks, _ = verb.validate(run, copy)
    if not checks.ok:
        raise SystemExit(f"the made-up result does not validate:\n{checks}")


def arrived(folder: Path) -> None:
    """The record of every part read once by the monitor, for the norms of its rows."""
    import whole

    from runbook_lib.slots.arrived import Arrived
    from worker.layout import committed

    run = whole.open_run(folder)
    with timed("s"):
        Arrived(run.local).update(committed(run.local.parts))


def seal(folder: Path) -> None:
    """The sum of every file of the run."""
    import whole

    from runbook_lib.report import archive

    run = whole.open_run(folder)
    with timed("s"):
        archive.write_sums(run)


FLEET = {step.__name__: step for step in (plan, poll, collect, move, shown, incidents, journal)}
WHOLE: dict[str, Callable[[Path], None]] = {step.__name__: step for step in (build, arrived, merge, validate, seal)} | {
    "merge_again": merge_again
}


def main(argv: list[str]) -> int:
    """Run one step and print its figures."""
    name, folder = argv
    ({**FLEET, **WHOLE})[name](Path(folder))
    line: dict[str, Any] = {key: round(value, 4) for key, value in found.items()}
    print(json.dumps({**line, "peak_mb": memory.peak_mib()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
