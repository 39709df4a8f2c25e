"""Clean: take this run's files off the hosts, listed one by one, only when a verified backup stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worker.layout import sha256_file

from . import hosts as machines
from . import report
from .errors import DataError, HostError, RunbookError
from .run import PHASES, Run


@dataclass(frozen=True)
class Leftovers:
    """What a run left on one host: its folder there, its files by their path below it, and their size."""

    host: str
    folder: Path
    files: tuple[Path, ...]
    bytes: int


def leftovers(run: Run) -> list[Leftovers]:
    """The files of this run on every host. Raises HostError when one cannot be reached."""

    def look(host: machines.Host) -> Leftovers:
        found = host.files()
        return Leftovers(host.name, host.folder.root, tuple(Path(path) for path, _ in found), sum(n for _, n in found))

    found = machines.side_by_side(run, look).values()
    if failed := [result for result in found if isinstance(result, RunbookError)]:
        raise HostError("; ".join(map(str, failed)))
    listed: dict[tuple[str, ...], Leftovers] = {}
    facts = run.host_facts()
    for item in found:
        if isinstance(item, Leftovers) and item.files:
            # Hosts that share a folder list the same files; so do two folders of this machine that are one.
            sharers = sorted([item.host, *facts.get(item.host, {}).get("shared", [])])
            local = all(host.kind == "local" for host in run.hosts if host.name in sharers)
            listed.setdefault((str(item.folder),) if local else (str(item.folder), *sharers), item)
    return list(listed.values())


def clean(run: Run) -> list[Leftovers]:
    """Remove this run's folder from its hosts and give what was removed. Models stay: other runs share them.

    Raises DataError unless the run is finished, its archive verifies and its backup was read back just now; workers
    that still live keep their files.
    """
    result = run.result(PHASES[-1]) or {}
    backup = (result.get("figures") or {}).get("backup") or {}
    if not run.finished or not backup:
        raise DataError(f"{run.name}: not finished with a backup, so its files on the hosts may be the only ones")
    copy = Path(str(backup["path"]))
    if not copy.is_file() or sha256_file(copy) != backup["sha256"]:
        raise DataError(f"{run.name}: the backup {copy} is missing or changed; nothing was removed")
    checks = report.verify(run)
    if not checks.ok:
        raise DataError(f"{run.name}: its archive does not verify, nothing was removed\n{checks}")
    removed = leftovers(run)

    def at_rest(host: machines.Host) -> machines.Host:
        if host.way.kind == "local" and host.folder.root.resolve() == run.folder.resolve():
            raise DataError(f"{host.name}: its folder is the run's own, {run.folder}; what is in it stays")
        seen = host.poll()
        if any(host.living(seen)):
            raise DataError(f"{host.name}: workers of this run are alive; runbook stop {run.name} first")
        return host

    found = machines.side_by_side(run, at_rest).values()
    if failed := [result for result in found if isinstance(result, RunbookError)]:
        raise DataError("; ".join(map(str, failed)))
    for host in found:  # one after the other: two hosts may share the folder
        if isinstance(host, machines.Host):
            host.remove(host.folder.root)
    run.journal.write(
        "cleaned", files=sum(len(item.files) for item in removed), folders=[str(i.folder) for i in removed]
    )
    report.seal(run)
    return removed
