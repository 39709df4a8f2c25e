"""The archive: the sha256 of every file of a sealed run, and the check that finds any changed byte in them.

`sha256sum -c` (on a Mac `shasum -a 256 -c`) reads SHA256SUMS too. We accept only one form: lower-case digits, two
spaces, the path from the run's folder, sorted, a line end after each line. So every change in the list is found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.files import read_json, sha256_file, write_atomic

from ..corpus import corpus as corpora
from ..errors import DataError, RunbookError
from ..result import publication
from ..result import whole as wholes
from ..result.merged import Merged
from ..result.sealed import (
    PAGES,
    SEALED,
    SealChanges,
    changes_since_seal,
    files,
    list_problems,
    listed,
    litter,
    unlisted,
    was_sealed,
)
from ..run.checks import Checks
from ..run.disk import explain_disk_errors
from ..run.run import PHASES, Run
from . import anchors
from .trial import AS_IT_WAS, NAMED, Trial

__all__ = ["AS_IT_WAS", "NAMED", "check_before_sealing", "gated_sha256", "verify", "was_sealed", "write_sums"]

LISTED, BY_SIZE = "every file as listed", ", large ones by their size"
GROWN, CHANGED = "since the seal", "files written since the seal"
LITTER = "left by a look at the folder"


@explain_disk_errors("sealing the run")
def write_sums(run: Run, trial: Trial | None = None, wrote: Sequence[Path] = (), signed: str = "") -> Path:
    """Write the sealing into the journal, then every file except SHA256SUMS with its sha256 into that list.

    The sealing has the sum of the list without the journal's own line: neither of the two can change alone. It names
    the files that were `wrote` for it, and the key by which the list is to be `signed`. Files that `trial` has read are
    not read again.
    """
    trial = trial or Trial(run, Checks("What is sealed"))
    lines = [line for line in _lines(run, trial) if not line.endswith(f"  {run.journal.path.name}\n".encode())]
    stated = {path.relative_to(run.folder).as_posix(): trial.sha256(path) for path in wrote}
    run.journal.write(SEALED, list=hashlib.sha256(b"".join(lines)).hexdigest(), wrote=stated, signed=signed)
    write_atomic(run.sums, _lines(run, trial))
    return run.sums


def _lines(run: Run, trial: Trial) -> list[bytes]:
    journal = run.journal.path  # it grows: its sum is never kept
    names = [name for name in files(run) if run.folder / name != run.sums]
    sums = ((sha256_file if run.folder / name == journal else trial.sha256)(run.folder / name) for name in names)
    return [f"{sha256}  {name}\n".encode() for sha256, name in zip(sums, names, strict=True)]


def check_before_sealing(run: Run) -> Trial:
    """Compare all files with their records and with the previous seal. Raises DataError with the losses.

    So a loss is never sealed: a sealed file is unchanged, or the journal records its change.
    """
    trial = Trial(run, Checks("What is to be sealed"))
    again = run.sums.is_file() and _in_form(run)
    if again:
        trial.hold(
            "the list is the sealed one", AS_IT_WAS, lambda: list_problems(run), "the sum that the sealing wrote"
        )
    if again:
        trial.hold(
            "since the seal",
            AS_IT_WAS,
            lambda: changes_since_seal(run, trial.stated_sha256, sealing=True).problems,
            "as it was",
        )
    else:
        trial.hold(
            "journal", AS_IT_WAS, lambda: run.journal.problems(torn=True), "each line follows from the one before"
        )
    trial.hold("results", AS_IT_WAS, lambda: _changed_results(trial), "as their gates wrote them")
    _files_by_record(trial)
    if trial.checks.failed:
        losses = "; ".join(f"{check.name}: {check.seen}" for check in trial.checks.failed)
        raise DataError(
            f"run {run.name} was not sealed{' again' if again else ''}: {losses}. Next: runbook run PROFILE --run "
            f"{run.name} makes the files again where possible; runbook verify {run.name} names everything"
        )
    for name in files(run):
        if name == run.journal.path.name or name.startswith(PAGES):
            trial.digests.pop(run.folder / name, None)  # the sealing writes it again
    return trial


def _in_form(run: Run) -> bool:
    try:
        return any(True for _ in listed(run))
    except DataError:
        return False


# ------------------------------------------------------------------------------------------------------------ verify


@explain_disk_errors("verifying the run")
def verify(run: Run, quick: bool = False) -> Checks:
    """Check the archive of a sealed run; every failure names its file. Reads every file once, piece by piece.

    `quick`: check only the sizes of arrays, texts and files outside the run's folder. Files that the journal records
    as written since the seal are not damaged: they give a warning.
    """
    trial = Trial(run, Checks("The archive is what was sealed"), _sizes(run) if quick else {})
    grown = SealChanges()

    def too_many() -> list[str]:
        wrong, added = unlisted(run, trial.stated_sha256)
        grown.written += added
        return wrong

    def against_list() -> list[str]:
        if not run.sums.is_file():
            return [f"{run.sums.name}: no such file; the run was not sealed (runbook report)"]
        changes = changes_since_seal(run, trial.stated_sha256)
        grown.written, grown.events = changes.written, changes.events
        return changes.problems

    name, fine = (LISTED + BY_SIZE, "the same size or sha256") if quick else (LISTED, "the same sha256 for each")
    trial.hold(name, AS_IT_WAS, against_list, fine)
    trial.hold(
        "no file too many",
        "take it away, or seal again (runbook report)",
        too_many,
        "none unlisted",
    )
    trial.hold("journal", AS_IT_WAS, lambda: _journal(run), "each line follows from the one before, one seals")
    trial.hold("the list is the sealed one", AS_IT_WAS, lambda: list_problems(run), "the sum that the sealing wrote")
    _records(trial)
    anchors.check(trial)
    if left := litter(run):
        names = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
        remedy = (
            "nothing of ours reads them and nobody vouches for them; take them away before the archive is handed on"
        )
        trial.checks.add(LITTER, True, names, "none", remedy, warn=True)
    if grown.events:
        summary = f"{len(grown.events)} journal lines since the seal ({', '.join(dict.fromkeys(grown.events))})"
        trial.checks.add(GROWN, True, summary, "nothing", f"runbook report {run.name} seals it too", warn=True)
    if grown.written:
        named = ", ".join(grown.written)
        trial.checks.add(CHANGED, True, named, "none", f"runbook report {run.name} seals them too", warn=True)
    return trial.checks


def _records(trial: Trial) -> None:
    """Check the run's records against its files, each other, and the files outside."""
    run = trial.run
    for phase in PHASES:
        remedy = f"run it again: {phase}"
        trial.hold(f"result of {phase}", remedy, lambda phase=phase: _result(run, phase), "present, all checks hold")  # type: ignore[misc]
    _files_by_record(trial)


