"""Open a logged-in SSH connection, or say in a plain sentence why not.

The order makes it safe: TCP (the kernel notices a dead link), key exchange, the check of the host key, and only then a
login with exactly the given keys and password, each tried once.
"""

from __future__ import annotations

import base64
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko

from worker.escape import safe_text

from ...errors import HostError, LinkLost
from . import known_hosts
from .known_hosts import HostKeys
from .login import Login
from .session import Patience
from .transport import Connection

READ_AHEAD = 2**16
KEYS_TRIED = 5  # of the six logins that OpenSSH allows a connection by default
REFUSED_TRIES = 4  # a server with many connections in login turns some away (MaxStartups)
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
DIGESTS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

Through = Callable[[Login], paramiko.Transport]  # the connection to a hop

_environment = threading.Lock()


class LoginRefused(HostError):
    """The machine refuses the login. Never retried automatically: accounts get locked."""


def dial(login: Login, patience: Patience, hop: Through) -> Connection:
    """Return a logged-in connection. Raises LinkLost when unreachable, HostKeyRefused or LoginRefused for good."""
    for attempt in range(REFUSED_TRIES):
        try:
            return _once(login, patience, hop)
        except _TurnedAway as error:
            if attempt == REFUSED_TRIES - 1:
                raise LinkLost(str(error)) from None
            time.sleep(2.0**attempt * random.uniform(0.3, 0.8))  # so that not all clients retry at the same moment
    raise AssertionError


class _TurnedAway(LinkLost):
    """Closed before the key exchange: too many connections are in login there."""


def _once(login: Login, patience: Patience, hop: Through) -> Connection:
    keys = known_hosts.of(login)
    sock = _socket(login, patience, hop)
    transport = None
    try:
        transport = Connection(sock)
        _prefer(transport, keys)
        key = _key_exchange(login, transport, patience)
        keys.check(key.get_name(), key.asbytes())  # no secret has been sent up to here
        _log_in(login, transport, patience)
        return transport
    except BaseException:
        if transport is not None:
            hang_up(transport)
        sock.close()
        raise


