"""The audit: rows that nobody could know before are computed again here, after all parts are home.

Every row is first held against its text without the model (`result/content_fit.py`). The rows that fit least are
computed again first, then rows drawn by a seed that follows from the digests of all parts and from random bytes of now:
no host can have known which rows to do well. Where no row is off, a bound follows for all that were not looked at.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.escape import safe_text

from .. import records
from ..corpus import corpus as corpora
from ..corpus.corpus import Corpus
from ..errors import DataError, RunbookError
from ..result import content_fit, misfits, sampling, texts_again
from ..result import whole as wholes
from ..result.content_fit import Scores
from ..result.figures import AuditFigures, Figures
from ..result.manifest import Manifest
from ..result.merged import Merged
from ..result.misfits import Misfit
from ..result.parts import first_few
from ..result.survey import blocks, header, some_rows, unit
from ..result.whole import Whole
from ..run.checks import Checks
from ..run.model import Model
from ..run.plan import Plan
from ..run.run import Run
from .recompute import answers, model_at_hand

FIT, AUDIT = "vectors fit their texts", "rows computed again after all parts were home"
FILE = "audit.json"
DRAWN = 299  # rows: none off means at most 1 % are, at 95 %
WITHIN_S = 600.0  # what has no answer by then was not drawn
CALIBRATED, LONGEST = 64, 16  # rows done in float32 and in the run's dtype, so many of them the longest
ROOM = 3.0  # times the worst of these
# Half the squared distance of two vectors, as a share of their length: 1 - cosine, where lengths agree. Measured in
# float32: 4e-13 in another batch, 2.4e-7 with TF32; the smallest fault of a whole slot that was tried: 4.5e-6.
TOLERANCE = {"float32": 1e-6, "float16": 1e-5, "bfloat16": 1e-4}
UNCALIBRATED = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}
REMEDY = (
    "have the machines of these rows looked at; then, for each part named, delete its .npy and .json here and on that "
    "host, runbook move RUN HOST, and run again: its rows are done by others"
)


@dataclass(frozen=True)
class AuditedRow:
    """A row that was computed again: why it was, how far off it is (None: no vector, see `error`), its tokens then."""

    row: int
    uniform: bool
    distance: float | None = None
    tokens: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Audit:
    """`report/audit.json`. `seed` follows from `parts`, the sum over all digests, and the random `nonce`."""

    parts: str
    nonce: str
    seed: str
    tolerance: float
    rows: tuple[AuditedRow, ...]


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


# ------------------------------------------------------------------------------------------------------- content fit


def fit(subject: Subject, mean: np.ndarray | None = None) -> Scores | None:
    """Return the content fit of every document; None where there are too few. Raises DataError and OSError."""
    shape = header(subject.merged.embeddings)
    found = _mean(subject.merged.embeddings) if mean is None else mean
    return content_fit.score(
        lambda: texts_again.texts(subject.corpus), subject.merged.embeddings, shape, found, subject.characters()
    )


def _mean(matrix: Path) -> np.ndarray:
    """Return the mean of all directions, (dim,)."""
    shape = header(matrix)
    total = np.zeros(shape.dim)
    for _, block in blocks(matrix, shape, 4096):
        total += unit(block).sum(axis=0, dtype=np.float64)
    return total / max(1, shape.rows)


def tell_fit(checks: Checks, scores: Scores | None, found: Sequence[Misfit]) -> None:
    """Add the check of the content fit: it never fails, because what is computed again decides."""
    if scores is None:
        checks.add(FIT, True, f"too few documents to learn from, {content_fit.FEWEST} are needed")
        return
    shown = misfits.described(scores)
    lowest = f"lowest row {shown.lowest[0]} with {shown.lowest_scores[0]:.2f}" if shown.lowest else "none has a score"
    words = f"{shown.rows} documents, median {shown.median or 0:.2f}, {lowest}"
    if shown.power_other is not None and shown.power_neighbour is not None:
        words += (
            f"; of rows with another's vector {shown.power_other:.0%} would be among the {misfits.LOOKED_AT} lowest, "
            f"with their neighbour's {shown.power_neighbour:.0%}"
        )
    plain = "; ".join(f"{each.part.name} of {each.part.slot} on {each.part.host}: {each.why}" for each in found[:10])
    remedy = "rows of these parts are computed again below where that is possible: it decides"
    checks.add(FIT, True, f"{plain}; {words}" if plain else words, "", remedy if plain else "", warn=bool(plain))


# ------------------------------------------------------------------------------------------------------------- audit


def after_all_parts(run: Run, merged: Merged, checks: Checks, shown: Figures, sound: bool) -> Figures:
    """Add both checks for a merged result whose other checks were made, and return the figures with theirs.

    Nothing is computed again unless the result is `sound` by the others. The draw is journalled before anything is
    computed; what came out of each row is kept in `report/audit.json`.
    """
    try:
        subject = Subject.of(run, merged)
        scores = fit(subject)
        found = subject.misfits(scores)
    except (RunbookError, OSError) as error:
        checks.add(FIT, False, error, "", "make the checks above hold first")
        return shown
    tell_fit(checks, scores, found)
    shown = replace(shown, fit=misfits.described(scores) if scores else None)
    if not sound:
        return shown
    nonce = secrets.token_bytes(sampling.NONCE_BYTES)
    digests = [part.sha256 for part in subject.manifest.parts]
    seed = sampling.seed(digests, nonce)
    try:
        model = model_at_hand(run, subject.plan)
        run.journal.write("audit drawn", parts=sampling.commitment(digests), nonce=nonce.hex(), seed=seed)
        rows, tolerance = compute(subject, model, chosen(subject.corpus.rows, seed, DRAWN, first(scores, found)))
    except (RunbookError, OSError) as error:
        checks.add(AUDIT, True, f"none: {error}", "", "runbook verify --recompute N, with the model", warn=True)
        return shown
    audit = Audit(sampling.commitment(digests), nonce.hex(), seed, tolerance, tuple(rows))
    run.save_json(FILE, records.plain(audit))
    return replace(shown, audit=tell(checks, subject, audit))


def first(scores: Scores | None, found: Sequence[Misfit]) -> list[int]:
    """Return the rows to compute before any drawn one: some of parts that do not fit, then those that fit least."""
    rows = [row for misfit in found[:20] for row in misfit.rows]
    return list(dict.fromkeys(rows + (content_fit.lowest(scores, misfits.LOOKED_AT) if scores else [])))


def chosen(rows: int, seed: str, count: int, first: Sequence[int]) -> list[AuditedRow]:
    """Return the rows to compute, in order: `first`, then `count` drawn from all, or all if these are half of them."""
    drawn = sampling.draw(seed, rows, rows if rows <= 2 * count else count)
    return [AuditedRow(row, False) for row in first] + [AuditedRow(row, True) for row in drawn]


def compute(subject: Subject, model: Model, wanted: Sequence[AuditedRow]) -> tuple[list[AuditedRow], float]:
    """Compute rows again; return them with their distances, as many as there was time for, and the tolerance.

    Raises DataError if the model cannot be loaded here.
    """
    rows = list(dict.fromkeys(each.row for each in wanted))
    vectors = _vectors(subject, rows)
    done: dict[int, AuditedRow] = {}
    found: dict[int, np.ndarray] = {}
    for row, opinion in zip(rows, answers(*_asked(subject, model, rows), "float32", WITHIN_S), strict=False):
        vector = np.array(opinion.vector or (), np.float64)
        found[row] = vector
        error = safe_text(opinion.error or "", 300)
        done[row] = AuditedRow(row, False, distance(vectors[row], vector), opinion.tokens, error)
    tolerance = _tolerance(subject, model, found)
    return [replace(done[each.row], uniform=each.uniform) for each in wanted if each.row in done], tolerance


def _asked(subject: Subject, model: Model, rows: Sequence[int]) -> tuple[Run, Plan, Model, list[tuple[str, bool]]]:
    texts = subject.corpus.texts(rows)
    asked = [(text, row >= subject.corpus.documents) for row, text in zip(rows, texts, strict=True)]
    return subject.run, subject.plan, model, asked


def _vectors(subject: Subject, rows: Sequence[int]) -> dict[int, np.ndarray]:
    documents = [row for row in rows if row < subject.corpus.documents]
    asked = [row for row in rows if row >= subject.corpus.documents]
    kept = dict(
        zip(documents, some_rows(subject.merged.embeddings, header(subject.merged.embeddings), documents), strict=True)
    )
    if asked:
        places = [row - subject.corpus.documents for row in asked]
        kept |= zip(asked, some_rows(subject.merged.questions, header(subject.merged.questions), places), strict=True)
    return kept


def distance(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Return half the squared distance of two vectors, as a share of the second's squared length; None if that is 0."""
    size = float(theirs @ theirs)
    if len(ours) != len(theirs) or not np.isfinite(size) or size <= 0.0:
        return None
    apart = ours.astype(np.float64) - theirs
    return float(apart @ apart) / size / 2.0


