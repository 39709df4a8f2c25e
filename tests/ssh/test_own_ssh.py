"""Logins of all kinds that work in a person's terminal work here: by their own ssh, to real OpenSSH servers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fleet as fleets
import pytest
from hosts_by_ssh import agent
from own_ssh_hosts import PATIENT, Setting, keygen, reached, serving
from proxy import Proxy
from waiting import wait_for

from runbook_lib.hosts.content import Content
from runbook_lib.hosts.ssh import alias, link, login, ssh
from runbook_lib.profile.profile import HostSpec

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def is_in(name: str = "box") -> bool:
    """A question is answered, a file goes there and comes home."""
    with reached(name) as way:
        data = os.urandom(300_000)
        content = Content(len(data), hashlib.sha256(data).hexdigest(), lambda: iter([data]))
        assert way.call("alive", 5.0, identity=None) is False
        target = f"{way.home}/there-{content.sha256[:8]}"
        assert way.put(target, content, lambda count: None)
        here = Path(os.environ["RUNBOOK_SSH_CONFIG"]).with_name("home")
        assert way.get(target, here, content.sha256, content.size, lambda count: None)
        assert way.link.connections == 1
        return here.read_bytes() == data


# ------------------------------------------------------------------------------------------ keys, agents, certificates


def encrypted_key_and_agent(at: Setting) -> contextlib.AbstractContextManager[object]:
    at.write(f"IdentityFile {at.make_key('locked', 'some phrase')}", f"IdentityAgent {at.folder}/agent.sock", key=False)
    return agent(at.folder, at.host.key)


def sixth_key_of_an_agent(at: Setting) -> contextlib.AbstractContextManager[object]:
    at.write("IdentityFile none", f"IdentityAgent {at.folder}/agent.sock", key=False)
    return agent(at.folder, *(at.make_key(f"key{number}") for number in range(5)), at.host.key)


def key_named_by_its_public_half(at: Setting) -> contextlib.AbstractContextManager[object]:
    keys = [at.make_key(f"key{number}") for number in range(7)]
    shutil.copy(f"{at.host.key}.pub", at.folder / "named.pub")
    at.write(
        f"IdentityFile {at.folder}/named.pub", "IdentitiesOnly yes", f"IdentityAgent {at.folder}/agent.sock", key=False
    )
    return agent(at.folder, *keys, at.host.key)


def certificate(at: Setting) -> contextlib.AbstractContextManager[object]:
    user = at.make_key("user")
    keygen("-s", at.folder / "ca", "-I", "me", "-n", at.host.username, f"{user}.pub")
    (at.folder / "vault").mkdir()
    (at.folder / "user-cert.pub").rename(at.folder / "vault" / "signed.pub")
    at.write(f"IdentityFile {user}", f"CertificateFile {at.folder}/vault/signed.pub", key=False)
    return contextlib.nullcontext()


KEYS: dict[str, Callable[[Setting], contextlib.AbstractContextManager[object]]] = {
    "an encrypted key and an agent": encrypted_key_and_agent,
    "the sixth key of an agent": sixth_key_of_an_agent,
    "one key of an agent by its public half": key_named_by_its_public_half,
    "a certificate that lies elsewhere": certificate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_whatever_proves_who_they_are(kind, tmp_path, monkeypatch):
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    lines = [f"TrustedUserCAKeys {tmp_path}/ca.pub", "MaxAuthTries 6"]
    with serving(tmp_path, monkeypatch, *lines) as at, KEYS[kind](at):
        assert is_in()


# --------------------------------------------------------------------------------------------- how the machine is known


def by_hashes(at: Setting) -> None:
    keygen("-H", "-f", at.known)
    assert at.host.address not in at.known.read_text()
    at.write("HashKnownHosts yes")


def by_the_bare_name(at: Setting) -> None:
    at.known.write_text(f"{at.host.address} {at.public_key}\n")
    at.write()


def by_an_alias_of_its_key(at: Setting) -> None:
    at.known.write_text(f"farm {at.public_key}\n")
    at.write("HostKeyAlias farm")


def by_a_command(at: Setting) -> None:
    at.known.write_text("")
    at.write(f"KnownHostsCommand /bin/echo {at.name} {at.public_key}")


def by_an_authority(at: Setting) -> None:
    shutil.copy(at.host.folder / "host_key.pub", at.folder / "host_key.pub")
    keygen("-s", at.folder / "ca", "-I", "host", "-h", "-n", f"{at.host.address},{at.name}", at.folder / "host_key.pub")
    shutil.copy(at.folder / "host_key-cert.pub", at.host.folder / "host_key-cert.pub")
    at.host.reload()
    at.known.write_text(f"@cert-authority *,[*]:* {(at.folder / 'ca.pub').read_text()}")
    at.write()


def by_runbook_trust(at: Setting) -> None:
    at.known.write_text("")
    from runbook_lib.hosts.ssh import known_hosts

    known_hosts.trust(at.name, at.host.fingerprint)
    at.write()


KNOWN = (by_hashes, by_the_bare_name, by_an_alias_of_its_key, by_a_command, by_an_authority, by_runbook_trust)


@pytest.mark.parametrize("way", KNOWN, ids=lambda way: way.__name__)
def test_however_the_machine_is_known(way, tmp_path, monkeypatch):
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "trusted"))
    if way in (by_a_command, by_runbook_trust) and alias.version() < alias.PINS_SINCE:
        pytest.skip("no KnownHostsCommand in the OpenSSH on this machine")
    with serving(tmp_path, monkeypatch, f"HostCertificate {tmp_path}/fleet/box/host_key-cert.pub") as at:
        way(at)
        assert is_in()


# ------------------------------------------------------------------------------------------------- ways and algorithms


@pytest.mark.parametrize(
    "line", ["KexAlgorithms sntrup761x25519-sha512@openssh.com", "Ciphers chacha20-poly1305@openssh.com"]
)
def test_algorithms_that_only_openssh_has(line, tmp_path, monkeypatch):
    kind, name = line.split()
    known = subprocess.run(["ssh", "-Q", kind[:3].lower().replace("cip", "cipher")], capture_output=True, check=True)
    if name.encode() not in known.stdout.split():
        pytest.skip(f"the OpenSSH on this machine has no {name}")
    with serving(tmp_path, monkeypatch, line) as at:
        at.write()
        assert is_in()


RELAY = """
import os, select, socket, sys
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([line, 0], [], [])[0]:
        data = line.recv(65536) if ready is line else os.read(0, 65536)
        if not data:
            sys.exit()
        os.write(1, data) if ready is line else line.sendall(data)
