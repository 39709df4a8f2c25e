"""Validate: the founding plan's ten checks, then checks of every row that these leave out.

Checks compare facts with expectations; figures are for the report. `validate` stores both in validation.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from ..corpus import corpus as corpora
from ..errors import DataError
from ..result import claims, computed_again, done_twice, figures, founding, publication, reused_rows, texts_again
from ..result.array_file import ITEM_BYTES
from ..result.evidence import Evidence, gather
from ..result.figures import Duplicates, Figures
from ..result.manifest import Manifest
from ..result.merged import AGAIN, Merged, differences
from ..result.parts import Piece, first_few, read, row_bytes
from ..result.placed import Backup
from ..result.survey import Geometry, Header, Survey, norms_of, rows_where
from ..run.checks import Check, Checks
from ..run.plan import Plan, problems
from ..run.run import Run
from . import audit, canaries, fencing

FILE = "validation.json"
EXIST, BACKUP = "1 merged files exist", "9 backup made and read back"
DIGITS = "float32 in every digit"
UNREAD = "not looked at: the matrix cannot be read"
# How far a norm may be from 1 if the model normalises: the rounding of the dtype, with a margin. The same bounds as in
# worker/encoder.py, repeated because that module needs torch; a test compares the two.
NORM_BOUND = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
ROBUST_DEVIATIONS = 10.0
SAMPLED = 2**22  # norms of which the median is taken, evenly spaced where there are more
# Rules of thumb: a collapsed model exceeds these limits, models in use are far below.
TOP_SHARE_LIMIT, MEAN_COSINE_LIMIT = 0.70, 0.95


def validate(run: Run, backup: Backup | None = None) -> tuple[Checks, Figures]:
    """Return the checks of the merged result and their figures; store them as validation.json in the report folder.

    `backup` is the result of `backup.backup`; without it check 9 fails until `with_backup` fills it in. Raises
    DataError only if the run has no readable plan or corpus.
    """
    result = publication.current_result(run)
    checks, shown = examine(run, result.merged, result.founding, backup)
    if shown.norms is not None:
        more, sound = Checks(checks.title), all(check.ok for check in checks if check.name != BACKUP)
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
        _founding_checks(evidence, backup, checks)
        _further_checks(evidence, checks)
        shown = _figures(evidence)
    return checks, shown


def with_backup(run: Run, checks: Checks, shown: Figures, backup: Backup) -> Checks:
    """Return `checks` with the ninth from the result of `backup.backup`; write validation.json again."""
    manifest = publication.current_result(run).merged.manifest()
    filled = Checks(checks.title, [_backup(manifest, backup) if check.name == BACKUP else check for check in checks])
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


# --------------------------------------------------------------------------------------------------- naming of rows


def _about_rows(checks: Checks, name: str, rows: Sequence[int], good: str, remedy: str, warn: bool = False) -> None:
    """Add a check that passes if `rows` is empty; with `warn`, rows give only a warning."""
    if rows:
        many = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        checks.add(name, warn, f"{many}: {first_few(rows)}", "none", remedy, warn=warn)
    else:
        checks.add(name, True, good)


def _redo(e: Evidence, rows: Sequence[int]) -> str:
    """Return the remedy for rows with wrong vectors: it depends on whether their part is wrong too."""
    work = reused_rows.work_row(e, rows[0]) if rows else None
    if rows and work is None:
        return reused_rows.REMEDY
    for part in e.manifest.parts:
        if work is not None and part.rows and part.rows[0] <= work < part.rows[1]:
            origin = f"{part.name} of {part.slot} on {part.host}"
            return (
                f"row {rows[0]} is from {origin}: where the part itself holds this vector, delete its .npy and .json "
                f"here and on that host, run again and the rows are redone; else {AGAIN}"
            )
    return AGAIN


# -------------------------------------------------------------------------------------------- the founding plan's ten


def _founding_checks(e: Evidence, backup: Backup | None, checks: Checks) -> None:
    """Checks 2 to 10."""
    _bytes(e, checks)
    _structure(e, checks)
    rows, dim = (e.shape.rows, e.shape.dim) if e.shape else ("unknown", "unknown")
    checks.add("4 one vector a document", rows == e.documents, rows, e.documents, AGAIN)
    checks.add("5 dimension", dim == e.plan.model.dim, dim, e.plan.model.dim, AGAIN)
    _finite(e, checks)
    _metadata(e, checks)
    _norms(e, checks)
    checks.extend([_backup(e.manifest, backup)])
    _fields(e, checks)


def _bytes(e: Evidence, checks: Checks) -> None:
    vectors = e.documents * e.plan.model.dim * ITEM_BYTES
    size = e.founding.stat().st_size if e.founding else e.manifest.founding.bytes
    actual = (e.merged.embeddings.stat().st_size, size)
    wanted = (vectors + (e.shape.bytes if e.shape else 0), e.manifest.founding.bytes)
    checks.add(
        "2 bytes exact",
        e.shape is not None and actual == wanted,
        f"{actual[0]:,} and {actual[1]:,}",
        f"{wanted[0]:,} (header + {e.documents} x {e.plan.model.dim} x {ITEM_BYTES}) and {wanted[1]:,}",
        AGAIN,
    )


def _structure(e: Evidence, checks: Checks) -> None:
    wrong = [e.problem] if e.problem else []
    wrong += _unlike_founding(e)
    good = "every byte as made again from the merged matrix and articles; nothing unpickled"
    checks.add("3 structure valid", not wrong, first_few(wrong, "; ") or good, "", AGAIN)


def _unlike_founding(e: Evidence) -> list[str]:
    """Return how the file in the founding shape, or its sum alone, differs from the merged matrix and articles."""
    content = e.merged.content(e.manifest)
    if e.founding:
        return [f"{e.founding.name} {why}" for why in founding.check(e.founding, content)]
    try:
        actual = founding.sha256(content)
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        return [f"the file in the founding shape cannot be made again: {error}"]
    stated = e.manifest.founding.sha256
    return [] if actual == stated else [f"the file in the founding shape has sha256 {actual}, its manifest {stated}"]


def _finite(e: Evidence, checks: Checks) -> None:
    name = "6 no NaN or infinity"
    if e.matrix is None:
        checks.add(name, False, UNREAD, "", AGAIN)
        return
    rows = rows_where(e.matrix.survey.norms, lambda norms: ~np.isfinite(norms))
    _about_rows(checks, name, rows, f"none in {e.documents} rows", _redo(e, rows))


def _metadata(e: Evidence, checks: Checks) -> None:
    """Every row, not only the first ten, has its own record at its place, with a title."""
    audit = e.audit
    accepted = "missing_title" in e.run.profile.corpus.accept or len(audit.untitled) == audit.lines  # none has one
    faults = {
        "not at their place": audit.out_of_place,
        "with an id, title or url that is not the corpus's": audit.unlike_corpus,
        "without a title": [] if accepted else audit.untitled,
    }
    wrong = [f"{len(rows)} {what}: rows {first_few(rows)}" for what, rows in faults.items() if rows]
    if audit.lines != e.documents:
        wrong.insert(0, f"{audit.lines} records for {e.documents} documents")
    untitled = f", {len(audit.untitled)} without a title, as accepted" if audit.untitled else ""
    remedy = f"{AGAIN}; for missing titles correct the corpus, then runbook run PROFILE --amend"
    good = f"{audit.lines} records in order{untitled}"
    checks.add("7 a record for every row", not wrong, "; ".join(wrong) or good, "", remedy)


def _norms(e: Evidence, checks: Checks) -> None:
    """Norms are as the model promises: 1 if it normalises; else above 0 and not far from the others."""
    name = "8 norms as the model promises"
    if e.matrix is None:
        checks.add(name, False, UNREAD, "", AGAIN)
        return
    norms = e.matrix.survey.norms
    if e.plan.model.normalises:
        rows = _wrong_norms(norms, e.plan)
        good = f"every norm within {NORM_BOUND[e.plan.dtype]:g} of 1 ({e.plan.dtype})"
        _about_rows(checks, name, rows, good, _redo(e, rows))
    elif rows := rows_where(norms, lambda norms: norms == 0):
        _about_rows(checks, name, rows, "", _redo(e, rows))
    else:
        known = norms[:: 1 + len(norms) // SAMPLED]
        known = known[np.isfinite(known)]
        middle = float(np.median(known)) if len(known) else 0.0
        deviation = 1.4826 * float(np.median(np.abs(known - middle))) if len(known) else 0.0
        limit = ROBUST_DEVIATIONS * max(deviation, 1e-6 * middle)
        far = rows_where(norms, lambda norms: np.abs(norms - middle) > limit)
        remedy = f"read these documents: their norms are over {ROBUST_DEVIATIONS:g} robust deviations from {middle:.4g}"
        good = f"above 0, median {middle:.4g} (the model does not normalise)"
        _about_rows(checks, name, far, good, remedy, warn=True)


def _wrong_norms(norms: np.ndarray, plan: Plan) -> list[int]:
    """Return rows with a finite norm that is not 1; check 6 names those that are not finite."""
    bound = NORM_BOUND[plan.dtype]
    return rows_where(norms, lambda norms: np.isfinite(norms) & (np.abs(norms - 1) > bound))


def _backup(manifest: Manifest | None, backup: Backup | None) -> Check:
    remedy = "back up (04_merge_validate does it; runbook run)"
    expected = "a copy whose sha256 was compared"
    if backup is None:
        return Check(BACKUP, False, "none yet", expected, remedy)
    path = Path(backup.path)
    if manifest is None or backup.sha256 != manifest.founding.sha256 or not backup.read_back:
        return Check(BACKUP, False, f"{path}: not a copy of this result", expected, remedy)
    if not path.is_file() or path.stat().st_size != manifest.founding.bytes:
        return Check(BACKUP, False, f"{path}: the copy is gone or cut", expected, remedy)
    return Check(BACKUP, True, str(path), "", backup.warning, warn=backup.same_disk)


def _fields(e: Evidence, checks: Checks) -> None:
    """Check 3 proved that the file contains these values; this compares them with the plan."""
    content = e.merged.content(e.manifest)
    wanted = {"model": e.plan.model.name, "embedding_dim": e.plan.model.dim, "total_articles": e.documents}
    actual = {"model": content.model, "embedding_dim": content.dim, "total_articles": content.documents}
    try:
        timed = datetime.fromisoformat(content.timestamp).tzinfo is not None
    except ValueError:
        timed = False
    shown = ", ".join(f"{key} {value}" for key, value in {**actual, "timestamp": content.timestamp}.items())
    checks.add("10 metadata fields", timed and actual == wanted, shown, wanted, AGAIN)


# -------------------------------------------------------------------------------------------------------- and beyond


def _further_checks(e: Evidence, checks: Checks) -> None:
    _belongs(e, checks)
    _unchanged(e, checks)
    wrong = problems([part.rows for part in e.manifest.parts if part.rows], e.plan.rows)
    checks.add("every row from exactly one part", not wrong, first_few(wrong) or f"{e.plan.rows} rows", "", AGAIN)
    rows = e.audit.other_text
    _about_rows(checks, "every row encoded from the corpus's text", rows, "fingerprints of all", _redo(e, rows))
    texts_again.check(checks, e.all_documents)
    claims.check(checks, e)
    checks.extend([done_twice.check(e.run.journal, e.plan.dtype)])
    fencing.tell(checks, e.plan)
    canaries.tell(checks, e.run)
    _asked(e, checks)
    computed_again.check(checks, e.run, e.plan, e.corpus, e.manifest)
    if e.matrix is None:
        checks.add("every row as in its part", False, UNREAD, "", AGAIN)
        return
    if e.whole is None:
        _as_in_parts(e, e.matrix.shape, checks)
    else:
        reused_rows.check(e, e.whole, checks)
    zero = rows_where(e.matrix.survey.norms, lambda norms: norms == 0)
    _about_rows(checks, "no vector of zeros", zero, "none", _redo(e, zero))
    constant = sorted(set(e.matrix.survey.constant) - set(zero))
    _about_rows(checks, "no vector of one value", constant, "none", _redo(e, constant))
    _precision(e, e.matrix.survey, set(constant), checks)
    _equal_vectors(e.duplicates, checks)
    _cut_texts(e, checks)
    _spread(e.matrix.geometry, checks)
    _answers(e, checks)


def _belongs(e: Evidence, checks: Checks) -> None:
    facts = (
        ("run", e.plan.run, e.manifest.run),
        ("plan", e.plan.sha256, e.manifest.plan),
        ("corpus", e.corpus.fingerprint, e.manifest.corpus),
        ("dtype", e.plan.dtype, e.manifest.dtype),
    )
    wrong = [f"another {what}" for what, wanted, actual in facts if wanted != actual]
    checks.add("made from this plan and corpus", not wrong, first_few(wrong) or f"plan {e.plan.sha256[:12]}", "", AGAIN)


def _unchanged(e: Evidence, checks: Checks) -> None:
    """Compare files with the manifest; the matrix was hashed during the survey."""
    wrong = []
    for name, stated in e.manifest.outputs.items():
        if name == e.merged.embeddings.name and e.matrix is not None:
            sha256 = e.matrix.survey.sha256
            wrong += [] if sha256 == stated.sha256 else [f"{name}: sha256 {sha256}, expected {stated.sha256}"]
        else:
            wrong += differences(e.merged.folder / name, stated)
    good = f"sha256 of {len(e.manifest.outputs)} files"
    checks.add("files unchanged since the merge", not wrong, first_few(wrong, "; ") or good, "", AGAIN)


def _as_in_parts(e: Evidence, shape: Header, checks: Checks) -> None:
    """Compare the matrix with the downloaded parts, byte by byte, independently of the merge's writing."""
    name, rows, compared, absent = "every row as in its part", list[int](), 0, 0
    try:
        for stated in e.manifest.parts:
            low, high = stated.rows or (0, 0)
            high = min(high, shape.rows)
            path = e.run.local.parts / stated.name
            if low < high and path.exists():
                rows += _unlike(e.merged.embeddings, shape, (read(path), low, high))
                compared += high - low
            elif low < high:
                absent += 1
    except (DataError, OSError) as error:
        checks.add(name, False, error, "", AGAIN)
        return
    good = f"{compared} rows compared" + (f"; {absent} parts are no longer here" if absent else "")
    _about_rows(checks, name, rows, good, AGAIN)