def _files_by_record(trial: Trial) -> None:
    run = trial.run
    trial.hold("plan", AS_IT_WAS, lambda: _plan(run), "its own digest")
    trial.hold("corpus", AS_IT_WAS, lambda: _corpus(trial), "as numbered, and the plan's")
    trial.hold("merged files", AS_IT_WAS, lambda: _merged(trial), "as their manifest says")
    trial.hold("parts", AS_IT_WAS, lambda: _parts(trial), "each array as its record says")
    for kind in ("founding", "backup"):
        _outside(trial, kind)


def _sizes(run: Run) -> dict[Path, int]:
    """Return the recorded sizes of large files: parts, merged files, texts, and the files outside the run's folder."""
    sizes: dict[Path, int] = {}
    with suppress(RunbookError, OSError):
        if record := publication.published(run):
            sizes |= {run.folder / name: stated.bytes for name, stated in record.files.items()}
            sizes |= {Path(stated.path): stated.bytes for stated in (record.founding, *record.backups)}
    with suppress(RunbookError, OSError):
        sizes |= {run.corpus / name: stated.bytes for name, stated in corpora.load(run.corpus).files.items()}
    with suppress(RunbookError, OSError):
        if whole := wholes.load(run):
            sizes |= {whole.folder / name: stated.bytes for name, stated in whole.stated.items()}
    for path in run.committed_parts:
        with suppress(OSError, ValueError):
            sizes[path] = (read_json(path.with_suffix(".json")) or {})["bytes"]
    return sizes


def _journal(run: Run) -> list[str]:
    problems = run.journal.problems()
    if not problems and not any(run.journal.events(SEALED)):
        problems.append(f"{run.journal.path.name}: no event says {SEALED!r}")
    return problems


def sealed_name(run: Run) -> str:
    """Return the run's name as its plan has it: a folder may be renamed, and an archive lies under any name."""
    try:
        return run.plan().run
    except DataError:
        return run.name


def _result(run: Run, phase: str) -> list[str]:
    name = run.result_file(phase).name
    result = run.result(phase)
    if result is None:
        return [f"{name}: no such file"]
    if (result.phase, result.run) != (phase, sealed_name(run)):
        return [f"{name}: of {result.phase} of run {result.run}"]
    if not result.checks:
        return [f"{name}: has no check, so nothing was looked at"]
    if not any(event.get("phase") == phase for event in run.journal.events("gate")):
        return [f"{name}: no gate in the journal wrote it"]
    return [] if result.ok is True else [f"{name}: its checks do not all hold"]


def _changed_results(trial: Trial) -> list[str]:
    problems = []
    for path, wrote in ((trial.run.result_file(phase), gated_sha256(trial.run, phase)) for phase in PHASES):
        if wrote and not path.is_file():
            problems.append(f"{path.name}: no such file")
        elif wrote and trial.sha256(path) != wrote:
            problems.append(f"{path.name}: not what its gate wrote")
    return problems


def gated_sha256(run: Run, phase: str) -> str:
    """Return the sha256 of a phase's result from its last gate in the journal; empty if there is none."""
    wrote: Any = {}
    for event in run.journal.events("gate"):
        if event.get("phase") == phase:
            wrote = event.get("wrote")
    return str(wrote.get(f"{run.report.name}/{run.result_file(phase).name}", "")) if isinstance(wrote, dict) else ""


