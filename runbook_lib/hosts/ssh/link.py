"""One SSH connection to one machine, kept open, and the few sessions on it.

By the person's own ssh (`client`), or by paramiko for what a credentials file gives (`dialled`). No keepalive notices
every dead link. Here every wait has a deadline; after a missed one the whole connection is thrown away, and the next
use makes a new one.
"""

from __future__ import annotations

import atexit
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

from ...errors import HostError, LinkLost
from . import client
from .alias import Alias
from .login import Login
from .rate import at_most
from .refused import LoginRefused, NoRoom
from .session import Channel, Heard, Patience, Session

SESSIONS = 4  # of the ten that OpenSSH allows a connection by default
PAUSE_LIMIT_S = 10.0
AGAIN_S = 3.0
WAIT_S = 900.0  # for a session, while others use them all

_refused: dict[Login | Alias, tuple[str, int]] = {}
_links: dict[Login | Alias, Link] = {}
_registry = threading.Lock()


class Connection(Protocol):
    """A logged-in connection: what `client.Client` and `dialled.Dialled` have in common."""

    may_hang: bool
    """Whether a send may hang without any time-out."""

    @property
    def flood(self) -> str:
        """What the server sent beyond a limit, if that ended the connection."""

    @property
    def borrowed(self) -> bool:
        """Whether a person keeps it open, and not we."""

    def alive(self) -> bool:
        """Whether it is there; a dead link may not have been noticed."""

    def open(self, timeout_s: float) -> Channel:
        """Start the far end over a channel. Raises NoRoom when the server allows no more, and LinkLost."""

    def hang_up(self) -> None:
        """Close it at once, without telling the far end: on a dead link that would block."""


def link_to(login: Login | Alias, patience: Patience | None = None) -> Link:
    """The one connection of this process for that login; made when it is first used."""
    with _registry:
        return _links.setdefault(login, Link(login, patience or Patience()))


def close_all() -> None:
    """Close every connection. Workers go on."""
    with _registry:
        links = list(_links.values())
        _links.clear()
    for link in links:
        link.close()


atexit.register(close_all)


