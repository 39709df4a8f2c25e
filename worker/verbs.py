"""What can be asked of a host, by name: the same functions for a folder of this machine and for the far end of a wire.

Standard library only. Arguments and answers are JSON values, paths are texts. A verb raises OSError or ValueError with
a message for people; the caller adds the host's name.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import IO, Any, BinaryIO, Callable, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import environment, machine, node_job, owned, placed, process, slurm
from .fields import Identity
from .files import make_folder, sha256_file, write_atomic
from .launcher import LAUNCHERS, outliving, reap
from .layout import HostFolder
from .snapshot import snapshot, snapshots
from .wire import Listing, Piece, Said

OUT_LIMIT, ERR_LIMIT = 2**20, 2**16  # of what a command prints, the last bytes kept
LIST_LIMIT = 200_000


class _Tail(threading.Thread):
    """Reads a stream to its end and keeps the last `limit` bytes: no amount of output fills a pipe or memory."""

    def __init__(self, stream: IO[bytes], limit: int):
        super().__init__(daemon=True)
        self.stream, self.limit, self.kept = stream, limit, b""
        self.start()

    def run(self) -> None:
        """Read until the stream ends."""
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self.stream.fileno(), 2**16):
                self.kept = (self.kept + chunk)[-self.limit :]

    def text(self) -> str:
        """What was kept; a grandchild that holds the stream open is not waited for."""
        self.join(2.0)
        return self.kept.decode(errors="replace")


class _Feed(threading.Thread):
    """Writes a command's input: more than a pipe holds is taken when the command reads it, which may be never."""

    def __init__(self, stream: IO[bytes], data: bytes):
        super().__init__(daemon=True)
        self.stream, self.data = stream, data
        self.start()

    def run(self) -> None:
        """Write it, and end the input."""
        with contextlib.suppress(OSError, ValueError), self.stream:
            self.stream.write(self.data)


def run(
    argv: Sequence[str], limit_s: float, cwd: str | None = None, input: str = "", without: Sequence[str] = ()
) -> Said:
    """Run a command to its end; `exit` is None when it was ended because it took longer than `limit_s`.

    `without` names variables of the environment that are not its business.
    """
    if cwd and os.path.lexists(HostFolder(Path(cwd)).mark) and (why := owned.code(Path(cwd))):
        raise ValueError(why)
    child = subprocess.Popen(
        list(argv),
        cwd=cwd,
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**{k: v for k, v in os.environ.items() if k not in without}, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert child.stdout and child.stderr
    out, err = _Tail(child.stdout, OUT_LIMIT), _Tail(child.stderr, ERR_LIMIT)
    if child.stdin:
        _Feed(child.stdin, input.encode())
    code: int | None
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # a Mac's word for one that has ended
            os.killpg(child.pid, signal.SIGKILL)  # its own session, which we made: no other process is in it
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5.0)  # in the kernel's hands (a hung driver): left behind
    answer: Said = {"exit": code, "out": out.text(), "err": err.text()}
    for tail in (out, err):
        if not tail.is_alive():
            tail.stream.close()
    return answer


def start(argv: Sequence[str], log: str, cwd: str) -> Identity:
    """Start a command that outlives us: its own session, output appended to `log`, input closed."""
    if why := owned.code(Path(cwd)):
        raise ValueError(why)
    return outliving(argv, Path(log), Path(cwd))


def launch(by: str, root: str, host: str, python: str) -> Identity:
    """Start the supervisor of a host of a run, by one of `worker.launcher.LAUNCHERS`."""
    if why := owned.code(Path(root)):
        raise ValueError(why)
    return LAUNCHERS[by](HostFolder(Path(root)), host, python)


def alive(identity: Identity | None) -> bool:
    """True while exactly the recorded process runs."""
    reap()
    return process.alive(identity)


def stop(identity: Identity, grace_s: float) -> bool:
    """Ask the recorded process, and no other, to end; then end it. True when it is gone."""
    return process.stop(identity, grace_s)


def running(root: str, host: str) -> list[dict[str, Any]]:
    """What runs for a host of a run, whatever became of its reports; see `worker.process.running`."""
    reap()
    return [each.to_json() for each in process.running(root, host)]


def poll(root: str, host: str) -> dict[str, Any]:
    """One reading of everything the monitor needs; starts no process."""
    reap()
    return snapshot(Path(root), host)


