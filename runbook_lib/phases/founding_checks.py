"""The founding plan's ten checks of a merged result; the first is made by `validate`, before there is evidence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from worker.again import NORM_BOUND

from ..errors import DataError
from ..result import founding
from ..result.array_file import ITEM_BYTES
from ..result.evidence import Evidence
from ..result.manifest import Manifest
from ..result.merged import AGAIN
from ..result.parts import first_few
from ..result.placed import Backup
from ..result.survey import rows_where
from ..run.checks import Check, Checks
from ..run.plan import Plan
from .wrong_rows import UNREAD, about_rows, redo

BACKUP = "9 backup made and read back"
ROBUST_DEVIATIONS = 10.0
SAMPLED = 2**22  # norms of which the median is taken, evenly spaced where there are more


def add(e: Evidence, backup: Backup | None, checks: Checks) -> None:
    """Add checks 2 to 10."""
    _bytes(e, checks)
    _structure(e, checks)
    rows, dim = (e.shape.rows, e.shape.dim) if e.shape else ("unknown", "unknown")
    checks.add("4 one vector a document", rows == e.documents, rows, e.documents, AGAIN)
    checks.add("5 dimension", dim == e.plan.model.dim, dim, e.plan.model.dim, AGAIN)
    _finite(e, checks)
    _metadata(e, checks)
    _norms(e, checks)
    checks.extend([backed_up(e.manifest, backup)])
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
    about_rows(checks, name, rows, f"none in {e.documents} rows", redo(e, rows))


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
        rows = wrong_norms(norms, e.plan)
        good = f"every norm within {NORM_BOUND[e.plan.dtype]:g} of 1 ({e.plan.dtype})"
        about_rows(checks, name, rows, good, redo(e, rows))
    elif rows := rows_where(norms, lambda norms: norms == 0):
        about_rows(checks, name, rows, "", redo(e, rows))
    else:
        known = norms[:: 1 + len(norms) // SAMPLED]
        known = known[np.isfinite(known)]
        middle = float(np.median(known)) if len(known) else 0.0
        deviation = 1.4826 * float(np.median(np.abs(known - middle))) if len(known) else 0.0
        limit = ROBUST_DEVIATIONS * max(deviation, 1e-6 * middle)
        far = rows_where(norms, lambda norms: np.abs(norms - middle) > limit)
        remedy = f"read these documents: their norms are over {ROBUST_DEVIATIONS:g} robust deviations from {middle:.4g}"
        good = f"above 0, median {middle:.4g} (the model does not normalise)"
        about_rows(checks, name, far, good, remedy, warn=True)


def wrong_norms(norms: np.ndarray, plan: Plan) -> list[int]:
    """Return rows with a finite norm that is not 1; check 6 names those that are not finite."""
    bound = NORM_BOUND[plan.dtype]
    return rows_where(norms, lambda norms: np.isfinite(norms) & (np.abs(norms - 1) > bound))


def backed_up(manifest: Manifest | None, backup: Backup | None) -> Check:
    """The ninth: a copy of this result is on the disk, and was read back."""
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
