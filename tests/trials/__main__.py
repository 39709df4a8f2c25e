"""`python -m tests.trials`: whole runs with one hand-shaped fault each; a line a trial, the counts, the exit code.

--only clean_takes_a_project,nan_gpu   some of them, by name or by the beginning of it
--jobs 2                               so many at a time
--kernels                              the notebooks by papermill in kernels, as a person has it (slow)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from . import again, devices, fleet, operator, ours, parts, truth  # noqa: F401  (they fill the table)
from .scene import Blamed, Scene
from .table import TABLE, Trial


def main(argv: Sequence[str] | None = None) -> int:
    """Try each, print, give the verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trials", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="beginnings of names, a comma list; NAME$ is that one alone")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (default 2)")
    parser.add_argument("--kernels", action="store_true", help="the notebooks by papermill, in kernels")
    parser.add_argument("--folder", type=Path, help="where to try (default: a new one in memory)")
    parser.add_argument("--list", action="store_true", help="only list them")
    args = parser.parse_args(argv)
    operator.KERNELS = args.kernels
    begun = tuple(filter(None, args.only.split(",")))
    wanted = [trial for name, trial in TABLE.items() if not begun or f"{name}$".startswith(begun)]
    if args.list:
        print("\n".join(f"{trial.kind:10} {trial.name}: {trial.do.__doc__ or ''}".rstrip(": ") for trial in wanted))
        return 0
    memory = Path("/dev/shm")
    top = args.folder or Path(tempfile.mkdtemp(prefix="trials-", dir=memory if os.access(memory, os.W_OK) else None))
    return _play_all(wanted, top, args.jobs)


def _play_all(wanted: Sequence[Trial], top: Path, jobs: int) -> int:
    began, waiting, under_way = time.monotonic(), list(wanted), dict[int, Trial]()
    bad: dict[str, list[str]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < jobs:
            trial = waiting.pop(0)
            under_way[_fork(trial, top / trial.name)] = trial
        pid, _ = os.waitpid(-1, 0)
        trial = under_way.pop(pid)
        verdict = top / f"{trial.name}.json"
        found = json.loads(verdict.read_text()) if verdict.exists() else {"blames": ["the trial itself broke down"]}
        verdict.unlink(missing_ok=True)
        print(f"{'FAIL' if found['blames'] else 'ok  '} {trial.kind:10} {trial.name} ({found.get('s', 0):.0f} s)")
        for blame in found["blames"]:
            print("      " + blame.replace("\n", "\n      "), flush=True)
        if found["blames"]:
            bad[trial.name] = found["blames"]
            print(f"      kept in {top / trial.name}", flush=True)
    if not bad:
        shutil.rmtree(top, ignore_errors=True)
    print(f"trials {len(wanted)}, well {len(wanted) - len(bad)}, bad {len(bad)}, wall {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


def _fork(trial: Trial, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    began = time.monotonic()
    scene = Scene(folder)
    try:
        folder.mkdir(parents=True)
        scene.pace_s = trial.pace_s
        scene.lay_out()
        trial.do(scene)
    except Blamed as blame:
        scene.blame(str(blame))
    except BaseException:
        scene.blame(traceback.format_exc()[-800:])
    finally:
        scene.judge()
        scene.clean_up()
        seconds = time.monotonic() - began
        (folder / "said.txt").write_text("\n".join(scene.said))
        folder.with_name(f"{trial.name}.json").write_text(json.dumps({"blames": scene.blames, "s": seconds}))
        if not scene.blames:
            shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
