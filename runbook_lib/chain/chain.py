"""The chain: executes in order those of the four notebooks that have no valid result, and seals the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from worker.files import sha256_file

from ..errors import DataError, RunbookError
from ..phases import download, monitor, promise
from ..report import archive, gate, report, sealing
from ..result import publication, repair
from ..run import driver
from ..run.disk import explain_disk_errors
from ..run.run import PHASES, Run
from . import attempts, messages
from .attempts import Attempt

KERNEL_DEATHS = 2  # a killed kernel loses nothing, everything is in files, so the phase is tried again


@contextmanager
def resealing(run: Run) -> Iterator[None]:
    """Seal a sealed run again if its journal grew meanwhile, so that an act on it does not break the seal.

    If another command drives the run, that command does it. Raises DataError if a loss prevents the seal.
    """
    before = _journal_bytes(run)
    yield
    if archive.was_sealed(run) and _journal_bytes(run) != before and not driver.driven(run):
        with driver.hold(run):
            sealing.seal(run)


def _journal_bytes(run: Run) -> int:
    return run.journal.path.stat().st_size if run.journal.path.exists() else 0


def holds(run: Run, phase: str, quick: bool = False) -> bool:
    """Return whether a phase need not run again: its result is good, unchanged, and from the same inputs.

    The processes of launch and monitor may have died since, so their rows must be done too. The files of merge are
    checked now (with `quick`, their sizes).
    """
    try:
        result = run.result(phase)
        if not result or not result.ok or not _as_gated(run, phase) or not gate.same_inputs(run, phase, result):
            return False
        if phase in (PHASES[1], PHASES[2]):
            return monitor.look(run).done
        return phase != PHASES[3] or (download.complete(run).ok and not publication.losses(run, quick))
    except DataError:
        return False  # an unreadable record is written again


def _as_gated(run: Run, phase: str) -> bool:
    return archive.gated_sha256(run, phase) in ("", sha256_file(run.result_file(phase)))


@explain_disk_errors("driving the run")
def drive(
    run: Run,
    say: Callable[[str], None] = print,
    phases: tuple[str, ...] = PHASES,
    take_over: bool = False,
    quick: bool = False,
) -> bool:
    """Execute the phases that do not hold yet, in order; seal the run when all hold. False if a phase failed.

    Every file of a sealed run is checked (with `quick`, the size of large ones); damaged files are made again if
    possible. The notes are written in every case. Raises DataError if a loss prevents the seal.
    """
    with driver.hold(run, take_over):
        sealed = archive.was_sealed(run)
        if sealed and _as_sealed(run, say, quick):
            return True
        sealed_now = False
        with messages.at_the_end(run, say):
            try:
                again = repair.repair(run) if sealed else set()
                done = _execute_all(run, say, phases, again, quick)
                if done and run.finished:
                    not_kept = sealing.seal(run)
                    sealed_now = True
                    for line in not_kept:
                        say(f"sealed, and the seal is not kept by {line}")
                return done
            finally:
                if not sealed_now:
                    _write_reports(run)


def _as_sealed(run: Run, say: Callable[[str], None], quick: bool) -> bool:
    """Check now whether every file of a sealed run is as sealed; say which are not."""
    checks = archive.verify(run, quick)
    if not checks.ok:
        damage = [f"{check.name}: {check.seen}" for check in checks.failed]
        for line in damage:
            say(f"not as sealed: {line}")
        run.journal.write("damage found", seen=damage[:10])
        return False
    code = gate.inputs(run)["library"]  # a sealed result stays valid even if the code changed since
    for phase in PHASES:
        result = run.result(phase)
        if not result or not gate.same_inputs(run, phase, replace(result, inputs={**result.inputs, "library": code})):
            return False  # made from other choices than the present ones
    how = "sizes of large files, sums of the others" if quick else "every byte"
    say(f"run {run.name} is sealed, and its files are as sealed: looked at now, {how}")
    if any(check.warn and check.name == archive.GROWN for check in checks):
        sealing.seal(run)
    return True


def _write_reports(run: Run) -> None:
    """Write report and notes of a run that was not sealed, for whatever reason."""
    with suppress(RunbookError, OSError):  # a full disk here must not hide why the run ended
        report.write_notes(run)
        report.build(run)


def _execute_all(run: Run, say: Callable[[str], None], phases: tuple[str, ...], again: set[str], quick: bool) -> bool:
    """Execute the phases; once more where the last one fenced slots, whose rows others then do. False if one failed.

    It ends: a slot is fenced once, and never the last one.
    """
    fenced = len(run.plan().fences) if run.plan_file.exists() else 0
    done = _execute_each(run, say, phases, again, quick)
    if done or not run.plan_file.exists() or len(run.plan().fences) == fenced:
        return done
    say("slots that were found wrong are fenced; their rows are done by others now")
    return _execute_all(run, say, phases, set(), quick)


def _execute_each(run: Run, say: Callable[[str], None], phases: tuple[str, ...], again: set[str], quick: bool) -> bool:
    for phase in phases:
        if run.only and phase == PHASES[3] and not _all_committed(run):
            say(f"{phase}: waits for the rows of the other hosts; give the command without --hosts")
            return True
        if phase not in again and holds(run, phase, quick):
            say(f"{phase}: its result holds, not run again")
            continue
        attempt = _execute_with_retries(run, phase, say)
        if not attempt.ending.ok:
            say(f"{phase}: FAILED after {attempt.seconds:.0f} s: {attempt.ending.reason}")
            say(f"The same command continues here. Executed notebook: {attempt.notebook}")
            return False
        say(f"{phase}: done in {attempt.seconds:.0f} s")
        if phase == PHASES[0] and (made := promise.kept(run)):
            say(f"  {promise.in_words(made)}")
    return True


def _all_committed(run: Run) -> bool:
    """Return whether every row of the plan is committed, on all hosts."""
    return monitor.look(replace(run, only=frozenset())).done


def _execute_with_retries(run: Run, phase: str, say: Callable[[str], None]) -> Attempt:
    """Execute a phase; repeat it after a killed kernel, which is not the phase's fault."""
    for _ in range(KERNEL_DEATHS):
        attempt = attempts.execute(run, phase)
        if not attempt.ending.killed:
            return attempt
        say(f"{phase}: attempt {attempt.number}: {attempt.ending.reason}; trying again")
    return attempts.execute(run, phase)
