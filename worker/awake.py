"""Keeps this machine from falling asleep by itself while a local host has work. Standard library only.

A lid that is closed is another matter: where the system sleeps then, it does so whatever we ask, and the workers sleep
with it; they go on when it wakes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from . import commands

CAFFEINATE = "/usr/bin/caffeinate"
PMSET = "/usr/bin/pmset"
SUPPLIES = Path("/sys/class/power_supply")
WHY = "documents are being embedded"
ASK_S = 5.0


def hold(say: Callable[[str], None]) -> None:
    """Hold this machine awake until this process ends, however it ends; `say` is told where that cannot be done.

    What holds it watches us: on a Mac by our pid, else by a pipe that only our end closes.
    """
    if sys.platform == "darwin":
        argv = [CAFFEINATE, "-i", "-w", str(os.getpid())]
    elif inhibit := shutil.which("systemd-inhibit"):
        argv = [inhibit, "--what=sleep:idle", "--mode=block", "--who=embedding runbook", f"--why={WHY}", "cat"]
    else:
        say("this machine may fall asleep: there is no systemd-inhibit to ask for the contrary")
        return
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        say(f"this machine may fall asleep: {error}")
        return
    threading.Thread(target=_watch, args=(child, argv[0], say), name="awake", daemon=True).start()


def _watch(child: subprocess.Popen[bytes], name: str, say: Callable[[str], None]) -> None:
    """Nothing is lost where it does not work, as without a log-in or a bus: then the log says so."""
    assert child.stderr
    printed = child.stderr.read(2**16).decode(errors="replace").strip()
    why = printed.splitlines()[-1] if printed else f"exit code {child.wait()}"
    say(f"this machine may fall asleep: {Path(name).name} has ended ({why})")


def on_battery() -> bool | None:
    """Whether this machine runs on its battery now; None where the system does not say."""
    if sys.platform == "darwin":
        try:
            done = commands.ask([PMSET, "-g", "batt"], ASK_S)
        except OSError:
            return None
        return "'Battery Power'" in done.stdout if "drawing from" in done.stdout else None
    try:
        kinds = {supply: (supply / "type").read_text().strip() for supply in SUPPLIES.iterdir()}
        states = [(supply / "online").read_text().strip() for supply, kind in kinds.items() if kind == "Mains"]
    except OSError:
        return None
    return "1" not in states if states else None
