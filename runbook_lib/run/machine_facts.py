"""What preflight found about a machine, as stored in hosts.json; the plan and the launch use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class UsableGpu(TypedDict):
    """A GPU that can be used."""

    index: int
    uuid: str
    name: str
    driver: str
    total_mib: int | None


class MachineFacts(TypedDict, total=False):
    """One machine. `gpus`: those that can be used, the free ones first. `shared`: the hosts that have the same folder.

    `clock_s`: how far its clock is from ours. `unit`: workers must run as a systemd unit there. `made`: its Python
    exists. `saw`: the hosts whose marks are in its folder.
    """

    workdir: str
    python: str
    device: str
    system: str
    memory_bytes: int | None
    cores: int
    free_bytes: int | None
    clock_s: float | None
    gpus: list[UsableGpu]
    unit: bool
    made: bool
    saw: list[str]
    shared: list[str]


@dataclass(frozen=True)
class HostsFile:
    """hosts.json: the facts of each host, by its name."""

    hosts: dict[str, dict[str, object]]
