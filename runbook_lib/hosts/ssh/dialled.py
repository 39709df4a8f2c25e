"""A connection by paramiko, for logins of a credentials file: channels with the far end, an end to what would hang."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import paramiko

from ...errors import LinkLost
from .dial import Through, dial, hang_up
from .far_end import COMMAND
from .login import Login
from .rate import at_most
from .refused import NoRoom
from .session import Patience
from .transport import Connection

NARROW, WIDE = 2**21, 2**24  # bytes: the most that a session buffers of what a host sends
FAST_BYTES_S = 500e6

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False  # our messages already say what its tracebacks say


def connect(login: Login, patience: Patience, hop: Through) -> Dialled:
    """Return a logged-in connection, as `dial` does."""
    return Dialled(login.name, dial(login, patience, hop), patience)


class Dialled:
    """A logged-in connection."""

    may_hang = True  # a send to a peer that acknowledges and never reads has no time-out
    borrowed = False

    def __init__(self, name: str, transport: Connection, patience: Patience):
        self.name, self.transport = name, transport
        self._opening = threading.Lock()  # paramiko confuses the refusals of two channels that were requested at once
        with at_most(patience.silence_s, self.hang_up):
            self._window = _window_for(transport)

    @property
    def flood(self) -> str:
        """What the server sent beyond a limit, if that ended the connection."""
        return self.transport.flood

    def alive(self) -> bool:
        """Whether the connection is there; a dead link may not have been noticed."""
        return bool(self.transport.is_active())

    def open(self, timeout_s: float) -> Any:
        """Start the far end over a channel of its own. Raises NoRoom when the server allows no more, and LinkLost."""
        try:
            with self._opening:
                channel = self.transport.open_session(window_size=self._window, timeout=timeout_s)
            with at_most(timeout_s, self.hang_up):
                channel.exec_command(COMMAND)
            return channel
        except paramiko.ChannelException as error:
            raise NoRoom(str(error)) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise LinkLost(f"{self.name}: opening a session: {error or type(error).__name__}") from None

    def hang_up(self) -> None:
        """Close the connection at once."""
        hang_up(self.transport)


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