def _plan(run: Run) -> list[str]:
    run.plan()  # raises DataError if its digest differs
    return []


def _corpus(trial: Trial) -> list[str]:
    """Compare the copy of the corpus with its record, and the record with the plan."""
    corpus, plan = corpora.load(trial.run.corpus), trial.run.plan()
    problems = [
        f"{trial.run.corpus.name}/{name}: its sha256 is not the one in corpus.json"
        for name, stated in corpus.files.items()
        if trial.stated_sha256(trial.run.corpus / name, stated.sha256) != stated.sha256
    ]
    if whole := wholes.load(trial.run):
        problems += [
            f"{whole.folder.name}/{name}: its sha256 is not the recorded one"
            for name, stated in whole.stated.items()
            if trial.stated_sha256(whole.folder / name, stated.sha256) != stated.sha256
        ]
        problems += [] if whole.work == plan.corpus else ["the plan was made from other rows than those to compute"]
    if (corpus.template, corpus.question_template) != (plan.prompt, plan.question_prompt):
        problems.append("the plan was made for other prompts")
    return problems + ([] if corpus.fingerprint == plan.corpus else ["the plan was made from another corpus"])


def _merged(trial: Trial) -> list[str]:
    merged = Merged(trial.run.merged)
    manifest = merged.manifest()
    if manifest is None:
        claimed = trial.run.result(PHASES[-1]) is not None or publication.published(trial.run) is not None
        return [f"{merged.manifest_file.name}: no such file"] if claimed else []
    problems = [
        f"{name}: its sha256 is not the one in {merged.manifest_file.name}"
        for name, stated in manifest.outputs.items()
        if trial.stated_sha256(merged.folder / name, stated.sha256) != stated.sha256
    ]
    if not manifest.outputs:
        problems.append(f"{merged.manifest_file.name}: names no files")
    if manifest.since != (whole.since if (whole := wholes.load(trial.run)) else None):
        problems.append(f"{merged.manifest_file.name}: says otherwise what was taken from an earlier run")
    if manifest.plan != trial.run.plan().sha256:
        problems.append(f"{merged.manifest_file.name}: made from another plan than plan.json")
    return problems


def _parts(trial: Trial) -> list[str]:
    """Compare each array with its record, and the records with the manifest of the merged parts."""
    problems, run = [], trial.run
    manifest = Merged(run.merged).manifest()
    merged = dict(manifest.part_sums) if manifest else {}
    recorded = {part.name: part.record for part in manifest.parts if part.record} if manifest else {}
    for path in run.committed_parts:
        stated = (read_json(path.with_suffix(".json")) or {}).get("sha256")
        if not path.is_file():
            problems.append(f"{path.name}: there is a record but no array")
        elif trial.stated_sha256(path, str(stated)) != stated:
            problems.append(f"{path.name}: its sha256 is not the one in {path.with_suffix('.json').name}")
        if merged.pop(path.name, stated) != stated:
            problems.append(f"{path.with_suffix('.json').name}: states another sha256 than the part that was merged")
        elif recorded.get(path.name, "") not in ("", trial.sha256(path.with_suffix(".json"))):
            problems.append(f"{path.with_suffix('.json').name}: not the record that was merged")
    return problems + [f"{name}: was merged and is not here" for name in merged]


# ------------------------------------------------------------------------------------- files outside the run's folder


def _outside(trial: Trial, kind: str) -> None:
    """Check the founding file or its backup, which are outside: they may have changed or be on another machine."""
    run, checks = trial.run, trial.checks
    try:
        result = run.result(PHASES[-1])
        stated = result.output(kind) if result else None
    except DataError:
        return  # named above: that result cannot be read
    if not stated:
        return
    path, sha256 = Path(stated.path), stated.sha256
    name = f"{kind} file" if kind == "founding" else kind
    if not path.parent.is_dir() and not _is_original_folder(run):
        checks.add(name, True, f"{path}: not on this machine, not checked", "the same sha256", warn=True)
        return
    remedy = "run 04_merge_validate again: it writes this file again from the merged result"
    try:
        actual = trial.stated_sha256(path, sha256)
    except OSError as error:
        checks.add(name, False, f"{path}: {error.strerror}", "the same sha256", remedy)
        return
    if actual == sha256:
        checks.add(name, True, f"{path}: the same sha256", "the same sha256")
        return
    other = publication.run_that_wrote(run, path) if kind == "founding" else ""
    other = "" if other == run.name else other
    change = (
        f"{path}: written since by run {other}" if other else f"{path}: sha256 {actual[:16]}…, sealed as {sha256[:16]}…"
    )
    checks.add(name, bool(other), change, "the same sha256", remedy, warn=bool(other))


def _is_original_folder(run: Run) -> bool:
    """Return whether the run's folder is where its profile puts it; else it is a copy, perhaps on another machine."""
    return os.path.realpath(run.folder.parent) == os.path.realpath(run.profile.runs)
