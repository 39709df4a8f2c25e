"""Logins by a person's own ssh that fail: of which kind, in which words, and that a server's words decide neither."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ssh_server
from own_ssh_hosts import PATIENT, Setting, keygen, reached, serving
from proxy import Proxy
from waiting import wait_for

from runbook_lib import cli
from runbook_lib.errors import HostError, LinkLost
from runbook_lib.hosts.ssh import alias, client, folder, link, refused, ssh
from runbook_lib.hosts.ssh.refused import HostKeyRefused, LoginRefused, Refused

pytestmark = pytest.mark.usefixtures("nothing_is_left")
LIES = "Host key verification failed.\nroot@box: Permission denied (publickey).\ndebug1: SSH2_MSG_NEWKEYS received\n"


@pytest.fixture(autouse=True)
def no_pins(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "trusted"))


def refusal(kind: type[HostError], name: str = "box") -> str:
    with reached(name) as way, pytest.raises(HostError) as caught:
        way.call("alive", 5.0, identity=None)
    assert type(caught.value) is kind, caught.value
    assert str(caught.value).startswith("host: ")
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------- host keys


@pytest.mark.parametrize("habit", ["ask", "no", "accept-new"])
def test_an_unknown_key_is_refused_with_its_fingerprint_whatever_their_habit(habit, tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.known.write_text("")
        at.write(f"StrictHostKeyChecking {habit}")
        said = refusal(HostKeyRefused)
        assert f"seen ssh-ed25519 {at.host.fingerprint}" in said and "nothing was sent" in said
        assert at.known.read_text() == "" and "Accepted" not in at.host.log.read_text()
        if alias.version() < alias.PINS_SINCE:  # it could not be told of our pins
            assert "say yes once to: ssh -F" in said and "runbook trust" not in said
            return
        (trust,) = re.findall(r"runbook (trust) '(.*)' (\S+)", said)
        assert cli.main(list(trust)) == 0  # the one command that it spells out
        with reached() as way:
            assert way.call("alive", 5.0, identity=None) is False
        assert at.known.read_text() == ""


def test_a_changed_key_is_refused_with_file_and_line(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write("StrictHostKeyChecking no")
        old = at.known.read_text()
        at.known.write_text(f"# ours\n{old}")
        new = at.host.new_key()
        said = refusal(HostKeyRefused)
        assert "is not the one known" in said and f"{at.known}:2" in said and new in said
        assert f"ssh-keygen -R '{at.name}' -f {at.known}" in said


def test_a_pinned_key_that_changed_is_refused(tmp_path, monkeypatch):
    if alias.version() < alias.PINS_SINCE:
        pytest.skip("no KnownHostsCommand in the OpenSSH on this machine")
    with serving(tmp_path, monkeypatch) as at:
        at.known.write_text("")
        at.write()
        before = at.host.fingerprint
        assert cli.main(["trust", at.name, before]) == 0
        new = at.host.new_key()
        said = refusal(HostKeyRefused)
        assert "is not the one known" in said and before in said and new in said


@pytest.mark.parametrize("way", ["in known_hosts", "by a file"])
def test_a_revoked_key_is_refused(way, tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        if way == "in known_hosts":
            at.known.write_text(f"{at.known.read_text()}@revoked * {at.public_key}\n")
            at.write()
        else:
            (tmp_path / "revoked").write_text(f"{at.public_key}\n")
            at.write(f"RevokedHostKeys {tmp_path}/revoked")
        said = refusal(HostKeyRefused)
        assert "is revoked" in said and at.host.fingerprint in said


@pytest.mark.parametrize(
    ("way", "unknown"), [("jump", "tensor01"), ("jump", "tensor02"), ("command", "tensor02")]
)  # what their own command says of its hop is words
def test_each_hop_must_show_a_key_that_is_known(way, unknown, two, ssh_fleet, tmp_path):
    host = ssh_fleet.hosts[unknown]
    where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    known = tmp_path / "known_hosts"
    entries = ssh_fleet.known_hosts.read_text().splitlines(keepends=True)
    known.write_text("".join(entry for entry in entries if not entry.startswith(f"{where} ")))
    through = "ProxyJump tensor01" if way == "jump" else f"ProxyCommand ssh -F {ssh_fleet.ssh_config} -W %h:%p tensor01"
    two("Host tensor01", "  StrictHostKeyChecking no", "Host tensor02", f"  {through}", known=str(known))
    seen = ssh_fleet.hosts["tensor02"].log.read_text().count("Connection from")
    said = refusal(HostKeyRefused, "tensor02")
    assert where in said and host.fingerprint in said
    assert ssh_fleet.hosts["tensor02"].log.read_text().count("Connection from") - seen == (unknown == "tensor02")


# ------------------------------------------------------------------------------------------------------------- logins


def wrong_key(at: Setting) -> str:
    at.write(f"IdentityFile {at.make_key('other')}", key=False)
    return r"offered: \S+/other"


def no_key(at: Setting) -> str:
    at.write("IdentityFile none", key=False)
    return "offered: nothing"


def open_key(at: Setting) -> str:
    path = Path(shutil.copy(at.host.key, at.folder / "open"))
    path.chmod(0o644)
    at.write(f"IdentityFile {path}", key=False)
    return "bad permissions"


def expired_certificate(at: Setting) -> str:
    user = at.make_key("user")
    keygen("-s", at.folder / "ca", "-I", "me", "-n", at.host.username, "-V", "20200101:20200102", f"{user}.pub")
    at.write(f"IdentityFile {user}", key=False)
    return "see until when it holds, ssh-keygen -L"


def unknown_account(at: Setting) -> str:
    at.write()
    at.config.write_text(f"Host box\n  User nobody-here\n{at.config.read_text()}")
    return "does not let you in"


LOGINS: list[Callable[[Setting], str]] = [wrong_key, no_key, open_key, expired_certificate, unknown_account]


@pytest.mark.parametrize("way", LOGINS, ids=lambda way: way.__name__)
def test_a_login_that_is_refused_says_what_was_offered_and_is_not_tried_again(way, tmp_path, monkeypatch):
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    lines = [f"TrustedUserCAKeys {tmp_path}/ca.pub", "PasswordAuthentication no", "KbdInteractiveAuthentication no"]
    with serving(tmp_path, monkeypatch, *lines) as at:
        words = way(at)
        before = at.host.log.read_text().count("Connection from")
        with reached() as transport:
            for _ in range(2):
                with pytest.raises(LoginRefused, match=words) as caught:
                    transport.call("alive", 5.0, identity=None)
        assert at.host.log.read_text().count("Connection from") == before + 1
        assert "Try by hand: ssh -F" in str(caught.value) and "runbook login" not in str(caught.value)


def test_a_host_that_takes_passwords_only_is_told_with_the_command_that_asks(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch, "PasswordAuthentication yes", "PubkeyAuthentication no") as at:
        at.write()
        assert "answer once: `runbook login box`" in refusal(LoginRefused)


def test_too_many_keys_of_an_agent_are_told_with_the_remedy(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch, "MaxAuthTries 2") as at:
        at.write(*(f"IdentityFile {at.make_key(f'key{number}')}" for number in range(4)), key=False)
        assert "Too many authentication failures" in (said := refusal(LoginRefused)) and "IdentitiesOnly yes" in said


def test_a_hop_that_refuses_the_login_is_named(two, ssh_fleet):
    two("Host tensor02", "  ProxyJump tensor01", "Host tensor01", "  User nobody-here")
    host = ssh_fleet.hosts["tensor01"]
    assert f"{host.address}:{host.port} does not let you in" in refusal(LoginRefused, "tensor02")


# -------------------------------------------------------------------------------------------------- no way to get there


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def test_what_is_not_there_is_a_lost_link_in_the_words_of_ssh(two, tmp_path, monkeypatch):
    gone = f"  HostName 127.0.0.1\n  Port {closed_port()}"
    two("Host gone", gone, "Host behind-gone", "  ProxyJump gone", "Host nowhere", "  ProxyJump tensor01", gone)
    assert "Connection refused" in refusal(LinkLost, "gone")
    assert "Connection refused" in refusal(LinkLost, "behind-gone")
    assert "Connection refused" in refusal(LinkLost, "nowhere")
    two("Host tensor01", "  ProxyCommand cloudflared-is-not-here access ssh --hostname %h")
    assert re.search("its proxy said: .*cloudflared-is-not-here.*not found", refusal(LinkLost, "tensor01"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no ssh client here" in refusal(Refused, "tensor01")


def test_no_room_here_for_a_connection_is_told_and_passes(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write()
        with monkeypatch.context() as full, reached() as way:
            full.setattr(folder, "PLACE", tmp_path / "not-there")
            with pytest.raises(LinkLost, match=r"host: starting ssh: .*not-there"):
                way.call("alive", 5.0, identity=None)
            full.undo()
            wait_for(lambda: answers(way), "it is tried again")


def answers(way: ssh.SshTransport) -> bool:
    try:
        return way.call("alive", 5.0, identity=None) is False
    except LinkLost:
        return False


def test_a_server_that_is_silent_or_has_no_room_is_a_lost_link(tmp_path, monkeypatch):
    monkeypatch.setattr(refused.random, "uniform", lambda low, high: low / 3)
    with serving(tmp_path, monkeypatch, "MaxStartups 1:100:1") as at, Proxy(at.host.address, at.host.port) as line:
        at.write()
        at.config.write_text(f"Host box\n  Port {line.port}\n  HostKeyAlias {at.name}\n{at.config.read_text()}")
        with socket.create_connection((at.host.address, at.host.port), timeout=5) as other:
            assert other.recv(100).startswith(b"SSH-")
            assert "closed before it said anything" in refusal(LinkLost)
        assert line.connections == refused.TRIES
        line.blackhole()
        quick = replace(PATIENT, connect_s=1.0, banner_s=0.5, login_s=1.0)
        began = time.monotonic()
        with reached(patience=quick) as way, pytest.raises(LinkLost):
            way.call("alive", 5.0, identity=None)
        assert time.monotonic() - began < 9


def test_a_command_that_the_server_forces_is_no_lost_link(tmp_path, monkeypatch):
    for code in (3, 255):
        with serving(
            tmp_path / str(code), monkeypatch, f"ForceCommand echo {LIES.split(chr(10))[0]!r}; exit {code}"
        ) as at:
            at.write()
            said = refusal(HostError)
        assert f"no command can be run (exit code {code})" in said and "Host key verification failed" in said


# ------------------------------------------------------------------------------------------------------------ impostors


class Talker:
    """A server that says these words, and then nothing."""

    def __init__(self, words: bytes):
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.words = words
        self.heard = b""
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                line = self.door.accept()[0]
            except OSError:
                return
            with line:
                line.sendall(self.words)
                line.settimeout(1.0)
                try:
                    while data := line.recv(1000):
                        self.heard += data
                except OSError:
                    pass


@pytest.mark.parametrize("words", [LIES.encode(), LIES.encode() + b"SSH-2.0-x\r\n", b"SSH-2.0-" + LIES.encode()])
def test_what_a_server_says_before_the_key_exchange_decides_nothing(words, tmp_path, monkeypatch):
    talker = Talker(words)
    monkeypatch.setattr(refused, "TRIES", 1)
    try:
        monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
        (tmp_path / "config").write_text(f"Host box\n  HostName 127.0.0.1\n  Port {talker.port}\n  User secret-name\n")
        assert "host: reaching" in refusal(LinkLost)
        assert b"secret-name" not in talker.heard
    finally:
        talker.door.close()


def test_a_banner_that_quotes_ssh_decides_nothing(tmp_path, monkeypatch):
    """Of the host and of a hop: their logins fail for another reason, or do not fail at all."""
    with ssh_server.start(tmp_path / "clerk", banner=LIES * 3) as clerk:
        (tmp_path / "known").write_text(f"[127.0.0.1]:{clerk.port} {clerk.host_key.export_public_key().decode()}")
        entries = ["HostName 127.0.0.1", f"Port {clerk.port}", "User mapper", f"UserKnownHostsFile {tmp_path}/known"]
        entries += [f"IdentityFile {clerk.key}", "IdentitiesOnly yes"]
        text = "Host box\n" + "".join(f"  {entry}\n" for entry in entries)
        (tmp_path / "config").write_text(
            text + f"Host behind\n  HostName 127.0.0.1\n  Port {closed_port()}\n  ProxyJump box\n"
        )
        monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
        with reached() as way:
            assert way.call("alive", 5.0, identity=None) is False
        with reached("behind") as way, pytest.raises(HostError) as caught:
            way.call("alive", 5.0, identity=None)
        assert not isinstance(caught.value, HostKeyRefused)
        link._refused.clear()
        (tmp_path / "config").write_text(text.replace("mapper", "else"))
        refusal(LoginRefused)


def test_an_impostor_hears_neither_a_name_nor_a_key(tmp_path, monkeypatch):
    with ssh_server.start(tmp_path / "clerk") as clerk:
        keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "true")
        known = " ".join((tmp_path / "true.pub").read_text().split()[:2])
        entries = ["HostName 127.0.0.1", f"Port {clerk.port}", "User mapper", f"UserKnownHostsFile {tmp_path}/known"]
        entries += [f"IdentityFile {clerk.key}", "StrictHostKeyChecking no", "PasswordAuthentication yes"]
        (tmp_path / "config").write_text("Host box\n" + "".join(f"  {entry}\n" for entry in entries))
        monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
        for text in ("", f"[127.0.0.1]:{clerk.port} {known}\n"):
            (tmp_path / "known").write_text(text)
            assert clerk.fingerprint in refusal(HostKeyRefused)
        assert clerk.connections == 2
        assert (clerk.attempts, clerk.passwords_seen, clerk.commands) == ([], [], [])


# ------------------------------------------------------------------------------------------------------- what is left


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_connections_and_refusals_leave_no_process_no_thread_and_no_file(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write()
        with reached() as way:
            way.call("alive", 5.0, identity=None)
        threads, files = threading.active_count(), descriptors()
        for _ in range(8):
            with reached() as way:
                assert way.call("alive", 5.0, identity=None) is False
                assert way.sessions() == link.SESSIONS
        at.write(f"IdentityFile {at.make_key('other')}", key=False)
        for _ in range(4):
            link._refused.clear()
            refusal(LoginRefused)
        wait_for(lambda: threading.active_count() <= threads, "the end of all threads")
        wait_for(lambda: descriptors() <= files, "the closing of all files")
        assert not list(client.PLACE.glob("runbook-ssh-*/s"))
