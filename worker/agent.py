"""The far end of a connection: answers requests on standard input until it closes. Standard library only, Python 3.9.

Its code and that of what it imports arrives over the wire (`runbook_lib.hosts.ssh.far_end`), so a host needs nothing
but a Python, and never has another version than the one that asks. Both directions carry frames: the length in
decimal, a newline, that many bytes. A request is a JSON object {"do": verb, ...}; its answer {"ok": value} or
{"error": text}. While a request takes long, a lone `+` line every few seconds says that the machine and the wire live.

Files move as they are: `send` answers {"ok": {"size": n}}, and the bytes from an offset on follow; `receive` answers
how much it has of the file already, takes exactly the rest, and answers again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable

from .files import make_folder, put_in_place, sha256_file, sync
from .verbs import VERBS, open_regular
from .wire import Greeting

SIGN_S = 4.0  # between two signs of life
IDLE_S = 900.0  # without a request for so long, the operator is gone: a dead client leaves no end of file
STALE_S = 30.0  # nor in the middle of an upload without a frame for so long, and its next try wants the file
CHUNK = 2**18
BLOCK = 2**20  # of what comes up: hashed as one, while the next comes
BLOCKS = 4
FLUSH = 2**27
REQUEST_LIMIT = 64 * 2**20


class Wire:
    """Frames in and out. One thread serves; another gives the signs of life."""

    def __init__(self, source: BinaryIO, sink: int):
        self.source, self.sink = source, sink
        self.lock = threading.Lock()
        self.busy = self.taking = False
        self.said = self.heard = time.monotonic()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while True:
            time.sleep(SIGN_S / 4)
            with self.lock:  # first: what holds it may be the bytes of a file, where a sign would be one of them
                now = time.monotonic()
                if self.busy and now - self.said > SIGN_S:
                    self._put(b"+\n")
                stale = self.taking and now - self.heard > STALE_S
                if stale or (not self.busy and now - max(self.said, self.heard) > IDLE_S):
                    os._exit(0)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.sink, view) :]
        self.said = time.monotonic()

    def _write(self, data: bytes) -> None:
        with self.lock:
            self._put(data)

    def frame(self, data: bytes) -> None:
        """Write one frame."""
        self._write(b"%d\n%s" % (len(data), data))

    def copy(self, file: BinaryIO, offset: int, stop: int) -> None:
        """Write a file's bytes from `offset` to `stop`, by the kernel if it can.

        A file that shrank or cannot be read ends the wire: between these bytes there is no room for a word.
        """
        with self.lock:
            while offset < stop:
                sent = 0
                with contextlib.suppress(OSError):
                    sent = self._copy_some(file, offset, min(CHUNK, stop - offset))
                if not sent:
                    os._exit(1)
                offset += sent
                self.said = time.monotonic()

    def _copy_some(self, file: BinaryIO, offset: int, count: int) -> int:
        try:
            return os.sendfile(self.sink, file.fileno(), offset, count)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EPIPE):  # any other: not for this kind of sink
                raise
            return os.write(self.sink, os.pread(file.fileno(), count, offset))

    def answer(self, **value: Any) -> None:
        """Write an answer."""
        self.frame(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))

    def next(self, limit: int = REQUEST_LIMIT) -> bytes:
        """The next frame. EOFError when the wire is closed in front of it or in the middle."""
        head = self.source.readline(20)
        if not head.endswith(b"\n"):
            raise EOFError
        size = int(head)
        if not 0 <= size <= limit:
            raise ValueError(f"a frame of {size} bytes")
        data = self.source.read(size)
        if len(data) < size:
            raise EOFError
        self.heard = time.monotonic()
        return data

    def into(self, room: memoryview) -> int:
        """Fill some of `room` with what comes next, and say how much. EOFError when the wire is closed."""
        self.taking, self.heard = True, time.monotonic()
        try:
            size = self.source.readinto1(room)  # type: ignore[attr-defined]
        finally:
            self.taking = False
        if not size:
            raise EOFError
        return int(size)


def send(wire: Wire, path: str, offset: int) -> None:
    """Give a file's bytes from `offset` on, as many as it has now; they follow the answer as they are."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if offset < size:
            os.pread(file.fileno(), 1, offset)  # a disk that fails here is told of now; see `copy`
        wire.answer(ok={"size": size})
        wire.copy(file, offset, size)


