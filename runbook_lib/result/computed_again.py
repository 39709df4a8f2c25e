"""The rows that were computed a second time before their parts were committed, as the plan chooses them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from worker import again
from worker.escape import safe_text
from worker.wire import Again

from ..corpus.corpus import Corpus
from ..errors import DataError
from ..run.checks import Checks
from ..run.plan import Plan
from ..run.run import Run
from .manifest import Manifest
from .parts import Part, first_few, read, with_plan_slot

NAME = "vectors agree with a second computation"
REMEDY = (
    "have that device looked at; then delete the .npy and .json of its part here and on that host, run again and the "
    "rows are redone"
)


@dataclass
class _Tally:
    """What the records say. `open`: rows that the plan chooses and nothing was compared of, each with why."""

    cosines: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    before: int = 0  # parts of a version that did not do it
    absent: int = 0  # parts that are no longer here


def check(checks: Checks, run: Run, plan: Plan, corpus: Corpus, manifest: Manifest) -> None:
    """Hold the second computation of every part against the plan: which rows it has, and how near they are."""
    tally, least = _Tally(), again.COSINE[plan.dtype]
    offsets = corpus.offsets()
    for part in _parts(run, plan, manifest, tally):
        sizes = np.diff(offsets[part.start : part.stop + 1]).tolist()
        grid = plan.grid(part.start)
        chosen = again.chosen(plan.run_id, (part.start, part.stop), grid, plan.part_rows, sizes)
        if part.record.again is None:
            tally.before += bool(chosen)
        else:
            _count(tally, part, part.record.again, chosen, least)
    _tell(checks, tally, plan, least)


def _parts(run: Run, plan: Plan, manifest: Manifest, tally: _Tally) -> Iterator[Part]:
    for stated in manifest.parts:
        path = run.local.parts / stated.name
        if not path.exists():
            tally.absent += 1
            continue
        try:
            yield with_plan_slot(read(path), plan)
        except DataError as error:
            tally.open.append(safe_text(str(error), 200))


def _count(tally: _Tally, part: Part, found: tuple[Again, ...], chosen: list[int], least: float) -> None:
    by_row = {each.row: each for each in found}
    for row in sorted({*chosen, *by_row}):
        each = by_row.get(row, Again(row, why="its record does not have it"))
        if each.cosine is None:
            tally.open.append(f"row {row} ({safe_text(each.why or 'no reason on record', 200)})")
            continue
        tally.cosines.append(each.cosine)
        if each.cosine < least:
            tally.wrong.append(f"row {row} of {part.slot} on {part.host}: cosine {each.cosine:.7g}")


def _tell(checks: Checks, tally: _Tally, plan: Plan, least: float) -> None:
    done = f"{len(tally.cosines):,} of {plan.rows:,} rows done again on a processor in float32"
    done += f", lowest cosine {min(tally.cosines):.7f}" if tally.cosines else ""
    expected = f"at least {least:g} ({plan.dtype})"
    if tally.wrong:
        checks.add(NAME, False, first_few(tally.wrong, "; "), expected, REMEDY)
        return
    lacking = [f"not checked: {first_few(tally.open, '; ')}"] if tally.open else []
    lacking += [f"not checked: {tally.before} parts of a version that did not do it"] if tally.before else []
    lacking += [f"{tally.absent} parts are no longer here"] if tally.absent else []
    remedy = "nothing says that these rows are wrong; embed some of them again, if that matters to you"
    warn = bool(lacking) or not tally.cosines
    checks.add(NAME, True, "; ".join([done, *lacking]), expected, remedy if warn else "", warn=warn)