def _socket(login: Login, patience: Patience, hop: Through) -> Any:
    where = f"{login.name}: reaching {login.address} port {login.port}"
    if login.proxy_command:
        return _by_command(login.proxy_command)
    if login.jump:
        try:
            return hop(login.jump).open_channel(
                "direct-tcpip", (login.address, login.port), ("127.0.0.1", 0), timeout=patience.connect_s
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise LinkLost(f"{where} through {login.jump.name}: {error or type(error).__name__}") from None
    try:
        sock = socket.create_connection((login.address, login.port), timeout=patience.connect_s)
    except TimeoutError:
        raise LinkLost(f"{where}: no answer within {patience.connect_s:g} s") from None
    except OSError as error:
        raise LinkLost(f"{where}: {error.strerror or error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # makes questions six times faster
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The kernel finds a dead link while we send (user time-out) and while we wait (keepalive). Each name is missing on
    # some system; there the deadlines of the session remain.
    for name, value in (
        ("TCP_USER_TIMEOUT", int(patience.silence_s * 1000)),
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPALIVE", 5),
        ("TCP_KEEPINTVL", 3),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return _Prompt(fileno=sock.detach())


class _Prompt(socket.socket):
    """A socket that acknowledges at once and reads ahead.

    A server that holds back small packets until an acknowledgement costs 40 ms a question. And paramiko takes two or
    three small reads for a packet: a file on its way up brings thousands of short packets the other way.
    """

    left = 300  # for the first questions: with a file it would cost one more call a packet
    ahead = memoryview(b"")

    def recv(self, n: int, *flags: int) -> bytes:
        """Receive as usual; the kernel drops the option after a while, so it is set again."""
        if not self.ahead:
            self.ahead = memoryview(super().recv(max(n, READ_AHEAD), *flags))
            if self.left and hasattr(socket, "TCP_QUICKACK"):
                self.left -= 1
                with suppress(OSError):
                    self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data, self.ahead = self.ahead[:n], self.ahead[n:]
        return bytes(data)


def _by_command(command: str) -> socket.socket:
    """Return a socket to a command's input and output; unlike paramiko's ProxyCommand, it notices the end."""
    ours, theirs = socket.socketpair()
    with theirs:
        # By a shell, as ssh does it; without the terminal, so that it cannot ask there and no Ctrl-C reaches it.
        child = subprocess.Popen(
            f"exec {command}",
            shell=True,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        while ours.fileno() >= 0 and child.poll() is None:
            time.sleep(0.2)
        child.terminate()
        child.wait()

    threading.Thread(target=end, name="proxy command", daemon=True).start()
    return ours


def _prefer(transport: paramiko.Transport, keys: HostKeys) -> None:
    options = transport.get_security_options()
    options.ciphers = [c for c in CIPHERS if c in options.ciphers]
    options.digests = [d for d in DIGESTS if d in options.digests]
    known = [t for t in keys.types() if t in options.key_types]
    options.key_types = known + [t for t in options.key_types if t not in known]


def hang_up(transport: paramiko.Transport) -> None:
    """Close a connection at once, without telling the far end: on a dead link that would block."""
    with suppress(Exception):
        transport.sock.close()
    with suppress(Exception):
        transport.close()


def _key_exchange(login: Login, transport: Connection, patience: Patience) -> paramiko.PKey:
    """Start the encryption; return the key that the host showed."""
    transport.banner_timeout = patience.banner_s
    transport.handshake_timeout = patience.login_s
    transport.auth_timeout = patience.login_s
    where = f"{login.name}: {login.address} port {login.port}{' by its ProxyCommand' if login.proxy_command else ''}"
    try:
        transport.start_client(timeout=patience.banner_s + patience.login_s)
        if transport.initial_kex_done:  # else the time is over, though nothing was raised
            return transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        if transport.flood:
            raise LinkLost(f"{where}: {transport.flood}") from None
        text = transport.farewell or safe_text(str(error), 300) or type(error).__name__
        if isinstance(error.__context__, TimeoutError):
            raise LinkLost(f"{where}: takes connections and says nothing for {patience.banner_s:g} s") from None
        if "banner" in text or (isinstance(error, EOFError) and not transport.remote_version):
            raise _TurnedAway(f"{where}: closed before it said anything ({text})") from None
        raise LinkLost(f"{where}: no SSH connection could be set up: {text}") from None
    seconds = patience.banner_s + patience.login_s
    raise LinkLost(f"{where}: no SSH connection could be set up within {seconds:g} s")


def _log_in(login: Login, transport: Connection, patience: Patience) -> None:
    tried: list[str] = []
    try:
        with _agent_keys(login) as held:
            _offer(login, transport, _keys(login, held), tried)
    except (paramiko.SSHException, OSError, EOFError) as error:
        if transport.flood:
            raise LinkLost(f"{login.name}: {transport.flood}") from None
        if _is_late(error):
            raise LinkLost(f"{login.name}: the login was not answered within {patience.login_s:g} s") from None
        if transport.farewell:  # such as "Too many authentication failures"
            raise LoginRefused(_refusal(login, tried, transport.farewell)) from None
        if not transport.is_active() or not isinstance(error, paramiko.AuthenticationException):
            text = safe_text(str(error), 300) or type(error).__name__
            raise LinkLost(f"{login.name}: the connection broke during the login ({text})") from None
        why = "passwords are not accepted there" if isinstance(error, paramiko.BadAuthenticationType) else ""
        raise LoginRefused(_refusal(login, tried, why)) from None


def _offer(login: Login, transport: Connection, keys: Iterator[tuple[str, Any]], tried: list[str]) -> None:
    """Offer only what was given: the keys that the login names, the agent's keys, then the password, once."""
    for label, key in keys:
        if len(tried) == KEYS_TRIED:
            break
        tried.append(label)
        try:
            if not transport.auth_publickey(login.username, key):
                return
        except paramiko.BadAuthenticationType:
            break  # this server takes no keys
        except paramiko.AuthenticationException as error:
            if _is_late(error) or not transport.is_active():
                raise
            continue
        raise LoginRefused(f"{login.name}: the server wants a second factor after the key, which cannot be given here")
    if login.password is not None and transport.is_active():
        tried.append("the password")
        if not transport.auth_password(login.username, login.password.reveal()):
            return
        raise LoginRefused(f"{login.name}: the server wants more than the password, which cannot be given here")
    raise paramiko.AuthenticationException


def _is_late(error: Exception) -> bool:
    return isinstance(error, paramiko.AuthenticationException) and "timeout" in str(error).lower()


def _refusal(login: Login, tried: list[str], why: str) -> str:
    offered = ", ".join(tried) if tried else "nothing: no key that could be read, no agent, no password"
    return (
        f"{login.name}: {login.address} does not let {login.username} in; offered: {offered}"
        f"{f' ({why})' if why else ''}. Each was tried once. "
        f"Try by hand: ssh -p {login.port} {login.username}@{login.address}"
    )


def _keys(login: Login, held: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield (label, key) in the order to try: named key files (by the agent where it holds them), then the agent's."""
    offered = set()
    for path in login.keys:
        public = _public_blob(path)
        for key in held:
            if public and key.asbytes() == public:
                offered.add(key.asbytes())
                yield f"{path} (by the agent)", key
                break
        else:
            if path.suffix != ".pub" and (loaded := _load(path, login)) is not None and loaded.asbytes() not in offered:
                offered.add(loaded.asbytes())
                yield str(path), loaded
    if not login.only_keys:
        for key in held:
            if key.asbytes() not in offered:
                yield f"a key of the agent ({key.get_name()})", key


def _load(path: Path, login: Login) -> paramiko.PKey | None:
    passphrase = login.passphrase.reveal().encode() if login.passphrase else None
    try:
        return paramiko.PKey.from_path(path, passphrase)
    except Exception as error:
        # The error may quote the file. One of several default keys that cannot be used is skipped, as ssh does.
        if login.passphrase is None and len(login.keys) > 1:
            return None
        hint = "it has a passphrase: name an environment variable as passphrase_env, or add it to the agent (ssh-add)"
        raise LoginRefused(
            f"{login.name}: the key {path} cannot be used ({type(error).__name__}); "
            + (hint if login.passphrase is None else "the passphrase may be wrong")
        ) from None


def _public_blob(path: Path) -> bytes | None:
    """Return the public half of a key file; `path` itself may be one, if the agent has the private half."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return base64.b64decode(public.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def _agent_keys(login: Login) -> Iterator[list[Any]]:
    """Yield the agent's keys while it is connected; none if there is no agent, or it is not to be used."""
    agent = None
    with _environment:  # paramiko knows the agent by this variable only
        before = os.environ.get("SSH_AUTH_SOCK")
        if login.agent_socket:
            os.environ["SSH_AUTH_SOCK"] = login.agent_socket
        try:
            with suppress(paramiko.SSHException, OSError):
                agent = paramiko.Agent() if login.use_agent else None
        finally:
            if login.agent_socket:
                os.environ.pop("SSH_AUTH_SOCK", None)
                if before is not None:
                    os.environ["SSH_AUTH_SOCK"] = before
    try:
        yield list(agent.get_keys()) if agent else []
    finally:
        if agent:
            agent.close()
