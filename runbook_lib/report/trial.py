"""The checks of an archive as they are collected: each file is read once, and a check that raises has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from worker.files import sha256_file

from ..errors import RunbookError
from ..run.checks import Checks
from ..run.run import Run

NAMED = 20
AS_IT_WAS = "restore the file from a backup, or run the same command again (runbook run): it is made again if possible"


@dataclass
class Trial:
    """Collects checks; a check that raises an error counts as failed. Each file is read once."""

    run: Run
    checks: Checks
    sizes: dict[Path, int] = field(default_factory=dict)  # of the large files, if only their sizes are checked
    digests: dict[Path, str] = field(default_factory=dict)

    def sha256(self, path: Path) -> str:
        """Return a file's digest, from a cache: arrays are in the list, in their records and in the manifest."""
        if path not in self.digests:
            self.digests[path] = sha256_file(path)
        return self.digests[path]

    def stated_sha256(self, path: Path, stated: str) -> str:
        """Return a file's digest; for a large file in quick mode the stated one if its size is right."""
        if stated and path in self.sizes:
            size = path.stat().st_size
            return stated if size == self.sizes[path] else f"({size} bytes, expected {self.sizes[path]})"
        return self.sha256(path)

    def hold(self, name: str, remedy: str, problems: Callable[[], list[str]], fine: str) -> None:
        """Add one check: it passes if `problems` returns none."""
        try:
            wrong = problems()
        except (RunbookError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = [f"cannot be checked: {type(error).__name__}: {error}"]
        shown = "; ".join(wrong[:NAMED]) + (f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
        self.checks.add(name, not wrong, shown or fine, fine, remedy)
