"""What ssh's own log says of a login that failed: which refusal it was, of which machine, in whose words.

The log (`-E`, LogLevel DEBUG1) is ssh's alone: a server's banner goes to standard error, what it says before the key
exchange stands behind `debug1:`. Two kinds of line quote a server, line breaks and all: its farewell, after which
nothing counts any more, and its remarks (`Remote:`), before which alone the end of the key exchange is believed. Lines
are the same from OpenSSH 7.4 to 10.5. Hops log to standard error; what they say counts until the last machine's own key
exchange has ended, for what came after it, a banner, may quote anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from worker.escape import safe_text

LINE_LIMIT = 2000  # characters kept of a line
KEPT = 40  # lines kept of each kind
CONNECTED = "debug1: SSH2_MSG_NEWKEYS received"
KEY = re.compile(r"debug1: Server host (?:key|certificate): (\S+) (SHA256:[\w+/]+)", re.ASCII)
MACHINE = re.compile(r"debug1: Authenticating to (\S+) as '")
NAME = re.compile(
    r"(?:No \S+ host key is known for (\S+) and you have|(?:\S+ )?[Hh]ost key for (\S+) (?:has changed|was revoked))"
)
OFFENDING = re.compile(r"Offending (?:\S+ )?key (?:for IP )?in (.+:\d+)")
DENIED = re.compile(r"(?:(\S+)@(\S+): )?Permission denied(?: \(|,)")
OFFERED = re.compile(r"debug1: Offering (?:\S+ )?public key: (.+)")
METHODS = re.compile(r"debug1: Authentications that can continue: ([\w,@.-]+)", re.ASCII)
FAREWELL = re.compile(r"Received disconnect from \S+(?: port \d+)?:\s?\d+: (.*)")
# Closed before a word: too many connections are in login there, or a proxy in between has nothing to say.
AT_THE_DOOR = re.compile(r"(?:kex|ssh)_exchange_identification: |Connection (?:reset|closed) by .* \[preauth\]")


@dataclass
class Account:
    """What one stream of lines said so far. `machine`: the one that is logged in to, as ssh calls it."""

    machine: str = ""
    key: tuple[str, str] | None = None  # type and fingerprint of the host key that was shown
    key_refused: bool = False
    changed: bool = False
    revoked: bool = False
    known_as: str = ""
    offending: list[str] = field(default_factory=list)  # file:line of a known key that is another one
    connected: bool = False  # the key exchange ended: the host key was trusted
    denied: bool = False
    more_wanted: bool = False  # a second factor
    methods: str = ""
    offered: list[str] = field(default_factory=list)
    farewell: str = ""
    turned_away: bool = False
    words: list[str] = field(default_factory=list)  # lines that ssh writes for people
    remarks: list[str] = field(default_factory=list)  # the server's, about this account
    quoted: bool = False  # a server that nobody has checked yet may have written what follows

    def take(self, line: str) -> None:
        """Read one line, without its end."""
        line = line[:LINE_LIMIT].rstrip("\r")
        if match := FAREWELL.match(line):
            self.farewell = self.farewell or safe_text(match[1].strip() or "no reason given", 300)
        if self.farewell or not line.strip():
            return
        if line.startswith("debug1: "):
            self._detail(line)
            return
        if len(self.words) < KEPT:
            self.words.append(safe_text(line.strip(), 300))
        if not self.connected:
            self._key(line)
            self.turned_away = self.turned_away or AT_THE_DOOR.match(line) is not None
        elif DENIED.match(line):
            self.denied = True
        elif "with partial success" in line:
            self.more_wanted = True

    def _detail(self, line: str) -> None:
        if match := MACHINE.match(line):  # of a hop after another one
            vars(self).update(vars(Account(machine=safe_text(match[1], 100), words=self.words, quoted=self.quoted)))
        elif line.startswith("debug1: Remote: "):
            self.quoted = self.quoted or not self.connected
            if len(self.remarks) < KEPT and ": key options: " not in line:
                self.remarks.append(safe_text(line[16:], 300))
        elif not self.connected and (match := KEY.match(line)):
            self.key = (match[1], match[2])
        elif line == CONNECTED and not self.quoted:
            self.connected = True
        elif (match := OFFERED.match(line)) and len(self.offered) < KEPT:
            self.offered.append(safe_text(match[1], 200))
        elif match := METHODS.match(line):
            self.methods = match[1]

    def _key(self, line: str) -> None:
        """Read what ssh says of a host key that it does not take."""
        self.key_refused = self.key_refused or line.startswith("Host key verification failed")
        self.changed = self.changed or "REMOTE HOST IDENTIFICATION HAS CHANGED" in line
        self.revoked = self.revoked or "REVOKED HOST KEY DETECTED" in line or " revoked by file " in line
        if match := NAME.match(line):
            self.known_as = self.known_as or (match[1] or match[2]).rstrip(",.")
        if (match := OFFENDING.match(line)) and len(self.offending) < KEPT:
            self.offending.append(safe_text(match[1], 300))

    @property
    def last_words(self) -> str:
        """The last that ssh wrote for people, without the frame around a warning."""
        words = [word for word in self.words if word.strip("@ ")]
        return "; ".join(dict.fromkeys(words[-3:]))


class Lines:
    """Cuts a stream of bytes into lines; one without end is cut off."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[str]:
        """Return the lines that these bytes complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE_LIMIT]
        return [line.decode(errors="replace") for line in lines]
