"""A machine reached over SSH as a host: its far end is asked verbs, files are streamed and resumed.

A verb that may be asked twice is asked again when the link broke meanwhile. For the others (`start`, `launch`, `run`)
the caller gets LinkLost: the outcome is not known and has to be checked, never assumed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import Any

from worker.files import put_in_place, sha256_file
from worker.wire import Greeting

from ...errors import HostError, LinkLost
from ..content import Content, OnBytes
from .alias import Alias, where
from .link import Link
from .session import SMALL

ONCE = {"run", "start", "launch"}  # what must not happen twice
PROGRESS = 2**15  # bytes
BREAKS = 100  # kept until they are asked for: a host may break any number of times
SLACK_S = 20.0  # that the far end may take longer than asked


class SshTransport:
    """The transport to a machine over its one connection."""

    def __init__(self, name: str, link: Link):
        self.name, self.link = name, link
        self.breaks: list[str] = []  # transfers that broke and went on
        self._hello: Greeting | None = None

    def _greeted(self) -> Greeting:
        if self._hello is None:
            with self.link.session() as session:
                self._hello = session.hello
        return self._hello

    @property
    def home(self) -> str:
        """The login's home folder there."""
        return self._greeted().home

    @property
    def executable(self) -> str:
        """The Python that the far end runs on."""
        return self._greeted().executable or ""

    @property
    def where(self) -> str:
        """The user and address of the login."""
        login = self.link.login
        if isinstance(login, Alias):
            return where(login)
        return f"{login.username}@{login.address}" + ("" if login.port == 22 else f":{login.port}")

    def sessions(self) -> int:
        """How many sessions the server allows at once, up to the number that we use."""
        return self.link.room()

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """What a verb of `worker.verbs` answers there. Raises HostError, and LinkLost when no answer came."""
        began = time.monotonic()
        for last in (verb in ONCE, True):
            try:
                with self.link.session() as session:
                    return session.call(verb, timeout_s + SLACK_S, **arguments)
            except LinkLost:
                # A link that broke at once is made again; after a long wait in vain there is no second try.
                if last or time.monotonic() - began > self.link.patience.silence_s / 2:
                    raise
        raise AssertionError

    # ------------------------------------------------------------------------------------------ up

    def put(self, target: str, content: Content, on_bytes: OnBytes, outage_s: float | None = None) -> bool:
        """Bring `content` to the host, whole or not at all; False when it was there already."""
        if content.size <= SMALL:
            raw = b"".join(content.chunks())
            if hashlib.sha256(raw).hexdigest() != content.sha256:
                raise HostError(f"{self.name}: bringing {target}: expected sha256 {content.sha256}, found another here")
            data = base64.b64encode(raw).decode()
            new = self.call("keep", 60.0, path=target, data=data, sha256=content.sha256)
            on_bytes(content.size)
            return bool(new)
        outage = _Outage(self.link.patience.outage_s if outage_s is None else outage_s, target, self.breaks)
        reported = 0
        while True:
            try:
                with self.link.session() as session:
                    upload = session.give(target, content.size, content.sha256)
                    on_bytes(max(0, upload.have - reported))
                    reported = max(reported, upload.have)
                    if upload.whole:
                        outage.goes_on()
                        return outage.moved  # sent by an earlier try whose answer was lost, or long ago
                    if not upload.busy:
                        at = upload.have
                        outage.reached(at)
                        for chunk in content.after(at):
                            upload.bytes(chunk)
                            at += len(chunk)
                            on_bytes(max(0, at - reported))
                            reported = max(reported, at)
                            outage.moved = True
                        upload.end()
                        return True
                raise LinkLost(f"{self.name}: {target} is being brought by another connection")  # ours is fine
            except LinkLost as error:
                outage.wait(error)

    # ------------------------------------------------------------------------------------------ down

    def get(
        self, source: str, target: Path, sha256: str, limit: int, on_bytes: OnBytes, outage_s: float | None = None
    ) -> bool:
        """Bring a file home, whole and with this sha256 or not at all; False when it was here already.

        Received bytes stay in a file aside, from which the next try continues: after a cut, and after our own crash.
        """
        if target.is_file() and target.stat().st_size <= limit and sha256_file(target) == sha256:
            on_bytes(target.stat().st_size)
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{sha256[:16]}.part")
        outage = _Outage(self.link.patience.outage_s if outage_s is None else outage_s, source, self.breaks)
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            digest = hashlib.sha256()
            at = 0
            while chunk := file.read(2**20):
                digest.update(chunk)
                at += len(chunk)
            resumed = at
            on_bytes(at)
            while True:
                try:
                    with self.link.session() as session:
                        for chunk in session.fetch(source, at, limit):
                            file.write(chunk)
                            digest.update(chunk)
                            at += len(chunk)
                            on_bytes(len(chunk))
                            outage.reached(at)
                    break
                except LinkLost as error:
                    outage.wait(error)
                except HostError as error:
                    raise HostError(f"{self.name}: fetching {source}: {error}") from None
            if digest.hexdigest() == sha256:
                put_in_place(file, aside, target)
                return True
        aside.unlink()
        if resumed:  # the bytes of an earlier try may be the wrong ones
            return self.get(source, target, sha256, limit, on_bytes, outage_s)
        raise HostError(
            f"{self.name}: fetching {source}: expected sha256 {sha256}, found {digest.hexdigest()}; nothing was kept"
        )


class _Outage:
    """How long a transfer has been without progress, and the pauses between its tries."""

    def __init__(self, limit_s: float, what: str, breaks: list[str]):
        self.limit_s, self._what, self._breaks = limit_s, what, breaks
        self.moved = False
        self._furthest = -1
        self._since = time.monotonic()
        self._tries = 0
        self._broken: tuple[float, LinkLost] | None = None

    def reached(self, offset: int) -> None:
        """Note how far the transfer is. A few bytes are no progress: a host may send one a connection, for ever."""
        self.goes_on()
        if self._furthest < 0 or offset >= self._furthest + PROGRESS:
            self._furthest, self._since, self._tries = offset, time.monotonic(), 0

    def goes_on(self) -> None:
        """Note that the transfer goes on, and report what broke before."""
        if self._broken and len(self._breaks) < BREAKS:
            since, error = self._broken
            self._breaks.append(f"{self._what}: {error}; it went on after {time.monotonic() - since:.1f} s")
        self._broken = None

    def wait(self, error: LinkLost) -> None:
        """Pause before the next try, or raise `error` when it has lasted too long."""
        if time.monotonic() - self._since > self.limit_s:
            raise error
        self._broken = self._broken or (time.monotonic(), error)
        self._tries += 1
        time.sleep(min(5.0, 0.1 * 2.0**self._tries))