def _tolerance(subject: Subject, model: Model, found: dict[int, np.ndarray]) -> float:
    """Return how far a row may be off: fixed in float32, else by some rows done in the run's own dtype here too."""
    dtype = subject.plan.dtype
    if dtype == "float32" or not found:
        return TOLERANCE[dtype]
    sizes = np.diff(subject.corpus.offsets())
    by_length = sorted(found, key=lambda row: -int(sizes[row]))
    rows = list(dict.fromkeys([*by_length[:LONGEST], *found]))[:CALIBRATED]
    worst = 0.0
    try:
        for row, opinion in zip(rows, answers(*_asked(subject, model, rows), dtype, WITHIN_S), strict=False):
            worst = max(worst, distance(np.array(opinion.vector or (), np.float64), found[row]) or 0.0)
    except DataError:
        return UNCALIBRATED[dtype]
    return max(TOLERANCE[dtype], ROOM * worst)


def once_more(
    checks: Checks, run: Run, scores: Scores | None, count: int, seed: str, folder: Path | None, name: str
) -> AuditFigures:
    """Compute rows of a published result again for a reviewer: those that fit least, and `count` drawn by `seed`.

    `folder`: where the model is, if not where the profile says. Adds one check and writes nothing.
    """
    subject = Subject.of(run, Merged(run.merged))
    found = subject.misfits(scores)
    before = first(scores, found) if count else [row for each in found for row in each.rows] + _low(scores)
    model = model_at_hand(run, subject.plan, folder)
    rows, tolerance = compute(subject, model, chosen(subject.corpus.rows, seed, count, before))
    return tell(checks, subject, Audit("", "", seed, tolerance, tuple(rows)), name)


