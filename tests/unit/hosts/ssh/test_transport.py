"""Which of a server's messages count as carrying nothing: a flood of those ends the connection."""

import paramiko
import pytest

from runbook_lib.hosts.ssh import transport

KEEPALIVE, WINDOW, DATA, EXTENDED, DEBUG = 80, 93, 94, 95, 4


def message(*numbers: int, content: bytes | None = None) -> paramiko.Message:
    """A message of these numbers and, if given, a text behind them."""
    made = paramiko.Message()
    for number in numbers:
        made.add_int(number)
    if content is not None:
        made.add_string(content)
    return paramiko.Message(made.asbytes())


@pytest.mark.parametrize(
    ("kind", "sent", "nothing"),
    [
        (DATA, message(0, content=b"x"), False),
        (DATA, message(0, content=b""), True),
        (EXTENDED, message(0, 1, content=b"oops\n"), False),  # a line that a login prints on standard error
        (EXTENDED, message(0, 1, content=b""), True),
        (EXTENDED, message(0, 7, content=b"of no known stream"), True),
        (WINDOW, message(0, 65536), False),
        (KEEPALIVE, message(content=b"keepalive@openssh.com"), True),
        (DEBUG, message(content=b"words"), True),
    ],
)
def test_what_carries_nothing(kind: int, sent: paramiko.Message, nothing: bool) -> None:
    assert transport._says_nothing(kind, sent) is nothing
