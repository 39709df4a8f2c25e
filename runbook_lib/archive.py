"""The archive: the sha256 of every file of a sealed run, and the check that finds one changed byte in any of them.

SHA256SUMS is what `sha256sum -c` reads too, but in one form only: lower-case digits, two spaces, the path as seen from
the run's folder, sorted, each line ended. So a change in the list itself cannot go unseen either.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.layout import committed, is_litter, read_json, sha256_file, write_atomic

from .checks import Checks
from .errors import DataError, RunbookError
from .pages import facts
from .result.merged import Merged
from .run import PHASES, Run

SEALED = "sealed"
LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")
LONGEST_LINE = 64 + 2 + 4096 + 1
NAMED = 20
AS_IT_WAS = "bring the file back from a backup, or run the phase that writes it and seal again (runbook report)"


def _left_out(name: str) -> bool:
    """Locks, temporaries of a writer that was killed, what a look with the Finder leaves: nothing reads them."""
    return name.endswith(".lock") or (name.startswith(".") and name.endswith(".part")) or is_litter(name)


def files(run: Run) -> list[str]:
    """The relative paths of all that belongs to the archive, sorted. Raises DataError for what is no plain file."""
    found = []
    for path in _walk(run.folder):
        name = path.relative_to(run.folder).as_posix()
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path}: neither a plain file nor a folder, so it cannot be sealed; take it away")
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            raise DataError(f"{name!r}: a name with control characters cannot be listed; rename it")
        found.append(name)
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not is_litter(entry.name):
            yield from _walk(path)
        elif not _left_out(entry.name):
            yield path


def write_sums(run: Run) -> Path:
    """List every file with its sha256; SHA256SUMS itself is not in it."""
    names = [name for name in files(run) if run.folder / name != run.sums]
    write_atomic(run.sums, (f"{sha256_file(run.folder / name)}  {name}\n".encode() for name in names))
    return run.sums


# ------------------------------------------------------------------------------------------------------------ verify


@dataclass
class _Trial:
    """Checks under way: a check that cannot be made counts as one that does not hold. A file is read once."""

    run: Run
    checks: Checks
    digests: dict[Path, str] = field(default_factory=dict)

    def sha256(self, path: Path) -> str:
        """A file's digest, remembered: arrays are named by the list, by their records and by the manifest."""
        if path not in self.digests:
            self.digests[path] = sha256_file(path)
        return self.digests[path]

    def hold(self, name: str, remedy: str, problems: Callable[[], list[str]], fine: str) -> None:
        """One check: it holds when `problems` finds none."""
        try:
            found = problems()
        except (RunbookError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = [f"cannot be checked: {type(error).__name__}: {error}"]
        seen = "; ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
        self.checks.add(name, not found, seen or fine, fine, remedy)


def verify(run: Run) -> Checks:
    """Check the archive of a sealed run; every failure names its file. Reads every file once, a piece at a time."""
    trial = _Trial(run, Checks("The archive is what was sealed"))
    trial.hold("every file as listed", AS_IT_WAS, lambda: _against_list(trial), "the same sha256 for each")
    trial.hold(
        "no file too many", "take it away, or seal again (runbook report)", lambda: _unlisted(run), "none unlisted"
    )
    trial.hold("journal", AS_IT_WAS, lambda: _journal(run), "each line follows from the one before, the last is sealed")
    for phase in PHASES:
        remedy = f"run it again: {phase}"
        trial.hold(f"result of {phase}", remedy, lambda phase=phase: _result(run, phase), "present, all checks hold")  # type: ignore[misc]
    trial.hold("plan", AS_IT_WAS, lambda: _plan(run), "its own digest")
    trial.hold("merged files", AS_IT_WAS, lambda: _merged(trial), "as their manifest says")
    trial.hold("parts", AS_IT_WAS, lambda: _parts(trial), "each array as its record says")
    for kind in ("founding", "backup"):
        _outside(run, kind, trial.checks)
    return trial.checks


def _lines(run: Run) -> Iterator[tuple[str, str]]:
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


def _against_list(trial: _Trial) -> list[str]:
    run = trial.run
    found: list[str] = []
    if not run.sums.is_file():
        return [f"{run.sums.name}: no such file; the run was not sealed (runbook report)"]
    try:
        for stated, name in _lines(run):
            path = run.folder / name
            if is_litter(name):  # listed by a seal of before: it changes whenever somebody looks
                continue
            if path.is_symlink() or not path.is_file():
                found.append(f"{name}: listed in {run.sums.name}, no such file")
            elif (seen := trial.sha256(path)) != stated:
                found.append(f"{name}: sha256 {seen[:16]}…, {run.sums.name} says {stated[:16]}…")
    except DataError as error:
        found.append(str(error))
    return found


def _unlisted(run: Run) -> list[str]:
    listed = {name for _, name in _lines(run)}
    return [f"{name}: not listed" for name in files(run) if name not in listed and run.folder / name != run.sums]


def _journal(run: Run) -> list[str]:
    found = run.journal.problems()
    last = ""
    if not found:
        for event in run.journal.events():
            last = event["event"]
        found += [] if last == SEALED else [f"{run.journal.path.name}: its last event is {last!r}, not {SEALED!r}"]
    return found


def _result(run: Run, phase: str) -> list[str]:
    name = run.result_file(phase).name
    result = run.result(phase)
    if result is None:
        return [f"{name}: no such file"]
    if (result.get("phase"), result.get("run")) != (phase, run.name):
        return [f"{name}: of {result.get('phase')} of run {result.get('run')}"]
    return [] if result.get("ok") is True else [f"{name}: its checks do not all hold"]


def _plan(run: Run) -> list[str]:
    run.plan()  # raises DataError when its digest is another
    return []


def _merged(trial: _Trial) -> list[str]:
    merged = Merged(trial.run.merged)
    manifest = merged.manifest()
    if manifest is None:
        return [f"{merged.manifest_file.name}: no such file"]
    found = [
        f"{name}: its sha256 is not the one in {merged.manifest_file.name}"
        for name, stated in manifest["outputs"].items()
        if trial.sha256(merged.folder / name) != stated["sha256"]
    ]
    if not manifest["outputs"]:
        found.append(f"{merged.manifest_file.name}: names no files")
    if manifest["plan"] != trial.run.plan().sha256:
        found.append(f"{merged.manifest_file.name}: made from another plan than plan.json")
    return found


def _parts(trial: _Trial) -> list[str]:
    """Each array against its record, and the records against the manifest that says which parts were merged."""
    found, run = [], trial.run
    merged = {part["name"]: part["sha256"] for part in (Merged(run.merged).manifest() or {}).get("parts", [])}
    for start, stop in committed(run.local.parts):
        path = run.local.part(start, stop)
        stated = (read_json(path.with_suffix(".json")) or {}).get("sha256")
        if not path.is_file():
            found.append(f"{path.name}: there is a record but no array")
        elif trial.sha256(path) != stated:
            found.append(f"{path.name}: its sha256 is not the one in {path.with_suffix('.json').name}")
        if merged.pop(path.name, stated) != stated:
            found.append(f"{path.with_suffix('.json').name}: states another sha256 than the part that was merged")
    return found + [f"{name}: was merged and is not here" for name in merged]


# ------------------------------------------------------------------------------------- files outside the run's folder


def _outside(run: Run, kind: str, checks: Checks) -> None:
    """The founding file and its backup lie elsewhere, so they may have moved on, or be on another machine."""
    try:
        stated = facts.section(run.result(PHASES[-1]) or {}, "figures", kind)
    except DataError:
        return  # named above: that result cannot be read
    if not stated:
        return
    path, sha256 = Path(str(stated.get("path"))), stated.get("sha256")
    name = f"{kind} file" if kind == "founding" else kind
    if not path.parent.is_dir():
        checks.add(name, True, f"{path}: not on this machine, not checked", "the same sha256", warn=True)
        return
    remedy = "run 04_merge_validate again: it writes this file anew from the merged result"
    try:
        seen = sha256_file(path)
    except OSError as error:
        checks.add(name, False, f"{path}: {error.strerror}", "the same sha256", remedy)
        return
    if seen == sha256:
        checks.add(name, True, f"{path}: the same sha256", "the same sha256")
        return
    other = _writer(run, path.name, seen) if kind == "founding" else ""
    said = (
        f"{path}: written since by run {other}"
        if other
        else f"{path}: sha256 {seen[:16]}…, sealed as {str(sha256)[:16]}…"
    )
    checks.add(name, bool(other), said, "the same sha256", remedy, warn=bool(other))


def _writer(run: Run, name: str, sha256: str) -> str:
    """The other run of this runs folder whose own record says that it wrote this very file."""
    for folder in sorted(path for path in run.folder.parent.iterdir() if path.is_dir() and path != run.folder):
        sibling = Run(folder, run.profile)
        try:
            manifest: dict[str, Any] = Merged(sibling.merged).manifest() or {}
            result = sibling.result(PHASES[-1]) or {}
        except DataError:
            continue
        stated = (facts.section(manifest, "founding"), facts.section(result, "figures", "founding"))
        if any(record.get("sha256") == sha256 for record in stated):
            return folder.name
    return ""
