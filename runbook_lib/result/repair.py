"""Repair: a file that changed since the seal is restored from a second copy, or moved aside and made again.

Parts are downloaded or computed again, the result is merged again, a phase with a damaged record is executed again.
Files that cannot be made again (the journal, a failed attempt) stay, and the seal reports them.
"""

from __future__ import annotations

from pathlib import Path

from worker.files import sha256_file, write_atomic

from ..corpus import corpus as corpora
from ..corpus import sources
from ..errors import DataError
from ..run.disk import explain_disk_errors
from ..run.run import PHASES, Run
from . import home
from . import whole as wholes
from .sealed import changes_since_seal, listed

# Which phase makes a record again if no second copy of it is left.
MADE_BY = {
    "report/hosts.json": PHASES[0],
    "plan.json": PHASES[0],
    "report/validation.json": PHASES[3],
    "published.json": PHASES[3],
}


@explain_disk_errors("repairing the run")
def repair(run: Run) -> set[str]:
    """Prepare what can be made again; return the phases to execute again because their records are damaged."""
    again = set()
    for name in _damaged(run):
        if _restored(run, name):
            continue
        phase = MADE_BY.get(name) or next((p for p in PHASES if name.startswith(f"{run.report.name}/{p}.")), "")
        again |= {phase} if phase else set()
        if name.startswith(f"{run.local.parts.name}/"):
            again.add(PHASES[3])  # a part that changed, and is valid by its record, must be merged and checked
        if name == run.plan_file.name and run.plan_file.exists():
            _put_aside(run, run.plan_file)
    again |= _corpus(run)
    if run.plan_file.exists() and not again & {PHASES[0]}:
        for path, why in list(home.unusable_parts(run)):
            home.put_aside(run, path, why)
    return again


def _damaged(run: Run) -> list[str]:
    try:
        return changes_since_seal(run, lambda path, stated: sha256_file(path)).damaged
    except (DataError, OSError):
        return []  # without a list, only the records can show damage


def _restored(run: Run, name: str) -> bool:
    """Restore a small record from the copy that each attempt of a phase keeps; return whether that worked."""
    path = run.folder / name
    if not name.startswith(f"{run.report.name}/"):
        return False
    wanted = {name: sha256 for sha256, name in listed(run)}[name]
    for copy in sorted(run.report.rglob("*")):
        if copy.is_file() and copy != path and sha256_file(copy) == wanted:
            write_atomic(path, copy.read_bytes())
            run.journal.write("record restored", record=name, copy=str(copy.relative_to(run.folder)))
            return True
    return False


def _corpus(run: Run) -> set[str]:
    """Move a damaged copy of the corpus aside if its source still exists; return the phase that makes it again."""
    try:
        corpus = corpora.load(run.corpus)
        wrong = [n for n, stated in corpus.files.items() if sha256_file(run.corpus / n) != stated.sha256]
        whole = wholes.load(run)
        there = whole.stated.items() if whole else ()
        wrong += [n for n, stated in there if sha256_file(run.whole / n) != stated.sha256]
    except DataError as error:
        wrong = [str(error)]
    if not wrong:
        return set()
    if run.corpus.exists() and sources.exists(run.profile.corpus.path):
        _put_aside(run, run.corpus)
        if run.whole.exists():  # with --since both are made together
            _put_aside(run, run.whole)
    return {PHASES[0]}


def _put_aside(run: Run, path: Path) -> None:
    run.refused.mkdir(exist_ok=True)
    target = run.refused / path.name
    number = 1
    while target.exists():
        number += 1
        target = run.refused / f"{path.name}.{number}"
    path.rename(target)
    run.journal.write("record put aside", record=path.name, kept=str(target.relative_to(run.folder)))
