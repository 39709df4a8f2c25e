"""A connection by the person's own ssh: a master that logs in, and channels through its control socket.

So certificates, agents, security keys, proxies and whatever else works in their terminal work here. The master is ours
and ends with this process, however that ends; or it is one that they opened, by `runbook login` or by their own
configuration, and is only used. Whether it is logged in is told by its socket, why it is not by its log (`ssh_log`),
never by an exit code alone or by what a server prints.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import LinkLost
from . import alias as aliases
from . import known_hosts, refusal
from .alias import Alias, Settings, one
from .far_end import COMMAND
from .folder import PLACE, Folder
from .pipes import PipeChannel, end
from .rate import Rate
from .refused import NoRoom, patiently
from .session import Patience
from .ssh_log import Account, Lines

LOOK_S = 0.01
DRAIN_MS = 500
CHECK_S = 5.0
CHATTER, CHATTER_S = 2**22, 2.0**16  # bytes of ssh's log, at once and a second
FILES = 1024  # open at a time: a Mac allows 256 unless asked, and a host takes up to 20
# Ends ssh and its proxies when the pipe from us closes, however that comes; ssh itself is the process that we started.
TIED = 'exec 3<&0; (read -r _ <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'
OPENED = "master session id: "
NO_MORE = "Session open refused by peer"
ON_ITS_OWN = ("debug1: Connecting to ", "debug1: Executing proxy command")  # past the master
UNCHECKED = ("no", "off", "false")  # StrictHostKeyChecking with which any machine is let by


def connect(alias: Alias, patience: Patience, borrow: bool = True) -> Client:
    """Return a connection to a machine. `borrow`: also through one that its person's own configuration keeps open.

    Raises HostKeyRefused and LoginRefused for good, LinkLost when it is not reached, Refused for the configuration.
    """
    chosen, hops = aliases.asked(alias)
    try:
        return _connect(alias, chosen, hops, patience, borrow)
    except OSError as error:  # no room for a folder, a file, a process
        raise LinkLost(f"{alias.name}: starting ssh: {error}") from None


def _connect(alias: Alias, chosen: Settings, hops: Sequence[Alias], patience: Patience, borrow: bool) -> Client:
    if is_alive(path := lent(alias)):
        return Client(alias, by_socket(path), path)
    if borrow and one(chosen, "controlpath") and one(chosen, "stricthostkeychecking") not in UNCHECKED:
        folder = Folder()
        command = ["ssh", "-F", str(folder.configuration(chosen, patience)), *alias.argv()[:-2]]
        theirs = Client(alias, command, None, folder)
        if theirs.alive():
            return theirs
        theirs.hang_up()
    lent_by = {hop.host: path for hop in hops if is_alive(path := lent(hop))}
    return patiently(lambda: _master(alias, chosen, lent_by, patience))


def lent(alias: Alias) -> Path:
    """Where `runbook login` leaves the control socket of its connection to a machine."""
    words = [os.environ.get(aliases.CONFIG) or "", *alias.argv()]
    name = known_hosts.fingerprint("\0".join(words).encode())[7:31].translate(str.maketrans("+/", "-_"))
    return PLACE / f"runbook-{os.getuid()}" / name


def lendings() -> int:
    """A number that changes whenever a person logs in by `runbook login`, or ends that."""
    try:
        return lent(Alias("", "")).parent.stat().st_mtime_ns
    except OSError:
        return 0


def is_alive(path: Path) -> bool:
    """Whether a master listens at that control socket, in a folder that is ours alone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        folder = path.parent.lstat()
        line.settimeout(CHECK_S)
        if folder.st_uid == os.getuid() and not folder.st_mode & 0o077:
            line.connect(str(path))
            return True
    return False


def by_socket(path: Path) -> list[str]:
    """Return an ssh that goes through the master at that socket, or nowhere: no configuration is read for it."""
    options = [f"ControlPath={path}", "ControlMaster=no", "ProxyCommand=exit 1", "BatchMode=yes", "LogLevel=DEBUG1"]
    return ["ssh", "-F", os.devnull, *(part for option in options for part in ("-o", option))]