class Link:
    """A connection, made when needed and made again after it broke."""

    def __init__(self, login: Login | Alias, patience: Patience):
        self.login, self.patience = login, patience
        self.python = ""  # tried first as the far end's Python
        self.limit = SESSIONS
        self.connections = 0  # made so far
        self._connection: Connection | None = None
        self._idle: list[Session] = []
        self._open: list[Session] = []
        self._pending = 0
        self._borrow = True
        self._heard = Heard()
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._begun = 0  # sessions on the present connection
        self._free = threading.Condition()
        self._connecting = threading.Lock()

    # ------------------------------------------------------------------------------------------ sessions

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session for exclusive use, new or used again. LinkLost inside throws the connection away."""
        session = self._take()
        try:
            yield session
        except LinkLost as error:
            self._throw_away(session.owner)
            raise _why(session.owner, self.login.name, error) from None
        finally:
            with self._free:
                self._open.remove(session)
                again = session.sound and session.owner is self._connection
                if again:
                    self._idle.append(session)
                self._free.notify_all()
            if not again:
                _close_quietly(session.channel)

    def _take(self) -> Session:
        deadline = time.monotonic() + WAIT_S
        while True:
            with self._free:
                while self._idle:
                    session = self._idle.pop()
                    if session.channel.exit_status_ready():  # its far end ended: it was not used for long
                        _close_quietly(session.channel)
                        continue
                    self._open.append(session)
                    return session
                if len(self._open) + self._pending >= self.limit:
                    if not self._free.wait(max(0.0, deadline - time.monotonic())):
                        raise LinkLost(f"{self.login.name}: all {self.limit} sessions of the connection stay in use")
                    continue
                self._pending += 1
            session_or_none = None
            try:
                session_or_none = self._new_session()
            finally:
                with self._free:
                    self._pending -= 1
                    if session_or_none:
                        self._open.append(session_or_none)
                    self._free.notify_all()
            if session_or_none:
                return session_or_none

    def _new_session(self) -> Session | None:
        """Open a session; None when the server allows no more beside the open ones."""
        connection = self._connected()
        try:
            channel = connection.open(self.patience.channel_s)
        except NoRoom as error:
            with self._free:
                busy = len(self._open) + len(self._idle) + self._pending - 1
                if busy:
                    self.limit = busy
                    return None
            if not self._begun:
                raise HostError(
                    f"{self.login.name}: the login works, but the server opens no session ({error}); "
                    "look at MaxSessions and ForceCommand in its sshd_config"
                ) from None
            self._throw_away(connection)  # it still counts one that we closed
            return None
        except LinkLost as error:
            self._throw_away(connection)
            raise _why(connection, self.login.name, error) from None
        self._begun += 1
        try:
            with at_most(self.patience.channel_s + self.patience.login_s, connection.hang_up):
                session = Session(channel, self.login.name, self.patience, self.python, self._heard)
            session.owner = connection
            return session
        except LinkLost as error:
            self._throw_away(connection)
            _close_quietly(channel)
            raise _why(connection, self.login.name, error) from None
        except BaseException:
            _close_quietly(channel)
            raise

    def room(self) -> int:
        """Count the sessions that the server allows on this connection, up to our limit: they are opened and kept."""
        with self.session():
            while True:
                with self._free:
                    count = len(self._open) + len(self._idle) + self._pending
                    if count >= self.limit:
                        return count
                    self._pending += 1
                found = None
                try:
                    found = self._new_session()
                finally:
                    with self._free:
                        self._pending -= 1
                        self._idle += [found] if found else []
                        self._free.notify_all()

    def _throw_away(self, connection: Connection | None) -> None:
        with self._free:
            if connection is None or connection is not self._connection:
                return  # another thread noticed it first
            self._connection = None
            self._borrow = self._borrow and not connection.borrowed  # it may not notice that its link is dead
            stale, self._idle = self._idle, []
            if connection.flood:  # not connected again at once, so that it is reported
                self._why, self._not_before = f"{self.login.name}: {connection.flood}", time.monotonic() + PAUSE_LIMIT_S
        for session in stale:
            _close_quietly(session.channel)
        connection.hang_up()

    def close(self) -> None:
        """Close the connection."""
        self._throw_away(self._connection)

    # ------------------------------------------------------------------------------------------ connecting

    def _connected(self) -> Connection:
        with self._connecting:
            connection = self._connection
            if connection is not None and connection.alive():
                return connection
            self._throw_away(connection)
            why, lendings = _refused.get(self.login, ("", 0))
            if why and lendings == client.lendings():  # nobody has logged in by hand, here or to a hop
                raise LoginRefused(f"{why} (not tried again)")
            if (left := self._not_before - time.monotonic()) > 0:
                raise LinkLost(f"{self._why}; next try in {left:.0f} s")
            patience = self.patience
            if self._failures:  # it was silent a moment ago, and a look at many hosts waits for all of them
                patience = replace(patience, connect_s=min(patience.connect_s, AGAIN_S))
            try:
                connection = self._connect(patience)
            except LoginRefused as error:
                _refused[self.login] = str(error), client.lendings()
                raise
            except LinkLost as error:
                self._failures += 1
                pause = min(PAUSE_LIMIT_S, 2.0 ** (self._failures - 1))
                self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)
                self._why = str(error)
                raise
            self._failures, self._not_before = 0, 0.0
            self.connections += 1
            with self._free:
                self._connection = connection
                self.limit, self._begun = SESSIONS, 0
            if connection.may_hang:
                self._watch(connection)
            return connection

    def _connect(self, patience: Patience) -> Connection:
        if isinstance(self.login, Alias):
            return client.connect(self.login, patience, self._borrow)
        from . import dialled  # paramiko takes a third of a second, and who uses their own ssh does without

        def hop(alias: Alias, address: str, port: int) -> socket.socket:
            return link_to(alias, self.patience).forward(address, port)

        return dialled.connect(self.login, patience, hop)

    def forward(self, address: str, port: int) -> socket.socket:
        """Return a socket to another machine through this one. Raises LinkLost."""
        connection = self._connected()
        assert isinstance(connection, client.Client)
        try:
            return connection.forward(address, port, self.patience.channel_s)
        except LinkLost:
            if not connection.alive():
                self._throw_away(connection)
            raise

    def _watch(self, connection: Connection) -> None:
        """End a send that hangs without any time-out (the peer acknowledges and never reads)."""

        def look() -> None:
            while connection.alive():
                time.sleep(0.5)
                with self._free:
                    since = [s.sending_since for s in self._open if s.sending_since is not None]
                if since and time.monotonic() - min(since) > self.patience.silence_s + 1.0:
                    self._throw_away(connection)

        threading.Thread(target=look, name=f"watch {self.login.name}", daemon=True).start()


def _why(connection: Connection, name: str, error: LinkLost) -> LinkLost:
    """Return why a connection was lost: the server sent more than it may, or else `error`."""
    return LinkLost(f"{name}: {connection.flood}") if connection.flood else error


def _close_quietly(channel: Any) -> None:
    with suppress(Exception):
        channel.close()
