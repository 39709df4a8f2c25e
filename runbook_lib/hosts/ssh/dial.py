"""Open a logged-in SSH connection, or say in a plain sentence why not.

The order makes it safe: TCP (the kernel notices a dead link), key exchange, the check of the host key, and only then a
login with exactly the given keys and password, each tried once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko

from worker.escape import safe_text

from ...errors import LinkLost
from . import known_hosts
from .alias import Alias
from .known_hosts import HostKeys
from .login import Login
from .refused import LoginRefused, TurnedAway, patiently
from .session import Patience
from .transport import Connection

READ_AHEAD = 2**16
BY_THEIR_OWN = "name the machine as `ssh: ALIAS` in place of credentials, and answer once: runbook login ALIAS"
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
DIGESTS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

Through = Callable[[Alias, str, int], socket.socket]  # through a hop, to an address and a port


def dial(login: Login, patience: Patience, hop: Through) -> Connection:
    """Return a logged-in connection. Raises LinkLost when unreachable, HostKeyRefused or LoginRefused for good."""
    return patiently(lambda: _once(login, patience, hop))


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
    if login.jump:
        return hop(login.jump, login.address, login.port)
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
    where = f"{login.name}: {login.address} port {login.port}"
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
            raise TurnedAway(f"{where}: closed before it said anything ({text})") from None
        raise LinkLost(f"{where}: no SSH connection could be set up: {text}") from None
    seconds = patience.banner_s + patience.login_s
    raise LinkLost(f"{where}: no SSH connection could be set up within {seconds:g} s")


def _log_in(login: Login, transport: Connection, patience: Patience) -> None:
    tried: list[str] = []
    try:
        _offer(login, transport, tried)
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


def _offer(login: Login, transport: Connection, tried: list[str]) -> None:
    """Offer only what was given, each once: the key, then the password."""
    if login.key is not None:
        key = _load(login.key, login)
        tried.append(str(login.key))
        try:
            if not transport.auth_publickey(login.username, key):
                return
        except paramiko.BadAuthenticationType:
            pass  # this server takes no keys
        except paramiko.AuthenticationException as error:
            if _is_late(error) or not transport.is_active():
                raise
        else:
            raise LoginRefused(f"{login.name}: the server wants a second factor after the key; {BY_THEIR_OWN}")
    if login.password is not None and transport.is_active():
        tried.append("the password")
        if not transport.auth_password(login.username, login.password.reveal()):
            return
        raise LoginRefused(f"{login.name}: the server wants more than the password; {BY_THEIR_OWN}")
    raise paramiko.AuthenticationException


def _is_late(error: Exception) -> bool:
    return isinstance(error, paramiko.AuthenticationException) and "timeout" in str(error).lower()


def _refusal(login: Login, tried: list[str], why: str) -> str:
    offered = ", ".join(tried)
    return (
        f"{login.name}: {login.address} does not let {login.username} in; offered: {offered}"
        f"{f' ({why})' if why else ''}. Each was tried once. "
        f"Try by hand: ssh -p {login.port} {login.username}@{login.address}"
    )


def _load(path: Path, login: Login) -> paramiko.PKey:
    passphrase = login.passphrase.reveal().encode() if login.passphrase else None
    try:
        return paramiko.PKey.from_path(path, passphrase)
    except Exception as error:  # it may quote the file
        hint = (
            "it has a passphrase: name an environment variable as passphrase_env, or leave the key to your own ssh and "
            "its agent (`ssh: ALIAS` in place of credentials)"
        )
        raise LoginRefused(
            f"{login.name}: the key {path} cannot be used ({type(error).__name__}); "
            + (hint if login.passphrase is None else "the passphrase may be wrong")
        ) from None
