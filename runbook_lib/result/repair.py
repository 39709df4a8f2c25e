"""Repair: what is no longer as it was sealed is restored from its second copy, or put aside, so that it is made anew.

Parts come again from their hosts or are computed again, the result is merged again from them, a phase whose record is
damaged is executed again. What nobody can make anew (the journal, a failed attempt) is left, and named by the seal.
"""

from __future__ import annotations

from pathlib import Path

from worker.files import sha256_file, write_atomic

from ..corpus import corpus as corpora
from ..errors import DataError
from ..run.disk import in_words
from ..run.run import PHASES, Run
from . import home
from .sealed import changes_since_seal, listed

# Which phase makes a record anew, where no second copy of it is left.
MADE_BY = {
    "report/hosts.json": PHASES[0],
    "plan.json": PHASES[0],
    "report/validation.json": PHASES[3],
    "published.json": PHASES[3],
}


@in_words("repairing the run")
def repair(run: Run) -> set[str]:
    """Prepare what can be made anew; gives the phases that must be executed again because of their own records."""
    again = set()
    for name in _damaged(run):
        if _restored(run, name):
            continue
        phase = MADE_BY.get(name) or next((p for p in PHASES if name.startswith(f"{run.report.name}/{p}.")), "")
        again |= {phase} if phase else set()
        if name.startswith(f"{run.local.parts.name}/"):
            again.add(PHASES[3])  # a part that is another one now, and sound by its own record, is merged and checked
        if name == run.plan_file.name and run.plan_file.exists():
            _put_aside(run, run.plan_file)
    again |= _corpus(run)
    if run.plan_file.exists() and not again & {PHASES[0]}:
        for path, why in list(home.unsound(run)):
            home.put_aside(run, path, why)
    return again


def _damaged(run: Run) -> list[str]:
    try:
        return changes_since_seal(run, lambda path, stated: sha256_file(path)).damaged
    except (DataError, OSError):
        return []  # there is no list to hold it against: the records tell what they can


def _restored(run: Run, name: str) -> bool:
    """Whether a small record could be restored from the copy that each attempt of a phase keeps."""
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
    """A damaged copy of the corpus is made anew where its source is still there."""
    try:
        corpus = corpora.load(run.corpus)
        wrong = [n for n, stated in corpus.files.items() if sha256_file(run.corpus / n) != stated.sha256]
    except DataError as error:
        wrong = [str(error)]
    if not wrong:
        return set()
    if run.corpus.exists() and run.profile.corpus.path.exists():
        _put_aside(run, run.corpus)
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
