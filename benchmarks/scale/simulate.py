"""A run on very many made-up hosts in simulated time: the product's own plan, looks, moves and collecting.

    python benchmarks/scale/simulate.py --hosts 1000 --slots 8 --rows 100000000 --apart 4 --lost 0.02

Hosts compute parts at their own speed and pick the next one as workers do: own parts in order, then, from the end, what
a neighbour has left. A look reads all of them, as `monitor.watch` does, and what follows from it is decided by the
product: which rows move where, and what is brought home. Only the time is made up, and what a part takes. The makespan
is held against the ideal: the model loaded once, all rows shared by speed, without parts, looks or waiting.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "tests" / "helpers")]

import fleet  # noqa: E402
import memory  # noqa: E402

from runbook_lib.errors import LinkLost  # noqa: E402
from runbook_lib.hosts import answers  # noqa: E402
from runbook_lib.hosts import hosts as machines  # noqa: E402
from runbook_lib.phases import download, recover, tend  # noqa: E402
from runbook_lib.run import moves  # noqa: E402
from runbook_lib.run.opening import limited  # noqa: E402
from runbook_lib.run.plan import Plan, Slot  # noqa: E402
from runbook_lib.slots.rates import AwakeClock  # noqa: E402
from runbook_lib.slots.watcher import AWAKE_S, Watcher  # noqa: E402
from worker.layout import HostFolder  # noqa: E402
from worker.rows import Covered, Range  # noqa: E402
from worker.wire import Reading  # noqa: E402

STAGE_S = 5.0  # from a decision until a host has the new plan and its rows
JITTER = 0.05  # of the time that a part takes
PROCESS = {"pid": 4242, "start": "100", "boot": "b" * 32}


@dataclass
class Computing:
    """What a slot computes now."""

    part: Range
    began: float
    ends: float


@dataclass
class Host:
    """A made-up machine: `rate` rows a second on each of its slots, and `lost_at` when it goes, for good."""

    name: str
    slots: list[Slot]
    rate: float
    load_s: float
    lost_at: float
    rng: random.Random
    folder: HostFolder
    plan: Plan
    left: dict[str, list[Range]] = field(default_factory=dict)
    now: dict[str, Computing] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)  # since when: rows are claimed when the model is there
    committed: list[Range] = field(default_factory=list)
    clock: float = 0.0
    last: float = 0.0  # when it committed a part last
    _ends: list[tuple[float, str]] = field(default_factory=list)

    def take(self, plan: Plan, at: float) -> None:
        """Take over a plan: slots without work that have some now start a worker, which loads the model first."""
        self.advance(at)
        self.plan = plan
        have = Covered([*self.committed, *(each.part for each in self.now.values())])
        self.slots = plan.of_host(self.name)
        self.left = {slot.slot: moves.left(plan, slot, have) for slot in self.slots}
        for slot in self.slots if any(self.left.values()) else ():
            if slot.slot not in self.now and slot.slot not in self.loading:
                self.loading[slot.slot] = at
                heapq.heappush(self._ends, (at + self.load_s, slot.slot))

    def advance(self, to: float) -> None:
        """Compute until this time, or until it is lost."""
        to = min(to, self.lost_at)
        while self._ends and self._ends[0][0] <= to:
            at, slot = heapq.heappop(self._ends)
            if self.loading.pop(slot, None) is None:
                self.committed.append(self.now.pop(slot).part)
                self.last = at
            self._next(slot, at)
        self.clock = max(self.clock, to)

    def _next(self, slot: str, at: float) -> None:
        own = self.left.get(slot, [])
        most = max(self.left.values(), key=moves_rows, default=[])
        part = own.pop(0) if own else most.pop() if most else None
        if part is not None:
            took = (part[1] - part[0]) / self.rate * self.rng.uniform(1 - JITTER, 1 + JITTER)
            self.now[slot] = Computing(part, at, at + took)
            heapq.heappush(self._ends, (at + took, slot))

    # ----------------------------------------------------------------------- what the product asks a host

    def poll(self) -> Reading:
        """A reading, checked as a real one is."""
        if self.clock >= self.lost_at:
            raise LinkLost(f"{self.name}: no answer")
        return answers.reading(self._said(), self.name)

    def breaks(self) -> list[str]:
        """No connection broke but for good."""
        return []

    def _said(self) -> dict[str, Any]:
        entries, supervised = {}, {}
        for slot in self.slots:
            doing = self.now.get(slot.slot)
            entries[slot.slot] = self._slot(slot, doing)
            lives = bool(doing) or slot.slot in self.loading
            supervised[slot.slot] = {"state": "running" if lives else "done", "process": PROCESS if lives else None}
        working = bool(self.now or self.loading)
        supervisor = {
            "host": self.name, "process": PROCESS, "heartbeat_at": self.clock, "working": working, "slots": supervised,
        }  # fmt: skip
        return {
            "now": self.clock, "assigned": True, "supervisor_alive": working, "stop_requested": False,
            "slots": entries, "supervisor": supervisor, "committed": self.committed, "quarantined": [], "given_up": [],
            "epoch": self.plan.epoch,
        }  # fmt: skip

    def _slot(self, slot: Slot, doing: Computing | None) -> dict[str, Any]:
        report: dict[str, Any] = {"slot": slot.slot, "heartbeat": int(self.clock), "heartbeat_at": self.clock}
        report |= {"process": PROCESS, "started_at": 0.0, "loaded_s": self.load_s, "state": "done"}
        if slot.slot in self.loading:
            report |= {"state": "loading model", "loaded_s": None, "started_at": self.loading[slot.slot]}
        elif doing:
            rows = min(doing.part[1] - doing.part[0], int((self.clock - doing.began) * self.rate))
            report |= {"state": "running", "part": list(doing.part), "rows_in_part": rows, "rows_per_s": self.rate}
        ranges = [list(rows) for rows in self.plan.ranges(slot)]
        return {"ranges": ranges, "gpu": None, "report": report, "exits": [], "alive": report["state"] != "done"}


def moves_rows(parts: list[Range]) -> int:
    """The rows of parts; what a neighbour helps with first."""
    return sum(stop - start for start, stop in parts)


class Simulation:
    """A fleet, its plan and its operator's machine, in simulated time."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        self.args, self.at, self.rng = args, 0.0, random.Random(args.seed)
        fleet.make(folder, args.rows, args.hosts, args.slots, 0.0, args.part_rows)
        run = fleet.open_run(folder)
        watching = replace(run.profile.monitor, interval_s=args.look_s, unreachable_s=args.unreachable_s)
        self.run = replace(run, profile=replace(run.profile, monitor=watching))
        plan = run.plan()
        self.hosts = {name: self._host(name, plan) for name in plan.hosts}
        lost = self.rng.sample(sorted(self.hosts), round(args.lost * args.hosts))
        usual = args.rows / sum(host.rate * args.slots for host in self.hosts.values())
        for name in lost:
            self.hosts[name].lost_at = args.load_s + self.rng.uniform(0.0, usual)
        self.waiting: list[tuple[float, str]] = []  # (when it comes, host) of plans under way
        self._stand_in()

    def _host(self, name: str, plan: Plan) -> Host:
        rate = self.args.rate * math.exp(self.rng.uniform(0.0, math.log(self.args.apart)))
        folder = HostFolder(self.run.folder / "nowhere")
        host = Host(name, plan.of_host(name), rate, self.args.load_s, math.inf, self.rng, folder, plan)
        host.take(plan, 0.0)
        return host

    def _stand_in(self) -> None:
        """Have the product speak with these hosts, and bring a part home by its name alone."""
        machines.connect = lambda spec, run: self.hosts[spec.name]  # type: ignore[assignment, return-value]
        home = self.run.local

        def fetch(
            run: object, host: object, plan: object, prints: object, start: int, stop: int, *rest: object
        ) -> None:
            home.part(start, stop).with_suffix(".json").touch()

        download._fetch = fetch  # type: ignore[assignment]

    def go(self) -> dict[str, float]:
        """Look, decide, deliver, until every row is committed; return what came of it."""
        watcher = Watcher(self.run, self.run.plan())
        watcher._awake = AwakeClock(self.args.look_s + AWAKE_S, lambda: self.at)
        watcher._since = 0.0
        looks, began, looking = 0, time.process_time(), 0.0
        while True:
            self._until(self.at)
            before = time.process_time()
            state = watcher.poll()
            looking += time.process_time() - before
            looks += 1
            for name in state.committed_by_host:
                tend.bring_home(limited(self.run, name), state.for_hosts([name]))
            moved = recover._move(self.run, state)
            if self.args.verbose:
                print(
                    f"{self.at:6.0f} s: {state.committed:,} rows; {'; '.join(each[:70] for each in moved)}", flush=True
                )
            if state.done:
                break
            if moved:
                self.waiting += [(self.at + STAGE_S, name) for name in self.hosts]
            self.at += self.args.look_s
        return {"looks": looks, "a_look_cpu_s": looking / looks, "cpu_s": time.process_time() - began} | self._judged()

    def _until(self, at: float) -> None:
        """Let the hosts compute until then; those that get a newer plan meanwhile take it."""
        plan = self.run.plan()
        for when, name in sorted(self.waiting):
            if self.hosts[name].lost_at > when:
                self.hosts[name].take(plan, when)
        self.waiting = []
        for host in self.hosts.values():
            host.advance(at)

    def _judged(self) -> dict[str, float]:
        ended = self._ended()
        ideal = self._ideal()
        plan = self.run.plan()
        done = sum(stop - start for host in self.hosts.values() for start, stop in host.committed)
        return {
            "makespan_s": ended, "ideal_s": ideal, "above_ideal": ended / ideal - 1, "revisions": plan.epoch,
            "moves": len(plan.moves), "twice": done / plan.rows - 1, "peak_mb": memory.peak_mib(),
        }  # fmt: skip

    def _ended(self) -> float:
        """When the last part that was needed was committed: looks may see it later."""
        return max(host.last for host in self.hosts.values())

    def _ideal(self) -> float:
        """When all rows would be done if they were shared by speed, and lost hosts gave all they had done."""
        low, high = 0.0, 1e7
        while high - low > 1e-3:
            middle = (low + high) / 2
            rows = sum(
                host.rate * len(host.slots) * max(0.0, min(middle, host.lost_at) - self.args.load_s)
                for host in self.hosts.values()
            )
            low, high = (middle, high) if rows < self.args.rows else (low, middle)
        return high


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """What is simulated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rate", type=float, default=25.0, help="rows a second of a slot of the slowest host")
    parser.add_argument("--apart", type=float, default=4.0, help="how many times faster the fastest host is")
    parser.add_argument("--lost", type=float, default=0.0, help="share of the hosts that are lost, at any time")
    parser.add_argument("--load-s", type=float, default=20.0, help="seconds that loading the model takes")
    parser.add_argument("--look-s", type=float, default=10.0, help="monitor.interval_s")
    parser.add_argument("--unreachable-s", type=float, default=600.0, help="monitor.unreachable_s")
    parser.add_argument("--part-rows", type=int, default=0, help="rows of a part; 0: as the product chooses them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print each look")
    return parser.parse_args(argv)


def main() -> int:
    """Simulate once and print what came of it as a line of JSON."""
    args = options()
    folder = Path(tempfile.mkdtemp(prefix="simulated-"))
    try:
        found = Simulation(folder / "run", args).go()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({**vars(args), **{name: round(value, 4) for name, value in found.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