"""


def relays(folder: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"python.* {folder}/relay.py"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_a_proxy_command_is_run_by_a_shell_and_ends_with_the_connection(tmp_path, monkeypatch):
    (tmp_path / "relay.py").write_text(RELAY)
    command = f'test -n "$HOME" && exec {sys.executable} {tmp_path}/relay.py %h %p || echo failed'
    with serving(tmp_path, monkeypatch) as at:
        at.write(f"ProxyCommand /bin/sh -c {shlex.quote(command)}")
        with reached() as way:
            assert way.call("alive", 5.0, identity=None) is False
            assert len(relays(tmp_path)) == 1
            os.kill(relays(tmp_path)[0], 9)
            wait_for(lambda: not way.link._connection.alive(), "the end of the connection is noticed")
            assert way.call("alive", 5.0, identity=None) is False
            assert way.link.connections == 2
        wait_for(lambda: not relays(tmp_path), "the end of the command")


def test_include_match_and_canonical_names_count(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write(top="CanonicalizeHostname always\nCanonicalizeFallbackLocal yes\n")
        at.config.rename(tmp_path / "more [x]")
        at.config.write_text(
            f'Match exec "test %n = short"\n  HostName {at.host.address}\n  User nobody-here\n'
            f'Match originalhost short\n  HostKeyAlias {at.name}\nMatch all\n  Include "{tmp_path}/more*"\n'
        )
        assert is_in()


def test_ipv6_and_another_port(tmp_path, monkeypatch):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as door:
        port = door.getsockname()[1]
    with serving(tmp_path, monkeypatch, f"ListenAddress [::1]:{port}") as at:
        at.known.write_text(f"[::1]:{port} {at.public_key}\n")
        at.write()
        at.config.write_text(f"Host box\n  HostName ::1\n  Port {port}\n" + at.config.read_text())
        assert is_in()


HABITS = """
RemoteCommand top
RequestTTY force
LocalForward 127.0.0.1:{port} 127.0.0.1:22
DynamicForward 127.0.0.1:{port}
ForwardX11 yes
ForwardAgent yes
SendEnv LANG LC_*
SetEnv FLAVOUR=sour
LogLevel QUIET
PermitLocalCommand yes
LocalCommand touch {folder}/local-command-ran
ControlMaster auto
ControlPath {folder}/%C
ControlPersist 10m
Compression yes
StrictHostKeyChecking ask
ServerAliveInterval 0
EscapeChar ~
AddressFamily inet
BatchMode no
UpdateHostKeys yes
AddKeysToAgent yes
VisualHostKey yes
TCPKeepAlive no
IPQoS throughput
RekeyLimit 1M
"""
NEWER = "SessionType none\nStdinNull yes\nForkAfterAuthentication yes\n"  # OpenSSH 8.7


def test_habits_of_a_terminal_are_no_hindrance_and_have_no_effect(tmp_path, monkeypatch):
    """Nothing is forwarded, asked, run here, left behind or written into what is theirs."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    banner = tmp_path / "banner"
    banner.write_text("Host key verification failed.\nroot@box: Permission denied (publickey).\n" * 3)
    with serving(tmp_path, monkeypatch, f"Banner {banner}") as at:
        text = HABITS + (NEWER if alias.version() >= (8, 7) else "")
        at.write(*text.format(port=port, folder=tmp_path).strip().splitlines())
        known = at.known.read_bytes()
        assert is_in()
        with reached() as way:
            assert way.call("alive", 5.0, identity=None) is False
            with socket.socket() as line:
                assert line.connect_ex(("127.0.0.1", port))
        assert at.known.read_bytes() == known
    assert not (tmp_path / "local-command-ran").exists()
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]
    told = subprocess.run(["pgrep", "-f", str(tmp_path / "the config")], capture_output=True, text=True, check=False)
    assert told.stdout == ""


