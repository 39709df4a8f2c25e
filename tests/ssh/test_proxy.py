"""The proxy hinders a connection in the ways it promises, counts right, and in no other way at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import Proxy
from waiting import wait_for

MEGABYTE = 1_000_000


class Server:
    """Answers "give N" with N bytes and the end; sends anything else back."""

    def __init__(self) -> None:
        self.door = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()
        self.received = 0
        self.answers = True

    def accept(self) -> None:
        while True:
            try:
                line = self.door.accept()[0]
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.serve, args=[line]))
            self.threads[-1].start()

    def serve(self, line: socket.socket) -> None:
        with line:
            try:
                while data := line.recv(1 << 18):
                    self.received += len(data)
                    if data.startswith(b"give "):
                        line.sendall(pattern(int(data[5:])))
                        return
                    if self.answers:
                        line.sendall(data)
            except OSError:
                pass

    def close(self) -> None:
        self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()
        for thread in self.threads:
            thread.join()


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def line(server: Server) -> Iterator[Proxy]:
    with Proxy(*server.door.getsockname()) as line:
        yield line


def dial(line: Proxy, within_s: float = 30) -> socket.socket:
    return socket.create_connection((line.address, line.port), timeout=within_s)


def rest(client: socket.socket) -> bytes:
    """All that comes until the end, orderly or not."""
    found = bytearray()
    try:
        while data := client.recv(1 << 18):
            found += data
    except ConnectionResetError:
        pass
    return bytes(found)


def hears(client: socket.socket, within_s: float) -> bool:
    """Whether anything comes, an end too."""
    client.settimeout(within_s)
    try:
        client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    finally:
        client.settimeout(30)
    return True


def test_unhindered_everything_passes_both_ways_and_is_counted(line, server):
    sent = pattern(3 * MEGABYTE)
    with dial(line) as client:
        writer = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
        writer.start()
        assert rest(client) == sent
        writer.join()
    assert (line.up, line.down, line.connections) == (len(sent), len(sent), 1)
    wait_for(lambda: line.active == 0, "the connection is over")
    with dial(line) as one, dial(line) as two:
        one.sendall(b"1")
        two.sendall(b"2")
        assert (one.recv(9), two.recv(9)) == (b"1", b"2")
        assert (line.connections, line.active) == (3, 2)


def test_a_connection_is_cut_exactly_at_each_offset_in_turn(line):
    whole = pattern(2 * MEGABYTE)
    line.cut_after(down=[1_500_001, 1, 1_000_000])
    for size in (1, 999_999, 500_001):
        with dial(line) as client:
            client.sendall(b"give 2000000")
            assert rest(client) == whole[:size]
    assert line.down == 1_500_001
    with dial(line) as client:
        client.sendall(b"give 2000000")
        assert rest(client) == whole


def test_a_connection_is_cut_exactly_at_an_offset_on_the_way_up(line, server):
    server.answers = False
    line.cut_after(up=[777_777])
    with dial(line) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            client.sendall(b"x" * 1000)
    assert line.up == 777_777
    wait_for(lambda: server.received == 777_777, "the server has what was delivered")


@pytest.mark.parametrize("reset", [False, True])
def test_cut_ends_present_connections_and_no_later_ones(line, reset):
    with dial(line) as client:
        client.sendall(b"hello")
        assert client.recv(9) == b"hello"
        line.cut(reset=reset)
        assert line.active == 0
        if reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""
    with dial(line) as client:
        client.sendall(b"again")
        assert client.recv(9) == b"again"


def test_a_black_hole_swallows_nothing_and_tells_nothing(line, server):
    with dial(line) as before:
        before.sendall(b"1")
        assert before.recv(9) == b"1"
        line.blackhole()
        before.sendall(b"2")
        with dial(line) as during:
            during.sendall(b"3")
            assert not hears(before, 0.3)
            assert not hears(during, 0.3)
            assert (server.received, line.up, line.connections, line.active) == (1, 1, 2, 2)
            line.resume()
            assert before.recv(9) == b"2"
            assert during.recv(9) == b"3"


def test_refuse_turns_new_connections_away_and_leaves_the_old(line):
    with dial(line) as before:
        line.refuse()
        line.refuse()
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                dial(line)
        before.sendall(b"still here")
        assert before.recv(99) == b"still here"
        line.resume()
    with dial(line) as client:
        client.sendall(b"back")
        assert client.recv(9) == b"back"


def test_delay_comes_once_for_each_way_and_costs_no_throughput(line):
    with dial(line) as client:
        line.delay(0.2)
        began = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert time.monotonic() - began >= 0.4
        client.sendall(b"give 40000000")  # 153 reads of 256 KiB: 30 s if each of them waited
        assert rest(client) == pattern(40 * MEGABYTE)
        assert 0.8 <= time.monotonic() - began < 12


def test_rate_holds_for_all_connections_together(line):
    line.rate(2 * MEGABYTE)
    began = time.monotonic()
    with dial(line) as one, dial(line) as two:
        one.sendall(b"give 1000000")
        two.sendall(b"give 1000000")
        assert len(rest(one)) == len(rest(two)) == MEGABYTE
    assert time.monotonic() - began >= 0.8  # 1 s less what may be saved up


def test_a_trickle_is_one_byte_a_second(line):
    with dial(line) as client:
        client.sendall(b"go")
        assert client.recv(9) == b"go"
        line.trickle()
        client.sendall(b"many bytes")
        began = time.monotonic()
        assert client.recv(99) == b"m"
        assert time.monotonic() - began > 0.5
        line.rate(None)
        assert client.recv(1) == b"a"


def test_a_server_that_is_not_there_looks_so(server):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(*nobody.getsockname()) as line:
            with contextlib.suppress(ConnectionResetError), dial(line) as client:  # as early as that
                assert rest(client) == b""
            wait_for(lambda: line.active == 0, "the connection is given up")


def test_nothing_is_left_of_a_closed_proxy(server):
    threads, files = threading.active_count(), open_files()
    line = Proxy(*server.door.getsockname())
    clients = [dial(line) for _ in range(5)]
    line.refuse()
    line.blackhole()
    line.close()
    line.close()
    for client in clients:
        assert rest(client) == b""
        client.close()
    wait_for(lambda: threading.active_count() <= threads, "its thread, and the server's, are gone")
    assert open_files() <= files
    with pytest.raises(ConnectionRefusedError):
        dial(line)
