"""A host: a machine with slots, asked by a few verbs: run, put, get, start, alive, stop, and one reading, poll.

Every host answers the same verbs (`worker.verbs`); what differs is the transport: `hosts.local` calls them, for
folders of this machine, `hosts.ssh` sends them to a machine over its one kept connection. Every verb has a deadline,
names the host when it fails, and trusts nothing that a host sends.
"""

from __future__ import annotations

import base64
import errno
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from worker.environment import Found
from worker.escape import safe_text
from worker.fields import Identity, shown
from worker.launcher import PROCESS, UNIT
from worker.layout import HostFolder
from worker.wire import Reading

from ..errors import CannotStart, HostError, RunbookError
from ..profile.profile import HostSpec
from ..run.run import Run
from . import answers, environments
from .content import Content, OnBytes
from .local import LocalTransport
from .scheduler import Scheduler
from .ssh import login
from .ssh.link import link_to
from .ssh.ssh import SshTransport

AT_ONCE = 16  # hosts spoken to at the same time
ASK_S = 30.0
NO_LIMIT = 2**62

T = TypeVar("T")


def _ignore_progress(n: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit code and the last of what it printed, safe to print."""

    exit_code: int
    out: str
    err: str


class Transport(Protocol):
    """How a host is reached: to ask it verbs, and to copy files there and back."""

    breaks: list[str]

    @property
    def home(self) -> str:
        """The home folder there."""

    @property
    def executable(self) -> str:
        """A Python there."""

    @property
    def where(self) -> str:
        """The address, in words."""

    def sessions(self) -> int:
        """How many sessions it allows at once, up to the number that we use."""

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Ask a verb of `worker.verbs`."""

    def put(self, target: str, content: Content, on_bytes: OnBytes, outage_s: float | None = None) -> bool:
        """Bring a file there."""

    def get(
        self, source: str, target: Path, sha256: str, limit: int, on_bytes: OnBytes, outage_s: float | None = None
    ) -> bool:
        """Bring a file home."""


class Host:
    """One host of a run. Nothing is connected before the first verb."""

    def __init__(self, spec: HostSpec, run: str, transport: Transport):
        self.spec, self.name, self.transport, self._run = spec, spec.name, transport, run
        self._python = ""

    @property
    def workdir(self) -> Path:
        """The folder of all runs there, absolute."""
        first, _, rest = self.spec.workdir.partition("/")
        if first != "~":
            return Path(self.spec.workdir)
        return Path(answers.path(self.transport.home, self.name, "its home folder")) / rest.lstrip("/")

    @property
    def folder(self) -> HostFolder:
        """This run's folder there."""
        return HostFolder(self.workdir / self._run)

    @property
    def python(self) -> str:
        """The Python that workers run with. Raises HostError when the profile names one that cannot be found."""
        if not self._python:
            self._python = self._find_python()
        return self._python

    def _find_python(self) -> str:
        kind = self.spec.environment
        if not kind:
            return answers.path(self.transport.executable, self.name, "its Python")
        if self.spec.is_here and not environments.is_made_by_us(kind):
            return kind
        environment = self.environment()
        if environment["state"] not in ("ready", "foreign"):
            raise HostError(f"{self.name}: environment {kind}: {environment['why'] or environment['state']}")
        return environment["python"]

    def environment(self) -> Found:
        """Return the state of the environment that the profile names; see `worker.environment.find`."""
        kind = self.spec.environment
        digest = environments.recipe(self.spec).digest if environments.is_made_by_us(kind) else ""
        answer = self.transport.call("find_environment", 60.0, kind=kind, workdir=str(self.workdir), digest=digest)
        return answers.environment(answer, self.name)

    def run(self, argv: Sequence[str], timeout_s: float, cwd: Path | None = None, secret_input: str = "") -> Completed:
        """Run a command to its end. Raises CannotStart, or HostError when it takes longer than `timeout_s`."""
        try:
            done = self.transport.call(
                "run",
                timeout_s,
                argv=list(argv),
                limit_s=timeout_s,
                cwd=str(cwd) if cwd else None,
                input=secret_input,
            )
        except HostError as error:
            if error.errno in (errno.ENOENT, errno.EACCES):
                raise CannotStart(f"{self.name}: cannot start {argv[0]}: {error}") from None
            raise
        code, out, err = answers.completed(done, self.name)
        if code is None:
            raise HostError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s")
        return Completed(code, out, err)

    def put(self, target: Path, content: Content, on_bytes: OnBytes = _ignore_progress) -> bool:
        """Bring `content` to the host, whole or not at all; False when it was there already."""
        return self.transport.put(str(target), content, on_bytes)

    def get(
        self,
        source: Path,
        target: Path,
        sha256: str,
        on_bytes: OnBytes = _ignore_progress,
        *,
        limit: int = NO_LIMIT,
        outage_s: float | None = None,
    ) -> bool:
        """Bring a file home, whole and with this sha256 or not at all; False when it was here already.

        `limit`: the bytes that it may have; `outage_s`: how long to try without any progress.
        """
        return self.transport.get(str(source), target, sha256, limit, on_bytes, outage_s)

    def breaks(self) -> list[str]:
        """Return what broke on the connection since the last call, and recovered; in words."""
        taken, self.transport.breaks = self.transport.breaks, []
        return [safe_text(words, 500) for words in taken]

    def read(self, path: Path, limit: int = 64 * 2**20) -> bytes:
        """The bytes of a small file. Raises HostError."""
        try:
            data = base64.b64decode(self.transport.call("read", ASK_S, path=str(path), limit=limit))
        except (ValueError, TypeError):
            raise HostError(f"{self.name}: reading {path}: answered with something that is no file") from None
        if len(data) > limit:
            raise HostError(f"{self.name}: {path} is larger than {limit} bytes")
        return data

    def sha256(self, path: Path) -> str | None:
        """The sha256 of a file there; None where there is no such file, or none that can be read."""
        answer = self.transport.call("sha256", 3600.0, path=str(path))
        return answer if isinstance(answer, str) else None

    def tail(self, path: Path, lines: int = 20) -> str:
        """The last lines of a log, safe to print; empty when there is none."""
        text = self.transport.call("tail", ASK_S, path=str(path), lines=lines)
        return safe_text(text if isinstance(text, str) else shown(text), limit=100_000)

    def follow(self, path: Path, offset: int) -> tuple[str, int]:
        """Return a log's text from `offset` on (negative: from the end), safe to print, and the next offset."""
        answer = self.transport.call("follow", ASK_S, path=str(path), offset=offset)
        return answers.piece(answer, self.name, offset)

    def start(self, argv: Sequence[str], log: Path, cwd: Path) -> Identity:
        """Start a command that outlives us: its own session, output appended to `log`."""
        return self._started(self.transport.call("start", ASK_S, argv=list(argv), log=str(log), cwd=str(cwd)))

    def launch(self, by: str) -> Identity:
        """Start this run's supervisor there, by one of `worker.launcher.LAUNCHERS`. Does not check if one is alive."""
        root = str(self.folder.root)
        return self._started(self.transport.call("launch", ASK_S, by=by, root=root, host=self.name, python=self.python))

    def _started(self, answer: Any) -> Identity:
        if not isinstance(answer, dict) or not isinstance(answer.get("pid"), int):
            raise HostError(f"{self.name}: its answer about what it started is invalid")
        return Identity(pid=answer["pid"], start=answer.get("start"), boot=answer.get("boot") or "")

    def alive(self, identity: Identity | None) -> bool:
        """True while exactly the recorded process runs."""
        return self.transport.call("alive", ASK_S, identity=identity) is True

    def stop(self, identity: Identity, grace_s: float = 15.0) -> bool:
        """Ask the recorded process, and no other, to end; then kill it."""
        return self.transport.call("stop", grace_s + 10.0, identity=identity, grace_s=grace_s) is True

    def poll(self) -> Reading:
        """Take one reading of everything the monitor needs; an invalid one is refused."""
        if self.spec.is_task:
            reading = self.scheduler.poll([self.name])[self.name]
            if isinstance(reading, RunbookError):
                raise reading
            return reading
        return answers.reading(
            self.transport.call("poll", ASK_S, root=str(self.folder.root), host=self.name), self.name
        )

    @property
    def scheduler(self) -> Scheduler:
        """What places this host, if it is a task."""
        return Scheduler(self.spec, self.transport, self.folder.root)

    def run_there(self, argv: Sequence[str], timeout_s: float, cwd: Path, sent: str = "") -> Completed:
        """Run a command where this host's workers will run: for a task on a node, from the run's folder.

        `sent`: its standard input, which a task cannot have.
        """
        if not self.spec.is_task:
            return self.run(argv, timeout_s, cwd=cwd, secret_input=sent)
        return Completed(*self.scheduler.run(argv, timeout_s))

    def living(self, reading: Reading) -> tuple[list[Identity], list[Identity]]:
        """Return the living supervisors and workers of this run: those of a reading, and those that hold a lock of its
        folder, even without a report (`worker.process.running`).
        """
        if self.spec.is_task:  # its processes are on another machine: nothing is known of them by their numbers
            return [each for each in [reading.supervised.process] if each and reading.supervisor_alive], []
        running = answers.running(
            self.transport.call("running", ASK_S, root=str(self.folder.root), host=self.name), self.name
        )
        reported = reading.supervised.process if reading.supervisor_alive else None
        above = [*filter(None, [reported]), *(each.process for each in running if each.verb == "supervise")]
        below = [*self.workers(reading), *(each.process for each in running if each.verb == "encode")]
        supervisors, workers = ({identity["pid"]: identity for identity in group} for group in (above, below))
        return list(supervisors.values()), list(workers.values())

    def workers(self, reading: Reading) -> list[Identity]:
        """Return the living workers of a reading: from their own report or, before it, their supervisor's."""
        own = [entry.worker.process for entry in reading.slots.values()]
        started = [slot.process for slot in reading.supervised.slots.values()]
        living = {process["pid"]: process for process in [*started, *own] if process and self.alive(process)}
        return list(living.values())

    def files(self) -> list[tuple[str, int]]:
        """The files of this run there: (path below its folder, safe to print, bytes)."""
        return answers.files(self.transport.call("listing", 120.0, root=str(self.folder.root)), self.name)

    def unclaimed(self, run_id: str) -> str:
        """Say why this run's folder there cannot be its own; empty if it is, or can be made."""
        reason = self.transport.call("unclaimed", ASK_S, workdir=str(self.workdir), run=self._run, run_id=run_id)
        return (
            safe_text(reason)
            if isinstance(reason, str)
            else f"its answer about the run's folder is invalid: {shown(reason)}"
        )

    def claim(self, run_id: str) -> None:
        """Make this run's folder there, marked with its id: the first step of a run on a host.

        Raises HostError for a folder that is there and is not its own.
        """
        self.transport.call("claim", ASK_S, workdir=str(self.workdir), run=self._run, run_id=run_id)

    def clear(self, run_id: str, names: Sequence[str]) -> list[str]:
        """Remove files of this run from its folder there, and folders left empty; return what was not removed."""
        remaining = self.transport.call("clear", 300.0, root=str(self.folder.root), run_id=run_id, names=list(names))
        return [name for name in names if name in remaining] if isinstance(remaining, list) else []

    def remove(self, path: Path) -> None:
        """Remove one file or folder of this run. Raises HostError for anything outside the run's folder."""
        self.transport.call("remove", 300.0, path=str(path), root=str(self.folder.root))

    def set_aside(self, names: Sequence[str], stamp: str) -> str:
        """Move files and folders of this run there into `aside/<stamp>/`; say what was moved."""
        answer = self.transport.call("set_aside", ASK_S, root=str(self.folder.root), names=list(names), stamp=stamp)
        moved = [safe_text(str(name), 80) for name in answer] if isinstance(answer, list) else []
        return f"set aside: {', '.join(moved)}" if moved else "nothing was there"

    def facts(self, token: str) -> dict[str, Any]:
        """Return the facts of the machine; see `worker.machine.facts`."""
        answer = self.transport.call(
            "facts", 60.0, workdir=str(self.workdir), cuda=self.spec.device == "cuda", token=token
        )
        if not isinstance(answer, dict):
            raise HostError(f"{self.name}: its answer about itself is invalid")
        return answer


_hosts: dict[tuple[HostSpec, str], Host] = {}
_lock = threading.Lock()


def connect(spec: HostSpec, run: str) -> Host:
    """The host of a profile's entry, with the one connection that this process has to it. Raises RunbookError."""
    with _lock:
        if (spec, run) in _hosts:
            return _hosts[spec, run]
    host = Host(spec, run, LocalTransport(spec.name) if spec.is_here else _ssh(spec))  # may ask ssh, which takes time
    with _lock:
        return _hosts.setdefault((spec, run), host)


def _ssh(spec: HostSpec) -> SshTransport:
    link = link_to(login.of(spec.entry()))
    if spec.environment and spec.environment.startswith(("/", "~/")):
        link.python = spec.environment  # for machines whose only Python is the one that the profile names
    return SshTransport(spec.name, link)


def launchers(run: Run) -> dict[str, str]:
    """host -> the launcher of its supervisor, of `worker.launcher.LAUNCHERS`, as the preflight found it needed."""
    facts = run.host_facts()
    return {spec.name: UNIT if facts.get(spec.name, {}).get("unit") else PROCESS for spec in run.profile.hosts}


def ask_host(run: Run, spec: HostSpec, do: Callable[[Host], T]) -> T | RunbookError:
    """Return the result of `do` for one host. Any exception is this host's failure: it may send anything."""
    try:
        return do(connect(spec, run.name))
    except RunbookError as error:
        return error
    except OSError as error:
        return HostError(f"{spec.name}: {error}")
    except Exception as error:
        what = f"{type(error).__name__}: {safe_text(str(error), 300)}"
        return HostError(f"{spec.name}: what it sent cannot be understood ({what}); nothing was taken from it")


class Results(dict[str, T | RunbookError]):
    """The results of one action on several hosts: host -> result or failure, in the profile's order."""

    @property
    def ok(self) -> dict[str, T]:
        """The hosts that succeeded, each with its result."""
        return {name: result for name, result in self.items() if not isinstance(result, RunbookError)}

    @property
    def failures(self) -> dict[str, RunbookError]:
        """The hosts that failed, each with the error."""
        return {name: result for name, result in self.items() if isinstance(result, RunbookError)}


def side_by_side(run: Run, do: Callable[[Host], T]) -> Results[T]:
    """Call `do` for every host of the run at once, so that one dead host hides no other."""
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(run.hosts))) as pool:
        results = pool.map(lambda spec: ask_host(run, spec, do), run.hosts)
        return Results(zip([spec.name for spec in run.hosts], results, strict=True))
