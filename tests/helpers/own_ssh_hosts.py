"""Real OpenSSH servers with settings of their own, and a person's ssh configuration for them, written for a test."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fleet as fleets
import pytest
from hosts_by_ssh import QUICK, by_alias
from waiting import wait_for

from runbook_lib.hosts.ssh import client, link, login, ssh
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile.profile import HostSpec

PATIENT = replace(QUICK, connect_s=10.0, banner_s=10.0, login_s=20.0, channel_s=15.0, silence_s=15.0)


@pytest.fixture(params=["a credentials file", "an alias"])
def either_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What holds for both ways to log in: paramiko for a credentials file, the person's own ssh for an alias."""
    if request.param == "an alias":
        by_alias.append(tmp_path_factory.mktemp("alias"))
        monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(by_alias[0] / "config"))
    yield request.param
    by_alias.clear()


@pytest.fixture
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No folder, no ssh of ours outlives its connection."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    before = set(client.PLACE.glob("runbook-ssh-*"))
    yield
    link.close_all()
    link._refused.clear()
    wait_for(lambda: not (set(client.PLACE.glob("runbook-ssh-*")) - before), "its folders are gone")


@pytest.fixture
def two(ssh_fleet, tmp_path, monkeypatch) -> Callable[..., None]:
    """Writes a configuration in which tensor02 is behind tensor01."""

    def write(*lines: str, known: str = "") -> None:
        text = ssh_fleet.ssh_config.read_text().replace(str(ssh_fleet.known_hosts), known or str(ssh_fleet.known_hosts))
        (tmp_path / "config").write_text("".join(f"{line}\n" for line in lines) + text)

    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
    return write


class Setting:
    """A server with settings of its own, and a person's configuration for it: the alias `box`."""

    def __init__(self, folder: Path, host: fleets.Host, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.host = folder, host
        self.known = folder / "known"
        self.known.write_text(f"{self.name} {self.public_key}\n")
        self.config = folder / "the config"
        self.lines: list[str] = []
        monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(self.config))

    @property
    def name(self) -> str:
        """As known_hosts has it."""
        return f"[{self.host.address}]:{self.host.port}"

    @property
    def public_key(self) -> str:
        """The key that the server shows."""
        return " ".join((self.host.folder / "host_key.pub").read_text().split()[:2])

    def write(self, *lines: str, key: bool = True, top: str = "") -> None:
        """Write the configuration: these lines for the alias, and what it always needs."""
        lines = (*lines, f'IdentityFile "{self.host.key}"') if key else lines
        self.lines = [*lines, f"HostName {self.host.address}", f"Port {self.host.port}", f"User {self.host.username}"]
        self.lines += [f'UserKnownHostsFile "{self.known}"', "GlobalKnownHostsFile /dev/null"]
        self.config.write_text(f"{top}Host box\n" + "".join(f"  {line}\n" for line in self.lines))

    def make_key(self, name: str, phrase: str = "", kind: str = "ed25519") -> Path:
        """A new key file."""
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-C", name, "-f", str(path)], check=True)
        return path


def keygen(*arguments: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, *sshd: str) -> Iterator[Setting]:
    if why := fleets.available("loopback"):
        pytest.skip(f"no SSH hosts: {why}")
    with fleets.start(folder / "fleet", names=["box"], mode="loopback", sshd=list(sshd)) as started:
        yield Setting(folder, started.hosts["box"], monkeypatch)


@contextlib.contextmanager
def reached(name: str = "box", patience: Patience = PATIENT) -> Iterator[ssh.SshTransport]:
    own = link.Link(login.of(HostSpec(name="host", kind="ssh", ssh=name)), patience)
    try:
        yield ssh.SshTransport("host", own)
    finally:
        own.close()
