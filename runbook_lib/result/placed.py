"""Where a result is stored: its files inside and outside the run's folder, and their record, published.json."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Written


@dataclass(frozen=True)
class Placed(Written):
    """A file of the result outside the run's folder."""

    path: str


@dataclass(frozen=True)
class Copy(Placed):
    """A backup of the founding file; `manifest` is the path of the manifest beside it."""

    manifest: str


@dataclass(frozen=True)
class Backup(Copy):
    """A backup that was just made, or found (`found`), and read back; `warning`: its weakness, if any."""

    read_back: bool
    same_disk: bool
    warning: str
    found: bool
    free_bytes: int


@dataclass(frozen=True)
class Publication:
    """The record of the files under the final names: `files` of the run by their path in it, and files elsewhere.

    `at`: the time in UTC. `plan`: the digest of the plan. `backups`: the backups of this run, the newest last.
    """

    format: int
    run: str
    plan: str
    at: str
    files: dict[str, Written]
    founding: Placed
    backups: tuple[Copy, ...]
