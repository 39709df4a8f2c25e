"""A host that sends without end: the link ends with the reason, in seconds, and the driver's memory stays as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import flood_server
import pytest
from box import HELPERS
from own_ssh_hosts import keygen
from waiting import wait_for

from runbook_lib.errors import HostError, LinkLost
from runbook_lib.hosts.content import Content
from runbook_lib.hosts.hosts import Host
from runbook_lib.hosts.ssh import known_hosts, link, login, ssh, transport
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile.profile import HostSpec

GROWTH_MIB = 150  # of the driver, over what it had
PATIENCE = Patience(login_s=10.0, outage_s=3.0)


def memory_mib() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20 if statm.exists() else 0


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """The memory of this process does not grow meanwhile."""
    before, most, over = memory_mib(), [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], memory_mib())

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    assert most[0] - before < GROWTH_MIB, f"{before} MiB before, {most[0]} MiB meanwhile"


@contextlib.contextmanager
def flooding(tmp_path: Path, mode: str, alias: bool = False, **patience: float) -> Iterator[Host]:
    """A host whose server floods in this way."""
    port = tmp_path / "port"
    server = subprocess.Popen([sys.executable, str(HELPERS / "flood_server.py"), str(port), mode])
    try:
        wait_for(port.exists, "the server listens")
        if alias:
            yield from by_own_ssh(json.loads(port.read_text()), tmp_path, replace(PATIENCE, **patience))
            return
        credentials = tmp_path / "flood.credentials"
        who = {"address": "127.0.0.1", "username": "x", "password": "not a real one"}
        credentials.write_text(json.dumps({**who, **json.loads(port.read_text())}))
        credentials.chmod(0o600)
        spec = HostSpec(name="flood", kind="ssh", slots=1, device="cpu", credentials=credentials)
        own = link.Link(login.of(spec), replace(PATIENCE, **patience))
        yield Host(spec, "run", ssh.SshTransport("flood", own))
        own.close()
    finally:
        server.kill()
        server.wait()


def by_own_ssh(shown: dict[str, Any], folder: Path, patience: Patience) -> Iterator[Host]:
    """The same by the person's own ssh; the server's key is pinned."""
    keygen("-t", "ed25519", "-N", "", "-f", folder / "key")
    entries = ["HostName 127.0.0.1", f"Port {shown['port']}", "User x", f"IdentityFile {folder}/key"]
    entries += ["UserKnownHostsFile /dev/null", "IdentitiesOnly yes"]
    (folder / "config").write_text("Host flood\n" + "".join(f"  {entry}\n" for entry in entries))
    known_hosts.trust(f"[127.0.0.1]:{shown['port']}", shown["host_key"])
    spec = HostSpec(name="flood", kind="ssh", slots=1, device="cpu", ssh="flood")
    own = link.Link(login.of(spec), patience)
    yield Host(spec, "run", ssh.SshTransport("flood", own))
    own.close()


def poll(host: Host, tmp_path: Path) -> Any:
    return host.poll()


def put(host: Host, tmp_path: Path) -> Any:
    block = bytes(2**20)
    digest = hashlib.sha256(block * 64).hexdigest()
    return host.put(Path("/x"), Content(64 * 2**20, digest, lambda: (block for _ in range(64))))


def get(host: Host, tmp_path: Path) -> Any:
    return host.get(Path("/x"), tmp_path / "out", "0" * 64, limit=3_000_000, outage_s=3.0)


MODES: dict[str, tuple[Callable[[Host, Path], Any], str]] = {
    "a frame of 64 MB": (poll, "a frame of 66060299 bytes"),
    "lists without end": (poll, "more values than any answer has"),
    "objects in objects": (poll, "more values than any answer has"),
    "objects that look like text": (poll, "more values than any answer has"),
    "numbers without end": (poll, "more values than any answer has"),
    "lists nested for ever": (poll, "a frame of|no JSON"),
    "one number of 15 MB": (poll, "no JSON"),
    "a text of 15 MB": (poll, "its reading is invalid"),
    "a text of escapes": (poll, "its reading is invalid"),
    "packets without bytes": (poll, "thousands of messages that carry nothing"),
    "messages to be ignored": (poll, "thousands of messages that carry nothing"),
    "debug messages": (poll, "thousands of messages that carry nothing"),
    "questions about nothing": (poll, "thousands of messages that carry nothing"),
    "channels that it opens": (poll, "thousands of messages that carry nothing"),
    "signs of life": (poll, "signs of life without end"),
    "a line without end": (poll, "no frame"),
    "a login that talks for ever": (poll, "the login prints more than|nobody asked for"),
    "a login with errors for ever": (poll, "the login prints more than|carry nothing|nobody asked for"),
    "a first line without end": (poll, "more than 65536 bytes before it says that it speaks SSH"),
    "first lines without end": (poll, "more than 65536 bytes before it says that it speaks SSH|said nothing|SSH"),
    "a packet of 2 GB": (poll, "a packet of 21474836"),
    "a packet of 16 MB": (poll, "a packet of 167772"),
    "words during an upload": (put, "signs of life without end|nobody asked for|no frame"),
    "a byte of progress a connection": (put, "closed|broke"),
    "a byte a connection": (get, "closed|broke"),
    "more than the file": (get, "expected sha256|nobody asked for"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_host_that_sends_without_end_is_left_with_the_reason(mode: str, tmp_path: Path) -> None:
    ask, said = MODES[mode]
    with flooding(tmp_path, mode) as host:
        with steady(), pytest.raises(HostError, match=said) as caught:
            ask(host, tmp_path)
        assert str(caught.value).startswith("flood: ") and len(str(caught.value)) < 400
    assert set(flood_server.ANSWERS) | set(flood_server.RAW) <= set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_the_persons_own_ssh_holds_it_back_or_the_link_is_lost(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    """What ssh drops is not told; a host that floods then answers nothing, which is told in time."""
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "trusted"))
    began = time.monotonic()
    with flooding(tmp_path, mode, alias=True, silence_s=3.0, connect_s=4.0, login_s=5.0) as host:
        with steady(), pytest.raises(HostError) as caught:
            MODES[mode][0](host, tmp_path)
        assert str(caught.value).startswith("flood: ") and len(str(caught.value)) < 800
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("mode", ["bytes when idle", "errors when idle", "bytes of no known stream"])
def test_what_comes_when_nothing_was_asked_ends_the_link_and_the_next_question_tells_why(
    mode: str, tmp_path: Path
) -> None:
    with flooding(tmp_path, mode) as host, steady():
        host.sha256(Path("/x"))
        connection = host.transport.link._connection  # type: ignore[attr-defined]
        wait_for(lambda: not connection.alive(), "the link is ended")
        with pytest.raises(LinkLost, match=r"flood: .*(nobody asked for|carry nothing).*the connection was ended"):
            host.sha256(Path("/x"))
        with pytest.raises(LinkLost, match="next try in"):  # not at once: it would only flood again
            host.sha256(Path("/x"))


def test_a_channel_that_was_closed_is_no_way_around_the_limits(tmp_path: Path) -> None:
    with flooding(tmp_path, "a line without end") as host, steady():
        with host.transport.link.session() as session:  # type: ignore[attr-defined]
            connection = session.owner
        with pytest.raises(HostError, match=r"no frame|nobody asked for"):
            host.poll()
        wait_for(lambda: not connection.alive(), "the link is ended")
        assert "nobody asked for" in connection.flood


def test_bytes_for_a_conversation_that_is_over_end_the_connection_too(tmp_path: Path) -> None:
    """They fill nothing, but without end they would keep this machine and its network busy."""
    packets = transport._Packets(Mock())
    packets.living = {7: object()}.get
    block = (9).to_bytes(4, "big") + bytes(2**15)
    for _ in range(transport.STRAY // len(block)):
        packets._count_stray(memoryview(block))
        packets._count_stray(memoryview((7).to_bytes(4, "big") + bytes(2**20)))  # of a living one: its window counts
    with pytest.raises(transport.Flooded, match="to conversations that had ended"):
        packets._count_stray(memoryview(block))
    assert "nobody asked for" in packets.flood
