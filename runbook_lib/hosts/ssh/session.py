"""One session with the far end (`worker.agent`) over one channel. It knows bytes and deadlines, not SSH."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from worker.escape import safe_text
from worker.fields import WireError
from worker.wire import Greeting

from ...errors import HostError, LinkLost
from . import answer_json, far_end
from .far_end import BOOTSTRAP, NO_PYTHON, PLACES
from .rate import Rate

NOISE_LIMIT = 2**20  # of what a login prints before the far end speaks
ANSWER_LIMIT = 16 * 2**20
HEAD_LIMIT = 2**16  # of a greeting, and of what goes before and after a file
SIGNS, SIGNS_S = 200, 50.0  # of life: an honest far end gives one in four seconds
UP_CHUNK = 2 * (2**15 - 64)  # two full packets of paramiko's with OpenSSH
SMALL = 2**15


@dataclass(frozen=True)
class Patience:
    """How long to wait for what. A link that brings no byte for `silence_s` is dead; so is one that trickles.

    `floor_bytes_s` over `floor_window_s`: slower than that is no transfer. `outage_s`: how long a transfer goes on
    trying without any progress.
    """

    connect_s: float = 10.0
    banner_s: float = 10.0
    login_s: float = 20.0
    channel_s: float = 15.0
    silence_s: float = 15.0
    floor_bytes_s: float = 16_000.0
    floor_window_s: float = 60.0
    outage_s: float = 90.0


class Channel(Protocol):
    """Two streams and a way to end them; what paramiko's Channel is."""

    def settimeout(self, timeout: float | None) -> None:
        """How long recv and sendall wait."""

    def recv(self, nbytes: int) -> bytes:
        """Some bytes; none at the end. Raises TimeoutError."""

    def recv_ready(self) -> bool:
        """Whether `recv` has something at once."""

    def recv_stderr_ready(self) -> bool:
        """Whether `recv_stderr` has something at once."""

    def recv_stderr(self, nbytes: int) -> bytes:
        """Some bytes of the other stream."""

    def sendall(self, s: bytes) -> None:
        """Send all of it. Raises TimeoutError and OSError."""

    def recv_exit_status(self) -> int:
        """The exit status of the command, once it ended."""

    def exit_status_ready(self) -> bool:
        """Whether it ended."""

    def close(self) -> None:
        """End both streams."""


@dataclass
class Heard:
    """When any session on one connection last received bytes: one may be silent while others fill the line."""

    at: float = 0.0


