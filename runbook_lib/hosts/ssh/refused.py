"""Why a machine was not reached, where that is more than a lost link, and when to try again at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from ...errors import HostError, LinkLost

TRIES = 4  # a server with many connections in login turns some away (MaxStartups)

T = TypeVar("T")


class Refused(HostError):
    """Nothing was asked of a machine, nor will be without a person: what it does is unknown, as behind a lost link."""


class LoginRefused(Refused):
    """The machine refuses the login. Never retried automatically: accounts get locked."""


class HostKeyRefused(Refused):
    """A machine did not show a key that is trusted; nothing was sent to it."""


class NoRoom(Exception):
    """The server opens no further session on this connection."""


class TurnedAway(LinkLost):
    """Closed before the key exchange: too many connections are in login there."""


def patiently(connect: Callable[[], T]) -> T:
    """What `connect` returns, asked again after a pause while it is turned away. Raises LinkLost after the last try."""
    for attempt in range(TRIES):
        try:
            return connect()
        except TurnedAway as error:
            if attempt == TRIES - 1:
                raise LinkLost(str(error)) from None
            time.sleep(2.0**attempt * random.uniform(0.3, 0.8))  # so that not all clients retry at the same moment
    raise AssertionError
