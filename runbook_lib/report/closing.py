"""The last line of `runbook verify`: what is certain and what is not, in one sentence that follows from the checks."""

from __future__ import annotations

from dataclasses import dataclass

from ..result.audited import HERE, percent
from ..result.figures import AuditFigures, Figures, FitFigures
from ..result.misfits import LOOKED_AT, WEAK
from ..run.checks import Checks
from . import archive, signature

MAKER = "who made this"
CORPUS = "that these texts are those of your corpus (--corpus FILE)"
DISTANCES = "the distances of that audit, which are its maker's word (--recompute N)"
SINGLE = "that no single row is off"
PURPOSE = "that the vectors serve your purpose"


@dataclass(frozen=True)
class Looked:
    """What a verification looked at besides the bytes; `figures` is None if at nothing.

    `computed_here`: the rows of `figures.audit` were computed by this command; else they are the word of the archive.
    `source`: the documents were read again from the reviewer's file. `low`: so many rows fit far less than is usual and
    could not be computed again here.
    """

    run: str
    figures: Figures | None = None
    computed_here: bool = False
    source: bool = False
    low: int = 0


def sentence(checks: Checks, looked: Looked) -> str:
    """Return the sentence."""
    if checks.failed:
        named = "; ".join(check.name for check in checks.failed[:3])
        more = f" and {len(checks.failed) - 3} more" if len(checks.failed) > 3 else ""
        return f"Run {looked.run}: NOT PROVED: {len(checks.failed)} of {len(checks)} checks fail ({named}{more})."
    by, shown = _signed(checks), looked.figures
    if shown is None:
        bytes_only = "large files have the sealed sizes and all others the sealed bytes"
        return f"Run {looked.run}, {by}: {bytes_only}{_later(checks)}; nothing more was looked at."
    known = "signed by " in by and ", whoever" not in by
    audit = shown.audit if shown.audit and shown.audit.share_at_most is not None else None
    certain = audit is not None and looked.computed_here and not audit.share_at_most
    unproved = [] if known else [MAKER]
    unproved += [] if looked.source else [CORPUS]
    unproved += [DISTANCES] if audit and not looked.computed_here else []
    unproved += [] if certain else [SINGLE]
    parts = [
        f"Run {looked.run}, {shown.documents or 0:,} documents by {shown.model}, {by}",
        f"every byte is the sealed one{_later(checks)}; texts, records, vectors and figures follow from each other",
        _fit(shown.fit, looked.low),
        _audited(audit, looked.computed_here),
    ]
    return "; ".join(parts) + f". Not proved: {'; '.join([*unproved, PURPOSE])}."


def _later(checks: Checks) -> str:
    """Return what is not sealed, though it follows the sealed journal: anybody can add lines to a journal."""
    names = {check.name for check in checks}
    files = " and the files that they name" if archive.CHANGED in names else ""
    return f", but for lines that came into the journal later{files}" if archive.GROWN in names else ""


def _signed(checks: Checks) -> str:
    seen = next((check.seen for check in checks if check.name == signature.NAME), "")
    if not seen.startswith("good, by "):
        return "not signed"
    return f"signed by {seen.removeprefix('good, by ')}".replace(signature.WHOSE, ", whoever that is")


def _fit(fit: FitFigures | None, low: int) -> str:
    if fit is None or fit.median is None or fit.power_other is None or fit.power_neighbour is None:
        return "no vector was held against its text by words: the documents are too few"
    if fit.median < WEAK:
        return f"words tell nothing here of which vector fits which text (median cosine {fit.median:.2f})"
    open_rows = f"; {low} rows fit far less than is usual and were not computed again" if low else ""
    return (
        f"by words alone each vector was held against its text (median cosine {fit.median:.2f}): of vectors exchanged "
        f"on purpose {_share(fit.power_other)} came among the {min(LOOKED_AT, fit.rows)} that fit least where they "
        f"were another text's, {_share(fit.power_neighbour)} where they were the next text's{open_rows}"
    )


def _share(share: float) -> str:
    """Return a measured share, rounded down: a power may not look larger than it is."""
    return f"{int(share * 100 + 1e-9)} %"


def _audited(audit: AuditFigures | None, computed_here: bool) -> str:
    if audit is None or audit.share_at_most is None:
        return "no row was drawn and computed again"
    off = f"off by more than {audit.tolerance:.2g} (half the squared distance, as a share of the squared length)"
    where = "" if audit.where in ("", HERE) else f", computed {audit.where},"
    by = "computed again here" if computed_here else f"by the audit on file{where}"
    if not audit.share_at_most:
        return f"all rows were drawn, and {by} none is {off}"
    return (
        f"of {audit.uniform:,} rows drawn by seed {audit.seed[:12]} {by} none is {off}, so with 95 % confidence at "
        f"most {percent(audit.share_at_most)} of all rows are"
    )
