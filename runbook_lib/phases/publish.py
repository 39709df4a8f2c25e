"""Publish: a result whose checks hold is backed up and gets its final names; one whose checks fail is put aside."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..result import publication
from ..result.figures import Figures
from ..result.placed import Backup, Placed
from ..run.checks import Check, Checks
from ..run.run import Run
from . import backup as backups
from . import validate

NAME = "final names"
SEE = "make the checks above hold, then run again; the result of before stands meanwhile"


@dataclass(frozen=True)
class Published:
    """What came of it: all checks, with the backup's and the final names', and the files outside the run's folder.

    None stands for a file that was not made.
    """

    checks: Checks
    founding: Placed | None
    backup: Backup | None

    def __repr__(self) -> str:
        return repr(self.checks)

    def _repr_html_(self) -> str:
        return self.checks._repr_html_()


def publish(run: Run, checks: Checks, figures: Figures) -> Published:
    """Back up and publish the result that `validate.validate` gave these checks and figures of.

    Where a check fails nothing gets a final name, no backup is made, and what stood there before stays.
    """
    failed = [check for check in checks.failed if check.name != validate.BACKUP]
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
    """The same checks, with what became of the candidate."""
    kept = publication.reject_candidate(run, [f"{check.name}: {check.seen}" for check in failed])
    shown = Checks(checks.title, [replace(c, seen="none made") if c.name == validate.BACKUP else c for c in checks])
    seen = f"not given: {len(failed)} checks failed; kept for inspection in {kept or run.merged}"
    shown.add(NAME, False, seen, "given once all checks hold", SEE)
    return shown