def poll_tasks(root: str, cluster: str, hosts: Sequence[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same for hosts that a scheduler places, all at once."""
    return snapshots(Path(root), cluster, hosts, options)


def queue(root: str, cluster: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the scheduler's queue says now of a cluster's tasks."""
    return slurm.queue(root, cluster, options, anew=True).to_json()


def read(path: str, limit: int) -> str:
    """The bytes of a small regular file, base64. ValueError when it has more than `limit` of them."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return base64.b64encode(data).decode()


def keep(path: str, data: str, sha256: str) -> bool:
    """Write a small file whole or not at all; False when it was there already."""
    raw = base64.b64decode(data)
    target = Path(path)
    if target.is_file() and target.stat().st_size == len(raw) and sha256_file(target) == sha256:
        return False
    write_atomic(target, raw, expected=sha256)
    return True


def sha256(path: str) -> str | None:
    """The sha256 of a file; None where there is none, or none that can be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def tail(path: str, lines: int) -> str:
    """The last lines of a log, as they are; empty when there is none."""
    try:
        with open_regular(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 400 * lines))
            text = file.read(400 * lines).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def follow(path: str, offset: int, limit: int = 2**16) -> Piece:
    """What a log has from `offset` on, at most `limit` bytes; `offset` in the answer is where to go on.

    A negative `offset` counts from the end.
    """
    try:
        with open_regular(path) as file:
            offset = offset if offset >= 0 else max(0, file.seek(0, os.SEEK_END) + offset)
            file.seek(offset)
            raw = file.read(limit)
    except FileNotFoundError:
        raw, offset = b"", max(0, offset)
    return {"text": raw.decode(errors="replace"), "offset": offset + len(raw)}


def open_regular(path: str) -> BinaryIO:
    """A file for reading, when it is a plain one: no link, pipe or device under its name."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"{path} is not a regular file")
    return os.fdopen(fd, "rb")


def listing(root: str) -> Listing:
    """Every file below `root` with its size, by its path from there; links are listed, never followed."""
    files: list[tuple[str, int]] = []

    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # one that went meanwhile is no matter
            raise error

    for folder, folders, names in os.walk(root, onerror=unread):
        for name in [*names, *folders]:
            path = os.path.join(folder, name)  # noqa: PTH118  (a Path a file costs more than the walk)
            if name in folders and not os.path.islink(path):  # noqa: PTH114
                continue
            with contextlib.suppress(FileNotFoundError):
                files.append((os.path.relpath(path, root), os.lstat(path).st_size))
        if len(files) > LIST_LIMIT:
            raise ValueError(f"{root}: more than {LIST_LIMIT} files")
    return {"files": sorted(files)}


def remove(path: str, root: str) -> None:
    """Remove one file or folder of a run. ValueError for anything outside the run's folder `root`."""
    target, top = Path(path), Path(root)
    # Where the path really leads, links and `..` followed, except a link that is itself what is to go.
    real, real_root = target.parent.resolve() / target.name, top.parent.resolve() / top.name
    if target.name == ".." or (real != real_root and real_root not in real.parents):
        raise ValueError(f"refused to remove {path}: not inside {root}")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:  # a file, a link, or a pipe
        target.unlink(missing_ok=True)  # two hosts may share the folder


def set_aside(root: str, names: Sequence[str], stamp: str) -> list[str]:
    """Move files and folders of a run into `aside/<stamp>/` of its folder; gives the names of those that were there."""
    moved = []
    for name in names:
        source, target = Path(root, name), Path(root, "aside", stamp, name)
        if ".." in source.parts or not source.exists():
            continue
        make_folder(target.parent, 0o700)
        source.replace(target)
        moved.append(name)
    return moved


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (
        run,
        start,
        launch,
        alive,
        stop,
        running,
        poll,
        poll_tasks,
        queue,
        read,
        keep,
        sha256,
        tail,
        follow,
        listing,
        remove,
        set_aside,
    )
}
VERBS |= {"claim": owned.claim, "unclaimed": owned.unclaimed, "clear": placed.clear}
VERBS |= {"submit": slurm.submit, "cancel": slurm.cancel, "limits": slurm.limits}
VERBS |= {"refusal": slurm.refusal, "on_node": node_job.on_node}
VERBS |= {"facts": machine.facts, "unmark": machine.unmark, "find_environment": environment.find}
