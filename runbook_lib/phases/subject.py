"""What an audit looks at: the merged files of a run, with the plan that made them and the corpus of all their rows."""

from __future__ import annotations

from dataclasses import dataclass

from ..corpus import corpus as corpora
from ..corpus.corpus import Corpus
from ..errors import DataError
from ..result import misfits
from ..result import whole as wholes
from ..result.content_fit import Scores
from ..result.manifest import Manifest, MergedPart
from ..result.merged import Merged
from ..result.misfits import Misfit
from ..result.whole import Whole
from ..run.plan import Plan
from ..run.run import Run


@dataclass(frozen=True)
class Subject:
    """What is audited: a run's merged files, with the plan that made them and the corpus of all their rows."""

    run: Run
    plan: Plan
    corpus: Corpus
    merged: Merged
    manifest: Manifest
    whole: Whole | None

    @classmethod
    def of(cls, run: Run, merged: Merged) -> Subject:
        """Read what is needed. Raises DataError if nothing is merged."""
        manifest = merged.manifest()
        if manifest is None:
            raise DataError(f"{merged.manifest_file}: nothing merged yet")
        whole = wholes.load(run)
        corpus = corpora.load(run.corpus) if whole is None else whole.corpus
        return cls(run, run.plan(), corpus, merged, manifest, whole)

    def misfits(self, scores: Scores | None) -> list[Misfit]:
        """Return the parts that plainly do not fit their texts; with --since rows are not those of parts."""
        return misfits.parts(scores, self.manifest.parts) if scores and self.whole is None else []

    def characters(self) -> int:
        """About how many characters of a text the model reads, and no more than tell which text it is."""
        return min(1500, 5 * (self.plan.max_tokens or 300))


def origin(subject: Subject, row: int) -> str:
    """Return in words which part a row is from, or which earlier run; empty if neither is known."""
    part = part_of(subject, row)
    if part is not None:
        return f" ({part.name} of {part.slot} on {part.host})"
    work = wholes.work_row(subject.whole, subject.plan, row)
    return f" (taken from run {subject.whole.since.run})" if work is None and subject.whole else ""


def part_of(subject: Subject, row: int) -> MergedPart | None:
    """Return the part that a row is from; None for one that was taken from an earlier run."""
    work = wholes.work_row(subject.whole, subject.plan, row)
    holding = (each for each in subject.manifest.parts if each.rows and each.rows[0] <= (work or 0) < each.rows[1])
    return None if work is None else next(holding, None)
