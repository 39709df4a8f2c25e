"""Where messages arrive: a real HTTP server and a real SMTP server on this machine, each of which keeps what it got."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller


@dataclass
class Sink:
    """A server's port and what it got: of HTTP (path, body), of mail (recipients, content)."""

    port: int = 0
    got: list[tuple[str, str]] = field(default_factory=list)
    refuse: int = 0  # answer 500 to so many requests first
    delay_s: float = 0.0


@contextmanager
def http() -> Iterator[Sink]:
    """A web server that takes every POST."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            time.sleep(sink.delay_s)
            sink.refuse -= 1
            if sink.refuse < 0:
                sink.got.append((self.path, body))
            self.send_response(200 if sink.refuse < 0 else 500)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sink.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def smtp() -> Iterator[Sink]:
    """A mail server that takes every mail."""
    sink = Sink()

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            sink.got.append((",".join(envelope.rcpt_tos), envelope.content.decode()))
            return "250 kept"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        sink.port = free.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=sink.port)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop()
