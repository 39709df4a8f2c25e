"""Publish: a result whose checks pass is backed up and gets its final names; a result that fails is put aside."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..result import publication
from ..result.figures import Figures
from ..result.placed import Backup, Placed
from ..run.checks import Check, Checks
from ..run.run import Run
from . import backup as backups
from . import validate
from .founding_checks import BACKUP

NAME = "final names"
SEE = "make the checks above hold, then run again; the previous result stays meanwhile"


@dataclass(frozen=True)
class Published:
    """The result of publishing: all checks, also of backup and final names, and the files outside the run's folder.

    None: the file was not made.
    """

    checks: Checks
    founding: Placed | None
    backup: Backup | None

    def __repr__(self) -> str:
        return repr(self.checks)

    def _repr_html_(self) -> str:
        return self.checks._repr_html_()


def publish(run: Run, checks: Checks, figures: Figures) -> Published:
    """Back up and publish the result with these checks and figures, which `validate.validate` returned.

    If a check fails, no file gets a final name, no backup is made, and the previous result stays.
    """
    failed = [check for check in checks.failed if check.name != BACKUP]
    if failed:
        return Published(_refused(run, checks, failed), None, None)
    copy = backups.backup(run)
    filled = validate.with_backup(run, checks, figures, copy)
    if not filled.ok:
        return Published(_refused(run, filled, filled.failed), None, copy)
    record = publication.publish(run, copy)
    filled.add(NAME, True, f"{run.merged} and {record.founding.path}")
    return Published(filled, record.founding, copy)


def _refused(run: Run, checks: Checks, failed: list[Check]) -> Checks:
    """Reject the candidate, and return the checks with one more that says so."""
    kept = publication.reject_candidate(run, [f"{check.name}: {check.seen}" for check in failed])
    shown = Checks(checks.title, [replace(c, seen="none made") if c.name == BACKUP else c for c in checks])
    seen = f"not given: {len(failed)} checks failed; kept for inspection in {kept or run.merged}"
    shown.add(NAME, False, seen, "given once all checks hold", SEE)
    return shown
