"""What tests of SSH stand on: the fleet of the session, profiles and hosts made for it, a link of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import fleet

from runbook_lib.hosts import hosts
from runbook_lib.hosts.ssh import link, login, ssh
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile import profile

QUICK = Patience(
    connect_s=2.0, banner_s=2.0, login_s=8.0, channel_s=3.0, silence_s=2.0, floor_window_s=2.0, outage_s=8.0
)


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
    found = login.of(chosen)
    own = link.Link(replace(found, address=address or found.address, port=port or found.port), patience)
    try:
        yield hosts.Host(chosen, run, ssh.SshTransport(chosen.name, own))
    finally:
        own.close()


def profile_text(fleet_hosts: list[fleet.Host], environment: str, local: bool = False, **lines: str) -> str:
    """A profile over hosts of the fleet, or over as many folders of this machine, as YAML; `lines`: more keys of it."""
    entries = ""
    for host in fleet_hosts:
        way = f"kind: local, workdir: {host.name}" if local else f"kind: ssh, credentials: {host.credentials}"
        entries += f"  - {{name: {host.name}, {way}, slots: 1, device: cpu, threads: 1, environment: {environment}}}\n"
    keys = {"run": "t", "corpus": "{path: corpus.json}", "model": "{name: ./model}", **lines}
    return "".join(f"{key}: {value}\n" for key, value in keys.items()) + f"hosts:\n{entries}"
