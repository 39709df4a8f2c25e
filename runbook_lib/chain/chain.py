"""The chain: executes the four notebooks in order, each by papermill in a child process of its own.

papermill's own word is not believed: it calls a notebook completed after a killed kernel, a cell's time-out or Ctrl-C,
and exits 0 after `SystemExit(0)`. A phase counts when its child ended well, its result file is newer than the start and
says that all checks hold, and every cell of the executed notebook was executed.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import nbformat

from worker import process
from worker.escape import safe_text
from worker.files import sha256_file, write_atomic

from ..errors import DataError, RunbookError
from ..phases import download, monitor
from ..report import archive, gate, outcome, report
from ..result import facts, publication, repair
from ..run import run_mark
from ..run.disk import in_words, rewrite
from ..run.journal import FAULT
from ..run.run import PHASES, Run
from ..show import phase_line
from . import endings, execution
from .endings import Ended

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TAKE_OVER_S = 30.0  # for a driver to end after it was interrupted
KERNEL_DEATHS = 2  # a killed kernel costs nothing that files do not hold, so the phase is tried again
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Attempt:
    """One execution of one phase: whether it counts, and if not, why, in words."""

    phase: str
    number: int
    ok: bool
    reason: str
    seconds: float
    notebook: Path
    killed: bool = False


@contextmanager
def only_driver(run: Run, take_over: bool = False) -> Iterator[None]:
    """Hold the run for one driver; a second one is refused by name, or ends the first. Watching needs no hold."""
    if why := run_mark.stranger(run.folder):
        raise RunbookError(why)
    path = run.folder / "driver.lock"
    with in_words("taking the run for this command"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(fd, "r+") as file:
        if not _locked(file):
            holder = file.read().strip() or "unknown"
            if not take_over:
                raise RunbookError(
                    f"run {run.name} is being driven already ({_in_words(holder)}); wait for it, or watch: "
                    f"runbook watch {run.name}; to end that one and go on here: runbook run ... --take-over"
                )
            _end_driver(run, file, holder)
        who = json.dumps({**process.identify(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        with in_words(f"taking the run for this command: {path}"):
            rewrite(fd, who.encode())
        yield


def _in_words(holder: str) -> str:
    """Who drives a run, as its lock says it."""
    try:
        said = json.loads(holder)
        return f"by process {int(said['pid'])} since {safe_text(str(said['since']), 40)}"
    except (ValueError, KeyError, TypeError):
        return "by a command that does not say which"


@contextmanager
def resealing(run: Run) -> Iterator[None]:
    """Seal a sealed run again when its journal has grown meanwhile: what writes into it does not leave it open.

    Where somebody drives the run, that is left to them. Raises DataError when it cannot be sealed for a loss.
    """
    before = _journal_bytes(run)
    yield
    if archive.was_sealed(run) and _journal_bytes(run) != before and not outcome.driven(run):
        with only_driver(run):
            report.seal(run)


def _journal_bytes(run: Run) -> int:
    return run.journal.path.stat().st_size if run.journal.path.exists() else 0


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_driver(run: Run, file: IO[str], holder: str) -> None:
    """Interrupt the driver that holds the run, as Ctrl-C would, and take its place; its workers go on."""
    try:
        identity = json.loads(holder)
    except ValueError:
        identity = {}
    if not process.send(identity, signal.SIGINT):
        raise RunbookError(f"run {run.name}: its driver ({holder}) is no process of this machine; end it there")
    deadline = time.monotonic() + TAKE_OVER_S
    while not _locked(file):
        if time.monotonic() > deadline:
            process.send(identity, signal.SIGKILL)  # what it wrote is whole at every moment
            deadline += TAKE_OVER_S
        time.sleep(0.2)
    run.journal.write("taken over", of=safe_text(holder))


def holds(run: Run, phase: str, quick: bool = False) -> bool:
    """Whether a phase need not run again: its result is good, as its gate wrote it, of the same profile, code and plan.

    Launch and monitor speak of processes that may have died since, so for them the rows count as well; merge speaks of
    files, so they are looked at now (with `quick`, their sizes).
    """
    try:
        result = run.result(phase)
        if not result or not result.ok or not _as_gated(run, phase) or not gate.same_inputs(run, phase, result):
            return False
        if phase in (PHASES[1], PHASES[2]):
            return monitor.look(run).done
        return phase != PHASES[3] or (download.complete(run).ok and not publication.losses(run, quick))
    except DataError:
        return False  # a record that cannot be read is written anew


def _as_gated(run: Run, phase: str) -> bool:
    return archive.gated(run, phase) in ("", sha256_file(run.result_file(phase)))


@in_words("driving the run")
def drive(
    run: Run,
    say: Callable[[str], None] = print,
    phases: tuple[str, ...] = PHASES,
    take_over: bool = False,
    quick: bool = False,
) -> bool:
    """Execute what does not hold yet, in order; seal the run when all hold. False when a phase failed.

    A sealed run is looked at, every file (with `quick`, of large ones the size); what is damaged is made anew where
    that can be. However it ends, the notes say what happened. Raises DataError when a loss keeps the run from its seal.
    """
    with only_driver(run, take_over):
        sealed = archive.was_sealed(run)
        if sealed and _as_sealed(run, say, quick):
            return True
        sealed_now = False
        try:
            again = repair.repair(run) if sealed else set()
            done = _execute_all(run, say, phases, again, quick)
            if done and run.finished:
                report.seal(run)
                sealed_now = True
            return done
        finally:
            if not sealed_now:
                _tell(run)


def _as_sealed(run: Run, say: Callable[[str], None], quick: bool) -> bool:
    """Whether every file of a sealed run is there as sealed, looked at now; says what is not."""
    checks = archive.verify(run, quick)
    if not checks.ok:
        found = [f"{check.name}: {check.seen}" for check in checks.failed]
        for line in found:
            say(f"not as sealed: {line}")
        run.journal.write("damage found", seen=found[:10])
        return False
    code = gate.inputs(run)["library"]  # a result that was sealed stays one, whatever became of the code since
    for phase in PHASES:
        result = run.result(phase)
        if not result or not gate.same_inputs(run, phase, replace(result, inputs={**result.inputs, "library": code})):
            return False  # made from other choices than those of now
    how = "sizes of large files, sums of the others" if quick else "every byte"
    say(f"run {run.name} is sealed, and its files are as sealed: looked at now, {how}")
    if any(check.warn and check.name == archive.GROWN for check in checks):
        report.seal(run)
    return True


def _tell(run: Run) -> None:
    """Leave report and notes of a run that could not be sealed, whatever became of it."""
    with suppress(RunbookError, OSError):  # a full disk here must not hide why the run ended
        report.write_notes(run)
        report.build(run)


def _execute_all(run: Run, say: Callable[[str], None], phases: tuple[str, ...], again: set[str], quick: bool) -> bool:
    for phase in phases:
        if run.only and phase == PHASES[3] and not _all_committed(run):
            say(f"{phase}: waits for the rows of the other hosts; give the command without --hosts")
            return True
        if phase not in again and holds(run, phase, quick):
            say(f"{phase}: its result holds, not run again")
            continue
        attempt = _insist(run, phase, say)
        if not attempt.ok:
            say(f"{phase}: FAILED after {attempt.seconds:.0f} s: {attempt.reason}")
            say(f"The same command continues here. Executed notebook: {attempt.notebook}")
            return False
        say(f"{phase}: done in {attempt.seconds:.0f} s")
    return True


def _all_committed(run: Run) -> bool:
    """Whether every row of the plan is committed, whichever hosts are meant now."""
    everybody = replace(run, only=frozenset())
    return monitor.look(everybody).done


def _insist(run: Run, phase: str, say: Callable[[str], None]) -> Attempt:
    """Execute a phase; a kernel that was killed is not the phase's fault, so then once more."""
    for _ in range(KERNEL_DEATHS):
        attempt = execute(run, phase)
        if attempt.ok or not attempt.killed:
            return attempt
        say(f"{phase}: attempt {attempt.number}: {attempt.reason}; trying again")
    return execute(run, phase)


