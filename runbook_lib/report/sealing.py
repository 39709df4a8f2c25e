"""Sealing as a whole: report, notes, list and signature are written, then the hosts are told of the seal."""

from __future__ import annotations

from ..run.run import Run
from . import report, witness


def seal(run: Run, as_pdf: bool = False) -> list[str]:
    """Seal a run, and return in words which hosts could not be told of it. Raises DataError as `report.seal` does."""
    report.seal(run, as_pdf)
    return witness.keep(run)