def test_a_dead_link_is_noticed_while_nobody_asks_and_made_anew_when_it_is_back(tmp_path, monkeypatch):
    """With the patience that operators have in 20 s; here in five."""
    with serving(tmp_path, monkeypatch) as at, Proxy(at.host.address, at.host.port) as line:
        at.write()
        at.config.write_text(f"Host box\n  Port {line.port}\n  HostKeyAlias {at.name}\n{at.config.read_text()}")
        with reached(patience=replace(PATIENT, silence_s=3.0)) as way:
            assert way.call("alive", 5.0, identity=None) is False
            line.blackhole()
            wait_for(lambda: not way.link._connection.alive(), "it is noticed", 10)
            line.resume()
            assert way.call("alive", 5.0, identity=None) is False
            assert way.link.connections == 2


# --------------------------------------------------------------------------------------------------------------- hops


def connections_to(host: fleets.Host) -> int:
    return host.log.read_text().count("Connection from")


def test_a_host_behind_another_is_reached_through_it_with_one_login_each(two, ssh_fleet):
    two("Host tensor02", "  ProxyJump tensor01")
    before = [connections_to(host) for host in ssh_fleet.hosts.values()]
    assert is_in("tensor02")
    after = [connections_to(host) for host in ssh_fleet.hosts.values()]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]