def _low(scores: Scores | None) -> list[int]:
    return misfits.suspects(scores) if scores else []


def problems(audit: Audit, subject: Subject) -> list[str]:
    """Return in words how an audit on file is not one of these parts: its seed, or the rows that follow from it."""
    digests = [part.sha256 for part in subject.manifest.parts]
    try:
        nonce = bytes.fromhex(audit.nonce)
    except ValueError:
        return ["its random bytes are none"]
    wrong = [] if audit.parts == sampling.commitment(digests) else ["it is of other parts"]
    wrong += [] if audit.seed == sampling.seed(digests, nonce) else ["its seed does not follow from the parts"]
    dtype = subject.plan.dtype  # in 16 bits it was measured, and is a share of the length at most
    right = audit.tolerance == TOLERANCE[dtype] if dtype == "float32" else TOLERANCE[dtype] <= audit.tolerance <= 1
    wrong += [] if right else [f"its tolerance is {audit.tolerance:g}, not one of {dtype}"]
    drawn = [each.row for each in chosen(subject.corpus.rows, audit.seed, DRAWN, [])]
    rows = [each.row for each in audit.rows if each.uniform]
    return wrong + ([] if rows == drawn[: len(rows)] else ["its rows do not follow from its seed"])


# ------------------------------------------------------------------------------------------------------ what came out


