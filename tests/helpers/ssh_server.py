"""An SSH server inside the test's own process that keeps what clients tell it.

It stands in for a host where no sshd is, and for an impostor everywhere: it records who tried to log in, how, and with
which passwords. Commands are real processes under /bin/sh; there is no SFTP and no terminal.

    with ssh_server.start(folder) as server:
        connect(server.address, server.port)
        assert server.passwords_seen == []
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import fleet

_Challenge = tuple[str, str, str, Sequence[tuple[str, bool]]]


@dataclass
class Server:
    """How to log in, and what was seen so far."""

    folder: Path
    host_key: asyncssh.SSHKey
    address: str = "127.0.0.1"
    port: int = 0
    username: str = "mapper"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    attempts: list[tuple[str, str]] = field(default_factory=list)  # (username, method), as they came
    passwords_seen: list[str] = field(default_factory=list)
    connections: int = 0
    commands: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, as ssh-keygen prints it."""
        return self.host_key.get_fingerprint()

    @property
    def key(self) -> Path:
        """The private key that logs in."""
        return self.folder / "client_key"

    @property
    def home(self) -> Path:
        """Where commands start."""
        return self.folder / "home"

    @property
    def credentials(self) -> Path:
        """A credentials file with the key."""
        return self.folder / "server.credentials"

    def write_credentials(self, path: Path, password: bool = False, **extra: Any) -> None:
        """As `fleet.Host.write_credentials`."""
        login = {"password": self.password} if password else {"key_filename": str(self.key)}
        entries = {"address": self.address, "port": self.port, "username": self.username, **login}
        fleet.write_private(path, {**entries, "host_key": self.fingerprint, **extra})


@dataclass
class _Rules:
    refuse_passwords: bool
    only_keyboard_interactive: bool
    banner: str
    max_attempts: int | None


class _Session(asyncssh.SSHServer):
    """One connection until it is logged in."""

    def __init__(self, server: Server, rules: _Rules, client_key: asyncssh.SSHKey, open_now: set[Any]) -> None:
        self.server, self.rules, self.client_key, self.open_now = server, rules, client_key, open_now
        self.failures = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn
        self.server.connections += 1
        self.open_now.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_now.discard(self.conn)

    def begin_auth(self, username: str) -> bool:
        if self.rules.banner:
            self.conn.send_auth_banner(self.rules.banner)
        self._expect_another()
        return True

    def public_key_auth_supported(self) -> bool:
        return not self.rules.only_keyboard_interactive

    def password_auth_supported(self) -> bool:
        return not self.rules.only_keyboard_interactive

    def kbdint_auth_supported(self) -> bool:
        return self.rules.only_keyboard_interactive

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        ours = key.public_data == self.client_key.public_data
        return self._judge(username, "publickey", ours)

    def validate_password(self, username: str, password: str) -> bool:
        self.server.passwords_seen.append(password)
        return self._judge(username, "password", password == self.server.password)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> _Challenge:
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        self.server.passwords_seen += responses
        return self._judge(username, "keyboard-interactive", list(responses) == [self.server.password])

    def _judge(self, username: str, method: str, right: bool) -> bool:
        self.server.attempts.append((username, method))
        refused = method != "publickey" and self.rules.refuse_passwords
        if right and username == self.server.username and not refused:
            return True
        self._expect_another()
        self.failures += 1
        if self.failures == self.rules.max_attempts:
            self.conn.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
        return False

    def _expect_another(self) -> None:
        # paramiko asks for the service again before each attempt. OpenSSH allows that, asyncssh by itself hangs up.
        self.conn._next_service = b"ssh-userauth"


@contextlib.contextmanager
def start(
    folder: Path,
    *,
    host_key: Path | None = None,
    refuse_passwords: bool = False,
    only_keyboard_interactive: bool = False,
    banner: str = "",
    max_attempts: int | None = None,
) -> Iterator[Server]:
    """A server that is up; `host_key`: a private key file, else a new key; `max_attempts`: refusals, then hang up."""
    folder = folder.absolute()
    (folder / "home").mkdir(parents=True, exist_ok=True)
    key = asyncssh.read_private_key(host_key) if host_key else asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    server = Server(folder, key)
    server.key.touch(mode=0o600)
    client_key.write_private_key(server.key)
    rules = _Rules(refuse_passwords, only_keyboard_interactive, banner, max_attempts)
    loop = asyncio.new_event_loop()
    up: Future[asyncio.Event] = Future()
    thread = threading.Thread(target=_run, args=[loop, server, rules, client_key, up], name="ssh server", daemon=True)
    thread.start()
    ending = up.result(30)
    try:
        server.write_credentials(server.credentials)
        yield server
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()


def _run(
    loop: asyncio.AbstractEventLoop,
    server: Server,
    rules: _Rules,
    client_key: asyncssh.SSHKey,
    up: Future[asyncio.Event],
) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_serve(server, rules, client_key, up))


async def _serve(server: Server, rules: _Rules, client_key: asyncssh.SSHKey, up: Future[asyncio.Event]) -> None:
    ending = asyncio.Event()
    open_now: set[asyncssh.SSHServerConnection] = set()
    running: dict[asyncssh.SSHServerProcess[bytes], int | None] = {}  # to the pid, once it has one

    async def command(process: asyncssh.SSHServerProcess[bytes]) -> None:
        running[process] = None
        try:
            await _command(server, process, running)
        finally:
            del running[process]

    try:
        door = await asyncssh.create_server(
            lambda: _Session(server, rules, client_key, open_now),
            server.address,
            0,
            server_host_keys=[server.host_key],
            process_factory=command,
            encoding=None,
            reuse_address=True,
        )
    except BaseException as error:
        up.set_exception(error)
        return
    server.port = door.get_port()
    up.set_result(ending)
    await ending.wait()
    door.close()
    await door.wait_closed()
    for conn in list(open_now):
        conn.abort()
        await conn.wait_closed()
    while running:  # not left to the loop's own cancelling, which loses a child that is just being started
        for pid in filter(None, running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)


async def _command(
    server: Server,
    process: asyncssh.SSHServerProcess[bytes],
    running: dict[asyncssh.SSHServerProcess[bytes], int | None],
) -> None:
    server.commands.append(process.command or "")
    environment = {"HOME": str(server.home), "USER": server.username, "LOGNAME": server.username, "SHELL": "/bin/sh"}
    child = await asyncio.create_subprocess_exec(
        *(["/bin/sh", "-c", process.command] if process.command else ["/bin/sh"]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=server.home,
        env={"PATH": os.defpath, **environment},
        start_new_session=True,
    )
    assert child.stdin and child.stdout and child.stderr
    running[process] = child.pid
    feeding = asyncio.create_task(_feed(process, child.stdin))
    try:
        with contextlib.suppress(OSError):  # the client has gone
            await asyncio.gather(_pump(child.stdout, process.stdout), _pump(child.stderr, process.stderr))
        code = await child.wait()
        with contextlib.suppress(OSError):
            if code >= 0:
                process.exit(code)
            else:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    finally:
        feeding.cancel()


async def _feed(process: asyncssh.SSHServerProcess[bytes], stdin: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the command takes no more
        await _pump(process.stdin, stdin)
        stdin.close()


async def _pump(source: Any, sink: Any) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()
