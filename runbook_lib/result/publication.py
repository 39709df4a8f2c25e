"""Publication: gives a merged result its final names, all or none, and keeps a record of that.

A merge writes a candidate: the folder `candidate/` of the run, and the file in the founding shape under a hidden name
in the output folder. When its checks pass, `publishing.json` is written: from then on the candidate is the result. The
renames follow, then `published.json` records where each file is; after a crash in between, the next command finishes
it. Until then the previous result stays unchanged. A candidate whose checks fail goes to `rejected/`, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from worker.files import read_json, sha256_file, sync_folder, write_json
from worker.layout import FORMAT

from .. import records
from ..errors import DataError, RunbookError
from ..records import Written
from ..run.disk import explain_disk_errors
from ..run.run import PHASES, Run
from .merged import MANIFEST_BYTES, Merged, differences
from .placed import Backup, Copy, Placed, Publication

REASON = "reason.json"
MANIFEST = ".manifest.json"  # beside a backup, instead of its suffix


@dataclass(frozen=True)
class CurrentResult:
    """The result that the phases work on: the candidate if there is one, else the published one."""

    merged: Merged
    founding: Path
    candidate: bool


def current_result(run: Run) -> CurrentResult:
    """Return the result that merge, validation and backup work on now."""
    candidate = Merged(run.candidate)
    waits = candidate.manifest_file.exists()
    founding = run.founding_candidate if waits or run.founding_candidate.exists() else run.founding_file
    return CurrentResult(candidate if waits else Merged(run.merged), founding, waits or run.founding_candidate.exists())


@explain_disk_errors("publishing the result")
def finish_publication(run: Run) -> None:
    """Finish a publication that a crash interrupted after the decision. Raises DataError."""
    record = _read(run.publishing_file)
    if record is not None:
        _rename(run)
        _record(run, record)


@explain_disk_errors("publishing the result")
def discard_candidate(run: Run) -> None:
    """Delete a candidate that was not made from the present parts."""
    shutil.rmtree(run.candidate, ignore_errors=True)
    run.founding_candidate.unlink(missing_ok=True)


@explain_disk_errors("publishing the result")
def reject_candidate(run: Run, reasons: Sequence[str]) -> Path | None:
    """Move the candidate aside with the reasons, for inspection; the previous result stays. None without a candidate.

    Only the last one is kept. Its file in the founding shape is deleted: it can be made from the other files.
    """
    run.founding_candidate.unlink(missing_ok=True)
    if not run.candidate.exists():
        return None
    shutil.rmtree(run.rejected, ignore_errors=True)
    run.candidate.rename(run.rejected)
    sync_folder(run.folder)
    write_json(run.rejected / REASON, {"at": _now(), "run": run.name, "reasons": list(reasons)})
    run.journal.write("result refused", reasons=list(reasons)[:10], kept=run.rejected.name)
    return run.rejected


@explain_disk_errors("publishing the result")
def publish(run: Run, backup: Backup | None) -> Publication:
    """Give the current result its final names, and record where each file is. A published result stays as it is.

    Raises DataError if the name of the founding file is taken by something that no run wrote.
    """
    result = current_result(run)
    manifest = result.merged.manifest()
    if manifest is None:
        raise DataError(f"publishing: {result.merged.manifest_file} is missing; merge again")
    if result.founding != run.founding_file:
        _make_way(run)
    run_files = {f"{run.merged.name}/{name}": stated for name, stated in manifest.outputs.items()}
    manifest_file = result.merged.manifest_file
    run_files[f"{run.merged.name}/{manifest_file.name}"] = Written.of(manifest_file)
    record = Publication(
        format=FORMAT,
        run=run.name,
        plan=manifest.plan,
        at=_now(),
        files=run_files,
        founding=Placed(manifest.founding.sha256, manifest.founding.bytes, str(run.founding_file)),
        backups=_backups(run, backup),
    )
    before = published(run)
    if before and not result.candidate and replace(before, at="") == replace(record, at=""):
        return before
    # Decided: after a crash, the next command finishes the rest.
    write_json(run.publishing_file, records.plain(record))
    _rename(run)
    return _record(run, record)


@explain_disk_errors("looking at the result")
def published(run: Run) -> Publication | None:
    """Read the record of the published files; None if nothing was published.

    Raises DataError if the record cannot be read.
    """
    return _read(run.published_file)


def _rename(run: Run) -> None:
    """Move the candidate to the final name, then its founding file; delete the replaced result last."""
    replaced = run.folder / "replaced"
    if Merged(run.candidate).manifest_file.exists():
        if run.merged.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            run.merged.rename(replaced)
        run.candidate.rename(run.merged)
        sync_folder(run.folder)
    if run.founding_candidate.exists():
        _make_way(run)
        run.founding_candidate.replace(run.founding_file)
        sync_folder(run.founding_file.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _record(run: Run, record: Publication) -> Publication:
    sha256 = write_json(run.published_file, records.plain(record))
    run.publishing_file.unlink(missing_ok=True)
    names = {name: stated.sha256 for name, stated in record.files.items()}
    run.journal.write(
        "result published", founding=record.founding.path, wrote={**names, run.published_file.name: sha256}
    )
    return record


def _backups(run: Run, backup: Backup | None) -> tuple[Copy, ...]:
    """Return the backups of this run, the newest last."""
    record = published(run)
    if backup is None:
        return record.backups if record else ()
    before = [item for item in record.backups if item.path != backup.path] if record else []
    return (*before, Copy(backup.sha256, backup.bytes, backup.path, backup.manifest))


def _read(path: Path) -> Publication | None:
    try:
        return records.read(Publication, path)
    except DataError as error:
        raise DataError(f"{path}: {error}; 04_merge_validate writes it again: delete it and run again") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --------------------------------------------------------------------------------------------------------- ownership


@explain_disk_errors("looking at what stands under the result's name")
def founding_name_problem(run: Run) -> str:
    """Return in words why the file under the name of the founding file must not be replaced; empty if it may be."""
    path = run.founding_file
    if not os.path.lexists(path):
        return ""
    if path.is_symlink() or not path.is_file():
        return f"{path} is there and is no plain file, so no run wrote it; nothing was replaced"
    if run_that_wrote(run, path):
        return ""
    return f"{path} is there, and no run wrote it as it is; nothing was replaced"


def _make_way(run: Run) -> None:
    """Make the name of the founding file free, or raise DataError if something is there that no run wrote.

    A file that this run published and somebody changed is renamed and kept beside it.
    """
    path = run.founding_file
    why = founding_name_problem(run)
    if not why:
        return
    record = published(run)
    if path.is_symlink() or not path.is_file() or not record or record.founding.path != str(path):
        raise DataError(f"publishing: {why}. Next: move it away, or set output.merged to another name, then run again")
    kept = path.with_name(f"{path.name}.changed-{datetime.now():%Y%m%d-%H%M%S-%f}")
    path.rename(kept)
    run.journal.write("result changed", founding=str(path), kept=str(kept))


def run_that_wrote(run: Run, path: Path) -> str:
    """Return the run that wrote the founding file at `path` as it is now: this run or one beside it; else empty.

    The bytes decide: a run's own record, or the manifest beside a backup, contains this sha256.
    """
    sha256 = sha256_file(path)
    siblings = sorted(f for f in run.folder.parent.iterdir() if f.is_dir() and f != run.folder)
    folders = [run.folder, *siblings] if run.folder.exists() else siblings
    for folder in folders:
        if sha256 in _founding_sums(Run(folder, run.profile)):
            return folder.name
    return next((name for saved_sha256, name in _backed_up(run) if saved_sha256 == sha256), "")


def _backed_up(run: Run) -> Iterator[tuple[str, str]]:
    """Return the sums of backed-up founding files with their runs, which may be deleted since."""
    for file in sorted(run.profile.output.backups.glob(f"*{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError):
            manifest = read_json(file, MANIFEST_BYTES) or {}
            stated = manifest.get("founding")
            if isinstance(stated, dict) and manifest.get("run"):
                yield str(stated.get("sha256")), str(manifest["run"])


def _founding_sums(run: Run) -> set[str]:
    """Return the sums of the founding files in a run's own records."""
    reads: tuple[Callable[[], str | None], ...] = (
        lambda: record.founding.sha256 if (record := published(run)) else None,
        lambda: manifest.founding.sha256 if (manifest := Merged(run.merged).manifest()) else None,
        lambda: stated.sha256 if (result := run.result(PHASES[-1])) and (stated := result.output("founding")) else None,
    )
    sums = set()
    for read in reads:
        with contextlib.suppress(RunbookError, OSError):  # an unreadable record has none
            sums.add(read())
    return {sha256 for sha256 in sums if sha256}


@explain_disk_errors("looking at the result")
def losses(run: Run, quick: bool = False) -> list[str]:
    """Return in words which published files are missing or differ from the record; with `quick`, compare sizes only."""
    record = published(run)
    if record is None:
        return [f"{run.published_file.name}: no such file"]
    stated_files = [(run.folder / name, stated) for name, stated in record.files.items()]
    lost = [line for path, stated in stated_files for line in differences(path, stated, quick)]
    newest = record.backups[-1:]
    lost_backup = [line for stated in newest for line in differences(Path(stated.path), stated, quick)]
    return [*lost, *_founding_lost(run, record.founding, quick), *lost_backup]


def _founding_lost(run: Run, stated: Placed, quick: bool) -> list[str]:
    path = Path(stated.path)
    problems = differences(path, stated, quick)
    with contextlib.suppress(OSError):  # `problems` names an unreadable file already
        return [] if problems and path.is_file() and run_that_wrote(run, path) not in ("", run.name) else problems
    return problems
