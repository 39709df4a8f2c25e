"""Where a result stands: its files in the run's folder and outside of it, and the record of that, published.json."""

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
    """A backup just made or found, `read_back`; `found`: it was there before. `warning` says what is amiss with it."""

    read_back: bool
    same_disk: bool
    warning: str
    found: bool
    free_bytes: int


@dataclass(frozen=True)
class Publication:
    """What stands under the final names, as recorded: `files` of the run by their path in it, the others elsewhere.

    `at`: when, in UTC. `plan`: the digest of the plan. `backups`: those that this run made, the newest last.
    """

    format: int
    run: str
    plan: str
    at: str
    files: dict[str, Written]
    founding: Placed
    backups: tuple[Copy, ...]
