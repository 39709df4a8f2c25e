"""Verification: what a reviewer who trusts no record learns from the archive alone.

Two steps. The bytes are those that were sealed (`archive`). Then everything that a record claims is computed again:
all of validation from arrays and texts, the figures that are stored, those that the page prints, and the results that
the executed notebooks ended with. No notebook library is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.files import read_json, sha256_file

from ..corpus import corpus as corpora
from ..errors import DataError, RunbookError
from ..phases import validate
from ..result import facts, figures, publication, texts_again
from ..result.figures import Figures
from ..result.merged import Merged
from ..result.sealed import SEALED
from ..run.checks import Check, Checks
from ..run.disk import explain_disk_errors
from ..run.journal import Event
from ..run.phase_result import CheckRecord
from ..run.run import PHASES, Run
from . import archive, printed

STORED = "stored figures as computed again"
VERDICTS = "verdicts of the last gate as found again"
PAGE = "figures of report.html as computed again"
NOTEBOOKS = "executed notebooks ended with these results"
AGAIN = "run 04_merge_validate again, then runbook report: what it writes follows from the files"
STAMP = re.compile(r"result sha256 ([0-9a-f]{64})")
PLACES = (validate.EXIST, validate.BACKUP)  # checks that name folders of the machine where they were made


@explain_disk_errors("verifying the run")
def verify(run: Run, quick: bool = False, source: Path | None = None) -> Checks:
    """Check the archive of a sealed run: its bytes, then everything that is claimed about them, computed again.

    `quick`: the bytes alone, of large files only the sizes. `source`: the corpus file that its owner kept, to hold the
    archive's texts against. Writes nothing.
    """
    checks = archive.verify(run, quick)
    if quick:
        return checks
    shown: list[Figures] = []
    _attempt(checks, lambda found: shown.append(_validation(run, found)))
    _attempt(checks, lambda found: _page(run, shown[0] if shown else Figures(), found))
    _attempt(checks, lambda found: _notebooks(run, found))
    if source is not None:
        _attempt(checks, lambda found: texts_again.check_source(found, corpora.load(run.corpus), source))
    return checks


def check_before_sealing(run: Run) -> None:
    """Raise DataError if what is to be sealed is not what follows from the arrays and texts: no edit is laundered."""
    checks = Checks("What is to be sealed")
    if Merged(run.merged).manifest() is None and publication.published(run) is None:
        return
    _attempt(checks, lambda found: _validation(run, found))
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


def _validation(run: Run, checks: Checks) -> Figures:
    """Validate again, and hold what was stored then against what is found now; return the figures of now."""
    found, shown = validate.examine(run, Merged(run.merged), None)
    now = [check for check in found if check.name != validate.BACKUP]
    stored = _stored_checks(run)
    checks.extend(_told_before(check, stored.get(check.name)) for check in now)
    _stored(run, shown, checks)
    _verdicts(stored, now, checks)
    return shown


def _stored_checks(run: Run) -> dict[str, CheckRecord]:
    result = run.result(PHASES[-1])
    return {check.name: check for check in result.checks if check.group == "validation"} if result else {}


def _told_before(check: Check, stored: CheckRecord | None) -> Check:
    """Return a check without its warning if the gate gave the same one: the report has told it, and it is no news."""
    if not check.warn or stored is None or not stored.warn:
        return check
    return replace(check, warn=False, seen=f"{check.seen} (the report warns of it)")


def _stored(run: Run, shown: Figures, checks: Checks) -> None:
    path = run.report / validate.FILE
    stored = (read_json(path) or {}).get("figures")
    if not isinstance(stored, dict):
        checks.add(STORED, not run.finished, f"{path.name}: no figures", "", AGAIN)
        return
    wrong, turned = figures.differences(stored, shown)
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
    said = "; ".join((wrong or other)[: archive.NAMED]) or f"{len(pairs)} checks"
    checks.add(VERDICTS, not wrong, said, "", AGAIN, warn=bool(other))


# ------------------------------------------------------------------------------------------------------- what is shown


def _page(run: Run, shown: Figures, checks: Checks) -> None:
    """Hold every figure that report.html prints against the one that follows from the files."""
    path = run.report / "report.html"
    before, sealing = _sealed_events(run)
    run_facts = facts.gather(run)
    wanted = printed.expected(replace(run_facts, figures=shown, events=run_facts.events[: len(before)]))
    if not printed.read(path) and "list" not in sealing:
        seen = "its figures have no ids: it was written by an earlier version, and only its sum was looked at"
        checks.add(PAGE, True, seen, "", f"runbook report {run.name} writes it anew", warn=True)
        return
    wrong = printed.differences(path, wanted)
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
        ended, gates = _stamps(path), _gates(run, phase)
        if not ended and _executed_here(run, phase) and all(stamped for _, stamped in gates):
            wrong.append(f"{path.name}: its gate shows no result")
        elif not ended:
            older.append(f"{path.name}: no result in it: of a version before, or executed by hand without its gate")
        elif ended[-1] not in [sha256 for sha256, _ in gates]:
            wrong.append(f"{path.name}: ended with the result {ended[-1][:16]}…, which no gate wrote")
        elif ended[-1] != sha256_file(run.result_file(phase)):
            older.append(f"{path.name}: the phase was executed again since")
        else:
            held += 1
    said = "; ".join(wrong or older) or f"{held} notebooks, the sum of the result in each"
    checks.add(NOTEBOOKS, not wrong, said, "", "execute the phase again", warn=bool(older))


def _executed_here(run: Run, phase: str) -> bool:
    """Return whether the chain executed a phase to its end, so that its notebook must show the gate's result."""
    return any(event.get("phase") == phase for event in run.journal.events("phase ended"))


def _gates(run: Run, phase: str) -> list[tuple[str, bool]]:
    """Return what each gate of a phase wrote, and whether its notebook shows it."""
    name = f"{run.report.name}/{run.result_file(phase).name}"
    events = [event for event in run.journal.events("gate") if event.get("phase") == phase]
    return [(str(event.get("wrote", {}).get(name)), bool(event.get("stamped"))) for event in events]


def _stamps(path: Path) -> list[str]:
    """Return the digests of results in the outputs of an executed notebook, in its order; it is read as plain JSON."""
    with suppress(ValueError, OSError, RecursionError):
        notebook = json.loads(path.read_bytes())
        outputs = [out for cell in notebook.get("cells", []) for out in cell.get("outputs", [])]
        return [
            sha256 for out in outputs for sha256 in STAMP.findall(json.dumps(out.get("data", {}).get("text/plain")))
        ]
    return []