def _unlike(matrix: Path, shape: Header, piece: Piece) -> list[int]:
    """Return the matrix rows that differ from the piece. Raises DataError if the part differs from its record."""
    width = shape.dim * ITEM_BYTES
    at = piece[1] * width
    rows: set[int] = set()
    with matrix.open("rb") as file:
        file.seek(shape.bytes + at)
        for wanted in row_bytes(piece):
            actual = file.read(len(wanted))
            if actual != wanted:
                differ = np.frombuffer(wanted, np.uint8) != np.frombuffer(actual, np.uint8)
                rows.update(((at + np.flatnonzero(differ)) // width).tolist())
            at += len(wanted)
    return sorted(rows)


def _asked(e: Evidence, checks: Checks) -> None:
    """Check the questions' vectors, which have their own file and are not in the founding file."""
    name = "a sound vector for every question"
    if e.asked.problem:
        checks.add(name, False, e.asked.problem, f"{e.plan.questions} questions", AGAIN)
        return
    norms = norms_of(e.asked.vectors)
    bad = ~np.isfinite(norms) | (norms == 0)
    if e.plan.model.normalises:
        bad[_wrong_norms(norms, e.plan)] = True
    rows = (e.documents + np.flatnonzero(bad)).tolist()
    _about_rows(checks, name, rows, f"{len(norms)} questions", _redo(e, rows))


def _precision(e: Evidence, survey: Survey, constant: set[int], checks: Checks) -> None:
    """Check that rows said to be float32 were, by their digits; what most rows have is the model's own way."""
    if e.plan.dtype != "float32":
        return
    name, scaled = DIGITS, [row for row in survey.scaled if row not in constant]
    rows = sorted({*survey.coarse} - constant)
    usual = 2 * len(scaled) > e.documents and not rows
    _about_rows(
        checks, name, scaled if usual else sorted({*rows, *scaled}), "no row was computed in 16 bits",
        "most vectors have few different digits: the model's own way, or all compute in 16 bits: the audit decides"
        if usual else _redo(e, rows or scaled), warn=usual,
    )  # fmt: skip


def _equal_vectors(shown: Duplicates, checks: Checks) -> None:
    name = "equal vectors have equal texts"
    if not shown.unexplained:
        good = f"{shown.groups} groups of equal vectors, each explained by equal or cut texts"
        checks.add(name, True, good if shown.groups else "all vectors differ")
        return
    rows = "; ".join("rows " + ", ".join(map(str, group)) for group in shown.unexplained_rows)
    summary = f"{shown.unexplained} groups of equal vectors with different texts: {rows}"
    remedy = "read these documents: texts that the tokenizer makes the same are harmless, copied vectors are not"
    checks.add(name, True, summary, "none", remedy, warn=True)


def _cut_texts(e: Evidence, checks: Checks) -> None:
    name, stated = "every document read to its end", e.manifest.lengths.documents
    cut = int(e.audit.cut.sum())
    if not cut:
        chunked = e.manifest.chunked
        how = f"; {chunked.documents:,} documents in several chunks of at most {chunked.tokens:,}" if chunked else ""
        checks.add(name, True, f"{stated.tokens:,} tokens{how}")
        return
    summary = (
        f"{cut} of {e.documents} documents ({cut / e.documents:.1%}) are longer than the model reads; "
        f"{stated.tokens_cut:,} of {stated.tokens:,} tokens ({stated.share_cut:.1%}) were cut off"
    )
    remedy = "their ends are not in the vectors: split long documents, raise model.max_tokens, or accept it"
    taken = e.run.profile.model.too_long != "refuse"  # else preflight stops, where it could count them all
    checks.add(name, taken, summary, "none", remedy, warn=taken)


def _spread(geometry: Geometry, checks: Checks) -> None:
    name = "vectors spread out"
    if geometry.mean_cosine is None:
        checks.add(name, True, "too few vectors to say")
        return
    top, rank = geometry.top_share, geometry.effective_rank
    summary = f"mean cosine {geometry.mean_cosine:.3f}"
    summary += ", all in one direction" if top is None else f", strongest direction {top:.1%} of the variance"
    summary += "" if rank is None else f", effective rank {rank:.1f}"
    limits = f"mean cosine up to {MEAN_COSINE_LIMIT}, strongest direction up to {TOP_SHARE_LIMIT:.0%} (rules of thumb)"
    remedy = "look at the questions' nearest documents: vectors this close together may not tell documents apart"
    crowded = geometry.mean_cosine > MEAN_COSINE_LIMIT or (top is not None and top > TOP_SHARE_LIMIT)
    checks.add(name, True, summary, limits, remedy, warn=crowded)


def _answers(e: Evidence, checks: Checks) -> None:
    """Check that questions find their documents early; only for questions that name one."""
    top1, top10, asked = e.retrieval.top1, e.retrieval.top10, e.retrieval.with_answer
    if not asked or top10 is None:
        return
    ranks = f"first for {top1}, among the first 10 for {top10}, of {asked} questions"
    remedy = "read the nearest documents: wrong prompts or a model for another language show here"
    few = 2 * top10 < asked
    checks.add(
        "questions find their documents", True, ranks, "half among the first 10 (a rule of thumb)", remedy, warn=few
    )


# ----------------------------------------------------------------------------------------------------------- figures


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
    )
