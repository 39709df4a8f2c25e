"""What a machine is, learnt in one go: its disk, what a log-out ends, its GPUs. Standard library only.

Nothing here waits long: every command has a time limit, everything is asked at once, and what does not answer (a
network disk that hangs, a driver that hangs) leaves its own facts unknown and no others.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import re
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence, TypeVar  # noqa: UP035  (Python 3.9 on lab boxes)

from . import limits, owned
from .chip import apple_chip
from .files import write_atomic
from .layout import SHARED_FOLDERS
from .wire import CardsSaid, Facts

TEXT_LIMIT = 2**16  # of what a command prints, the first bytes kept
WORD_LIMIT = 500  # of any other text

MARKERS = ".runbook_here"
MARKER_AGE_S = 600.0
MARKER_LIMIT = 64
TOKEN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")  # no leading dot: such are temporary names

BASIC_FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
GPU_FIELDS = (
    *BASIC_FIELDS,
    "utilization.gpu",
    "temperature.gpu",
    "power.draw",
    "mig.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    "compute_mode",
)
APP_FIELDS = ("gpu_uuid", "pid", "process_name", "used_gpu_memory")
SAMPLE_FIELDS = ("uuid", "utilization.gpu", "memory.used", "temperature.gpu", "power.draw")
BEGINS_WITH_UUID = re.compile("(GPU-)?[0-9a-fA-F]{8}-")  # small boards leave the first word out
LOST = re.compile(r"device handle for GPU|GPU is lost", re.IGNORECASE)
CARDS = 16  # tried one by one where even the list of cards is not to be had

VISIBLE = "CUDA_VISIBLE_DEVICES"  # set by batch systems and by people who share a machine
NVIDIA_PLACES = ("/usr/bin", "/usr/lib/wsl/lib")
LOGIND_PLACES = ("/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd")  # a later one wins
BOOTED = "/run/systemd/system"  # exists exactly where systemd is the init (sd_booted(3))

T = TypeVar("T")

# Killed commands that have not gone: a process in the kernel's hands cannot be ended, only left.
_hanging: list[subprocess.Popen[bytes]] = []


def facts(workdir: str, cuda: bool, token: str, timeout_s: float = 10.0) -> Facts:
    """What this machine is, JSON-ready. `workdir` is made if missing, and the marker `token` is left in it.

    `seen` are the markers of others there: hosts that share the folder; None where no marker could be left.
    """
    if not TOKEN.fullmatch(token):
        raise ValueError(f"a marker's name has 1 to 80 of A-Z a-z 0-9 _ . - and no leading dot, found {token!r}")
    _hang()
    unknown = f"{workdir}: the disk did not answer within {timeout_s:g} s"
    jobs: dict[str, tuple[Callable[[], Facts], float, Facts]] = {
        "place": (lambda: _place(workdir, token), timeout_s, {**_NO_PLACE, "workdir": workdir, "why_not": unknown}),
        "logout": (lambda: _logout(timeout_s), timeout_s + 2, {"kills_user_processes": None, "linger": None}),
        "chip": (lambda: {"chip": apple_chip()}, timeout_s + 1, {"chip": ""}),
    }
    if cuda:
        silent = _silent(timeout_s)
        nothing: dict[str, CardsSaid] = {"gpus": silent, "list": silent, "apps": silent}
        # Three rounds at most: all cards, the basic fields alone, card by card.
        jobs["nvidia"] = (lambda: {"nvidia": _nvidia(timeout_s)}, 3 * (timeout_s + 2), {"nvidia": nothing})
    facts = _here()
    for answer in _together(jobs).values():
        facts.update(answer)
    return facts


def unmark(workdir: str, token: str) -> None:
    """Remove our marker, and the folder of markers when it was the last."""
    if not TOKEN.fullmatch(token):
        raise ValueError(f"{token!r} is no marker's name")
    folder = Path(workdir).expanduser() / MARKERS
    with contextlib.suppress(OSError):
        (folder / token).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def gpu_sample(timeout_s: float = 10.0) -> str:
    """A line per GPU, as the driver prints `SAMPLE_FIELDS`; empty when it cannot.

    While an earlier command hangs in the driver no other is started: every one more would hang as well.
    """
    if _hang():
        return ""
    out = _say([nvidia_smi() or "nvidia-smi", *_query("gpu", SAMPLE_FIELDS)], timeout_s)["out"]
    return "\n".join(line for line in out.splitlines() if BEGINS_WITH_UUID.match(line))


def _hang() -> bool:
    """Whether a command that was killed is still there; those that went are reaped."""
    _hanging[:] = [child for child in _hanging if child.poll() is None]
    return bool(_hanging)


def _together(jobs: Mapping[str, tuple[Callable[[], T], float, T]]) -> dict[str, T]:
    """The answers of jobs (function, seconds it may take, answer when it takes longer), run side by side.

    Daemon threads: one that hangs in the kernel is left behind and holds up nothing, not even the end of this process.
    """
    answers = {name: default for name, (_, _, default) in jobs.items()}

    def work(name: str, job: Callable[[], T], box: dict[str, T]) -> None:
        # A machine odd enough to break one job still has the other facts.
        with contextlib.suppress(Exception):
            box[name] = job()

    boxes: dict[str, T] = {}
    began = time.monotonic()
    threads = {
        name: threading.Thread(target=work, args=(name, job, boxes), daemon=True) for name, (job, _, _) in jobs.items()
    }
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, began + jobs[name][1] - time.monotonic()))
        answers[name] = boxes.get(name, answers[name])
    return answers


def _say(argv: Sequence[str], timeout_s: float) -> CardsSaid:
    """Run a command and give what it says, the first `TEXT_LIMIT` bytes of each stream."""
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "not found" if missing else str(error)
        return {"out": "", "err": f"{Path(argv[0]).name}: {why}"[:WORD_LIMIT], "exit": 127 if missing else 126}
    assert child.stdout and child.stderr
    kept = {child.stdout: b"", child.stderr: b""}
    deadline = time.monotonic() + timeout_s
    code = None
    with selectors.DefaultSelector() as waiting, child.stdout, child.stderr:
        for stream in kept:
            waiting.register(stream, selectors.EVENT_READ, stream)
        while waiting.get_map() and time.monotonic() < deadline:
            ready = waiting.select(min(0.2, max(0.0, deadline - time.monotonic())))
            for key, _ in ready:
                chunk = os.read(key.fd, 2**16)
                if not chunk:
                    waiting.unregister(key.data)
                kept[key.data] = (kept[key.data] + chunk)[:TEXT_LIMIT]
            if not ready and child.poll() is not None:
                break  # ended; a grandchild that holds the streams open is not waited for
        out, err = (text.decode(errors="replace") for text in kept.values())
    try:
        code = child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        err = f"did not answer within {timeout_s:g} s"
        with contextlib.suppress(ProcessLookupError, PermissionError):  # a Mac's word for one that has ended
            os.killpg(child.pid, signal.SIGKILL)  # its own session, which we made: no other process is in it
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            _hanging.append(child)
    return {"out": out, "err": err, "exit": code}


def _silent(timeout_s: float) -> CardsSaid:
    return {"out": "", "err": f"did not answer within {timeout_s:g} s", "exit": None}


def _here() -> Facts:
    """What the process knows by itself; nothing here can wait."""
    name = os.uname()
    libc = ""
    with contextlib.suppress(OSError):
        libc = " ".join(platform.libc_ver()).strip()
    run_time = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return {
        "cores": limits.cores(),
        "memory_bytes": limits.memory(),
        "limits": limits.told(),
        "now": time.time(),
        "python": list(sys.version_info[:3]),
        "system": ", ".join(filter(None, [f"{name.sysname} {name.release} {name.machine}", libc]))[:WORD_LIMIT],
        "systemd_run": shutil.which("systemd-run") is not None and Path(run_time).is_dir(),
    }


def _user() -> str:
    """The account's name; where accounts come from a network directory, this can hang."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name[:WORD_LIMIT]
    except KeyError:
        return str(os.getuid())


