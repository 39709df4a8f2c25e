"""The hosts of tiers B and C: OpenSSH servers of our own on this machine, each behind a proxy that is its network.

A host's files and processes are this machine's, in the history's folder, so that whatever is done to them in tier A
can be done here too; what is new is that nobody reaches them but over SSH.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import processes

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests" / "helpers")]  # where the servers and the proxy are

from fleet import Host, start  # noqa: E402
from proxy import Proxy  # noqa: E402


class Machines:
    """Two hosts by name, and the line to each."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)
        self.hosts: dict[str, Host] = {}
        self.lines: dict[str, Proxy] = {}
        self.gone = ""  # powered off for good
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Machines:
        fleet = self._ending.enter_context(start(self.folder, self.names, "loopback"))
        self.hosts = fleet.hosts
        for name, host in fleet.hosts.items():
            self.lines[name] = self._ending.enter_context(Proxy(host.address, host.port))
            host.write_credentials(host.credentials, port=self.lines[name].port)
        return self

    def __exit__(self, *words: object) -> None:
        self._ending.close()

    @property
    def there(self) -> list[str]:
        """The hosts that are not gone for good."""
        return [name for name in self.names if name != self.gone]

    def hang_up(self, name: str) -> int:
        """Kill the server's side of every connection of a host, not the server; gives how many."""
        host = self.hosts[name]
        listener, hit = host.listener(), 0
        for pid in host.servers():
            words = processes.words_of(pid)
            if pid != listener and words:
                hit += processes.signal_it(processes.Process(pid, words), signal.SIGKILL)
        return hit

    @contextlib.contextmanager
    def impostor(self, name: str):
        """Somebody else answers in this host's place: another host key. Gives a call: how many were let log in."""
        host = self.hosts[name]
        kept = {path: path.read_bytes() for path in (host.folder / "host_key", host.folder / "host_key.pub")}
        self.lines[name].cut()  # before it starts anew, sshd waits for whoever is about to log in
        host.new_key()
        self.lines[name].cut()
        begun = host.log.stat().st_size
        try:
            yield lambda: host.log.read_bytes()[begun:].count(b"Accepted ")
        finally:
            for path, raw in kept.items():
                path.unlink()
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                    file.write(raw)
            self.lines[name].cut()
            host.reload()
            self.lines[name].cut()
