"""An attempt: one execution of a phase's notebook by papermill, in a child process, and the files kept from it.

papermill's own status is not used: it reports a notebook as completed after a killed kernel, a cell's time-out or
Ctrl-C, and exits 0 after `SystemExit(0)`. `endings` decides what counts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.deaths import memory_kills
from worker.escape import safe_text
from worker.files import sha256_file, write_atomic

from ..errors import RunbookError
from ..report import made_with, notebook_file, report
from ..result import facts
from ..run.disk import explain_disk_errors
from ..run.journal import FAULT
from ..run.run import PHASES, Run
from ..show import phase_line
from . import endings, execution
from .endings import EXIT_INTERRUPTED, Ending, Kind, ProcessEnd

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@dataclass(frozen=True)
class Attempt:
    """One execution of one phase, and how it ended."""

    phase: str
    number: int
    ending: Ending
    seconds: float
    notebook: Path


@explain_disk_errors("executing a notebook")
def execute(run: Run, phase: str, notebooks: Path = NOTEBOOKS) -> Attempt:
    """Execute one notebook in a child process, keep the executed copy and judge it. Raises KeyboardInterrupt."""
    attempts = run.report / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    number = 1 + _attempts(run, phase)
    output = attempts / f"{phase}.attempt-{number}.ipynb"
    before = run.result_file(phase)
    stamp = before.stat().st_mtime_ns if before.exists() else 0
    run.journal.write("phase started", phase=phase, attempt=number)
    began = time.monotonic()
    ended = _child(run, phase, notebooks / f"{phase}.ipynb", output)
    if execution.working(output).exists():  # the child was killed before it could rename its output
        execution.working(output).replace(output)
    seconds = time.monotonic() - began
    ending = endings.judge(run, phase, ended, output, stamp)
    if output.exists():
        _stamp(output, ending)
    run.journal.write(
        "phase ended" if ending.ok else "phase failed",
        phase=phase,
        attempt=number,
        seconds=round(seconds, 1),
        reason=safe_text(ending.reason),
        wrote=_keep(run, phase, output, ending.ok),
    )
    if ending.kind is Kind.INTERRUPTED:
        raise KeyboardInterrupt
    return Attempt(phase, number, ending, seconds, output)


def _attempts(run: Run, phase: str) -> int:
    """Return the number of attempts, also of those without a notebook."""
    started = [event.get("attempt") for event in run.journal.events("phase started") if event.get("phase") == phase]
    kept = [int(path.stem.rpartition("-")[2]) for path in (run.report / "attempts").glob(f"{phase}.attempt-*.ipynb")]
    return max([number for number in started if isinstance(number, int)] + kept, default=0)


def _keep(run: Run, phase: str, output: Path, counts: bool) -> dict[str, str]:
    """Keep the executed notebook; if it counts, keep second copies of it and of its result. Return their sums."""
    kept = {output: sha256_file(output)} if output.exists() else {}
    if counts:
        executed, result = run.report / f"{phase}.ipynb", run.result_file(phase)
        copy = output.with_suffix(".result.json")
        kept |= {executed: write_atomic(executed, output.read_bytes()), copy: write_atomic(copy, result.read_bytes())}
    return {path.relative_to(run.folder).as_posix(): sha256 for path, sha256 in kept.items()}


def _child(run: Run, phase: str, notebook: Path, output: Path) -> ProcessEnd:
    """Run papermill in a child that ends when we end; show progress meanwhile; return how it ended."""
    if phase == PHASES[0]:
        made_with.keep_source(run)
    argv = [sys.executable, "-m", "runbook_lib.chain.execution", str(notebook), str(output), "--run", str(run.folder)]
    argv += ["--profile", run.made_from]
    if run.only and phase in PHASES[1:3]:
        argv += ["--hosts", ",".join(sorted(run.only))]
    environment = {**os.environ, "RUNBOOK_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    kills = memory_kills() or 0
    with (
        (run.folder / f".{phase}.papermill.part").open("w+b") as log,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        ) as child,
    ):
        try:
            _show(run, phase, child)
            code = child.wait()
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
            _end(child)
        log.seek(0)
        printed = log.read().decode(errors="replace")
    (run.folder / f".{phase}.papermill.part").unlink()
    return ProcessEnd(code, printed, (memory_kills() or 0) - kills)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the child, which stops its kernel; kill it if that takes too long."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()


def _show(run: Run, phase: str, child: subprocess.Popen[bytes]) -> None:
    """Show the progress of a phase until its process ends; write the notes from the first fault on."""
    size = 0

    def noting() -> None:
        nonlocal size
        size = _notes_of_faults(run, size)

    phase_line.show(run, phase, child, noting)


def _notes_of_faults(run: Run, before: int) -> int:
    """Write the notes if the journal grew since it was `before` bytes long and has a fault; return its length."""
    with suppress(RunbookError, OSError):
        size = run.journal.path.stat().st_size
        if size != before and any(facts.kind(event) == FAULT for event in run.journal.events()):
            report.write_notes(run)
        return size
    return before


def _stamp(path: Path, ending: Ending) -> None:
    """Write the outcome into the executed notebook: papermill's own status can be wrong."""
    try:
        notebook = notebook_file.read(path)
    except ValueError:
        return
    notebook.metadata["runbook"] = {"outcome": "done" if ending.ok else "failed", "reason": safe_text(ending.reason)}
    notebook.metadata.pop("widgets", None)
    papermill = notebook.metadata.get("papermill", {})
    for key in ("input_path", "output_path"):
        if papermill.get(key):
            papermill[key] = Path(papermill[key]).name
    if not ending.ok:
        # Indented text is shown unchanged: a reason may quote a host or a corpus.
        quoted = "\n".join(f"    {line}" for line in safe_text(ending.reason).splitlines())
        notebook_file.insert_markdown(notebook, f"## This execution FAILED\n\n{quoted}")
    notebook_file.write(path, notebook)