@in_words("executing a notebook")
def execute(run: Run, phase: str, notebooks: Path = NOTEBOOKS) -> Attempt:
    """Execute one notebook in a child process, keep the executed copy, judge it. KeyboardInterrupt passes through."""
    attempts = run.report / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    number = 1 + _attempts(run, phase)
    output = attempts / f"{phase}.attempt-{number}.ipynb"
    before = run.result_file(phase)
    stamp = before.stat().st_mtime_ns if before.exists() else 0
    run.journal.write("phase started", phase=phase, attempt=number)
    began = time.monotonic()
    ended = _child(run, phase, notebooks / f"{phase}.ipynb", output)
    if execution.working(output).exists():  # the child was killed before it could rename what it had
        execution.working(output).replace(output)
    seconds = time.monotonic() - began
    reason = _why_not(run, phase, ended, output, stamp)
    if output.exists():
        _stamp(output, reason)
    run.journal.write(
        "phase ended" if not reason else "phase failed",
        phase=phase,
        attempt=number,
        seconds=round(seconds, 1),
        reason=safe_text(reason),
        wrote=_keep(run, phase, output, bool(reason)),
    )
    if ended.code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return Attempt(phase, number, not reason, reason, seconds, output, bool(reason) and bool(endings.killed(ended)))


