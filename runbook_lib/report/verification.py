"""Verification: what a reviewer who trusts no record learns from the archive alone.

Two steps. The bytes are those that were sealed (`archive`). Then everything that a record claims is computed again:
all of validation from arrays and texts, the figures that are stored, those that the page prints, and the results that
the executed notebooks ended with. No notebook library is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from worker.files import read_json, sha256_file

from .. import records
from ..errors import DataError, RunbookError
from ..phases import audit, validate, words_fit
from ..phases.founding_checks import BACKUP
from ..phases.subject import Subject
from ..result import audited, facts, figures, misfits, publication, texts_again
from ..result import whole as wholes
from ..result.content_fit import Scores
from ..result.figures import Figures
from ..result.merged import Merged
from ..result.parts import first_few
from ..result.sealed import SEALED
from ..run.checks import Check, Checks
from ..run.disk import explain_disk_errors
from ..run.journal import Event
from ..run.phase_result import CheckRecord
from ..run.run import PHASES, Run
from . import archive, by_hand, closing, printed, signature, witness
from .closing import Looked

STORED = "stored figures as computed again"
VERDICTS = "verdicts of the last gate as found again"
PAGE = "figures of report.html as computed again"
NOTEBOOKS = "executed notebooks ended with these results"
DRAWN = "the audit was drawn after all parts"
ONCE_MORE = "rows computed again by the reviewer"
BY_MODEL = "runbook verify --recompute N --model FOLDER, on a machine with torch: it decides"
AGAIN = "run 04_merge_validate again, then runbook report: what it writes follows from the files"
GATE = "may the next phase start?"
PLACES = (validate.EXIST, BACKUP)  # checks that name folders of the machine where they were made


@dataclass(frozen=True)
class Again:
    """What a reviewer has computed again: so many rows, drawn by this seed; `model`: a folder with its files.

    With no rows only those are computed whose content fit is far below the run's usual one, where the model is at hand.
    """

    rows: int = 0
    seed: str = ""
    model: Path | None = None


@dataclass
class _Seen:
    """What the steps find for each other."""

    figures: Figures = field(default_factory=Figures)
    scores: Scores | None = None
    computed_here: bool = False
    low: int = 0  # rows that fit far less than is usual and were not computed again


@explain_disk_errors("verifying the run")
def verify(
    run: Run,
    quick: bool = False,
    source: Path | None = None,
    again: Again | None = None,
    signers: Path | None = None,
    hosts: bool = False,
) -> Checks:
    """Check the archive of a sealed run: its bytes, then everything that is claimed about them, computed again.

    `quick`: the bytes alone, of large files only the sizes. `source`: the corpus file that its owner kept, to hold the
    archive's texts against. `signers`: the reviewer's own file of allowed signers. `hosts`: ask them too which seal
    they keep. The stamp of the checks is what they say together, in one sentence. Writes nothing.
    """
    checks = archive.verify(run, quick)
    signature.check(checks, run, signers)
    _only_signed(checks, run)
    if hosts:
        witness.check(checks, run)
    if quick:
        checks.stamp = closing.sentence(checks, Looked(archive.sealed_name(run)))
        return checks
    seen = _Seen()
    _attempt(checks, lambda found: _validation(run, found, seen, fit=True))
    _attempt(checks, lambda found: _audit(run, found))
    _attempt(checks, lambda found: _page(run, seen.figures, found))
    _attempt(checks, lambda found: _notebooks(run, found))
    if source is not None:
        _attempt(checks, lambda found: texts_again.check_source(found, wholes.all_documents(run), source))
    _attempt(checks, lambda found: _once_more(run, seen, again or Again(), found))
    looked = Looked(archive.sealed_name(run), seen.figures, seen.computed_here, source is not None, seen.low)
    checks.stamp = closing.sentence(checks, looked)
    return checks


def _only_signed(checks: Checks, run: Run) -> None:
    """Fail what was written after the seal of a signed run: anybody can add a line to a journal, which the key's owner
    did not sign.
    """
    if signature.claimed(run):
        checks.items[:] = [
            replace(each, ok=False, warn=False, expected=f"what {signature.file_of(run).name} was made for")
            if each.name == archive.CHANGED
            else each
            for each in checks.items
        ]


def check_before_sealing(run: Run) -> None:
    """Raise DataError if what is to be sealed is not what follows from the arrays and texts: no edit is laundered."""
    checks = Checks("What is to be sealed")
    if Merged(run.merged).manifest() is None and publication.published(run) is None:
        return
    _attempt(checks, lambda found: _validation(run, found, _Seen(), fit=False))
    _attempt(checks, lambda found: _audit(run, found))
    _attempt(checks, lambda found: _notebooks(run, found))
    if checks.failed:
        losses = "; ".join(f"{check.name}: {check.seen}" for check in checks.failed)
        raise DataError(f"run {run.name} was not sealed: {losses}. Next: {AGAIN}")


def _attempt(checks: Checks, step: Callable[[Checks], object]) -> None:
    """Add the checks of one step; whatever a damaged archive makes of it is a failed check, never the end."""
    found = Checks(checks.title)
    try:
        step(found)
    except (RunbookError, OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
        found.add("everything can be computed again", False, f"{type(error).__name__}: {error}", "", archive.AS_IT_WAS)
    checks.extend(found)


# -------------------------------------------------------------------------------------------------------- validation


def _validation(run: Run, checks: Checks, seen: _Seen, fit: bool) -> None:
    """Validate again, and hold what was stored then against what is found now; with `fit`, the content fit too."""
    found, shown = validate.examine(run, Merged(run.merged), None)
    now = [check for check in found if check.name != BACKUP]
    stored = _stored_checks(run)
    checks.extend(_told_before(check, stored.get(check.name)) for check in now)
    if fit and shown.norms is not None:
        subject = Subject.of(run, Merged(run.merged))
        seen.scores = words_fit.fit(subject)
        words_fit.tell_fit(checks, seen.scores, subject.misfits(seen.scores))
        found_near = Checks(checks.title)
        words_fit.tell_near(found_near, subject)
        checks.extend(_told_before(check, stored.get(check.name)) for check in found_near)
        shown = replace(shown, fit=misfits.described(seen.scores) if seen.scores else None)
    _stored(run, shown, ("audit",) if fit else ("audit", "fit"), checks)
    _verdicts(stored, now, checks)
    kept = figures.read(run.report / validate.FILE)  # held against its rows by `_audit`
    seen.figures = replace(shown, audit=kept.audit if kept else None)


def _stored_checks(run: Run) -> dict[str, CheckRecord]:
    result = run.result(PHASES[-1])
    return {check.name: check for check in result.checks if check.group == "validation"} if result else {}


def _told_before(check: Check, stored: CheckRecord | None) -> Check:
    """Return a check without its warning if the gate gave the same one: the report has told it, and it is no news."""
    if not check.warn or stored is None or not stored.warn:
        return check
    return replace(check, warn=False, seen=f"{check.seen} (the report warns of it)")


def _stored(run: Run, shown: Figures, apart: Sequence[str], checks: Checks) -> None:
    """Hold the stored figures, but those `apart`, against those of now."""
    path = run.report / validate.FILE
    stored = (read_json(path) or {}).get("figures")
    if not isinstance(stored, dict) or not stored:
        checks.add(STORED, not run.finished, f"{path.name}: no figures", "", AGAIN)
        return
    wrong, turned = figures.differences({key: stored[key] for key in stored if key not in apart}, shown)
    good = f"{path.name}: {len(stored)} groups of figures"
    checks.add(
        STORED, not wrong, "; ".join(wrong[: archive.NAMED]) or "; ".join(turned) or good, "", AGAIN, warn=bool(turned)
    )


def _verdicts(stored: dict[str, CheckRecord], now: list[Check], checks: Checks) -> None:
    """Hold the last gate's checks against those of now; what they say may differ in last digits: a warning."""
    pairs = [(stored[check.name], check) for check in now if check.name in stored]
    wrong = [
        f"{was.name}: was {was.verdict}, is {check.verdict}" for was, check in pairs if was.verdict != check.verdict
    ]
    other = [
        f"{was.name}: said {was.seen!r}, now {check.seen!r}"
        for was, check in pairs
        if was.seen != check.seen and check.name not in PLACES
    ]
    if not pairs:
        none = "not looked at: the last gate's result has none of the checks that are made now"
        checks.add(VERDICTS, not stored, none, "", AGAIN, warn=not stored)
        return
    said = "; ".join((wrong or other)[: archive.NAMED]) or f"{len(pairs)} checks"
    checks.add(VERDICTS, not wrong, said, "", AGAIN, warn=bool(other))


