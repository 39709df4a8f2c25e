"""Compares the files of a sealed run with the list that the seal wrote.

A file may change after the seal only if the journal records it. The journal's new lines follow the sealed ones, each
with the sha256 of the line before, and an event that `wrote` a file has its sha256. Any other difference is damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from worker.files import is_litter

from ..errors import DataError
from ..run.journal import Event
from ..run.run import Run
from .merged import Merged

SEALED, SIGNATURE = "sealed", ".sig"
LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")
LONGEST_LINE = 64 + 2 + 4096 + 1
# Sealing writes these again from the run's files.
PAGES = (
    *("report/report.html", "report/report.pdf", "report/environment.json", "notes/", "verify.py"),
    *("ro-crate-metadata.json", "croissant.json", "provenance.intoto.json"),
)
# A result that was not published is temporary; it is evidence, but not part of the proof.
PASSING = ("candidate/", "rejected/", "replaced/", "incoming/")
MOVED_TO = ("aside/", "refused/")

Digest = Callable[[Path, str], str]  # returns the sha256 of a file; the second argument is the expected one


@dataclass
class SealChanges:
    """The differences from the seal: `problems` of the `damaged` files; `written`: changes that the journal records."""

    problems: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


def was_sealed(run: Run) -> bool:
    """Return whether the run is still sealed: no failed gate, changed profile or new start came after the seal."""
    if not run.sums.exists():
        return False
    open_again = False
    for event in run.journal.events(SEALED, "gate", "started from scratch", "profile changed", "corpus amended"):
        open_again = event["event"] != SEALED and (open_again or not event.get("ok"))
    return not open_again


def _is_ignored(name: str) -> bool:
    """Return whether a file is ignored: locks, temporary files of a killed writer, files of the Finder."""
    return name.endswith(".lock") or (name.startswith(".") and name.endswith(".part")) or is_litter(name)


def files(run: Run) -> list[str]:
    """Return the sorted relative paths of the archive's files. Raises DataError for anything except plain files."""
    names = []
    for path in _walk(run.folder):
        name = path.relative_to(run.folder).as_posix()
        if name == f"{run.sums.name}{SIGNATURE}":  # of the list, so in no list
            continue
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path}: neither a plain file nor a folder, so it cannot be sealed; take it away")
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            raise DataError(f"{name!r}: a name with control characters cannot be listed; rename it")
        names.append(name)
    return sorted(names)


def litter(run: Run) -> list[str]:
    """Return what a look with a Finder or JupyterLab left in the run's folder: outside the seal, read by nobody."""
    found = []
    for folder, folders, names in os.walk(run.folder):
        here = Path(folder).relative_to(run.folder)
        found += [(here / name).as_posix() for name in (*names, *folders) if is_litter(name)]
        folders[:] = [name for name in folders if not is_litter(name)]
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = list(scan)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not is_litter(entry.name):
            yield from _walk(path)
        elif not _is_ignored(entry.name):
            yield path


def listed(run: Run) -> Iterator[tuple[str, str]]:
    """Read the (sha256, path) pairs of the list. Raises DataError at the first malformed line."""
    before = ""
    with run.sums.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            match = LINE.fullmatch(line)
            if match is None:
                raise DataError(f"{run.sums.name} line {number}: not `<sha256>  <path>` with its line end")
            try:
                name = match.group(2).decode()
            except UnicodeDecodeError:
                raise DataError(f"{run.sums.name} line {number}: the path is not UTF-8") from None
            if name <= before:
                raise DataError(f"{run.sums.name} line {number}: {name} does not come after {before}")
            if name.startswith("/") or any(step in ("", ".", "..") for step in name.split("/")):
                raise DataError(f"{run.sums.name} line {number}: {name} is not a path inside the run")
            before = name
            yield match.group(1).decode(), name
        if not number:
            raise DataError(f"{run.sums.name}: empty")


