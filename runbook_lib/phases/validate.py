"""Validate: the founding plan's ten checks, then checks of every row that these leave out.

Checks compare facts with expectations; figures are for the report. `validate` stores both in validation.json.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from worker.again import NORM_BOUND

from ..corpus import corpus as corpora
from ..errors import DataError
from ..result import done_twice, figures, neighbours, publication
from ..result.evidence import Evidence, gather
from ..result.figures import Figures
from ..result.manifest import Manifest
from ..result.merged import AGAIN, Merged
from ..result.parts import first_few
from ..result.placed import Backup
from ..run.checks import Checks
from ..run.run import Run
from . import audit, fencing, founding_checks, further_checks
from .founding_checks import BACKUP
from .further_checks import DIGITS

FILE = "validation.json"
EXIST = "1 merged files exist"


def validate(run: Run, backup: Backup | None = None) -> tuple[Checks, Figures]:
    """Return the checks of the merged result and their figures; store them as validation.json in the report folder.

    `backup` is the result of `backup.backup`; without it check 9 fails until `with_backup` fills it in. Raises
    DataError only if the run has no readable plan or corpus.
    """
    result = publication.current_result(run)
    checks, shown = examine(run, result.merged, result.founding, backup)
    if shown.norms is not None:
        # Which of two slots is wrong that did the same rows, the audit decides.
        more, sound = Checks(checks.title), all(check.ok or check.name in (BACKUP, done_twice.NAME) for check in checks)
        shown = audit.after_all_parts(run, result.merged, more, shown, sound)
        checks.extend(more)
        if any(check.name == DIGITS for check in checks.failed):
            fencing.after_audit(run, checks, audit.coarse_slots(run, result.merged))
    _save(run, checks, shown)
    return checks, shown


def examine(run: Run, merged: Merged, file: Path | None, backup: Backup | None = None) -> tuple[Checks, Figures]:
    """Return the checks and figures of `validate` for these merged files, and write nothing.

    `file`: the one in the founding shape; None holds its sum alone against the others, which is as strict.
    """
    checks, shown = Checks("validation"), Figures()
    plan, corpus = run.plan(), corpora.load(run.corpus)
    manifest = _manifest(merged, file, checks)
    if manifest is not None:
        evidence = gather(run, plan, corpus, manifest, merged, file)
        founding_checks.add(evidence, backup, checks)
        further_checks.add(evidence, checks)
        shown = _figures(evidence)
    return checks, shown


def with_backup(run: Run, checks: Checks, shown: Figures, backup: Backup) -> Checks:
    """Return `checks` with the ninth from the result of `backup.backup`; write validation.json again."""
    ninth = founding_checks.backed_up(publication.current_result(run).merged.manifest(), backup)
    filled = Checks(checks.title, [ninth if check.name == BACKUP else check for check in checks])
    _save(run, filled, shown)
    return filled


def _save(run: Run, checks: Checks, shown: Figures) -> None:
    run.save_json(FILE, {"run": run.name, "ok": checks.ok, "checks": checks.as_dicts(), "figures": shown.as_json()})


def _manifest(merged: Merged, file: Path | None, checks: Checks) -> Manifest | None:
    """Add the first check and return the manifest; without merged files the other checks are not possible."""
    try:
        manifest = merged.manifest()
    except DataError as error:
        checks.add(EXIST, False, error, "", AGAIN)
        return None
    files = [merged.embeddings, merged.articles, merged.manifest_file, *([file] if file else [])]
    absent = [each.name for each in files if not each.is_file()]
    if manifest is None or absent:
        checks.add(EXIST, False, f"missing: {first_few(absent)}", "all of them", AGAIN)
        return None
    checks.add(EXIST, True, f"{file} and {merged.folder}" if file else str(merged.folder))
    return manifest


def _figures(e: Evidence) -> Figures:
    plan, matrix, asked = e.plan, e.matrix, e.asked
    shown = Figures(
        documents=e.documents,
        questions=plan.questions,
        dim=plan.model.dim,
        model=plan.model.name,
        dtype=plan.dtype,
        normalises=plan.model.normalises,
        norm_bound=NORM_BOUND[plan.dtype] if plan.model.normalises else None,
        lengths=figures.lengths(e.audit, e.manifest.lengths.documents),
    )
    if matrix is None:
        return shown
    texts = [] if asked.problem else asked.texts
    placed = figures.projection(
        matrix.survey, matrix.geometry, matrix.sampled, e.audit, matrix.questions.vectors, texts
    )
    return replace(
        shown,
        norms=figures.norms(matrix.survey.norms),
        geometry=figures.geometry(matrix.geometry),
        duplicates=e.duplicates,
        retrieval=e.retrieval,
        projection=placed,
        neighbours=neighbours.figures(matrix.looked_at, matrix.survey, e.audit),
    )