# ---------------------------------------------------------------------------------------------------- computed again


def _audit(run: Run, checks: Checks) -> None:
    """Hold the audit on file against its draw, its rows and the stored figures: who drew, and what follows from it."""
    kept, stored = records.read(audited.Audit, run.report / audit.FILE), figures.read(run.report / validate.FILE)
    stated = stored.audit if stored else None
    if stated is None:  # none was made of this result; a file may be left of one before
        return
    if kept is None:
        checks.add(DRAWN, False, f"{audit.FILE}: no such file, and {validate.FILE} has its figures", "", AGAIN)
        return
    subject = Subject.of(run, Merged(run.merged))
    wrong = audit.problems(kept, subject)
    drawn = [event for event in run.journal.events("audit drawn") if event.get("seed") == kept.seed]
    wrong += [] if drawn else ["the journal has no such draw"]
    wrong += (
        [] if audited.figures_of(kept, subject.corpus.rows) == stated else ["its figures do not follow from its rows"]
    )
    wrong += [why for _, why in audited.wrong_rows(kept)]
    drawn_rows = sum(each.uniform and each.distance is not None for each in kept.rows)
    good = f"{len(kept.rows)} rows of {audit.FILE}"
    good += "" if drawn_rows else ", of which none was drawn from all and computed: nothing follows for the others"
    checks.add(DRAWN, not wrong, "; ".join(wrong[: archive.NAMED]) or good, "", AGAIN, warn=not drawn_rows)


