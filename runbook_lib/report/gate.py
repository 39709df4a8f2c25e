"""The gate at the end of a notebook: lets the next phase start, or stops with the failed checks."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from worker.files import is_litter, sha256_file

from .. import records
from ..errors import GateError, RunbookError
from ..run import choices
from ..run.checks import Checks
from ..run.journal import FAULT, PHASE
from ..run.phase_result import OUTPUTS, PhaseResult
from ..run.run import PHASES, Run
from . import archive
from .form import execution_report, failure_log

LIBRARY = Path(__file__).parents[1]


def library_digest() -> str:
    """Return a digest of this library's code: a result made by other code is not reused."""
    digest = hashlib.sha256()
    for path in [*sorted(LIBRARY.rglob("*.py")), *sorted((LIBRARY.parent / "worker").glob("*.py"))]:
        name = path.relative_to(LIBRARY.parent).as_posix()
        if not is_litter(name):
            digest.update(f"{name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def inputs(run: Run) -> dict[str, str]:
    """Return hashes of the inputs of a phase's result: the used profile, this code, and the plan if there is one."""
    sums = {"profile": sha256_file(run.folder / "profile.yaml"), "library": library_digest()}
    if run.plan_file.exists():
        sums["plan"] = sha256_file(run.plan_file)
    return sums


# The choices that each phase depends on besides the plan; no phase depends on how a run is watched and recovered.
FOLLOWS_FROM = {
    PHASES[0]: ("encoded", "hosts", "output"),
    PHASES[1]: ("encoded",),
    PHASES[2]: ("encoded",),
    PHASES[3]: ("encoded", "output"),
}


def same_inputs(run: Run, phase: str, result: PhaseResult) -> bool:
    """Return whether the inputs of a phase are still the same as those of `result`.

    A changed profile is another input, except for keys in the journal on which the phase does not depend.
    """
    then, now = dict(result.inputs), inputs(run)
    if phase == PHASES[0]:
        for facts in (then, now):  # preflight makes the plan, so it does not depend on it
            facts.pop("plan", None)
    if then.get("profile") != now["profile"] and any(run.journal.events("profile changed")):
        before, after = result.choices, choices.digests(run.profile)
        if all(before.get(name) == after[name] for name in FOLLOWS_FROM[phase]):
            then["profile"] = now["profile"]
    return then == now


def gate(run: Run, phase: str, *groups: Checks, **figures: object) -> Checks:
    """Write the phase's result file, then return all checks, or raise GateError with the failed ones.

    `figures` are facts for the report: JSON values and records. Only the result file says whether a phase succeeded.
    """
    everything = Checks(f"{phase}: may the next phase start?")
    for group in groups:
        everything.extend(group)
    if not everything.items:
        everything.add(phase, False, "no check was made", "at least one", f"execute every cell of {phase}.ipynb")
    for before in PHASES[: PHASES.index(phase)]:
        result = run.result(before)
        held = bool(result and result.ok)
        outcome = "its result holds" if held else "its checks do not hold" if result else "no result"
        everything.add(before, held, outcome, "holds", "run it first")
    sha256 = run.save_result(
        phase,
        choices=choices.digests(run.profile),
        ok=everything.ok,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=inputs(run),
        checks=[record for group in groups for record in group.as_dicts()],
        figures={name: _stated(name, value) for name, value in figures.items()},
    )
    # So an executed notebook shows which result it ended with, and a person what comes next.
    everything.stamp = f"next: {_next(phase, everything.ok)}; result sha256 {sha256}"
    wrote = {f"{run.report.name}/{run.result_file(phase).name}": sha256}
    if phase == PHASES[0]:
        made = (run.plan_file, run.corpus / "corpus.json")
        wrote |= {path.relative_to(run.folder).as_posix(): sha256_file(path) for path in made if path.exists()}
    failed = [check.name for check in everything.failed]
    kind = PHASE if everything.ok else FAULT
    run.journal.write(
        "gate",
        kind=kind,
        phase=phase,
        ok=everything.ok,
        checks=len(everything),
        failed=failed,
        wrote=wrote,
        stamped=True,
    )
    if not archive.was_sealed(run):  # the notes of a sealed run are sealed too: the next seal writes them
        with suppress(RunbookError, OSError):
            execution_report(run)
            failure_log(run)
    if not everything.ok:
        lines = [
            f"  {c.where}: {c.name}: expected {c.expected or 'ok'}, seen {c.seen}. Next: {c.remedy}"
            for c in everything.failed
        ]
        raise GateError(f"{phase}: {len(lines)} of {len(everything)} checks do not hold:\n" + "\n".join(lines))
    return everything


def _next(phase: str, ok: bool) -> str:
    """Return what a person who executes this notebook does now."""
    if not ok:
        return f"mend what failed, then run {phase}.ipynb again"
    after = PHASES[PHASES.index(phase) + 1 :]
    return f"open {after[0]}.ipynb" if after else "the report and the seal, below"


def _stated(name: str, value: object) -> records.Json:
    """Return a figure as JSON; a file that was not made is an empty object, as in every version."""
    return {} if value is None and name in OUTPUTS else records.as_json(value)