class Session:
    """One far end. Requests go one after the other; after LinkLost it cannot be used."""

    def __init__(self, channel: Channel, host: str, patience: Patience, python: str = "", heard: Heard | None = None):
        self.channel, self.host, self.patience, self.heard = channel, host, patience, heard or Heard()
        self.sending_since: float | None = None  # watched by the link: a send may hang without any time-out
        self.sound = False  # false from a request to the end of its answer
        self._have = bytearray()
        self._floor: SpeedFloor | None = None
        self._signs = Rate(SIGNS, SIGNS_S)
        self.owner: Any = None  # the connection of this session
        self.hello = self._open(python)

    # ------------------------------------------------------------------------------------------ bytes

    def _send(self, data: bytes) -> None:
        self.channel.settimeout(self.patience.silence_s)
        self.sending_since = time.monotonic()
        try:
            self.channel.sendall(data)
        except TimeoutError:
            raise self._lost(f"takes no byte for {self.patience.silence_s:g} s") from None
        except Exception as error:  # of any kind: a channel raises more than OSErrors
            raise self._lost(f"broke while sending ({str(error) or type(error).__name__})") from None
        finally:
            self.sending_since = None

    def _lost(self, what: str) -> LinkLost:
        return LinkLost(f"{self.host}: the connection {what}")

    def _receive(self, within_s: float) -> bytes:
        """Return the bytes that came within that time. LinkLost when the stream ends: no answer ends with it."""
        self.channel.settimeout(max(within_s, 0.01))
        try:
            data = self.channel.recv(2**26)  # all there is, a window at most: what stays is copied each time
        except TimeoutError:
            return b""
        except Exception as error:  # of any kind, as above: receiving also tells the server that it may send more
            raise self._lost(f"broke ({str(error) or type(error).__name__})") from None
        if not data:
            raise self._lost("was closed")
        self.heard.at = time.monotonic()
        if self._floor and self._floor.broken(len(data)):
            raise self._lost(f"brings less than {self.patience.floor_bytes_s / 1000:g} kB/s")
        return data

    def _next(self, deadline: float) -> bytes:
        """Wait for bytes, no longer than the link may be silent, and not beyond `deadline`."""
        since = time.monotonic()
        while True:
            now, dead = time.monotonic(), max(since, self.heard.at) + self.patience.silence_s
            if now >= deadline:
                raise self._lost("did not bring the answer in time")
            if now >= dead:
                raise self._lost(f"brought no byte for {self.patience.silence_s:g} s")
            if data := self._receive(min(deadline, dead) - now):
                return data

    def _more(self, deadline: float) -> None:
        self._have += self._next(deadline)

    def _has_message(self) -> bool:
        """Whether something other than signs of life came; does not wait."""
        while self.channel.recv_ready() and len(self._have) < HEAD_LIMIT:
            self._have += self._receive(0.0)
            while self._have.startswith(b"+\n"):
                self._sign()
                del self._have[:2]
        return bool(self._have) and self._have != b"+"

    def _sign(self) -> None:
        """Count a sign of life."""
        if self._signs.exceeded():
            raise HostError(f"{self.host}: sends signs of life without end, and no answer")

    def _line(self, deadline: float) -> bytes:
        while (end := self._have.find(b"\n")) < 0:
            if len(self._have) > 64:
                raise HostError(f"{self.host}: answers with something that is no frame")
            self._more(deadline)
        line = bytes(self._have[:end])
        del self._have[: end + 1]
        return line

    def _frame(self, deadline: float, limit: int) -> bytes:
        while (head := self._line(deadline)) == b"+":
            self._sign()
        size = int(head) if head.isdigit() and len(head) < 20 else -1
        if not 0 <= size <= limit:
            raise HostError(f"{self.host}: answers with a frame of {safe_text(head.decode(errors='replace'))} bytes")
        while len(self._have) < size:
            self._more(deadline)
        with memoryview(self._have) as view:
            data = bytes(view[:size])
        del self._have[:size]
        return data

    def _answer(self, deadline: float, limit: int = ANSWER_LIMIT) -> Any:
        try:
            answer = answer_json.read(self._frame(deadline, limit))
        except (ValueError, RecursionError) as error:
            detail = f" ({error})" if isinstance(error, answer_json.TooManyValues) else ""
            raise HostError(f"{self.host}: answers with something that is no JSON{detail}") from None
        if not isinstance(answer, dict) or not ({"ok", "error"} & set(answer)):
            raise HostError(f"{self.host}: answers with something that is no answer")
        self.sound = True
        if "ok" not in answer:
            errno = answer.get("errno")
            reason = safe_text(str(answer["error"]))
            raise HostError(f"{self.host}: {reason}", errno=errno if isinstance(errno, int) else None)
        return answer["ok"]

    # ------------------------------------------------------------------------------------------ beginning

    def _open(self, python: str) -> Greeting:
        """Start the far end and wait for its mark, which comes after all that the login prints."""
        nonce = secrets.token_hex(16)
        first = python if python and not set(python) & set("\n\r\0") else ""
        code, bundle = f"exec({BOOTSTRAP!r})", far_end.bundle()
        mark, deadline = f"\n{nonce}\n".encode(), time.monotonic() + self.patience.login_s
        with suppress(LinkLost):  # a login that runs nothing may have ended by now: its output is read below
            self._send(b"".join([f"{first}\n{code}\n{nonce} {len(bundle)}\n".encode(), bundle]))
        noise = bytearray()
        while True:
            # Also after the mark came: bytes left in that stream would narrow the channel's window for good.
            while self.channel.recv_stderr_ready() and len(noise) < NOISE_LIMIT:
                noise += self.channel.recv_stderr(2**15)
            if len(self._have) + len(noise) > NOISE_LIMIT:
                raise HostError(
                    f"{self.host}: the login prints more than {NOISE_LIMIT} bytes; quiet its start-up files"
                )
            if (at := self._have.find(mark)) >= 0:
                break
            if time.monotonic() > deadline:
                late = self._lost(f"did not bring up Python within {self.patience.login_s:g} s")
                raise self._no_far_end(bytes(self._have + noise), late)
            try:
                self._have += self._receive(0.2)  # short, as the other stream has to be read too
            except LinkLost as error:
                wait_until = time.monotonic() + 1.0  # the exit code comes a moment after the end of what is printed
                while not self.channel.exit_status_ready() and time.monotonic() < wait_until:
                    time.sleep(0.01)
                noise += self.channel.recv_stderr(2**15) if self.channel.recv_stderr_ready() else b""
                raise self._no_far_end(bytes(self._have + noise), error) from None
        del self._have[: at + len(mark)]
        try:
            return Greeting.from_json(self._answer(deadline, HEAD_LIMIT))
        except WireError as why:
            raise HostError(f"{self.host}: greets with something that is no greeting ({why})") from None

    def _no_far_end(self, printed: bytes, error: LinkLost) -> HostError:
        words = safe_text(printed.decode(errors="replace").strip()[-600:]).strip()
        heard = f"; it said: {words}" if words else ""
        code = self.channel.recv_exit_status() if self.channel.exit_status_ready() else None
        if code == NO_PYTHON:
            return HostError(
                f"{self.host}: no Python 3.9 or newer there (looked for {', '.join(PLACES)}); install one, or give the "
                f"path of one as `environment` of this host{heard}"
            )
        if code is not None and code >= 0:
            return HostError(f"{self.host}: the login works but no command can be run (exit code {code}){heard}")
        return LinkLost(f"{error}{heard}")

    # ------------------------------------------------------------------------------------------ requests

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Ask and wait for the answer. LinkLost when it does not come; HostError when it is a refusal."""
        self._request(verb, **arguments)
        # A file's bytes come as base64.
        limit = arguments["limit"] * 4 // 3 + HEAD_LIMIT if verb == "read" else ANSWER_LIMIT
        return self._answer(time.monotonic() + timeout_s, limit)

    def _request(self, verb: str, **arguments: Any) -> None:
        raw = json.dumps({"do": verb, **arguments}).encode()
        self.sound = False
        self._send(b"%d\n%s" % (len(raw), raw))

    def fetch(self, path: str, offset: int, limit: int) -> Iterator[bytes]:
        """The bytes of a file there from `offset` on; HostError when it has more than `limit`."""
        self._request("send", path=path, offset=offset)
        answer = self._answer(time.monotonic() + 60.0, HEAD_LIMIT)
        self.sound = False
        size = answer.get("size") if isinstance(answer, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limit:
            raise HostError(f"{self.host}: {path} has {safe_text(str(size), 40)} bytes, at most {limit} were expected")
        self._floor = SpeedFloor(self.patience)
        while offset < size:
            if self._have:
                data = bytes(self._have[: size - offset])
                del self._have[: size - offset]
            else:
                data = self._next(time.monotonic() + max(self.patience.silence_s, self.patience.floor_window_s))
            if len(data) > size - offset:
                self._have += data[size - offset :]
                data = data[: size - offset]
            offset += len(data)
            yield data
        self.sound, self._floor = True, None

    def give(self, path: str, size: int, sha256: str) -> Upload:
        """Begin to send a file; return what the far end has of it already."""
        self._request("receive", path=path, size=size, sha256=sha256)
        answer = self._answer(time.monotonic() + 3600.0, HEAD_LIMIT)  # it may have gigabytes to hash
        self.sound = False
        if not isinstance(answer, dict):
            raise HostError(f"{self.host}: answers an offer with something that is no answer")
        have = answer.get("have")
        if answer.get("busy"):
            self.sound = True
            return Upload(self, 0, 0, whole=False, busy=True, floor=SpeedFloor(self.patience))
        if not isinstance(have, int) or isinstance(have, bool) or not 0 <= have <= size:
            raise HostError(f"{self.host}: says it has {safe_text(str(have), 40)} of {size} bytes of {path}")
        self.sound = answer.get("whole") is True
        whole = answer.get("whole") is True
        return Upload(self, have, size - have, whole=whole, busy=False, floor=SpeedFloor(self.patience))


@dataclass
class Upload:
    """A file being sent: `have` bytes are there already, `left` are to be sent. `busy`: another one sends it now."""

    session: Session
    have: int
    left: int
    whole: bool
    busy: bool
    floor: SpeedFloor

    def bytes(self, chunk: bytes) -> None:
        """Send more; raise an error that the far end reports meanwhile, such as a full disk."""
        if len(chunk) > self.left:
            raise HostError(f"{self.session.host}: what is sent grew meanwhile: more than was announced")
        self.left -= len(chunk)
        for at in range(0, len(chunk), UP_CHUNK):
            piece = chunk[at : at + UP_CHUNK]
            self.session._send(piece)
            if self.floor.broken(len(piece)):
                raise self.session._lost(f"takes less than {self.floor.patience.floor_bytes_s / 1000:g} kB/s")
        if self.session._has_message():
            try:
                self.session._answer(time.monotonic() + 5.0, HEAD_LIMIT)
            finally:
                self.session.sound = False  # the far end still takes all bytes as the file's

    def end(self) -> None:
        """After the last byte, wait until the far end has hashed, kept and renamed the file."""
        if self.left:
            raise HostError(f"{self.session.host}: what is sent shrank meanwhile: {self.left} bytes are missing")
        self.session._answer(time.monotonic() + 3600.0, HEAD_LIMIT)


class SpeedFloor:
    """Whether a transfer is slower than patience allows, over its window."""

    def __init__(self, patience: Patience):
        self.patience = patience
        self.since, self.moved = time.monotonic(), 0

    def broken(self, moved: int) -> bool:
        """Count `moved` bytes; True when the window ended with too few."""
        self.moved += moved
        passed = time.monotonic() - self.since
        if passed < self.patience.floor_window_s:
            return False
        slow = self.moved < self.patience.floor_bytes_s * passed
        self.since, self.moved = time.monotonic(), 0
        return slow