_NO_PLACE: Facts = {"writable": False, "free_bytes": None, "seen": None}


def _place(workdir: str, token: str) -> Facts:
    """The folder to work in and its disk."""
    try:
        path = Path(workdir).expanduser().absolute()
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
        if why := owned.problem(path, *(path / name for name in SHARED_FOLDERS)):
            return {**_NO_PLACE, "workdir": workdir, "why_not": why[:WORD_LIMIT]}
        # Permissions do not tell (read-only mounts, quotas, a full disk): a file does.
        with tempfile.NamedTemporaryFile(prefix=".runbook_try_", dir=path) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        disk = os.statvfs(path)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~name, and no such account
        return {**_NO_PLACE, "workdir": workdir, "why_not": f"{workdir}: {error}"[:WORD_LIMIT]}
    return {
        "workdir": str(path),
        "writable": True,
        "why_not": "",
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "seen": _mark(path / MARKERS, token),
    }


def _mark(folder: Path, token: str) -> list[str] | None:
    """Leave our marker and give the names of the other fresh ones; old ones go. None where that cannot be done.

    Ages are taken from our own marker's time, so by the clock of the file system, whatever clocks the hosts have.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_atomic(folder / token, b"")
        now = (folder / token).stat().st_mtime
        others = []
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # its owner was quicker
                    info = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(info.st_mode) or entry.name == token:
                        continue
                    if abs(now - info.st_mtime) > MARKER_AGE_S:
                        Path(entry.path).unlink()
                    elif TOKEN.fullmatch(entry.name):
                        others.append(entry.name)
    except OSError:
        return None
    return sorted(others)[:MARKER_LIMIT]


def _logout(timeout_s: float) -> Facts:
    """Whether a log-out ends what we started (logind's KillUserProcesses), and whether the account lingers."""
    user = _user()
    settings = ("KillUserProcesses", "KillOnlyUsers", "KillExcludeUsers")
    manager = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
    asked = {
        "linger": ["loginctl", "show-user", user, "--property=Linger"],
        "kills": ["busctl", "get-property", *manager, *settings],
    }
    answers = _ask(asked, timeout_s)
    # Older systemds have no --value, so the answer is `Linger=yes`.
    linger = answers["linger"]["out"].strip().rpartition("=")[2]
    return {
        "kills_user_processes": _kills(answers["kills"], user),
        "linger": {"yes": True, "no": False}.get(linger) if answers["linger"]["exit"] == 0 else None,
    }


def _kills(said: CardsSaid, user: str) -> bool | None:
    lines = said["out"].splitlines()
    if said["exit"] == 0 and lines and lines[0] in ("b true", "b false"):
        only, exclude, *_ = [*(re.findall('"([^"]*)"', line) for line in lines[1:]), [], []]
        return lines[0] == "b true" and user not in exclude and (not only or user in only)
    if not Path(BOOTED).is_dir():
        return False
    settings = _logind_settings()
    if settings is None:
        return None
    only, exclude = settings["KillOnlyUsers"].split(), settings["KillExcludeUsers"].split()
    kills = settings["KillUserProcesses"].lower() in ("yes", "y", "true", "t", "on", "1")
    return kills and user not in exclude and (not only or user in only)


def _logind_settings() -> dict[str, str] | None:
    """What the files of logind.conf(5) say; None where there are none to read."""
    main = [Path(place, "logind.conf") for place in LOGIND_PLACES if Path(place, "logind.conf").is_file()][-1:]
    extra: dict[str, Path] = {}
    for place in LOGIND_PLACES:
        extra.update((path.name, path) for path in sorted(Path(place, "logind.conf.d").glob("*.conf"))[:100])
    settings = {"KillUserProcesses": "no", "KillOnlyUsers": "", "KillExcludeUsers": "root"}
    read = False
    for path in [*main, *(extra[name] for name in sorted(extra))]:
        with contextlib.suppress(OSError), path.open(errors="replace") as file:
            text = file.read(TEXT_LIMIT)
            read = True
            lines = [line.strip() for line in text.splitlines()]
            # The main file as shipped names the defaults of its build in comments.
            defaults = [line[1:] for line in lines if line.startswith("#")] if path in main else []
            for line in [*defaults, *lines]:
                key, _, value = line.partition("=")
                if key.strip() in settings:
                    settings[key.strip()] = value.strip()
    return settings if read else None


def nvidia_smi() -> str:
    """The path of nvidia-smi; empty where it is not found."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *NVIDIA_PLACES])
    return shutil.which("nvidia-smi", path=places) or ""


def _query(what: str, fields: Sequence[str]) -> list[str]:
    return [f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]


def _ask(asked: Mapping[str, Sequence[str]], timeout_s: float) -> dict[str, CardsSaid]:
    """What commands say, run side by side."""

    def job(argv: Sequence[str]) -> Callable[[], CardsSaid]:
        return lambda: _say(argv, timeout_s)

    return _together({name: (job(argv), timeout_s + 1.5, _silent(timeout_s)) for name, argv in asked.items()})


def _nvidia(timeout_s: float) -> dict[str, CardsSaid]:
    """What nvidia-smi says of its cards (`gpus`), their names and MIG devices (`list`), and who uses them (`apps`).

    `visible`: which of them this account was given, where it is not all (`VISIBLE`).
    """
    smi = nvidia_smi() or "nvidia-smi"
    asked = {
        "gpus": [smi, *_query("gpu", GPU_FIELDS)],
        "list": [smi, "-L"],
        "apps": [smi, *_query("compute-apps", APP_FIELDS)],
    }
    answers = _ask(asked, timeout_s)
    fields: Sequence[str] = GPU_FIELDS
    if "not a valid field" in answers["gpus"]["out"] + answers["gpus"]["err"]:  # by an old driver
        fields = BASIC_FIELDS
        answers["gpus"] = _say([smi, *_query("gpu", fields)], timeout_s)
    if LOST.search(answers["gpus"]["out"] + answers["gpus"]["err"]):  # one lost card hides all the others
        answers["gpus"] = _card_by_card(smi, fields, answers["gpus"], answers["list"], timeout_s)
    if VISIBLE in os.environ:
        answers["visible"] = {"out": os.environ[VISIBLE][:WORD_LIMIT], "err": "", "exit": 0}
    return answers


def _card_by_card(smi: str, fields: Sequence[str], whole: CardsSaid, listed: CardsSaid, timeout_s: float) -> CardsSaid:
    """The rows of the cards that answer; `lost` says of the others, by index, why not."""
    indices = set(re.findall(r"^GPU ([0-9]{1,2}):", listed["out"], re.MULTILINE))
    if listed["exit"] != 0 or LOST.search(listed["out"] + listed["err"]):  # then the list is not whole
        indices |= {str(index) for index in range(CARDS)}
    asked = {index: [smi, "-i", index, *_query("gpu", fields)] for index in indices}
    answers = _ask(asked, timeout_s)
    rows, lost = [], {}
    for index in sorted(indices, key=int):
        answer = answers[index]
        text = f"{answer['out']}\n{answer['err']}".strip()
        if answer["exit"] == 0 and not LOST.search(text):
            rows.append(answer["out"].strip())
        elif LOST.search(text) or answer["exit"] is None:
            lost[index] = text.partition("\n")[0].strip()[:WORD_LIMIT]
    text = f"{whole['out']}\n{whole['err']}".strip()
    return {"out": "\n".join(rows)[:TEXT_LIMIT], "err": text[:TEXT_LIMIT], "exit": whole["exit"], "lost": lost}
