"""Clean: remove this run's files from the hosts, listed one by one, only if there is a verified backup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from worker import placed
from worker.files import sha256_file

from ..errors import DataError, HostError, RunbookError
from ..hosts import hosts as machines
from ..hosts.bundle import bundle_files
from ..hosts.scheduler import is_queued
from ..run import places
from ..run.run import PHASES, Run
from . import report, sealing


@dataclass(frozen=True)
class Leftovers:
    """The files of a run on one host: its folder there, the paths of its files below it, and their size.

    `strangers` are files in that folder that the run did not place: they stay.
    """

    host: str
    folder: Path
    files: tuple[Path, ...]
    bytes: int
    strangers: tuple[Path, ...] = ()


def leftovers(run: Run) -> list[Leftovers]:
    """List this run's files on every host. Raises HostError if a host cannot be reached, or its folder is not ours."""
    run = _with_hosts_that_left(run)
    return _unique_folders(run, list(_list_all(run).values()))


def _with_hosts_that_left(run: Run) -> Run:
    """Return the run with the hosts that left it, except those that cannot be reached: they may be gone for good."""
    there = [
        spec for spec in run.left if not isinstance(machines.ask_host(run, spec, lambda h: h.poll()), RunbookError)
    ]
    return replace(run, profile=replace(run.profile, hosts=(*run.profile.hosts, *there)))


def _list_all(run: Run) -> dict[str, Leftovers]:
    """List the files in this run's folder on each host."""
    bundle = {path for path, _ in bundle_files()}

    def look(host: machines.Host) -> Leftovers:
        entries = [(path, size) for path, size in host.files() if path != placed.MARK]
        if entries and (why := host.unclaimed(run.id)):
            raise HostError(f"{host.name}: {why}")
        ours = [(path, size) for path, size in entries if placed.is_ours(path, bundle)]
        others = tuple(Path(path) for path, _ in entries if not placed.is_ours(path, bundle))
        files, size = tuple(Path(path) for path, _ in ours), sum(size for _, size in ours)
        return Leftovers(host.name, host.folder.root, files, size, others)

    folders = machines.side_by_side(run, look)
    if folders.failures:
        raise HostError("; ".join(map(str, folders.failures.values())))
    return folders.ok


def _unique_folders(run: Run, leftovers: list[Leftovers]) -> list[Leftovers]:
    """Keep each folder once: hosts with a shared folder, or the same folder of this machine, list the same files."""
    listed: dict[tuple[str, ...], Leftovers] = {}
    facts = run.host_facts()
    for item in leftovers:
        if item.files or item.strangers:
            reached = next(spec.reached for spec in run.profile.hosts if spec.name == item.host)
            sharers = sorted([reached, *facts.get(item.host, {}).get("shared", [])])
            local = all(host.is_here for host in run.hosts if host.reached in sharers)
            listed.setdefault((str(item.folder),) if local else (str(item.folder), *sharers), item)
    return list(listed.values())


def _remove(run: Run, host: machines.Host, item: Leftovers) -> Leftovers:
    """Remove the listed files; a file that may be a stranger's stays."""
    left = {Path(name) for name in host.clear(run.id, list(map(str, item.files)))}
    files = tuple(path for path in item.files if path not in left)
    return replace(item, files=files, strangers=(*item.strangers, *sorted(left)))


def clean(run: Run) -> list[Leftovers]:
    """Remove this run's files from its hosts and return them. Models stay: other runs share them.

    Raises DataError unless the run is finished, its archive verifies, its backup was read back just now, and no worker
    is alive.
    """
    result = run.result(PHASES[-1])
    backup = result.output("backup") if result else None
    if not run.finished or not backup:
        raise DataError(f"{run.name}: not finished with a backup, so its files on the hosts may be the only ones")
    if not run.id:
        raise DataError(f"{run.name}: made by an earlier version, which marked no folder on a host as its own")
    copy = Path(backup.path)
    if not copy.is_file() or sha256_file(copy) != backup.sha256:
        raise DataError(f"{run.name}: the backup {copy} is missing or changed; nothing was removed")
    checks = report.verify(run)
    if not checks.ok:
        raise DataError(f"{run.name}: its archive does not verify, nothing was removed\n{checks}")
    run = _with_hosts_that_left(run)
    listed = _list_all(run)

    def at_rest(host: machines.Host) -> machines.Host:
        if host.spec.is_here:
            _keep_apart(run, host.folder.root, copy)
        reading = host.poll()
        if any(host.living(reading)) or is_queued(reading):
            raise DataError(f"{host.name}: workers of this run are alive; runbook stop {run.name} first")
        return host

    resting = machines.side_by_side(run, at_rest)
    if resting.failures:
        raise DataError("; ".join(map(str, resting.failures.values())))
    # One after the other: two hosts may share a folder.
    removed = _unique_folders(run, [_remove(run, host, listed[host.name]) for host in resting.ok.values()])
    run.journal.write(
        "cleaned",
        files=sum(len(item.files) for item in removed),
        folders=[str(item.folder) for item in removed],
        strangers=[str(item.folder / path) for item in removed for path in item.strangers],
    )
    sealing.seal(run)
    return removed


def _keep_apart(run: Run, folder: Path, backup: Path) -> None:
    """Raise DataError if a host's folder of this run is, contains or is inside something that must stay."""
    if places.inside(folder, run.folder) or places.inside(run.folder, folder):
        raise DataError(f"{folder}: its folder is the run's own, {run.folder}, or holds it; what is in it stays")
    kept = [*places.read(run), *places.written(run.profile), places.NamedPath("the backup", backup)]
    if held := [str(place) for place in kept if places.inside(place.path, folder)]:
        raise DataError(f"{folder}: holds {', '.join(held)}; what is in it stays. Nothing was removed")