def changes_since_seal(run: Run, digest: Digest, sealing: bool = False) -> SealChanges:
    """Return the changes since the seal. With `sealing`, files that the new seal writes or lists for the first time
    are no problem. Raises DataError if the list is malformed."""
    changes = SealChanges()
    stated = {name: sha256 for sha256, name in listed(run)}
    journal = run.journal.path
    later = _journal_since(run, stated.get(journal.name, ""), changes, torn=sealing)
    recorded = _written_since(run, later, digest)
    moved = _sums_set_aside(run, digest) if sealing else set()
    absent: dict[str, str] = {}
    for name, sha256 in stated.items():
        path = run.folder / name
        if is_litter(name):  # an earlier seal may list it; the Finder changes it at any time
            continue
        if name == journal.name or (sealing and name.startswith((*PAGES, *PASSING))):
            continue
        if path.is_symlink() or not path.is_file():
            absent[name] = sha256
        elif (actual := digest(path, sha256)) != sha256:
            if recorded.get(name) == actual or sha256 in moved:
                changes.written.append(name)
            else:
                changes.damaged.append(name)
                changes.problems.append(f"{name}: sha256 {actual[:16]}…, {run.sums.name} says {sha256[:16]}…")
    lost = [name for name, sha256 in absent.items() if sha256 not in moved]
    changes.damaged += lost
    changes.problems += [f"{name}: listed in {run.sums.name}, no such file" for name in lost]
    return changes


def list_problems(run: Run) -> list[str]:
    """Return how the list differs from the one that the journal's sealing names; a version before named none."""
    others, journal = hashlib.sha256(), ""
    for sha256, name in listed(run):
        if name == run.journal.path.name:
            journal = sha256
        elif not is_litter(name):  # an earlier seal may list it
            others.update(f"{sha256}  {name}\n".encode())
    event = _sealing(run.journal.path, journal)
    stated = event.get("list") if event else None
    if stated in (None, others.hexdigest()):
        return []
    return [
        f"{run.sums.name}: its other lines have sha256 {others.hexdigest()[:16]}…, the sealing says {str(stated)[:16]}…"
    ]


def _sealing(path: Path, sha256: str) -> Event | None:
    """Return the last line of the journal as it was listed with this sum: the sealing."""
    digest = hashlib.sha256()
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        digest.update(line)
        if digest.copy().hexdigest() == sha256:
            return _event(line)
    return None


def unlisted(run: Run, digest: Digest) -> tuple[list[str], list[str]]:
    """Return the files that are neither in the list nor in the journal since the seal, and those in the journal."""
    stated = {name: sha256 for sha256, name in listed(run)}
    recorded = _written_since(run, _journal_since(run, stated.get(run.journal.path.name, ""), SealChanges()), digest)
    names = [name for name in files(run) if name not in stated and run.folder / name != run.sums]
    added = [name for name in names if recorded.get(name) == digest(run.folder / name, "")]
    return [f"{name}: not listed" for name in names if name not in added], added


def _journal_since(run: Run, sha256: str, changes: SealChanges, torn: bool = False) -> list[Event]:
    """Return the journal's events after the sealed ones; add a problem if they do not follow them.

    `torn`: half a line after a crash is no problem; the next event removes it.
    """
    path = run.journal.path
    if not path.is_file():
        changes.problems.append(f"{path.name}: listed in {run.sums.name}, no such file")
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    digest, sealed_at = hashlib.sha256(), 0
    for number, line in enumerate(lines, 1):
        digest.update(line)
        if digest.copy().hexdigest() == sha256:
            sealed_at = number
            break
    if not sealed_at:
        changes.problems.append(f"{path.name}: its sealed lines are not there as they were")
        return []
    later = lines[sealed_at:]
    if torn and later and not later[-1].endswith(b"\n"):
        later.pop()
    events = [event for line in later if (event := _event(line))]
    if run.journal.problems(torn) or len(events) != len(later):
        changes.problems.append(f"{path.name}: a line does not follow from the line before")
        return []
    changes.events = [str(event.get("event")) for event in events]
    return events


def _event(line: bytes) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return cast(Event, value) if isinstance(value, dict) and value else None


def _written_since(run: Run, later: list[Event], digest: Digest) -> dict[str, str]:
    """Return name -> sha256 of the files written after the seal, from the journal and from a manifest that it lists."""
    sums: dict[str, str] = {}
    for event in later:
        wrote = event.get("wrote")
        sums |= wrote if isinstance(wrote, dict) else {}
    merged = Merged(run.merged)
    name = merged.manifest_file.relative_to(run.folder).as_posix()
    if name in sums and merged.manifest_file.is_file() and digest(merged.manifest_file, sums[name]) == sums[name]:
        manifest = merged.manifest()
        for part in manifest.parts if manifest else ():
            array = run.local.parts / part.name
            sums[array.relative_to(run.folder).as_posix()] = part.sha256
            sums[array.with_suffix(".json").relative_to(run.folder).as_posix()] = part.record
    return sums


def _sums_set_aside(run: Run, digest: Digest) -> set[str]:
    """Return the sums of the files that were set aside: these are not lost."""
    return {digest(run.folder / name, "") for name in files(run) if name.startswith(MOVED_TO)}
