"""The operator's side of a history: what the four notebooks do, through the public verbs, in a process to be killed.

`python -m tests.chaos.driver` imports the library once and then forks a process for each order on its standard input:

    {"id": 7, "do": "drive", "folder": "...", "broken": "-"}

It answers `started ID PID` and, when that process is gone, `ended ID STATUS`. To start it again is all that an
operator may do; `restart` and `stop` are the command line's verbs of that name. Where a run has no host of this
machine, its preflight tries the model here by the Python that CHAOS_PYTHON names, or by this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

DONE, REFUSED, INCOMPLETE, BUSY, CRASHED = 0, 1, 2, 4, 70
HOLD_S = 10.0


class Nobody:
    """A view that nobody looks at."""

    def show(self, state: object) -> None:
        """Shown to nobody."""


def said(folder: Path, phase: str) -> None:
    """Leave word how far this process came."""
    with (folder / "drivers.log").open("a") as log:
        log.write(json.dumps({"pid": os.getpid(), "phase": phase, "at": time.time()}) + "\n")


def hold(folder: Path) -> None:
    """Wait between collecting and merging while somebody wants to do harm just there."""
    deadline = time.monotonic() + HOLD_S
    while (folder / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def facts_of(this: Any) -> dict[str, Any]:
    """What preflight would have found of hosts that are folders of this machine."""
    return {host.name: {"cores": 2, "gpus": []} for host in this.profile.hosts}


def hurry() -> None:
    """Shorten the waits for which a profile has no knob: a history is seconds long."""
    from runbook_lib.hosts.ssh import far_end, link
    from runbook_lib.phases import launch, recover

    assert hasattr(launch, "LATE_S") and hasattr(recover, "BLANK_S")
    launch.LATE_S = 3.0
    recover.BLANK_S, whole = 2.0, link.Patience
    link.Patience = lambda: whole(2.0, 2.0, 6.0, 3.0, 2.0, floor_window_s=4.0, outage_s=6.0)
    # A far end gives signs of life while it works; at its own pace, all that takes two seconds would be a dead line.
    sources = dict(json.loads(zlib.decompress(far_end.bundle())))
    pace = re.compile(r"^SIGN_S = .*$", re.M)
    assert pace.search(sources["agent"])
    sources["agent"] = pace.sub("SIGN_S = 0.4", sources["agent"])
    hurried = zlib.compress(json.dumps(list(sources.items())).encode())
    far_end.bundle = lambda: hurried


def drive(folder: Path) -> int:
    """Preflight, launch, monitor, download, merge."""
    from runbook_lib.phases import download, launch, merge, monitor, preflight, staging, tend
    from runbook_lib.result import publication
    from runbook_lib.run import driver, opening

    this = opening.open_run(str(folder / "profile.yaml"), new=True)
    with driver.hold(this):
        said(folder, "in")
        checks, model = preflight.the_model(this)
        corpus_checks, corpus = preflight.the_corpus(this, model)
        if not (checks.ok and corpus_checks.ok):
            return complain(checks, corpus_checks)
        hurry()
        far = any(not host.is_here for host in this.profile.hosts)
        if far and not (this.folder / "plan.json").exists():  # a run that goes on may lack a host
            host_checks, _ = preflight.the_hosts(this, model)
            if not host_checks.ok:
                return complain(host_checks)
        plan_checks, _ = preflight.the_plan(this, model, corpus, facts_of(this))
        if not plan_checks.ok:
            return complain(plan_checks)
        said(folder, "planned")
        for phase in (staging.prepare, staging.stage, launch.start):
            if not (checks := phase(this)).ok:
                return complain(checks)  # as the notebook's gate: a host that is away is a warning where others answer
        said(folder, "launched")
        state = asyncio.run(monitor.watch(this, Nobody(), act=tend.tend))
        finished = monitor.finished(state)
        if not finished.ok:
            complain(finished)
            return INCOMPLETE
        collected = download.collect(this)
        home = download.complete(this)
        if not home.ok:
            print(collected)
            complain(home)
            return INCOMPLETE
        said(folder, "collected")
        hold(folder)
        merge.merge(this)
        merge.write_founding(this)
        publication.publish(this, None)  # unseen: what a merge makes is judged here, not what a validation catches
        said(folder, "merged")
    return DONE


def complain(*groups: Any) -> int:
    """Print what does not hold."""
    for checks in groups:
        for check in checks.failed:
            print(f"{check.where}: {check.name}: {check.seen}. Next: {check.remedy}", flush=True)
    return REFUSED


def restart(folder: Path, what: str) -> int:
    """`runbook restart RUN WHAT`."""
    from runbook_lib.phases import workers
    from runbook_lib.run import opening

    return 0 if workers.restart(opening.open_run(str(folder / "profile.yaml")), what).ok else REFUSED


def stop(folder: Path) -> int:
    """`runbook stop RUN`."""
    from runbook_lib.phases import workers
    from runbook_lib.run import opening

    return 0 if workers.stop(opening.open_run(str(folder / "profile.yaml"))).ok else REFUSED


def chain(folder: Path) -> int:
    """`runbook run`: the four notebooks by papermill; this process becomes it."""
    runbook = Path(sys.executable).with_name("runbook")
    os.chdir(folder)
    os.execv(runbook, [str(runbook), "run", "profile.yaml"])


VERBS = {"drive": drive, "chain": chain, "restart": restart, "stop": stop}


def be(order: dict[str, Any]) -> int:
    """Do one order; the exit code says what kind of end it came to."""
    from runbook_lib.errors import RunbookError

    folder = Path(order["folder"])
    if order["broken"] != "-":
        from . import broken

        broken.MECHANISMS[order["broken"]].on_driver()
    print(f"--- {order['do']} {os.getpid()}", flush=True)
    try:
        return VERBS[order["do"]](folder, *order.get("words", []))
    except RunbookError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return BUSY if "is being driven already" in str(error) else REFUSED
    except Exception:
        traceback.print_exc()
        return CRASHED


def fork(order: dict[str, Any]) -> int:
    """A process for an order; its own session, its output in the history's folder."""
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(Path(order["folder"]) / "driver.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        code = be(order)
    finally:
        sys.stdout.flush()
        os._exit(code)


def serve() -> None:
    """Fork for each order, tell of each end; when the input closes, those that are left are killed."""
    from runbook_lib.run import run  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.executable = os.environ.get("CHAOS_PYTHON", sys.executable)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print("ready", file=answers)
    ids: dict[int, int] = {}
    pending = b""
    while True:
        if select.select([0], [], [], 0.02)[0]:
            chunk = os.read(0, 2**16)
            if not chunk:
                for pid in ids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = fork(order)
                ids[pid] = order["id"]
                print(f"started {order['id']} {pid}", file=answers)
        while ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid in ids:
                print(f"ended {ids.pop(pid)} {os.waitstatus_to_exitcode(status)}", file=answers)


if __name__ == "__main__":
    serve()
