"""`python -m tests.chaos --seeds 100-105`: histories of faults; a line a seed, one line at the end, the exit code.

--seeds 100-199 --tier A --jobs 2      what holds, counted
--controls                             each safety mechanism taken out: the suite must see it
--seeds 7 --break no-rename            one of them
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from . import history as histories
from . import processes
from .faults import TABLE
from .history import SIZES, History, Outcome
from .shrink import shrink
from .zygote import Zygote


def main(argv: Sequence[str] | None = None) -> int:
    """Play, print, give the verdict."""
    args = _arguments(argv)
    # Kills need no disk: what fsync is for is tried elsewhere (power_cut.py), and memory is many times faster.
    memory = Path("/dev/shm")
    top = args.folder or Path(tempfile.mkdtemp(prefix="chaos-", dir=memory if os.access(memory, os.W_OK) else None))
    zygote = Zygote()

    def enough(signum: int, frame: object) -> None:
        print(f"ended by {signal.Signals(signum).name}; what was played lies in {top}", flush=True)
        zygote.close()
        processes.end_all(top.resolve())
        os._exit(128 + signum)  # histories are under way on other threads

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, enough)
    try:
        zygote.wait_ready()
        if args.controls:
            from .controls import controls

            return controls(top, zygote, args.only, args.jobs)
        return _play_all(args, top, zygote)
    finally:
        zygote.close()
        if top.exists() and not any(top.iterdir()):
            top.rmdir()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=_seeds, default=range(100, 106), help="100-105, or 7 (default 100-105)")
    parser.add_argument("--tier", choices="ABC", default="A", help="A local hosts, B OpenSSH hosts, C the real model")
    parser.add_argument("--jobs", type=int, default=4, help="histories at a time (default 4: they mostly wait)")
    parser.add_argument("--faults", type=int, default=0, help="faults a history (default: 36, and 8 in tier C)")
    parser.add_argument("--break", dest="weak", default="-", help="take a safety mechanism out (broken.py)")
    parser.add_argument("--mix", default="", help="only these faults, a comma list")
    parser.add_argument("--controls", action="store_true", help="take each safety mechanism out: all must be seen")
    parser.add_argument("--only", default="", help="with --controls: only these, a comma list")
    parser.add_argument("--folder", type=Path, help="where to play (default: a new one in memory)")
    parser.add_argument("--verbose", action="store_true", help="the faults of every history, with their moments")
    parser.add_argument("--no-shrink", action="store_true", help="a failure is shown as it is")
    return parser.parse_args(argv)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _play_all(args: argparse.Namespace, top: Path, zygote: Zygote) -> int:
    began = time.monotonic()
    mix = dict.fromkeys(args.mix.split(","), 1.0) if args.mix else None
    size = SIZES[args.tier]
    size = replace(size, faults=args.faults or size.faults)
    wanted = [histories.make(seed, size, mix) for seed in args.seeds]

    def one(history: History) -> Outcome:
        outcome = histories.play(history, top / f"seed-{history.seed}", zygote, args.weak)
        print(line_of(outcome) + (f"\n{told(outcome)}" if args.verbose else ""), flush=True)
        return outcome

    with ThreadPoolExecutor(args.jobs) as pool:
        outcomes = list(pool.map(one, wanted))
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed[:3]:
        print(told(outcome))
        if not args.no_shrink:
            print(_shrunk(outcome, top, zygote, args.weak), flush=True)
    print(summary(outcomes, time.monotonic() - began))
    return 1 if failed else 0


def line_of(outcome: Outcome) -> str:
    """A history in a line."""
    word = "ok  " if outcome.ok else "FAIL"
    return (
        f"{word} seed {outcome.history.seed}: {len(outcome.done)} faults, {outcome.runs} runs, {outcome.wall_s:.1f} s"
        + ("" if outcome.ok else f", {outcome.verdict}")
    )


def told(outcome: Outcome) -> str:
    """Seed and faults of a history that failed, and where its files are."""
    lines = [f"seed {outcome.history.seed}, kept in {outcome.folder}:"]
    return "\n".join(lines + [f"  {at:7.3f} s  {name}: {said}" for at, name, said in outcome.done])


def _shrunk(outcome: Outcome, top: Path, zygote: Zygote, weak: str) -> str:
    plays = 0

    def fails(history: History) -> bool:
        nonlocal plays
        plays += 1
        found = histories.play(history, top / f"shrinking-{history.seed}-{plays}", zygote, weak)
        if not found.ok:
            shutil.rmtree(found.folder)
        return not found.ok

    least = shrink(outcome.history, fails)
    events = "\n".join(f"  +{event.gap_s:.3f} s  {event.fault} ({event.pick})" for event in least.events)
    count = f"{len(least.events)} of {len(outcome.history.events)} faults in {plays} plays"
    return f"seed {least.seed}, shrunk to {count}:\n{events}"


def summary(outcomes: Sequence[Outcome], wall_s: float) -> str:
    """The one line, and the mix below it."""
    mix = Counter(name for outcome in outcomes for _, name, _ in outcome.done)
    lost, wrong, doubled = (sum(getattr(o.verdict, key) for o in outcomes) for key in ("lost", "wrong", "doubled"))
    others = sum(len(outcome.verdict.broken) for outcome in outcomes)
    numbers = {number for name in mix for number in TABLE[name].numbers} if set(mix) <= set(TABLE) else set()
    shares = ", ".join(f"{name} {count}" for name, count in mix.most_common())
    return (
        f"mix: {shares}; {len(numbers)} numbers of the catalogue\n"
        f"faults {mix.total()}, seeds {len(outcomes)}, rows lost {lost}, wrong {wrong}, doubled {doubled}, "
        f"other promises broken {others}, manual steps 0, wall {wall_s:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
