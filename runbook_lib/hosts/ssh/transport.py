"""An SSH connection that a server cannot use to fill our memory: if it sends more than it may, the connection ends.

paramiko keeps everything that comes: packets of any size, a first line without end, more data than a window allows.
Here each has a limit, which no honest server reaches; `flood` says which limit was passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import paramiko
from paramiko.packet import Packetizer

from worker.escape import safe_text

from .rate import Rate

WINDOW_ADJUST, DATA, EXTENDED_DATA = 93, 94, 95  # RFC 4254, 5.2
PACKET_LIMIT = 2**18  # bytes; OpenSSH takes no larger ones either
FIRST_LIMIT = 2**16  # bytes in front of the server's version, a line at a time
# Packets that carry no data: keepalives, keys again, debug messages. Standard error does: a login may print thousands
# of lines there, each a packet of its own on a slow machine, and how much it prints has a limit of its own.
CHATTER, CHATTER_S = 2000, 50.0
STDERR = 1  # the one stream beside a channel's own that RFC 4254 knows
SLACK = 2**15  # bytes over the window: what one packet holds
STRAY = 2**26  # bytes for closed channels: what was under way at the close, four of our largest windows


class Flooded(paramiko.SSHException):  # type: ignore[misc]
    """The server sent more than it may."""


class _Packets(Packetizer):  # type: ignore[misc]
    """Reads packets, none too large, and not too many without content."""

    def __init__(self, sock: Any):
        super().__init__(sock)
        self.flood = ""
        self.living: Callable[[int], Any] = lambda channel: None  # the channel of a number, None for one that is closed
        self._stray = 0
        self._first = 0
        self._chatter = Rate(CHATTER, CHATTER_S)

    def refuse(self, what: str) -> None:
        """End the connection because of what the server sent."""
        self.flood = f"{what}; the connection was ended"
        raise Flooded(self.flood)

    def _read_timeout(self, timeout: float) -> bytes:
        data: bytes = super()._read_timeout(timeout)
        self._first += len(data)
        if self._first > FIRST_LIMIT:
            self.refuse(f"says more than {FIRST_LIMIT} bytes before it says that it speaks SSH")
        return data

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > PACKET_LIMIT:
            self.refuse(f"sends a packet of {n} bytes, more than any server does")
        return super().read_all(n, check_rekey)  # type: ignore[no-any-return]

    def read_message(self) -> tuple[int, Any]:
        kind, message = super().read_message()
        if _says_nothing(kind, message) and self._chatter.exceeded():
            self.refuse(f"sends thousands of messages that carry nothing (the last of kind {kind})")
        if kind in (DATA, EXTENDED_DATA):
            self._count_stray(message.packet.getbuffer())
        return kind, message

    def _count_stray(self, packet: memoryview) -> None:
        """Limit the bytes for closed channels, which are thrown away: without end they would keep this machine busy."""
        if self.living(int.from_bytes(packet[:4], "big")) is None:
            self._stray += len(packet)
            if self._stray > STRAY:
                self.refuse(f"sent {self._stray} bytes that nobody asked for, to conversations that had ended")


def _says_nothing(kind: int, message: Any) -> bool:
    packet = message.packet.getbuffer()
    if kind == DATA:
        return bool(packet.nbytes <= 8)  # the channel and the length, which is 0
    if kind == EXTENDED_DATA:  # the channel, the stream, of which only standard error is known, and the length
        return bool(packet.nbytes <= 12 or int.from_bytes(packet[4:8], "big") != STDERR)
    return bool(kind != WINDOW_ADJUST)


def _hold(channel: Any, more: int) -> None:
    """Refuse more than the window allows: unread bytes of a channel never exceed the window that it was given."""
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer) + more
    if unread > channel.in_window_size + SLACK:
        channel.transport.packetizer.refuse(f"sent {unread} bytes that nobody asked for")


def _feed(channel: Any, message: Any) -> None:
    data = message.get_binary()
    _hold(channel, len(data))
    channel.in_buffer.feed(data)


def _feed_extended(channel: Any, message: Any) -> None:
    code, data = message.get_int(), message.get_binary()
    _hold(channel, len(data))
    if code == 1:
        channel.in_stderr_buffer.feed(data)


class Connection(paramiko.Transport):  # type: ignore[misc]
    """A paramiko transport with these limits. It also keeps a server's last words and the data before them."""

    farewell = ""
    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,
        DATA: _feed,
        EXTENDED_DATA: _feed_extended,
    }

    def __init__(self, sock: Any):
        super().__init__(sock, packetizer_class=_Packets)
        self.packetizer.living = self._channels.get

    @property
    def flood(self) -> str:
        """What the server sent beyond a limit, if that ended the connection."""
        return str(self.packetizer.flood)

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = safe_text(message.get_text(), 200)

    def _send_user_message(self, message: paramiko.Message) -> None:
        """Send as usual, but keep the data that came when the server can no longer be told of room for more."""
        try:
            super()._send_user_message(message)
        except (OSError, EOFError):
            if message.asbytes()[:1] != bytes([WINDOW_ADJUST]):
                raise
