"""A check about rows: it names the first of them, and says how their vectors are made again."""

from __future__ import annotations

from collections.abc import Sequence

from ..result import reused_rows
from ..result.evidence import Evidence
from ..result.merged import AGAIN
from ..result.parts import first_few
from ..run.checks import Checks

UNREAD = "not looked at: the matrix cannot be read"


def about_rows(checks: Checks, name: str, rows: Sequence[int], good: str, remedy: str, warn: bool = False) -> None:
    """Add a check that passes if `rows` is empty; with `warn`, rows give only a warning."""
    if rows:
        many = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        checks.add(name, warn, f"{many}: {first_few(rows)}", "none", remedy, warn=warn)
    else:
        checks.add(name, True, good)


def redo(e: Evidence, rows: Sequence[int]) -> str:
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