def receive(wire: Wire, path: str, size: int, sha256: str) -> None:
    """Take a file, whole or not at all; what came of it stays aside under a name of its own, to go on from there."""
    final = Path(path)
    if final.is_file() and final.stat().st_size == size and sha256_file(final) == sha256:
        wire.answer(ok={"have": size, "whole": True})
        return
    make_folder(final.parent, 0o700)
    part = final.with_name(f".{final.name}.{sha256[:16]}.part")
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # an earlier connection that this host has not given up yet, or a host that shares the folder
            wire.answer(ok={"busy": True})
            return
        if os.fstat(fd).st_size > size:
            file.truncate(0)
        have, problem = 0, None
        with _Digest() as digest:
            while got := file.readinto(block := digest.room()):
                digest.take(block, got)
                have += got
            wire.answer(ok={"have": have, "whole": False})
            problem = _take(wire, path, file, have, size, digest)
        if problem is not None:
            return
        if digest.value.hexdigest() != sha256:
            part.unlink()  # it cannot become right by more bytes
            wire.answer(error=f"{path}: expected sha256 {sha256} of {size} bytes, found {digest.value.hexdigest()}")
            return
        put_in_place(file, part, final)
    wire.answer(ok={"have": size, "whole": True})


class _Digest:
    """The SHA-256 of blocks, taken in a thread of its own while the next are filled. `value` is whole at the end."""

    def __init__(self) -> None:
        self.value = hashlib.sha256()
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(BLOCKS):
            self._free.put(memoryview(bytearray(BLOCK)))
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Digest:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._full.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._full.get()) is not None:
            block, size = item
            self.value.update(block[:size])
            self._free.put(block)

    def room(self) -> memoryview:
        """A block to be filled, once one is free."""
        return self._free.get()

    def take(self, block: memoryview, size: int) -> None:
        """Hash its first `size` bytes, in the order of the calls."""
        self._full.put((block, size))


def _take(wire: Wire, path: str, file: BinaryIO, have: int, size: int, digest: _Digest) -> OSError | None:
    """Write and hash what comes, every byte at once: what came need not come again. Gives what the disk said."""
    problem: OSError | None = None
    flushed, flush = have, threading.Thread()
    while have < size:
        block, filled = digest.room(), 0
        while have < size and filled < BLOCK:
            got = wire.into(block[filled : min(BLOCK, filled + size - have)])
            if problem is None:
                try:
                    _write_all(file, block[filled : filled + got])
                except OSError as error:  # a full disk: go on reading, or the other end never hears of it
                    problem = error
                    wire.answer(error=f"writing {path}: {error}")
            have, filled = have + got, filled + got
        digest.take(block, filled)
        if have - flushed > FLUSH and not flush.is_alive():
            # To the disk while more comes, or all of it would be waited for at the end.
            flushed, flush = have, threading.Thread(target=_flush, args=(file.fileno(),), daemon=True)
            flush.start()
    if flush.ident is not None:
        flush.join()
    return problem


def _flush(fd: int) -> None:
    with contextlib.suppress(OSError):  # the fsync at the end says what is wrong
        sync(fd)


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


STREAMS: dict[str, Callable[..., None]] = {"send": send, "receive": receive}


def serve(nonce: str, source: BinaryIO) -> None:
    """Answer requests until the input ends. `nonce` marks where our answers begin, behind what a login prints."""
    # Nothing but frames may reach the other end, whatever a library prints.
    sink = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(null, fd)
    os.set_inheritable(source.fileno(), False)
    wire = Wire(source, sink)
    wire._write(f"\n{nonce}\n".encode())
    hello = Greeting(str(Path("~").expanduser()), sys.executable, sys.version_info[:3], os.getpid(), os.getuid())
    wire.answer(ok=hello.to_json())
    while True:
        try:
            request = json.loads(wire.next())
        except EOFError:
            return
        wire.busy = True
        try:
            verb = request.pop("do")
            if verb in STREAMS:
                STREAMS[verb](wire, **request)
            else:
                wire.answer(ok=VERBS[verb](**request))
        except EOFError:
            return
        except Exception as error:  # whatever went wrong is the asker's to hear
            kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
            wire.answer(error=f"{kind}{error}", errno=getattr(error, "errno", None))
        finally:
            wire.busy = False
