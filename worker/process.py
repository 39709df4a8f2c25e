"""Which process is which: a pid may be given to another process later, so pid + start time + boot id name one.

Standard library only. Only processes that a run recorded, or that hold a lock of its folder, are ever signalled, and
only while all three still agree. Where the system does not answer in time, a process counts as alive and is not
signalled: neither "it is gone" nor a signal may rest on a guess.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import commands, locks
from .fields import Identity
from .wire import Running

ASK_S = 10.0
TRIES = 3
VERBS = ("supervise", "encode")  # of `python -m worker`: what runs for a host of a run


class NotKnown(OSError):
    """The system did not say in time: nothing follows from it."""


def boot_id() -> str:
    """A text that changes with every boot of this machine, and with nothing else. NotKnown where it does not answer."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _boot_by_sysctl() if sys.platform == "darwin" else ""


@functools.lru_cache(maxsize=1)
def _boot_by_sysctl() -> str:
    """Asked once: no process outlives a boot. `kern.boottime` will not do: it moves whenever the clock is set."""
    try:
        return _ask(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).stdout.strip()
    except (FileNotFoundError, PermissionError):
        return ""


def _ask(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What a command of the system answers. NotKnown where it does not, or could not be started just now."""
    why = ""
    for _ in range(TRIES):
        try:
            # A time of this place would be another one after a flight.
            done = commands.ask(argv, ASK_S, env={"LC_ALL": "C", "TZ": "UTC0"})
        except (TimeoutError, BlockingIOError) as error:  # the second: no room for one more process
            why = str(error)
            continue
        if done.returncode >= 0:
            return done
        why = f"ended by signal {-done.returncode}"
    raise NotKnown(f"{' '.join(argv)}: no answer, tried {TRIES} times ({why})")


def start_time(pid: int) -> str | None:
    """When `pid` began, in the machine's own terms; None for no such process or a zombie. NotKnown: no answer."""
    if not 0 < pid < 2**31:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return _start_time_by_ps(pid) if not Path("/proc/self/stat").exists() else None
    except (ProcessLookupError, PermissionError):
        return None
    # The command name may hold blanks and brackets; what follows the last bracket is fixed (proc(5)).
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _start_time_by_ps(pid: int) -> str | None:
    try:
        done = _ask(["ps", "-o", "stat=,lstart=", "-p", str(pid)])
    except (FileNotFoundError, PermissionError) as error:
        raise NotKnown(f"ps: {error}") from None
    if done.stderr and not done.stdout.strip():  # where there is no such process, it says nothing at all
        raise NotKnown(f"ps: {done.stderr.strip()[:300]}")
    state, _, began = done.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else " ".join(began.split())


def command_lines() -> dict[int, str] | None:
    """The arguments of every process, by `ps`: pid -> text. None where it does not tell."""
    try:
        done = _ask(["ps", "-axww", "-o", "pid=,args="])
    except OSError:
        return None
    rows = [line.split(None, 1) for line in done.stdout.splitlines()]
    lines = {int(row[0]): row[-1] for row in rows if len(row) == 2 and row[0].isdigit()}
    return lines if os.getpid() in lines else None  # who does not see us does not see all


def identify(pid: int) -> Identity:
    """The record that names the process `pid` for as long as it lives."""
    return {"pid": pid, "start": start_time(pid), "boot": boot_id()}


def alive(identity: Identity | None) -> bool:
    """True while exactly the recorded process runs, and where the system does not say whether it does."""
    try:
        return _known_alive(identity)
    except NotKnown:
        return True


def _surely_alive(identity: Identity) -> bool:
    """The same before a signal: a guess will not do."""
    try:
        return _known_alive(identity)
    except NotKnown:
        return False


def _known_alive(identity: Identity | None) -> bool:
    if not isinstance(identity, Mapping) or not isinstance(identity.get("pid"), int) or not identity.get("start"):
        return False
    return identity.get("boot") == boot_id() and start_time(identity["pid"]) == identity["start"]


def running(root: str, host: str) -> list[Running]:
    """What runs for a host of a run, whatever became of its reports.

    A process counts when it holds a lock of that very folder and has signed it as this host's. Where the system has a
    /proc, so does one that could not sign, as on a full disk.
    """
    paths = sorted(Path(root, "progress").glob("*.lock"))
    notes = [note for note in map(locks.note, paths) if note.host == host and note.verb in VERBS]
    signed = [Running(note.verb or "", note.process) for note in notes if note.process and alive(note.process)]
    pids = {each.process["pid"] for each in signed}
    return [*signed, *(each for each in _in_proc(paths, root, host) if each.process["pid"] not in pids)]


def _in_proc(paths: Sequence[Path], root: str, host: str) -> list[Running]:
    """A process of this account counts when its command line says so word for word, and it has one of the locks open:
    a process that only looks alike has none.
    """
    files = set()
    for path in paths:
        with contextlib.suppress(OSError):
            files.add((path.stat().st_dev, path.stat().st_ino))
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another account's
            identity = identify(int(entry.name))  # before its words: should they be another's, it is not signalled
            words = (entry / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
            at = words.index("worker") if "worker" in words else 0
            verb = "".join(words[at + 1 : at + 2])
            matches = [words[at - 1], *words[at + 2 : at + 6]] == ["-m", "--root", root, "--host", host]
            if matches and verb in VERBS and _has_open(entry, files):
                processes.append(Running(verb, identity))
    return processes


def _has_open(entry: Path, files: set[tuple[int, int]]) -> bool:
    for number in (entry / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (number.stat().st_dev, number.stat().st_ino) in files:
                return True
    return False


def bytes_read(identity: Identity | None) -> int | None:
    """What a process has read from disks so far; None where the system does not tell."""
    try:
        text = Path(f"/proc/{identity['pid']}/io").read_text() if identity else ""
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("read_bytes:")), None)


def ended_by(code: int) -> str:
    """How a process ended, in words: its exit code, or the signal."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else -code}"


def send(identity: Identity | None, signum: int) -> bool:
    """Signal the recorded process and no other; False when it is gone, not ours to signal, or not known to live.

    With a pidfd (Linux 5.3) there is no moment in which the pid could be given to another process.
    """
    if identity is None or not _surely_alive(identity):
        return False
    if sys.platform != "linux":
        return _kill(identity, signum)
    try:
        fd = os.pidfd_open(identity["pid"])
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # no such call in this Python, or older kernel, or forbidden in this container
        return _kill(identity, signum)
    try:
        if not _surely_alive(identity):
            return False
        signal.pidfd_send_signal(fd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def _kill(identity: Identity, signum: int) -> bool:
    try:
        os.kill(identity["pid"], signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def stop(identity: Identity | None, grace_s: float = 10.0) -> bool:
    """Ask the recorded process to end, then end it; True when it is gone."""
    if not send(identity, signal.SIGTERM):
        return not alive(identity)
    if _gone(identity, grace_s):
        return True
    send(identity, signal.SIGKILL)
    return _gone(identity, 5.0)


def _gone(identity: Identity | None, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not alive(identity):
            return True
        time.sleep(0.05)
    return not alive(identity)
