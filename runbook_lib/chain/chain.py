"""The chain: executes the four notebooks in order, those whose results do not hold, and seals the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from worker.files import sha256_file

from ..errors import DataError, RunbookError
from ..phases import download, monitor
from ..report import archive, gate, report
from ..result import publication, repair
from ..run import driver
from ..run.disk import in_words
from ..run.run import PHASES, Run
from . import attempts
from .attempts import Attempt

KERNEL_DEATHS = 2  # a killed kernel costs nothing that files do not hold, so the phase is tried again


@contextmanager
def resealing(run: Run) -> Iterator[None]:
    """Seal a sealed run again when its journal has grown meanwhile: what writes into it does not leave it open.

    Where somebody drives the run, that is left to them. Raises DataError when it cannot be sealed for a loss.
    """
    before = _journal_bytes(run)
    yield
    if archive.was_sealed(run) and _journal_bytes(run) != before and not driver.driven(run):
        with driver.hold(run):
            report.seal(run)


def _journal_bytes(run: Run) -> int:
    return run.journal.path.stat().st_size if run.journal.path.exists() else 0


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
    with driver.hold(run, take_over):
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
        damage = [f"{check.name}: {check.seen}" for check in checks.failed]
        for line in damage:
            say(f"not as sealed: {line}")
        run.journal.write("damage found", seen=damage[:10])
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
        if not attempt.ending.ok:
            say(f"{phase}: FAILED after {attempt.seconds:.0f} s: {attempt.ending.reason}")
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
        attempt = attempts.execute(run, phase)
        if not attempt.ending.killed:
            return attempt
        say(f"{phase}: attempt {attempt.number}: {attempt.ending.reason}; trying again")
    return attempts.execute(run, phase)