class Client:
    """A logged-in connection. `command` is an ssh that goes through its master, up to the destination.

    `path` is the master's control socket, None for a master of the person's own configuration.
    """

    may_hang = False  # every wait of a channel has a deadline

    def __init__(self, alias: Alias, command: list[str], path: Path | None, folder: Folder | None = None):
        self.alias, self.command, self.path, self.folder = alias, command, path, folder or Folder()
        self.master: subprocess.Popen[bytes] | None = None  # if it is ours
        self.listener: _Listener | None = None
        self._channels = itertools.count()

    @property
    def borrowed(self) -> bool:
        """Whether the master is kept open by the person's own configuration, which may not notice a dead link."""
        return self.path is None

    @property
    def flood(self) -> str:
        """Which endless chatter of the server ended the connection; what it sends over a channel ssh holds back."""
        return self.listener.flood if self.listener else ""

    def alive(self) -> bool:
        """Whether the master is there."""
        if self.path is None:
            return _checked([*self.command, "-O", "check", "--", self.alias.host])
        return (self.master is None or self.master.poll() is None) and is_alive(self.path)

    def open(self, timeout_s: float) -> PipeChannel:
        """Start the far end over a channel of its own. Raises NoRoom when the server allows no more, and LinkLost."""
        log = self.folder.path / f"channel{next(self._channels)}"
        pipe = subprocess.PIPE
        channel = PipeChannel(self._start(["-E", str(log), "-T", "--", self.alias.host, COMMAND], pipe, pipe, pipe))
        try:
            self._opened(channel.child, log, timeout_s)
        except BaseException:
            channel.close()
            raise
        finally:
            log.unlink(missing_ok=True)
        return channel

    def forward(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """Return a socket to another machine, through this one. Raises LinkLost."""
        log = self.folder.path / f"channel{next(self._channels)}"
        ours, theirs = socket.socketpair()
        where = address if ":" not in address else f"[{address}]"
        options = ["-E", str(log), "-W", f"{where}:{port}", "--", self.alias.host]
        with theirs:
            child = self._start(options, theirs.fileno(), theirs.fileno(), subprocess.DEVNULL)
        threading.Thread(target=child.wait, name="forward", daemon=True).start()  # it ends with either side
        try:
            self._opened(child, log, timeout_s)
        except BaseException as error:
            ours.close()
            end(child)
            if isinstance(error, NoRoom):
                raise LinkLost(f"through {self.alias.name}: {self._last_words() or error}") from None
            raise
        finally:
            log.unlink(missing_ok=True)
        return ours

    def hang_up(self) -> None:
        """End the master at once, if it is ours, and with it all channels."""
        if self.master is not None:
            end(self.master)
            assert self.master.stdin
            self.master.stdin.close()
        self.folder.remove()

    def _last_words(self) -> str:
        return self.listener.own.last_words if self.listener else ""

    def _start(self, options: list[str], stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        argv, environment = [*self.command, *options], aliases.environment()
        try:  # in a session of its own: no Ctrl-C of our terminal reaches it
            return subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, env=environment
            )
        except OSError as error:
            raise LinkLost(f"{self.alias.name}: starting ssh: {error}") from None

    def _opened(self, child: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
        """Wait until the master opened a channel for a child. Raises NoRoom and LinkLost."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = child.poll() is not None  # first, so that its last line is read
            logged = log.read_text(errors="replace") if log.exists() else ""
            if OPENED in logged:
                return
            if NO_MORE in logged or (ended and self.borrowed and self.alive()):
                raise NoRoom(NO_MORE.lower())
            if ended or any(line.startswith(ON_ITS_OWN) for line in logged.splitlines()):
                raise LinkLost(f"{self.alias.name}: the connection was closed")
            time.sleep(LOOK_S)
        raise LinkLost(f"{self.alias.name}: no answer within {timeout_s:g} s")


def _checked(argv: list[str]) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        nothing = subprocess.DEVNULL
        done = subprocess.run(
            argv, stdin=nothing, stdout=nothing, stderr=nothing, timeout=CHECK_S, start_new_session=True,
            env=aliases.environment(), check=False,
        )  # fmt: skip
        return done.returncode == 0
    return False


# ---------------------------------------------------------------------------------------------- a master of ours


def _master(alias: Alias, chosen: Settings, lent_by: Mapping[str, Path], patience: Patience) -> Client:
    """Log in. The socket is there as soon as that is done."""
    _more_files()
    folder = Folder()
    path = folder.path / "s"
    client = Client(alias, by_socket(path), path, folder)
    try:
        options = ["-E", str(folder.log()), "-N", "-T", "-o", "ControlMaster=yes", "-o", f"ControlPath={path}"]
        argv = ["ssh", "-F", str(folder.configuration(chosen, patience, lent_by)), *options, "-o", "ControlPersist=no"]
        argv += [*folder.pin(alias), *alias.argv()]
        client.master = subprocess.Popen(
            ["/bin/sh", "-c", TIED, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, env=aliases.environment(),
        )  # fmt: skip
        client.listener = listener = _Listener(folder, client.master)
        listener.start()
        seconds = patience.connect_s + patience.banner_s + patience.login_s
        deadline = time.monotonic() + seconds
        while not path.exists():
            if client.master.poll() is not None:
                listener.join(1.0)
                raise refusal.why(alias, chosen, listener.own, listener.aside)
            if time.monotonic() > deadline:
                late = f"no connection could be set up within {seconds:g} s"
                raise refusal.why(alias, chosen, listener.own, listener.aside, late)
            time.sleep(LOOK_S)
        return client
    except BaseException:
        client.hang_up()
        raise


class _Listener(threading.Thread):
    """Reads all that a master says, for ssh stops when nobody does; most of it is forgotten."""

    def __init__(self, folder: Folder, child: subprocess.Popen[bytes]):
        super().__init__(name=f"log of ssh {child.pid}", daemon=True)
        self.own, self.aside = Account(), Account()
        self.flood = ""
        self._rate = Rate(CHATTER, CHATTER_S)
        self._child = child
        assert child.stderr
        self._log, self._err = folder.listen(), os.dup(child.stderr.fileno())
        child.stderr.close()
        os.set_blocking(self._err, False)

    def run(self) -> None:
        """Listen until ssh ended and all is read."""
        streams = {self._log: (Lines(), self.own), self._err: (Lines(), self.aside)}
        waiting = select.poll()
        for fd in streams:
            waiting.register(fd, select.POLLIN)
        while True:
            ended = self._child.poll() is not None
            waiting.poll(DRAIN_MS)
            data = {fd: _some(fd) for fd in streams}
            for fd, (lines, account) in streams.items():
                for line in lines.take(data[fd]):
                    if account is self.own or not self.own.connected:
                        account.take(line)
            if self._rate.exceeded(sum(map(len, data.values()))) and not self.flood:
                self.flood = "sends messages that nobody asked for without end; the connection was ended"
                end(self._child)
            if not any(data.values()):
                if ended:
                    break
                time.sleep(LOOK_S)  # before ssh opens its log, some systems say at once that it was closed
        for fd in streams:
            os.close(fd)


def _some(fd: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 2**16)
    return b""


def _more_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        with contextlib.suppress(OSError, ValueError):
            limit = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
