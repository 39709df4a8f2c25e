"""Amend: take corrected texts of the corpus into a run. The rows stay; only the parts that contain them are redone.

Fingerprints show which texts are in a part: a part without a corrected text stays as it is.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from worker import verbs
from worker.files import sha256_file, sync_folder
from worker.layout import HostFolder, committed, quarantined
from worker.rows import Range

from ..corpus import corpus as corpora
from ..corpus import inspection, numbering
from ..corpus.corpus import Corpus
from ..errors import DataError
from ..hosts import hosts as machines
from ..result.parts import first_few
from ..run import locks
from ..run.checks import Checks
from ..run.plan import Plan
from ..run.run import PHASES, Run
from . import workers

RESULTS = [f"report/{phase}.result.json" for phase in PHASES]


def amend(run: Run) -> Checks:
    """Stop the workers and take the profile's present corpus into the run; the next launch continues.

    Raises DataError if it has other documents than the run's, or nothing changed in it.
    """
    if run.since:
        raise DataError(
            f"amending: run {run.name} takes vectors from an earlier run and is not amended. Next: begin another one "
            f"with the mended texts: runbook run PROFILE --new --since {run.since} (or, once it is finished, --since "
            f"{run.name}: then only the mended texts are computed)"
        )
    run = replace(run, only=frozenset())
    before, after = corpora.load(run.corpus), _numbered(run)
    rows = _changed(before, after)
    checks = Checks("The corpus is amended")
    checks.extend(workers.stop(run))
    if not checks.ok:
        return checks
    stamp = time.strftime("%Y%m%d-%H%M%S")
    freed = machines.side_by_side(run, lambda host: _free_host(host, run.plan(), rows, stamp))
    for name, result in freed.items():
        away = name in freed.failures  # its old parts are refused when they are fetched: their texts differ
        checks.add("old vectors", True, result, "set aside", where=name, warn=away)
    here = _touched(run.local, committed(run.local.parts), quarantined(run.local.quarantine), rows)
    verbs.set_aside(str(run.folder), [run.sums.name, *RESULTS, *here], stamp)  # first the files that say "finished"
    with locks.held(run.plan_lock):
        plan = run.plan()
        if plan.corpus != after.fingerprint or not rows:
            plan.save(run.revision_file(plan.epoch))
            plan = plan.amended(after.fingerprint, rows)
            plan.save(run.plan_file)
    verbs.set_aside(str(run.folder), [run.corpus.name], stamp)
    run.amended.replace(run.corpus)
    sync_folder(run.folder)
    amount = f"{len(rows):,} of {plan.rows:,} rows have another text" + (f": {first_few(rows)}" if rows else "")
    checks.add("rows amended", True, amount)
    record = run.corpus / "corpus.json"
    wrote = {record.relative_to(run.folder).as_posix(): sha256_file(record)}
    facts = {"rows": len(rows), "first": rows[:100], "epoch": plan.epoch, "aside": f"aside/{stamp}"}
    run.journal.write("corpus amended", **facts, wrote=wrote)
    return checks


def _numbered(run: Run) -> Corpus:
    """Number the present corpus in another folder, in the same way as the run's corpus."""
    spec, plan = run.profile.corpus, run.plan()
    fields = inspection.Fields.of(spec)
    asked = run.profile.questions
    return numbering.build(spec.path, fields, spec.documents, asked, plan.prompt, plan.question_prompt, run.amended)


def _changed(before: Corpus, after: Corpus) -> list[int]:
    """Return the rows whose encoded text changed. Raises DataError for other documents, or if nothing changed."""
    other = "only the texts may differ; for other documents start a new run (runbook run PROFILE --new)"
    for what in ("documents", "questions"):
        was, now = getattr(before, what), getattr(after, what)
        if was != now:
            raise DataError(f"amending: expected the {was:,} {what} of the run, found {now:,}; {other}")
    for old, new in zip(before.articles(), after.articles(), strict=True):
        if old["id"] != new["id"]:
            difference = f"row {old['row']}: expected the document {old['id']!r}, found {new['id']!r}"
            raise DataError(f"amending: {first_few([difference])}; {other}")
    rows: list[int] = np.flatnonzero((before.fingerprints() != after.fingerprints()).any(axis=1)).tolist()
    if not rows and before.files == after.files:
        raise DataError("amending: nothing in the corpus changed; give the command without --amend")
    return rows


def _free_host(host: machines.Host, plan: Plan, rows: Sequence[int], stamp: str) -> str:
    """Set aside a host's files of these rows: parts that contain them, and records of given-up rows."""
    reading = host.poll()
    names = _touched(host.folder, reading.committed, reading.quarantined, rows)
    suspects = [host.folder.suspects(slot.slot) for slot in plan.of_host(host.name)]
    return host.set_aside([*names, *(path.relative_to(host.folder.root).as_posix() for path in suspects)], stamp)


def _touched(folder: HostFolder, parts: Iterable[Range], given_up: Iterable[int], rows: Sequence[int]) -> list[str]:
    """Return a folder's files about these rows (sorted), as paths below it; a part's record first."""
    held = [part for part in parts if bisect_left(rows, part[0]) < bisect_left(rows, part[1])]
    paths = [path for part in held for path in (folder.part(*part).with_suffix(".json"), folder.part(*part))]
    paths += [folder.quarantined(row) for row in given_up if row in set(rows)]
    return [path.relative_to(folder.root).as_posix() for path in paths]
