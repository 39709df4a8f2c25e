"""The last line of `runbook verify`: what is certain and what is not, in one sentence that follows from the checks."""

from __future__ import annotations

from ..result.audited import HERE, percent
from ..result.figures import AuditFigures, Figures, FitFigures
from ..result.misfits import WEAK
from ..run.checks import Checks
from . import signature

SINGLE = "that no single row among the others is off"
PURPOSE = "that the vectors serve your purpose"


def sentence(checks: Checks, shown: Figures | None, computed_here: bool = False) -> str:
    """Return the sentence; `shown` is None if only the bytes were looked at.

    `computed_here`: the rows of `shown.audit` were computed by this command; else they are the word of the archive.
    """
    if checks.failed:
        named = "; ".join(check.name for check in checks.failed[:3])
        more = f" and {len(checks.failed) - 3} more" if len(checks.failed) > 3 else ""
        return f"NOT PROVED: {len(checks.failed)} of {len(checks)} checks fail ({named}{more})."
    by = _signed(checks)
    if shown is None:
        return f"{by}; large files have the sealed sizes and all others the sealed bytes; nothing more was looked at."
    parts = [
        by,
        f"every byte is the sealed one, and all {shown.documents or 0:,} documents have the texts, records and figures "
        "that follow from each other",
        _fit(shown.fit),
        _audited(shown.audit, computed_here),
        "not proved: " + (PURPOSE if shown.audit and shown.audit.share_at_most == 0 else f"{SINGLE}, and {PURPOSE}"),
    ]
    return "; ".join(parts) + "."


def _signed(checks: Checks) -> str:
    seen = next((check.seen for check in checks if check.name == signature.NAME), "")
    if not seen.startswith("good, by "):
        return "Not signed"
    return f"Signed by {seen.removeprefix('good, by ')}".replace(
        "; whose key it is --allowed-signers FILE says", ", whoever that is"
    )


def _fit(fit: FitFigures | None) -> str:
    if fit is None or fit.median is None or fit.power_other is None or fit.power_neighbour is None:
        return "no row was held against its text by words: the documents are too few"
    if fit.median < WEAK:
        return f"words tell nothing here of which row fits which text (median cosine {fit.median:.2f})"
    shows = f"one of another text in {fit.power_other:.0%} of cases and of the next one in {fit.power_neighbour:.0%}"
    return (
        f"by words alone each vector was held against its text (median cosine {fit.median:.2f}, least "
        f"{fit.lowest_scores[0]:.2f}), which shows {shows}"
    )


def _audited(audit: AuditFigures | None, computed_here: bool) -> str:
    if audit is None or audit.share_at_most is None:
        return "no row was drawn and computed again"
    where = "" if audit.where == HERE else f", computed {audit.where}"
    by = "as computed here" if computed_here else f"by the audit on file, whose distances are its maker's word{where}"
    if not audit.share_at_most:
        return f"no row is off by more than {audit.tolerance:.2g}, all of them computed again, {by}"
    return (
        f"at most {percent(audit.share_at_most)} of all rows are off by more than {audit.tolerance:.2g}, with 95 % "
        f"confidence, since none of {audit.uniform:,} drawn by seed {audit.seed[:12]} is, {by}"
    )