def _attempts(run: Run, phase: str) -> int:
    """How many attempts there were: one whose notebook was never written counts too."""
    started = [event.get("attempt") for event in run.journal.events("phase started") if event.get("phase") == phase]
    kept = [int(path.stem.rpartition("-")[2]) for path in (run.report / "attempts").glob(f"{phase}.attempt-*.ipynb")]
    return max([number for number in started if isinstance(number, int)] + kept, default=0)


def _keep(run: Run, phase: str, output: Path, failed: bool) -> dict[str, str]:
    """Keep the executed notebook, and of one that counts a second copy of it and of its result; gives their sums."""
    kept = {output: sha256_file(output)} if output.exists() else {}
    if not failed:
        executed, result = run.report / f"{phase}.ipynb", run.result_file(phase)
        copy = output.with_suffix(".result.json")
        kept |= {executed: write_atomic(executed, output.read_bytes()), copy: write_atomic(copy, result.read_bytes())}
    return {path.relative_to(run.folder).as_posix(): sha256 for path, sha256 in kept.items()}


def _child(run: Run, phase: str, notebook: Path, output: Path) -> Ended:
    """Run papermill in a child that ends when we end; show progress meanwhile; give how it ended."""
    argv = [sys.executable, "-m", "runbook_lib.chain.execution", str(notebook), str(output), "--run", str(run.folder)]
    argv += ["--profile", outcome.profile_of(run)]
    if run.only and phase in PHASES[1:3]:
        argv += ["--hosts", ",".join(sorted(run.only))]
    environment = {**os.environ, "RUNBOOK_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    kills = endings.memory_kills()
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
        said = log.read().decode(errors="replace")
    (run.folder / f".{phase}.papermill.part").unlink()
    return Ended(code, said, endings.memory_kills() - kills)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the child, which stops its kernel; end it if that takes too long."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()


def _show(run: Run, phase: str, child: subprocess.Popen[bytes]) -> None:
    """Show how far a phase is until its process ends; its notes are written from the first fault on."""
    size = 0

    def noting() -> None:
        nonlocal size
        size = _notes_of_faults(run, size)

    phase_line.show(run, phase, child, noting)


def _notes_of_faults(run: Run, before: int) -> int:
    """Write the notes once the journal, `before` bytes long when last looked at, tells a fault; gives its length."""
    with suppress(RunbookError, OSError):
        size = run.journal.path.stat().st_size
        if size != before and any(facts.kind(event) == FAULT for event in run.journal.events()):
            report.write_notes(run)
        return size
    return before


def _why_not(run: Run, phase: str, ended: Ended, output: Path, stamp: int) -> str:
    """Why this execution does not count, or nothing when it does."""
    cells: list[Any] = []
    if output.exists():
        try:
            cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
        except (ValueError, KeyError, AttributeError):
            return f"{output.name} was cut off while it was being written"
    if ended.code == EXIT_INTERRUPTED:
        return "interrupted"
    if (error := _error_of(cells)) and not endings.killed(ended):
        return error
    if ended.code:
        return endings.words(ended)
    result = run.result_file(phase)
    if not result.exists() or result.stat().st_mtime_ns <= stamp:
        return "the notebook ended without writing its result file: its last cell, the gate, did not run"
    if not run.held(phase):
        return "its checks do not hold"
    unexecuted = [number for number, cell in enumerate(cells, 1) if cell.source.strip() and not cell.execution_count]
    if unexecuted or not cells:
        return f"code cells {unexecuted} were not executed"
    return ""


def _error_of(cells: list[Any]) -> str:
    """The error that a cell ended with, in the library's own words."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}"
    return ""


def _stamp(path: Path, reason: str) -> None:
    """Say in the executed notebook itself what became of it: papermill's own status can be wrong."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError):
        return
    notebook.metadata["runbook"] = {"outcome": "failed" if reason else "done", "reason": safe_text(reason)}
    notebook.metadata.pop("widgets", None)
    papermill = notebook.metadata.get("papermill", {})
    for key in ("input_path", "output_path"):
        if papermill.get(key):
            papermill[key] = Path(papermill[key]).name
    if reason:
        # Indented text is shown as it is: a reason may quote a host or a corpus.
        quoted = "\n".join(f"    {line}" for line in safe_text(reason).splitlines())
        banner = nbformat.v4.new_markdown_cell(f"## This execution FAILED\n\n{quoted}")
        notebook.cells.insert(0, banner)
    write_atomic(path, nbformat.writes(notebook).encode())
