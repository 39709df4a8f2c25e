"""What tests of SSH stand on: the fleet of the session, profiles and hosts made for it, a link of their own."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fleet
from waiting import wait_for

from runbook_lib.hosts import hosts
from runbook_lib.hosts.ssh import link, login, ssh
from runbook_lib.hosts.ssh.alias import Alias
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile import profile

QUICK = Patience(
    connect_s=2.0, banner_s=2.0, login_s=8.0, channel_s=3.0, silence_s=2.0, floor_window_s=2.0, outage_s=8.0
)


# Where it has a folder, `linked` goes by an alias in an ssh configuration there, and so by OpenSSH's own client.
by_alias: list[Path] = []
_numbers = itertools.count()


def write_alias(folder: Path, host: fleet.Host, address: str, port: int, *lines: str) -> str:
    """Add an alias for that host to the ssh configuration of a folder, with the key that it shows, and return it."""
    config, known = folder / "config", folder / "known_hosts"
    alias = f"{host.name}-{next(_numbers)}"  # a refusal is remembered by it
    entries = [f"HostName {address}", f"Port {port}", f"User {host.username}", f'IdentityFile "{host.key}"']
    entries += [f"HostKeyAlias {alias}", f'UserKnownHostsFile "{known}"', "GlobalKnownHostsFile /dev/null"]
    entries += ["IdentitiesOnly yes", "IdentityAgent none", *lines]
    with config.open("a") as file:
        file.write(f"Host {alias}\n" + "".join(f"  {entry}\n" for entry in entries))
    with known.open("a") as file:
        file.write(f"{alias} {(host.folder / 'host_key.pub').read_text().strip()}\n")
    return alias


def spec(host: fleet.Host, **keys: object) -> profile.HostSpec:
    """A host of the fleet as a profile's entry."""
    return profile.HostSpec(
        **{"name": host.name, "kind": "ssh", "slots": 1, "device": "cpu", "credentials": host.credentials, **keys}
    )


@contextmanager
def linked(
    host: fleet.Host, patience: Patience = QUICK, run: str = "r", address: str = "", port: int = 0, **keys: object
) -> Iterator[hosts.Host]:
    """A host by a connection of its own, through `address` and `port` where a proxy stands in between."""
    chosen = spec(host, **keys)
    address, port = address or host.address, port or host.port
    if by_alias:
        found: login.Login | Alias = Alias(host.name, write_alias(by_alias[0], host, address, port))
    else:
        given = login.of(chosen)
        assert isinstance(given, login.Login)
        found = replace(given, address=address, port=port)
    own = link.Link(found, patience)
    try:
        yield hosts.Host(chosen, run, ssh.SshTransport(chosen.name, own))
    finally:
        own.close()


def profile_text(fleet_hosts: list[fleet.Host], environment: str, local: bool = False, **lines: str) -> str:
    """A profile over hosts of the fleet, or over as many folders of this machine, as YAML; `lines`: more keys of it."""
    entries = ""
    for host in fleet_hosts:
        if local:
            way = f"kind: local, workdir: {host.name}"
        elif by_alias:
            way = f"kind: ssh, ssh: {write_alias(by_alias[0], host, host.address, host.port)}"
        else:
            way = f"kind: ssh, credentials: {host.credentials}"
        entries += f"  - {{name: {host.name}, {way}, slots: 1, device: cpu, threads: 1, environment: {environment}}}\n"
    keys = {"run": "t", "corpus": "{path: corpus.json}", "model": "{name: ./model}", **lines}
    return "".join(f"{key}: {value}\n" for key, value in keys.items()) + f"hosts:\n{entries}"


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """A real ssh-agent with these keys, in this order."""
    sock = folder / "agent.sock"
    child = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(sock)}
        listing = {"args": ["ssh-add", "-l"], "env": environment, "capture_output": True}
        wait_for(lambda: subprocess.run(**listing, check=False).returncode != 2, "the agent")  # its socket comes first
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, stdin=subprocess.DEVNULL)
        yield sock
    finally:
        child.terminate()
        child.wait()
