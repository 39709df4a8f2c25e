"""One SSH connection to one machine, kept open, and the few sessions on it.

paramiko's own keepalive does not notice every dead link. Here every wait has a deadline; after a missed one the whole
connection is thrown away, and the next use makes a new one.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import paramiko

from ...errors import HostError, LinkLost
from .dial import LoginRefused, dial, hang_up
from .login import Login
from .session import COMMAND, Heard, Patience, Session
from .transport import Connection

SESSIONS = 4  # of the ten that OpenSSH allows a connection by default
PAUSE_LIMIT_S = 10.0
AGAIN_S = 3.0
NARROW, WIDE = 2**21, 2**24  # bytes: the most that a session buffers of what a host sends
FAST_BYTES_S = 500e6

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False  # our messages already say what its tracebacks say

_refused: dict[Login, str] = {}
_links: dict[Login, Link] = {}
_registry = threading.Lock()


def link_to(login: Login, patience: Patience | None = None) -> Link:
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

    def __init__(self, login: Login, patience: Patience):
        self.login, self.patience = login, patience
        self.python = ""  # tried first as the far end's Python
        self.limit = SESSIONS
        self.connections = 0  # made so far
        self._transport: Connection | None = None
        self._idle: list[Session] = []
        self._open: list[Session] = []
        self._pending = 0
        self._window = NARROW
        self._heard = Heard()
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._begun = 0  # sessions on the present connection
        self._free = threading.Condition()
        self._connecting = threading.Lock()
        self._opening = threading.Lock()  # paramiko confuses the refusals of two channels that were requested at once

    # ------------------------------------------------------------------------------------------ sessions

    @contextmanager
    def session(self, wait_s: float = 900.0) -> Iterator[Session]:
        """Yield a session for exclusive use, new or used again. LinkLost inside throws the connection away."""
        session = self._take(wait_s)
        try:
            yield session
        except LinkLost as error:
            self._throw_away(session.owner)
            raise _why(session.owner, self.login.name, error) from None
        finally:
            with self._free:
                self._open.remove(session)
                again = session.sound and session.owner is self._transport
                if again:
                    self._idle.append(session)
                self._free.notify_all()
            if not again:
                _close_quietly(session.channel)

    def _take(self, wait_s: float) -> Session:
        deadline = time.monotonic() + wait_s
        while True:
            with self._free:
                while self._idle:
                    session = self._idle.pop()
                    if session.channel.exit_status_ready():  # its far end ended: it was not used for long
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
        transport = self._connected()
        try:
            with self._opening:
                channel = transport.open_session(window_size=self._window, timeout=self.patience.channel_s)
        except paramiko.ChannelException as error:
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
            self._throw_away(transport)  # it still counts one that we closed
            return None
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._throw_away(transport)
            lost = LinkLost(f"{self.login.name}: opening a session: {error or type(error).__name__}")
            raise _why(transport, self.login.name, lost) from None
        self._begun += 1
        try:
            with _at_most(self.patience.channel_s + self.patience.login_s, transport):
                channel.exec_command(COMMAND)
                session = Session(channel, self.login.name, self.patience, self.python, self._heard)
            session.owner = transport
            return session
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._throw_away(transport)
            lost = LinkLost(f"{self.login.name}: starting a session: {error or type(error).__name__}")
            raise _why(transport, self.login.name, lost) from None
        except LinkLost as error:
            self._throw_away(transport)
            raise _why(transport, self.login.name, error) from None
        except BaseException:
            _close_quietly(channel)
            raise

    def room(self) -> int:
        """Count the sessions that the server allows on this connection, up to our limit, by opening them."""
        with self.session() as session:
            channels: list[Any] = []
            try:
                while len(channels) + len(self._open) + len(self._idle) < SESSIONS:
                    with self._opening:
                        channels.append(session.owner.open_session(timeout=self.patience.channel_s))
            except paramiko.ChannelException:
                pass
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise LinkLost(f"{self.login.name}: opening a session: {error or type(error).__name__}") from None
            finally:
                for channel in channels:
                    _close_quietly(channel)
            return len(channels) + len(self._open) + len(self._idle)

    def _throw_away(self, transport: Connection | None) -> None:
        with self._free:
            if transport is None or transport is not self._transport:
                return  # another thread noticed it first
            self._transport = None
            stale, self._idle = self._idle, []
            if transport.flood:  # not connected again at once, so that it is reported
                self._why, self._not_before = f"{self.login.name}: {transport.flood}", time.monotonic() + PAUSE_LIMIT_S
        for session in stale:
            _close_quietly(session.channel)
        hang_up(transport)

    def close(self) -> None:
        """Close the connection."""
        self._throw_away(self._transport)

    # ------------------------------------------------------------------------------------------ connecting

    def _connected(self) -> Connection:
        with self._connecting:
            transport = self._transport
            if transport is not None and transport.is_active():
                return transport
            self._throw_away(transport)
            if self.login in _refused:
                raise LoginRefused(f"{_refused[self.login]} (not tried again)")
            if (left := self._not_before - time.monotonic()) > 0:
                raise LinkLost(f"{self._why}; next try in {left:.0f} s")
            patience = self.patience
            if self._failures:  # it was silent a moment ago, and a look at many hosts waits for all of them
                patience = replace(patience, connect_s=min(patience.connect_s, AGAIN_S))
            try:
                transport = dial(self.login, patience, lambda hop: link_to(hop, self.patience)._connected())
            except LoginRefused as error:
                _refused[self.login] = str(error)
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
                self._transport = transport
                self.limit, self._begun = SESSIONS, 0
            with _at_most(self.patience.silence_s, transport):
                self._window = _window_for(transport)
            self._watch(transport)
            return transport

    def _watch(self, transport: Connection) -> None:
        """End a send that hangs without any time-out (the peer acknowledges and never reads)."""

        def look() -> None:
            while transport.is_active():
                time.sleep(0.5)
                with self._free:
                    since = [s.sending_since for s in self._open if s.sending_since is not None]
                if since and time.monotonic() - min(since) > self.patience.silence_s + 1.0:
                    self._throw_away(transport)

        threading.Thread(target=look, name=f"watch {self.login.name}", daemon=True).start()


@contextmanager
def _at_most(seconds: float, transport: Connection) -> Iterator[None]:
    """Hang up when this takes longer: for some answers paramiko waits without end."""
    alarm = threading.Timer(seconds, hang_up, [transport])
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _window_for(transport: Connection) -> int:
    """Return the bytes that may be under way: enough to keep a fast link full for one round trip, timed here.

    More costs time: bytes that are not read at once pile up at the server and in paramiko's buffer, and are copied.
    """
    trips = []
    for _ in range(2):  # right after a login a server is busy with it
        began = time.monotonic()
        with suppress(paramiko.SSHException, OSError, EOFError):
            transport.global_request("keepalive@openssh.com", wait=True)
        trips.append(time.monotonic() - began)
    return int(min(WIDE, max(NARROW, min(trips) * FAST_BYTES_S)))


def _why(transport: Connection, name: str, error: LinkLost) -> LinkLost:
    """Return why a connection was lost: the server sent more than it may, or else `error`."""
    return LinkLost(f"{name}: {transport.flood}") if transport.flood else error


def _close_quietly(channel: Any) -> None:
    with suppress(Exception):
        channel.close()