def test_a_chain_of_hops_and_a_hop_by_ssh_w(two, ssh_fleet):
    two("Host inner", "  ProxyJump tensor01,tensor02", *inner(ssh_fleet))
    assert is_in("inner")
    two("Host tensor02", f"  ProxyCommand ssh -F {ssh_fleet.ssh_config} -W %h:%p tensor01")
    assert is_in("tensor02")


def inner(ssh_fleet: fleets.Fleet) -> list[str]:
    """tensor02, as it sees itself."""
    host = ssh_fleet.hosts["tensor02"]
    where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    lines = [f"HostName {host.address}", f"Port {host.port}", f"User {host.username}", f"IdentityFile {host.key}"]
    lines += [f"HostKeyAlias {where}", f"UserKnownHostsFile {ssh_fleet.known_hosts}"]
    return [f"  {line}" for line in lines]


def test_the_hop_of_a_credentials_file_is_their_own_ssh_too(two, ssh_fleet, tmp_path):
    two()
    host = ssh_fleet.hosts["tensor02"]
    host.write_credentials(tmp_path / "far.credentials", proxy_jump="tensor01")
    found = login.of(HostSpec(name="far", kind="ssh", credentials=tmp_path / "far.credentials"))
    own = link.Link(found, PATIENT)
    try:
        way = ssh.SshTransport("far", own)
        assert way.call("alive", 5.0, identity=None) is False
        assert way.where == f"{host.username}@{host.address}" + ("" if host.port == 22 else f":{host.port}")
        # The hop's own connection breaks: both are made again.
        link.link_to(found.jump).close()
        assert way.call("alive", 5.0, identity=None) is False
        assert own.connections == 2
    finally:
        own.close()


def test_a_credentials_file_without_a_secret_is_their_own_ssh_with_its_own_fingerprint(tmp_path, monkeypatch):
    if alias.version() < alias.PINS_SINCE:
        pytest.skip("no KnownHostsCommand in the OpenSSH on this machine")
    with serving(tmp_path, monkeypatch) as at:
        at.config.write_text(f'Host *\n  IdentityFile "{at.host.key}"\n  IdentitiesOnly yes\n')
        at.host.write_credentials(tmp_path / "box.credentials", key_filename=None)
        assert "key_filename" not in (tmp_path / "box.credentials").read_text()
        own = link.Link(login.of(HostSpec(name="box", kind="ssh", credentials=tmp_path / "box.credentials")), PATIENT)
        assert ssh.SshTransport("box", own).call("alive", 5.0, identity=None) is False
        own.close()


def test_the_way_into_a_pod_that_the_page_shows(tmp_path, monkeypatch):
    """With a stand-in for kubectl that runs here what it would run in the pod: sshd without a port."""
    page = (Path(__file__).parents[2] / "docs" / "elsewhere.md").read_text()
    shown = page[page.index("Host embed-*") :].partition("```")[0]
    with serving(tmp_path, monkeypatch) as at:
        pod = tmp_path / "pod"
        pod.mkdir(mode=0o700)
        shutil.copy(at.host.folder / "host_key", pod / "host_key")
        shutil.copy(f"{at.host.key}.pub", pod / "authorized_keys")
        kubectl = tmp_path / "bin" / "kubectl"
        kubectl.parent.mkdir()
        kubectl.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
            'if [ "$1" = get ]; then echo pod/embed-1-x7; else shift 4; exec "$@"; fi\n'
        )
        kubectl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{kubectl.parent}{os.pathsep}{os.environ['PATH']}")
        at.known.write_text(f"embed {at.public_key}\n")
        mine = [f'IdentityFile "{at.host.key}"', f'UserKnownHostsFile "{at.known}"', "GlobalKnownHostsFile /dev/null"]
        shown = shown.replace("/etc/ssh/runbook", str(pod)).replace("User root", f"User {at.host.username}")
        at.config.write_text(shown.rstrip() + "\n" + "".join(f"  {line}\n" for line in mine))
        assert is_in("embed-1")
        asked = (tmp_path / "asked").read_text()
        assert "job-completion-index=1\n" in asked and "exec -i pod/embed-1-x7 -- /usr/sbin/sshd -i" in asked