def _once_more(run: Run, seen: _Seen, again: Again, checks: Checks) -> None:
    """Have rows computed again: as many as are asked for; without a wish those that fit far less than is usual."""
    scores = seen.scores
    subject = Subject.of(run, Merged(run.merged))
    low = misfits.suspects(scores) if scores else []
    plain = subject.misfits(scores)
    if not again.rows and not low and not plain:
        return
    try:
        mine = audit.once_more(checks, run, scores, again.rows, again.seed, again.model, ONCE_MORE)
        if again.rows:
            seen.figures, seen.computed_here = replace(seen.figures, audit=mine), True
    except RunbookError as error:
        seen.low = len(low)
        rows = f"{len(low)} rows fit far less than is usual: {first_few(low)}" if low or plain else "the rows asked for"
        checks.add(ONCE_MORE, not again.rows, f"{rows}; not computed again: {error}", "", BY_MODEL, warn=not again.rows)


# ------------------------------------------------------------------------------------------------------- what is shown


def _page(run: Run, shown: Figures, checks: Checks) -> None:
    """Hold every figure that report.html prints against the one that follows from the files."""
    found = printed.read(run.report / "report.html")
    before, sealing = _sealed_events(run)
    run_facts = facts.gather(run)
    wanted = printed.expected(replace(run_facts, figures=shown, events=run_facts.events[: len(before)]))
    if not found and "list" not in sealing:
        seen = "its figures have no ids: it was written by an earlier version, and only its sum was looked at"
        checks.add(PAGE, True, seen, "", f"runbook report {run.name} writes it anew", warn=True)
        return
    wrong = printed.differences(found, wanted)
    checks.add(PAGE, not wrong, "; ".join(wrong[: archive.NAMED]) or f"{len(wanted)} figures", "", AGAIN)


def _sealed_events(run: Run) -> tuple[list[Event], Event | dict[str, Any]]:
    """Return the events before the last sealing, of which the page was made, and the sealing."""
    events = list(run.journal.events())
    at = max((place for place, event in enumerate(events) if event["event"] == SEALED), default=len(events))
    return events[:at], events[at] if at < len(events) else {}


def _notebooks(run: Run, checks: Checks) -> None:
    """Hold the digest that each executed notebook ended with against what the gates wrote into the journal."""
    wrong, older, held = [], [], 0
    for phase in PHASES:
        path = run.report / f"{phase}.ipynb"
        if not path.is_file():
            continue
        shown, gates = by_hand.shown(path), _gates(run, phase)
        ended = by_hand.STAMP.findall(shown)
        if not ended and GATE in shown and all(stamped for _, stamped in gates):
            wrong.append(f"{path.name}: its gate shows no result")
        elif not ended:
            older.append(f"{path.name}: no result in it: of a version before, or executed without its gate")
        elif ended[-1] not in [sha256 for sha256, _ in gates]:
            wrong.append(f"{path.name}: ended with the result {ended[-1][:16]}…, which no gate wrote")
        elif ended[-1] != sha256_file(run.result_file(phase)):
            older.append(f"{path.name}: the phase was executed again since")
        else:
            held += 1
    if not wrong and not older and not held:
        older.append("not looked at: the report has no executed notebook (runbook report RUN --notebook FILE adds one)")
    said = "; ".join(wrong or older) or f"{held} notebooks, the sum of the result in each"
    checks.add(NOTEBOOKS, not wrong, said, "", "execute the phase again", warn=bool(older))


def _gates(run: Run, phase: str) -> list[tuple[str, bool]]:
    """Return what each gate of a phase wrote, and whether its notebook shows it."""
    name = f"{run.report.name}/{run.result_file(phase).name}"
    events = [event for event in run.journal.events("gate") if event.get("phase") == phase]
    return [(str(event.get("wrote", {}).get(name)), bool(event.get("stamped"))) for event in events]
