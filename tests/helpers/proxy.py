"""A TCP proxy that is a bad network: slow, far away, silent, refusing, or cut after so many bytes.

    with Proxy(host.address, host.port) as line:
        connect("127.0.0.1", line.port)
        line.cut_after(down=[1_000_000])

One thread owns all sockets; a control is carried out there before its call returns. The limit of any proxy: its own
kernel acknowledges what the peers send, so time-outs inside TCP do not see `blackhole()`; a host's `cut()` they do.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

READ_BYTES = 256 * 1024
QUEUE_BYTES = 1024 * 1024
DELAYED_QUEUE_BYTES = 64 * 1024 * 1024  # holds what is under way: bandwidth x delay
LEAVING_BYTES = 16 * 1024 * 1024
FIN, RESET = b"", None  # in a queue, after the last data
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Way:
    """One direction over all connections: what was delivered, where to cut, what the rate allows at this moment."""

    def __init__(self) -> None:
        self.delivered = 0
        self.cuts: deque[int] = deque()
        self.budget = 0.0


class _Flow:
    """One direction of one connection: what was read and is not delivered yet, each with the time when it is due."""

    def __init__(self, way: _Way, source: socket.socket, sink: socket.socket) -> None:
        self.way, self.source, self.sink = way, source, sink
        self.queue: deque[tuple[float, bytes | memoryview | None]] = deque()
        self.queued = 0
        self.read_all = self.sent_all = False
        self.full = False  # the sink takes no more at present


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, down: _Way, up: _Way) -> None:
        self.client, self.server = client, server
        self.dialled = self.connected = False
        self.flows = (_Flow(down, server, client), _Flow(up, client, server))


class Proxy:
    """Listens on 127.0.0.1 at a free port and forwards to (address, port), as well as its controls let it."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._down, self._up = _Way(), _Way()
        self._links: list[_Link] = []
        self._leaving: dict[socket.socket, int] = {}  # cut, and what they may still say into the void
        self._accepted = 0
        self._delay = 0.0
        self._rate: float | None = None
        self._refilled = 0.0
        self._dark = self._closing = False
        self._selector = selectors.DefaultSelector()
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, READ)
        self._door = self._bind(0)
        self.address, self.port = self._door.getsockname()
        self._listen()
        self._thread = threading.Thread(target=self._work, name=f"proxy to {address}:{port}", daemon=True)
        self._thread.start()

    # ----------------------------------------------------------------------------------------------------- counters

    @property
    def down(self) -> int:
        """Bytes delivered to clients so far."""
        return self._down.delivered

    @property
    def up(self) -> int:
        """Bytes delivered to the server so far."""
        return self._up.delivered

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._accepted

    @property
    def active(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    # ----------------------------------------------------------------------------------------------------- controls

    def blackhole(self) -> None:
        """Nothing passes either way until `resume`; connections stay, and new ones are accepted into the silence."""
        self._order(lambda: setattr(self, "_dark", True))

    def refuse(self) -> None:
        """New connections are refused until `resume`; those that are open go on."""

        def shut() -> None:
            if self._listening():
                self._selector.unregister(self._door)
                self._door.close()
                self._door = self._bind(self.port)  # not listening, it keeps the port ours

        self._order(shut)

    def resume(self) -> None:
        """End `blackhole` and `refuse`; rate and delay stay."""

        def open_again() -> None:
            self._dark = False
            if not self._listening():
                self._listen()

        self._order(open_again)

    def cut(self, reset: bool = False) -> None:
        """Close all present connections; both ends see an orderly end, or with `reset` a connection reset."""

        def all_links() -> None:
            for link in list(self._links):
                self._end(link, reset)

        self._order(all_links)

    def cut_after(self, down: Iterable[int] = (), up: Iterable[int] = ()) -> None:
        """Close a connection when it brings a direction's counter to one of these values: exactly there, once each."""

        def plan() -> None:
            for way, values in ((self._down, down), (self._up, up)):
                way.cuts = deque(sorted(value for value in values if value > way.delivered))

        self._order(plan)

    def rate(self, bytes_per_s: float | None) -> None:
        """So much each way over all connections together; None for as fast as it goes."""

        def limit() -> None:
            self._rate, self._refilled = bytes_per_s, time.monotonic()
            self._down.budget = self._up.budget = 0.0

        self._order(limit)

    def trickle(self) -> None:
        """One byte a second: alive, and of no use."""
        self.rate(1)

    def delay(self, seconds: float) -> None:
        """What is read from now on arrives so much later, each way; the bandwidth stays."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def close(self) -> None:
        """End all connections and the thread; once more does nothing."""
        if self._thread.is_alive():
            self._order(lambda: setattr(self, "_closing", True))
            self._thread.join()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _order(self, action: Callable[[], None]) -> None:
        assert self._thread.is_alive(), "this proxy is closed"
        done: Future[None] = Future()
        self._orders.append((action, done))
        self._wake.send(b"!")
        done.result(30)

    # --------------------------------------------------------------------------------------------------- the thread

    def _work(self) -> None:
        try:
            while not self._closing:
                for key, mask in self._selector.select(self._deliver_all()):
                    if key.fileobj is self._woken:
                        self._obey()
                    elif key.fileobj is self._door:
                        self._accept()
                    elif key.fileobj in self._leaving:
                        self._drain(key.fileobj)
                    elif key.data in self._links:  # else ended by an event just before this one
                        self._serve(key.data, key.fileobj, mask)
        finally:
            for link in list(self._links):
                self._end(link, reset=False)
            for each in (*self._leaving, self._door, self._wake, self._woken):
                each.close()
            self._selector.close()

    def _obey(self) -> None:
        self._woken.recv(4096)
        while self._orders:
            action, done = self._orders.popleft()
            action()
            done.set_result(None)
        for link in list(self._links):
            self._watch(link)

    def _bind(self, port: int) -> socket.socket:
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.setblocking(False)
        return door

    def _listening(self) -> bool:
        return self._door in self._selector.get_map()

    def _listen(self) -> None:
        self._door.listen(128)
        self._selector.register(self._door, READ)

    def _accept(self) -> None:
        try:
            client = self._door.accept()[0]
        except OSError:  # gone again
            return
        self._accepted += 1
        link = _Link(client, socket.socket(), self._down, self._up)
        for each in (link.client, link.server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(link)
        self._watch(link)

    def _serve(self, link: _Link, ready: Any, mask: int) -> None:
        if not link.connected:
            link.connected = True
            if link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(link, reset=True)
        for flow in link.flows:
            if flow.source is ready and mask & READ:
                self._read(flow)
            if flow.sink is ready and mask & WRITE:
                flow.full = False
            if link in self._links:
                self._deliver(link, flow)
        self._watch(link)

    def _read(self, flow: _Flow) -> None:
        data: bytes | None
        try:
            data = flow.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = RESET
        flow.read_all = not data
        flow.queue.append((time.monotonic() + self._delay, data))
        flow.queued += len(data or b"")

    def _deliver_all(self) -> float | None:
        """Deliver what is due and give the seconds until something will be; None: only an event brings more."""
        now = time.monotonic()
        if self._rate is not None:
            for way in (self._down, self._up):
                allowed = way.budget + (now - self._refilled) * self._rate
                way.budget = min(allowed, max(1.0, self._rate / 10))
            self._refilled = now
        waits = []
        for link in list(self._links):
            for flow in link.flows:
                if link in self._links:
                    self._deliver(link, flow)
            self._watch(link)
            for flow in link.flows:
                if link not in self._links or self._dark or flow.full or not flow.queue:
                    continue
                waits.append(max(0.0, flow.queue[0][0] - time.monotonic()))
                if self._rate and flow.way.budget < 1:
                    waits[-1] = max(waits[-1], (1 - flow.way.budget) / self._rate, 0.005)
        return min(waits, default=None)

    def _deliver(self, link: _Link, flow: _Flow) -> None:
        way = flow.way
        while flow.queue and link.connected and not (flow.full or self._dark):
            due, data = flow.queue[0]
            if due > time.monotonic():
                return
            if data is RESET:
                self._end(link, reset=True)
                return
            if data == FIN:
                flow.queue.popleft()
                flow.sent_all = True
                with contextlib.suppress(OSError):
                    flow.sink.shutdown(socket.SHUT_WR)
                if all(each.sent_all for each in link.flows):
                    self._end(link, reset=False)
                return
            size = len(data) if self._rate is None else min(len(data), int(way.budget))
            size = min(size, way.cuts[0] - way.delivered) if way.cuts else size
            if size == 0:
                return
            try:
                sent = flow.sink.send(memoryview(data)[:size])
            except BlockingIOError:
                flow.full = True
                return
            except OSError:
                self._end(link, reset=True)
                return
            way.delivered += sent
            way.budget -= sent
            flow.queued -= sent
            if sent == len(data):
                flow.queue.popleft()
            else:
                flow.queue[0] = (due, memoryview(data)[sent:])
            if way.cuts and way.delivered == way.cuts[0]:
                way.cuts.popleft()
                self._end(link, reset=False)
                return

    def _watch(self, link: _Link) -> None:
        """Tell the selector what this link waits for at present."""
        if link not in self._links:
            return
        if not link.dialled and not self._dark:
            link.dialled = True
            if link.server.connect_ex(self._target) not in (0, errno.EINPROGRESS):
                self._end(link, reset=True)
                return
        room = DELAYED_QUEUE_BYTES if self._delay else QUEUE_BYTES
        wanted = {link.client: 0, link.server: WRITE if link.dialled and not link.connected else 0}
        for flow in link.flows:
            if link.connected and not self._dark:
                wanted[flow.source] |= READ if not flow.read_all and flow.queued < room else 0
                wanted[flow.sink] |= WRITE if flow.full else 0
        for each, mask in wanted.items():
            key = self._selector.get_map().get(each)
            if key is None and mask:
                self._selector.register(each, mask, link)
            elif key is not None and not mask:
                self._selector.unregister(each)
            elif key is not None and key.events != mask:
                self._selector.modify(each, mask, link)

    def _end(self, link: _Link, reset: bool) -> None:
        """Without `reset` what was delivered arrives, whatever the peer still says: close() alone may throw it away."""
        self._links.remove(link)
        for each in (link.client, link.server):
            if each in self._selector.get_map():
                self._selector.unregister(each)
            if reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):  # never connected, or gone
                if not reset:
                    each.shutdown(socket.SHUT_WR)
                    self._leaving[each] = LEAVING_BYTES
                    self._selector.register(each, READ)
                    continue
            each.close()

    def _drain(self, leaving: Any) -> None:
        """Read a cut connection until its peer goes too; whoever sends without end gets a reset."""
        try:
            size = len(leaving.recv(READ_BYTES))
        except BlockingIOError:  # an event from before the cut
            return
        except OSError:
            size = 0
        self._leaving[leaving] -= size
        if not size or self._leaving[leaving] < 0:
            del self._leaving[leaving]
            self._selector.unregister(leaving)
            leaving.close()
