"""Which record vouches for a file beside the list of sums: the journal names what was written, each run its own id.

Whoever edits a file and makes the list and the sealing anew has still to write the journal anew, from that file's line
on. What the journal says nothing of (the plan, the arrays of parts) follows from other records (`archive`).
"""

from __future__ import annotations

from ..corpus import corpus as corpora
from ..errors import RunbookError
from ..result import publication
from ..result import whole as wholes
from ..result.merged import Merged
from ..result.parts import first_few
from ..result.sealed import MOVED_TO, PAGES, PASSING, files
from ..run import run_mark
from ..run.run import PHASES, Run
from .trial import AS_IT_WAS, NAMED, Trial

VOUCHED = "a record besides the list names every file"
WRITTEN = "files as the journal says they were written"
ONE_RUN = "all records are of one run"
# What is named by nothing else: records of their own, revisions, and what was put aside.
OWN = (
    *("plan.json", "run.json", "journal.jsonl", "SHA256SUMS", "profile.yaml", "profile.first.yaml"),
    *("corpus/corpus.json", "whole/corpus.json", "whole/since.json", "merged/manifest.json"),
    *("plans/", "left/", "quarantine/", "report/attempts/"),
)
VERDICTS = {(True, False): "ok", (True, True): "warning", (False, False): "FAILED", (False, True): "FAILED"}


def check(trial: Trial) -> None:
    """Add these checks. `trial` has read most files already."""
    run = trial.run

    def changed() -> list[str]:
        there = {name: sha256 for name, sha256 in _wrote(run).items() if (run.folder / name).is_file()}
        return [
            f"{name}: sha256 {actual[:16]}…, the journal says {sha256[:16]}…"
            for name, sha256 in there.items()
            if (actual := trial.stated_sha256(run.folder / name, sha256)) != sha256
        ]

    trial.hold(WRITTEN, AS_IT_WAS, changed, "the sums of their last events")
    _vouched(trial)
    trial.hold(ONE_RUN, AS_IT_WAS, lambda: _others(run) + _inconsistent(run), "name, id and verdicts agree")


def _vouched(trial: Trial) -> None:
    """Warn of files that nobody but the list vouches for: whoever seals may add what he likes."""
    run = trial.run
    try:
        manifest, whole = Merged(run.merged).manifest(), wholes.load(run)
        named = {*_wrote(run), *(f"{run.corpus.name}/{name}" for name in corpora.load(run.corpus).files)}
        named |= {f"{whole.folder.name}/{name}" for name in whole.stated} if whole else set()
        arrays = [f"{run.local.parts.name}/{part.name}" for part in (manifest.parts if manifest else ())]
        named |= {*arrays, *(name.replace(".npy", ".json") for name in arrays)}
        known = (*OWN, *PAGES, *PASSING, *MOVED_TO, *(f"{run.report.name}/{phase}.ipynb" for phase in PHASES))
        there = [name for name in files(run) if name not in named and not name.startswith(known)]
    except (RunbookError, OSError):
        return  # named by others
    if there:
        remedy = "look at them: they may be yours, or a later gift; the run made none of them"
        trial.checks.add(VOUCHED, True, first_few(there), "none", remedy, warn=True)


def _wrote(run: Run) -> dict[str, str]:
    """Return for each file the sum that the last event which wrote it names; not for the plan, which has its own."""
    sums: dict[str, str] = {}
    for event in run.journal.events():
        wrote = event.get("wrote")
        sums |= wrote if isinstance(wrote, dict) else {}
    results = [result for phase in PHASES if (result := run.result(phase))]
    if run.profile_file.name not in sums and results and (stated := results[-1].inputs.get("profile")):
        sums[run.profile_file.name] = stated
    sums.pop(run.plan_file.name, None)
    return {name: str(sha256) for name, sha256 in sums.items() if not name.startswith(PASSING)}


def _others(run: Run) -> list[str]:
    """Return which records name another run than the plan does; one of before may have no id."""
    plan, mark, manifest, stands = run.plan(), run_mark.read(run.folder), *_of_result(run)
    named = [("journal", event.get("run"), event.get("id")) for event in run.journal.events("run created")]
    named += [("run.json", None, mark.id)]
    named += [(manifest[0], manifest[1], None), (stands[0], stands[1], None)]
    return [
        f"{where}: run {name or plan.run} {id_ or ''}, the plan is of {plan.run} {plan.run_id}"
        for where, name, id_ in named
        if (name and name != plan.run) or (id_ and plan.run_id and id_ != plan.run_id)
    ]


def _of_result(run: Run) -> tuple[tuple[str, str], tuple[str, str]]:
    manifest, stands = Merged(run.merged).manifest(), publication.published(run)
    return ("manifest.json", manifest.run if manifest else ""), ("published.json", stands.run if stands else "")


def _inconsistent(run: Run) -> list[str]:
    """Return the results whose words do not follow from their checks."""
    wrong = []
    for phase in PHASES:
        if (result := run.result(phase)) is None:
            continue
        if result.ok and not all(check.ok for check in result.checks):
            wrong.append(f"{phase}: all checks hold, but one of them does not")
        wrong += [
            f"{phase}: {check.name}: {check.verdict}, but ok is {check.ok}"
            for check in result.checks
            if check.verdict and check.verdict != VERDICTS[check.ok, check.warn]
        ]
    return wrong[:NAMED]
