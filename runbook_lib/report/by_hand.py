"""Notebooks that a person or plain papermill executed: taken into a run's report when they show that run's result.

A gate prints the sha256 of the result file that it wrote. So a notebook says itself of which run and phase it is, and
one of another run, or of an earlier execution, is not taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from worker.files import sha256_file, write_atomic

from ..errors import DataError
from ..run.disk import explain_disk_errors
from ..run.run import PHASES, Run

STAMP = re.compile(r"result sha256 ([0-9a-f]{64})")
MOST_BYTES = 64 * 2**20
MOST_FILES = 100  # of a folder that are opened to look for them


def shown(path: Path) -> str:
    """Return the outputs of an executed notebook as they are in its file, read as plain JSON; empty if it is none."""
    with suppress(ValueError, OSError, RecursionError, AttributeError, TypeError):
        notebook = json.loads(path.read_bytes())
        outputs = [out for cell in notebook.get("cells", []) for out in cell.get("outputs", [])]
        return "\n".join(json.dumps(out.get("data", {}).get("text/plain")) for out in outputs)
    return ""


def result_shown(path: Path) -> str:
    """Return the sha256 of the result that a notebook ended with; empty if it shows none."""
    return next(reversed(STAMP.findall(shown(path))), "")


@explain_disk_errors("keeping an executed notebook")
def add_notebook(run: Run, path: Path) -> str:
    """Keep an executed notebook in the run's report, and return its phase; the report shows it when it is made next.

    Raises DataError for a file that is no notebook, or that does not end with a result of this run.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path}: expected an executed notebook of at most {MOST_BYTES >> 20} MB; nothing was added")
    ended = result_shown(path)
    phase = next((phase for phase in PHASES if ended and ended == _result(run, phase)), None)
    if phase is None:
        seen = f"it ended with the result {ended[:16]}…" if ended else "no gate has printed a result in it"
        raise DataError(
            f"{path}: {seen}; expected that of a phase of run {run.name} as it is now. Next: save the notebook after "
            "its last cell, or execute it again for this run"
        )
    _keep(run, phase, path)
    return phase


def add_beside(run: Run, folders: Iterable[Path]) -> list[str]:
    """Keep the notebooks of these folders that show a result of this run, of phases of which none is kept yet."""
    lacking = {
        sha256: phase
        for phase in PHASES
        if not (run.report / f"{phase}.ipynb").exists() and (sha256 := _result(run, phase))
    }
    added = []
    for path in [file for folder in folders for file in sorted(folder.glob("*.ipynb"))[:MOST_FILES]] if lacking else []:
        with suppress(OSError):
            small = path.is_file() and path.stat().st_size <= MOST_BYTES
            if small and (phase := lacking.pop(result_shown(path), None)):
                _keep(run, phase, path)
                added.append(phase)
    return added


def _result(run: Run, phase: str) -> str:
    file = run.result_file(phase)
    return sha256_file(file) if file.is_file() else ""


def _keep(run: Run, phase: str, path: Path) -> None:
    run.report.mkdir(exist_ok=True)
    kept = run.report / f"{phase}.ipynb"
    wrote = {kept.relative_to(run.folder).as_posix(): write_atomic(kept, path.read_bytes())}
    run.journal.write("notebook added", phase=phase, seen=path.name, wrote=wrote)
