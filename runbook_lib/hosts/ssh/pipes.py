"""A channel over the three pipes of a child process, with deadlines; its standard error is drained in every wait."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time
from contextlib import suppress

PIPE = 2**18  # bytes, where the system lets us choose
ASIDE = 2**21  # bytes kept of standard error until they are asked for
AT_ONCE = 16  # reads in a row of what may never end
GONE_S = 5.0


class PipeChannel:
    """Two streams to a child and what it says aside. One thread at a time uses it; any may kill the child."""

    def __init__(self, child: subprocess.Popen[bytes]):
        assert child.stdin and child.stdout and child.stderr
        self.child = child
        self._timeout: float | None = None
        self._aside = bytearray()
        self._files = [child.stdin, child.stdout, child.stderr]
        self._in, self._out, self._err = (file.fileno() for file in self._files)
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
            if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux only
                with suppress(OSError):  # an account has 64 MB of such pipes
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE)

    def settimeout(self, timeout: float | None) -> None:
        """How long recv and sendall wait for a byte to move."""
        self._timeout = timeout

    def recv(self, nbytes: int) -> bytes:
        """Some bytes; none at the end. Raises TimeoutError."""
        self._wait(self._out, select.POLLIN)
        return os.read(self._out, min(nbytes, PIPE))

    def recv_ready(self) -> bool:
        """Whether `recv` has something at once."""
        return _ready(self._out)

    def recv_stderr_ready(self) -> bool:
        """Whether `recv_stderr` has something at once."""
        self._drain()
        return bool(self._aside)

    def recv_stderr(self, nbytes: int) -> bytes:
        """Some bytes of standard error."""
        data = bytes(self._aside[:nbytes])
        del self._aside[:nbytes]
        return data

    def sendall(self, s: bytes) -> None:
        """Send all of it. Raises TimeoutError when no byte is taken for long, OSError when nobody reads any more."""
        view = memoryview(s)
        while view:
            self._wait(self._in, select.POLLOUT)
            with suppress(BlockingIOError):  # a pipe may have less room than is written at once
                view = view[os.write(self._in, view) :]

    def exit_status_ready(self) -> bool:
        """Whether the child ended."""
        return self.child.poll() is not None

    def recv_exit_status(self) -> int:
        """The child's exit status, -1 for one that was killed."""
        code = self.child.wait()
        return code if code >= 0 else -1

    def close(self) -> None:
        """End the child and both streams."""
        end(self.child)
        for file in self._files:
            with suppress(OSError):  # what was not sent
                file.close()

    def _wait(self, fd: int, event: int) -> None:
        """Wait until `fd` is ready, or ended."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        waiting = select.poll()
        waiting.register(fd, event)
        waiting.register(self._err, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(waiting.poll(None if left is None else left * 1000))
            if fd in ready:
                return
            if self._err in ready and not self._drain():
                waiting.unregister(self._err)  # at its end it would be ready for ever
            if left == 0.0:
                raise TimeoutError

    def _drain(self) -> bool:
        """Take what the child says aside, as much as is kept; False at its end."""
        try:
            for _ in range(AT_ONCE):
                if not (data := os.read(self._err, 2**16)):
                    return False
                self._aside += data[: ASIDE - len(self._aside)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a process group, with all of the group, and reap it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GONE_S)


def _ready(fd: int) -> bool:
    look = select.poll()
    look.register(fd, select.POLLIN)
    return bool(look.poll(0))
