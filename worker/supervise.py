"""One supervisor per host: starts a worker per slot, restarts it with growing pauses, gives it up after five deaths.

It runs detached from whoever started it, so recovery goes on with the laptop shut. Started again it takes over workers
that still live. It signals only processes that it or its predecessor recorded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from . import process
from .encode import EXIT_BUSY, EXIT_DONE, EXIT_REFUSED, EXIT_STOPPED, left_to_do, say, take_lock
from .layout import HostFolder, count, read_json
from .progress import write_report

BACK_OFF_S = (5.0, 10.0, 20.0, 40.0, 60.0)
DEATHS_TO_FENCE = 5
POLL_S = 0.5


def reason_for(code: int | None) -> str:
    """An exit code in words; None is a worker that was not our child."""
    if code is None:
        return "ended (taken over from an earlier supervisor: exit code not known)"
    if code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        return f"killed by {name}" + (" (perhaps out of memory)" if code == -signal.SIGKILL else "")
    return f"exit code {code}"


class Slot:
    """One slot as its supervisor sees it: a worker, or the wait for the next one."""

    def __init__(self, folder: HostFolder, assignment: dict[str, Any], spec: dict[str, Any]):
        self.folder, self.assignment, self.spec = folder, assignment, spec
        self.name: str = spec["slot"]
        self.child: subprocess.Popen[bytes] | None = None
        self.identity: process.Identity | None = None
        self.state = "waiting"
        self.deaths = 0
        self.not_before = 0.0
        self.left = self._left()
        self.exits: list[dict[str, Any]] = (read_json(folder.exits(self.name)) or {}).get("exits", [])
        report = read_json(folder.progress(self.name)) or {}
        if process.alive(report.get("process")):
            self.identity, self.state = report["process"], "running"
            say(f"{self.name}: worker {self.identity['pid']} lives on, taken over")

    def _left(self) -> int:
        spec = self.spec
        return count(left_to_do(self.folder, spec["start"], spec["stop"], spec["part_rows"]))

    def step(self) -> None:
        """Look once: start, notice an end, or wait."""
        if self.state == "running":
            code = self.child.poll() if self.child else None
            if code is None and process.alive(self.identity):
                return
            if self.child:
                code = self.child.wait()
            self._ended(code)
        if self.state == "waiting" and time.monotonic() >= self.not_before:
            self._start()

    def _start(self) -> None:
        if self._left() == 0:
            self.state = "done"
            return
        spec, root = self.spec, self.folder.root
        threads = str(spec["threads"])
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "1",  # the model was sent: nothing is to be looked up
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if spec["device"] == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = spec["gpu"]
        command = [self.assignment["python"], "-m", "worker", "encode"]
        command += ["--root", str(root), "--host", self.assignment["host"], "--slot", self.name]
        log = self.folder.log(self.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.identity = process.identify(self.child.pid)
        self.state = "running"
        say(f"{self.name}: worker {self.child.pid} started, {self.left} rows left")

    def _ended(self, code: int | None) -> None:
        left = self._left()
        report = read_json(self.folder.progress(self.name)) or {}
        same = self.identity is not None and (report.get("process") or {}).get("pid") == self.identity["pid"]
        reason = (report.get("reason") if same else "") or reason_for(code)
        self.child = self.identity = None
        if left == 0 or code == EXIT_DONE:
            self.state = "done"
        elif code == EXIT_STOPPED:
            self.state = "stopped"
        elif code == EXIT_BUSY:
            self.state, self.not_before = "waiting", time.monotonic() + self._pause(1)
        else:
            self.deaths = 1 if left < self.left else self.deaths + 1
            refused = code == EXIT_REFUSED
            self.state = "fenced" if refused or self.deaths >= DEATHS_TO_FENCE else "waiting"
            self.not_before = time.monotonic() + self._pause(self.deaths)
        if code != EXIT_BUSY and self.state != "done":
            self.exits.append({"at": time.time(), "code": code, "reason": reason, "left": left, "deaths": self.deaths})
            write_report(self.folder.exits(self.name), {"slot": self.name, "exits": self.exits[-50:]})
        self.left = left
        say(f"{self.name}: worker ended ({reason}), {left} rows left: {self.state}")

    def _pause(self, deaths: int) -> float:
        pauses = self.assignment.get("back_off_s") or BACK_OFF_S
        return float(pauses[min(max(deaths, 1), len(pauses)) - 1])

    def stop(self) -> None:
        """End this slot's worker; nothing committed is lost."""
        if self.identity:
            process.stop(self.identity)
            if self.child:
                self.child.wait()
        self.child = self.identity = None
        if self.state != "done":
            self.state = "stopped"

    def report(self) -> dict[str, Any]:
        """This slot in the supervisor's report."""
        wait = max(0.0, self.not_before - time.monotonic()) if self.state == "waiting" else 0.0
        return {"state": self.state, "process": self.identity, "deaths": self.deaths, "wait_s": round(wait, 1)}


def run(root: Path, host: str) -> int:
    """Supervise the slots of `host` until each is done, given up or stopped; give the exit code."""
    folder = HostFolder(root)
    lock = take_lock(folder.supervisor_lock(host))
    if lock is None:
        say(f"supervisor of {host}: another one lives; this one leaves")
        return EXIT_BUSY
    assignment = read_json(folder.assignment(host))
    if assignment is None:
        say(f"supervisor of {host}: no assignment at {folder.assignment(host)}")
        return EXIT_REFUSED
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: stopping.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slots = [Slot(folder, assignment, spec) for spec in assignment["slots"]]
    me = process.identify(os.getpid())
    say(f"supervisor of {host}: pid {os.getpid()}, {len(slots)} slots")
    while True:
        if stopping or folder.stop_request(host).exists():
            for slot in slots:
                slot.stop()
        for slot in slots:
            slot.step()
        working = any(slot.state in ("running", "waiting") for slot in slots)
        report = {slot.name: slot.report() for slot in slots}
        write_report(
            folder.supervisor(host),
            {"host": host, "process": me, "heartbeat_at": time.time(), "working": working, "slots": report},
        )
        if not working:
            break
        time.sleep(POLL_S)
    say(f"supervisor of {host}: ends; " + ", ".join(f"{slot.name} {slot.state}" for slot in slots))
    os.close(lock)
    return EXIT_DONE if all(slot.state == "done" for slot in slots) else 1