def tell(checks: Checks, subject: Subject, audit: Audit, name: str = AUDIT) -> AuditFigures:
    """Add the check of the rows that were computed again, under this name, and return its figures."""
    shown = figures_of(audit, subject.corpus.rows)
    wrong = wrong_rows(audit) + _other_tokens(subject, audit)
    words = in_words(shown, subject.corpus.rows)
    if wrong:
        named = first_few([f"{why}{_origin(subject, row)}" for row, why in wrong], "; ")
        checks.add(name, False, f"{named}; {words}", f"at most {audit.tolerance:.2g} off", REMEDY)
    else:
        failed = [f"row {each.row}: {each.error}" for each in audit.rows if each.distance is None]
        lacking = f"; no vector of {first_few(failed, '; ')}" if failed else ""
        checks.add(name, True, words + lacking, f"at most {audit.tolerance:.2g} off", warn=bool(failed))
    return shown


def wrong_rows(audit: Audit) -> list[tuple[int, str]]:
    """Return the rows that are off by more than the tolerance, and how far in words."""
    far = {each.row: each.distance for each in audit.rows if each.distance is not None}
    return [(row, f"row {row} is off by {off:.2g}") for row, off in far.items() if not off <= audit.tolerance]


def _other_tokens(subject: Subject, audit: Audit) -> list[tuple[int, str]]:
    """Return the documents whose number of tokens, found now, is not the recorded one."""
    found = {each.row: each.tokens for each in audit.rows if each.tokens is not None}
    wrong = []
    with subject.merged.articles.open("rb") as file:
        for row, line in enumerate(file):
            if row in found and (stated := json.loads(line).get("tokens")) != found[row]:
                wrong.append((row, f"row {row} has {found[row]} tokens, its record says {stated}"))
    return wrong


def _origin(subject: Subject, row: int) -> str:
    work = wholes.work_row(subject.whole, subject.plan, row)
    if work is None:
        return f" (taken from run {subject.whole.since.run})" if subject.whole else ""
    for part in subject.manifest.parts:
        if part.rows and part.rows[0] <= work < part.rows[1]:
            return f" ({part.name} of {part.slot} on {part.host})"
    return ""


def figures_of(audit: Audit, rows: int) -> AuditFigures:
    """Return what follows from the rows of an audit, among so many rows."""
    known = [each for each in audit.rows if each.distance is not None]
    uniform = [each for each in known if each.uniform]
    wrong = len(wrong_rows(audit))
    furthest = max((each.distance for each in known if each.distance is not None), default=None)
    return AuditFigures(
        uniform=len(uniform),
        lowest=len({each.row for each in known} - {each.row for each in uniform}),
        wrong=wrong,
        furthest=float(f"{furthest:.2g}") if furthest is not None else None,
        tolerance=float(f"{audit.tolerance:.2g}"),
        share_at_most=None if wrong or not uniform else sampling.most_bad(rows, len(uniform)) / rows,
        seed=audit.seed,
        where="on this machine's processor in float32",
    )


def in_words(shown: AuditFigures, rows: int) -> str:
    """Return what an audit says, with its bound."""
    done = [f"{shown.uniform:,} of {rows:,} rows drawn by seed {shown.seed[:12]}"] if shown.uniform else []
    done += [f"{shown.lowest} rows that fit least"] if shown.lowest else []
    done_words = f"{' and '.join(done) or 'none'}, furthest {shown.furthest or 0:.2g}"
    if shown.share_at_most is None:
        return f"{done_words}; {shown.wrong or 'none'} off by more than {shown.tolerance:.2g}"
    bound = "no row" if not shown.share_at_most else f"at most {percent(shown.share_at_most)} of all rows"
    return f"{done_words}; {bound} off by more than {shown.tolerance:.2g} (95 %)"


def percent(share: float) -> str:
    """Return a share in percent, rounded up in its second digit: a bound may not look smaller than it is."""
    digits = 2 if share < 0.1 else 1
    return f"{np.ceil(share * 100 * 10**digits - 1e-9) / 10**digits:.{digits}f} %"
