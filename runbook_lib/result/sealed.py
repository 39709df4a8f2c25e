"""What the seal listed, held against what is there now.

A file may change after the seal in one way only: the journal says so. Its lines go on from the sealed ones, each with
the sha256 of the line before, and an event that `wrote` a file names its sha256. Whatever else differs is damage.
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

SEALED = "sealed"
LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")
LONGEST_LINE = 64 + 2 + 4096 + 1
# What sealing writes anew from the run's files.
PAGES = ("report/report.html", "report/report.pdf", "notes/")
# A result that was not published is looked at and replaced; it is evidence and no part of what was proved.
PASSING = ("candidate/", "rejected/", "replaced/", "incoming/")
MOVED_TO = ("aside/", "refused/")

Digest = Callable[[Path, str], str]  # the sha256 of a file, given the one that is expected


@dataclass
class SealChanges:
    """What is otherwise than at the seal: `problems` in the files `damaged`; for `written` the journal vouches."""

    problems: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


def _left_out(name: str) -> bool:
    """Locks, temporaries of a writer that was killed, what a look with the Finder leaves: nothing reads them."""
    return name.endswith(".lock") or (name.startswith(".") and name.endswith(".part")) or is_litter(name)


def files(run: Run) -> list[str]:
    """The relative paths of all that belongs to the archive, sorted. Raises DataError for what is no plain file."""
    names = []
    for path in _walk(run.folder):
        name = path.relative_to(run.folder).as_posix()
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path}: neither a plain file nor a folder, so it cannot be sealed; take it away")
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            raise DataError(f"{name!r}: a name with control characters cannot be listed; rename it")
        names.append(name)
    return sorted(names)


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = list(scan)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not is_litter(entry.name):
            yield from _walk(path)
        elif not _left_out(entry.name):
            yield path


def listed(run: Run) -> Iterator[tuple[str, str]]:
    """The list's (sha256, path), one at a time. Raises DataError at the first line that is not in form."""
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
    """What changed since the seal. With `sealing`, what is about to be written anew or listed for the first time is
    no problem. Raises DataError where the list is not in form."""
    changes = SealChanges()
    stated = {name: sha256 for sha256, name in listed(run)}
    journal = run.journal.path
    later = _journal_since(run, stated.get(journal.name, ""), changes, torn=sealing)
    vouched = _vouched(run, later, digest)
    moved = _moved(run, digest) if sealing else set()
    absent: dict[str, str] = {}
    for name, sha256 in stated.items():
        path = run.folder / name
        if is_litter(name):  # listed by a seal of before: it changes whenever somebody looks
            continue
        if name == journal.name or (sealing and name.startswith((*PAGES, *PASSING))):
            continue
        if path.is_symlink() or not path.is_file():
            absent[name] = sha256
        elif (actual := digest(path, sha256)) != sha256:
            if vouched.get(name) == actual or sha256 in moved:
                changes.written.append(name)
            else:
                changes.damaged.append(name)
                changes.problems.append(f"{name}: sha256 {actual[:16]}…, {run.sums.name} says {sha256[:16]}…")
    lost = [name for name, sha256 in absent.items() if sha256 not in moved]
    changes.damaged += lost
    changes.problems += [f"{name}: listed in {run.sums.name}, no such file" for name in lost]
    return changes


def unlisted(run: Run, digest: Digest) -> list[str]:
    """The files that neither the list nor the journal since the seal vouches for."""
    stated = {name: sha256 for sha256, name in listed(run)}
    vouched = _vouched(run, _journal_since(run, stated.get(run.journal.path.name, ""), SealChanges()), digest)
    names = [name for name in files(run) if name not in stated and run.folder / name != run.sums]
    return [f"{name}: not listed" for name in names if vouched.get(name) != digest(run.folder / name, "")]


def _journal_since(run: Run, sha256: str, changes: SealChanges, torn: bool = False) -> list[Event]:
    """The journal's events after the sealed ones; what keeps them from following is a problem.

    `torn`: half a line that a crash left is none; the next event cuts it off.
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


def _vouched(run: Run, later: list[Event], digest: Digest) -> dict[str, str]:
    """name -> sha256 of what was written after the seal, by the journal, and by a manifest that is vouched for."""
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


def _moved(run: Run, digest: Digest) -> set[str]:
    """The sums of what was set aside: it is not lost."""
    return {digest(run.folder / name, "") for name in files(run) if name.startswith(MOVED_TO)}
