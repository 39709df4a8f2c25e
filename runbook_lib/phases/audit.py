"""The audit: rows that nobody could know before are computed again here, after all parts are home.

Every row is first held against its text without the model (`result/content_fit.py`). The rows that fit least, and
others that stand out (`singled_out.py`), are computed again first, then rows drawn by a seed that follows from the
digests of all parts and from random bytes of now: no host can have known which rows to do well. Where no row is off, a
bound follows for all that were not looked at. Last comes a row of each part.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from worker.escape import safe_text

from .. import records
from ..errors import DataError, RunbookError
from ..result import alike, digits, done_twice, misfits, sampling
from ..result.audited import ELSEWHERE, HERE, Audit, AuditedRow, distance, figures_of, in_words, wrong_rows
from ..result.content_fit import Scores
from ..result.figures import AuditFigures, Figures
from ..result.merged import Merged
from ..result.parts import first_few
from ..result.survey import blocks, header, some_rows
from ..run.checks import Checks
from ..run.model import Model
from ..run.plan import Plan
from ..run.run import Run
from . import doubled, fencing, meaning, singled_out
from .recompute import answers, model_at_hand
from .subject import Subject, origin, part_of
from .words_fit import FIT, fit, tell_fit, tell_near

AUDIT = "rows computed again after all parts were home"
SAME, CONFIRMED = "this machine computes a row twice alike", 20  # rows
FILE = "audit.json"
DRAWN = 299  # rows: none off means at most 1 % are, at 95 %
WITHIN_S = 600.0  # what has no answer by then was not drawn
LEAST_MORE_S = 20.0  # for the rows of each part, or as long as the rows before them took
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
    copies = tell_near(checks, subject, scores)
    shown = replace(shown, fit=misfits.described(scores) if scores else None)
    if not sound:
        return shown
    nonce = secrets.token_bytes(sampling.NONCE_BYTES)
    digests = [part.sha256 for part in subject.manifest.parts]
    seed, again = sampling.seed(digests, nonce), doubled.Drawn("", ())
    undone = doubled.TAKEN if subject.whole is not None else ""
    try:
        run.journal.write("audit drawn", parts=sampling.commitment(digests), nonce=nonce.hex(), seed=seed)
        again = _doubled(subject, seed)
        differ = done_twice.rows_first(run.journal, subject.plan.dtype) if subject.whole is None else []
        before = doubled.rows_first(again) + differ + copies + singled_out.first(subject, scores, found)
        wanted = chosen(subject.corpus.rows, seed, DRAWN, before)
        more = [AuditedRow(row, False) for row in singled_out.of_each_part(subject, seed)]
        rows, tolerance, where = _computed(subject, wanted, more, checks)
    except (RunbookError, OSError) as error:
        doubled.tell(checks, again, {}, undone or ("" if again.seed else safe_text(str(error), 300)))
        checks.add(AUDIT, True, f"none: {error}", "", "runbook verify --recompute N, with the model", warn=True)
        return shown
    off = {each.row: each.distance is not None and each.distance <= tolerance for each in rows}
    doubled.tell(checks, again, off, undone)
    audit = Audit(sampling.commitment(digests), nonce.hex(), seed, tolerance, tuple(rows), where)
    run.save_json(FILE, records.plain(audit))
    shown = replace(shown, audit=tell(checks, subject, audit))
    fencing.after_audit(run, checks, wrong_slots(subject, audit) if where == HERE else {})
    return shown


def _doubled(subject: Subject, seed: str) -> doubled.Drawn:
    """Have a batch of each slot done again elsewhere, and keep what came of it; with --since rows are not those of
    parts.
    """
    if subject.whole is not None:
        return doubled.Drawn(seed, ())
    again = doubled.twice(subject.run, subject.plan, subject.corpus, subject.manifest.parts, seed)
    subject.run.save_json(doubled.FILE, records.plain(again))
    return again


def _computed(
    subject: Subject, wanted: Sequence[AuditedRow], more: Sequence[AuditedRow], checks: Checks
) -> tuple[list[AuditedRow], float, str]:
    """Compute rows again here, then titles, of which a check is added, then `more`; return rows, tolerance, and where.

    Where that cannot be, or most had no answer in time, other slots than did them compute the rows. Raises DataError if
    neither can be.
    """
    rows: list[AuditedRow] = []
    tolerance, why = 0.0, RunbookError(f"no row was computed within {WITHIN_S:g} s")
    try:
        uniform = [each.row for each in wanted if each.uniform and each.row < subject.corpus.documents]
        titles = meaning.titles_of(subject.corpus, uniform)
        model = model_at_hand(subject.run, subject.plan)
        rows, tolerance, vectors = compute(subject, model, wanted, titles, more)
        rows = _confirmed(subject, model, rows, tolerance, checks)
        meaning.tell(checks, subject.merged.embeddings, vectors, subject.corpus.documents)
    except RunbookError as error:
        why = error
    if 2 * len(rows) >= len(wanted):
        return rows, tolerance, HERE
    others = _by_others(subject, wanted)
    if sum(each.distance is not None for each in others) > len(rows):
        return others, alike.APART[subject.plan.dtype], ELSEWHERE
    if not rows:
        raise why
    return rows, tolerance, HERE


def _confirmed(
    subject: Subject, model: Model, rows: list[AuditedRow], tolerance: float, checks: Checks
) -> list[AuditedRow]:
    """Have rows that came out far off computed once more: no slot is blamed for what this machine did wrong once."""
    off = [each.row for each in rows if each.distance is not None and not each.distance <= tolerance]
    if not off:
        return rows
    again, _, _ = compute(subject, model, [AuditedRow(row, False) for row in dict.fromkeys(off)][:CONFIRMED])
    right = {each.row: each for each in again if each.distance is not None and each.distance <= tolerance}
    if right:
        seen = f"rows {first_few(list(right))} came out otherwise here once, and right the second time"
        checks.add(SAME, True, seen, "the same", "have this machine's memory looked at", warn=True)
    return [replace(right[each.row], uniform=each.uniform) if each.row in right else each for each in rows]


def _by_others(subject: Subject, wanted: Sequence[AuditedRow]) -> list[AuditedRow]:
    """Have other slots than did them compute rows again; none of those that were taken from an earlier run."""
    places = {each.row: part_of(subject, each.row) for each in wanted}
    asked = {row: part.slot for row, part in places.items() if part}
    if subject.whole is not None or not asked:
        return []
    kept = _vectors(subject, list(asked))
    found = doubled.alone(subject.run, subject.plan, subject.corpus, subject.manifest.parts, asked)
    done = []
    for each in wanted:
        vector, why = found.get(each.row, (None, "its part is not there"))
        off = None if vector is None else distance(kept[each.row], vector.astype(np.float64))
        done.append(replace(each, distance=off, error=why))
    return done


def chosen(rows: int, seed: str, count: int, first: Sequence[int]) -> list[AuditedRow]:
    """Return the rows to compute, in order: `first`, then `count` drawn from all, or all if these are half of them."""
    drawn = sampling.draw(seed, rows, rows if rows <= 2 * count else count)
    return [AuditedRow(row, False) for row in first] + [AuditedRow(row, True) for row in drawn]


def compute(
    subject: Subject,
    model: Model,
    wanted: Sequence[AuditedRow],
    titles: Mapping[int, str] | None = None,
    more: Sequence[AuditedRow] = (),
) -> tuple[list[AuditedRow], float, dict[int, np.ndarray]]:
    """Compute rows again; return them with their distances, as many as there was time for, and the tolerance.

    Last comes row -> the vector of its title, of those in `titles` for which there was time. `more`: rows that are
    computed after these, for as long as these took. Raises DataError if the model cannot be loaded here.
    """
    rows = list(dict.fromkeys(each.row for each in wanted))
    later = list(dict.fromkeys(each.row for each in more if each.row not in {*rows}))
    vectors = _vectors(subject, rows + later)
    done: dict[int, AuditedRow] = {}
    found: dict[int, np.ndarray] = {}
    run, plan, _, asked = _asked(subject, model, rows + later)
    asked[len(rows) : len(rows)] = meaning.asked(plan, titles or {})
    opinions = answers(run, plan, model, asked, "float32", WITHIN_S)

    def hold(these: Sequence[int], until: float = float("inf")) -> None:
        for row, opinion in zip(these, itertools.islice(opinions, len(these)), strict=False):
            if time.monotonic() > until:
                break
            vector = np.array(opinion.vector or (), np.float64)
            found[row] = vector
            error = safe_text(opinion.error or "", 300)
            off = distance(vectors[row], vector)
            done[row] = AuditedRow(row, False, off, opinion.tokens, error, opinion.chunks)

    began = time.monotonic()
    hold(rows)
    until = time.monotonic() + max(LEAST_MORE_S, time.monotonic() - began)
    of_titles = {
        row: np.array(opinion.vector, np.float64)
        for row, opinion in zip(titles or {}, itertools.islice(opinions, len(titles or {})), strict=False)
        if opinion.vector
    }
    hold(later, until)
    tolerance = _tolerance(subject, model, found)
    given = [*wanted, *(AuditedRow(row, False) for row in later)]
    again = [replace(done[each.row], uniform=each.uniform) for each in given if each.row in done]
    return again, tolerance, of_titles


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
    low = [row for each in found for row in each.rows] + _low(scores)
    before = singled_out.first(subject, scores, found) if count else low
    model = model_at_hand(run, subject.plan, folder)
    wanted = chosen(subject.corpus.rows, seed, count, before)
    rows, tolerance, _ = compute(subject, model, wanted)
    if not any(each.distance is not None for each in rows):
        why = next((f": {each.error}" for each in rows if each.error), "")
        raise DataError(f"no row was computed within {WITHIN_S:g} s{why}")
    made = Audit("", "", seed, tolerance, tuple(rows))
    return tell(checks, subject, made, name, drawn=count > 0, open_=len(wanted) - len(rows))


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


def tell(
    checks: Checks, subject: Subject, audit: Audit, name: str = AUDIT, drawn: bool = True, open_: int = 0
) -> AuditFigures:
    """Add the check of the rows that were computed again, under this name, and return its figures.

    `drawn`: rows drawn from all were wanted; `open_`: so many rows that a person asked for had no answer in time.
    """
    shown = figures_of(audit, subject.corpus.rows)
    wrong = wrong_rows(audit) + _other_tokens(subject, audit)
    words = in_words(shown, subject.corpus.rows)
    if wrong:
        named = first_few([f"{why}{origin(subject, row)}" for row, why in wrong], "; ")
        checks.add(name, False, f"{named}; {words}", f"at most {audit.tolerance:.2g} off", REMEDY)
    else:
        failed = [f"row {each.row}: {each.error}" for each in audit.rows if each.distance is None]
        lacking = f"; no vector of {first_few(failed, '; ')}" if failed else ""
        lacking += f"; {open_} more rows were wanted, {WITHIN_S:g} s were over" if open_ else ""
        if drawn and not shown.uniform:
            lacking += "; no row that was drawn had an answer, so nothing follows for the rows that were not looked at"
        checks.add(name, True, words + lacking, f"at most {audit.tolerance:.2g} off", warn=bool(lacking))
    return shown


def _other_tokens(subject: Subject, audit: Audit) -> list[tuple[int, str]]:
    """Return the documents whose number of tokens or chunks, found now, is not the recorded one."""
    found = {each.row: each for each in audit.rows if each.tokens is not None}
    wrong = []
    with subject.merged.articles.open("rb") as file:
        for row, line in enumerate(file):
            if row not in found:
                continue
            stated, now = json.loads(line), {"tokens": found[row].tokens, "chunks": found[row].chunks}
            wrong += [
                (row, f"row {row} has {count} {what}, its record says {stated.get(what)}")
                for what, count in now.items()
                if stated.get(what) != count
            ]
    return wrong


def coarse_slots(run: Run, merged: Merged) -> dict[str, str]:
    """Return the slots that did rows with fewer digits than float32 has, each with why; none if all slots did."""
    subject, named = Subject.of(run, merged), dict[str, str]()
    shape = header(merged.embeddings)
    for low, block in blocks(merged.embeddings, shape, 4096):
        for row in (low + np.flatnonzero(digits.coarse(block) | digits.scaled(block))).tolist():
            if part := part_of(subject, row):
                named.setdefault(part.slot, f"row {row} has no more digits than 16 bits hold")
    return named if named.keys() < {part.slot for part in subject.manifest.parts if part.rows} else {}


def wrong_slots(subject: Subject, audit: Audit) -> dict[str, str]:
    """Return the slots whose rows came out otherwise here, each with why.

    None where no slot came out right: then this machine may be wrong as well as all of them.
    """
    off = dict(wrong_rows(audit) + _other_tokens(subject, audit))
    looked_at = [(each.row, part_of(subject, each.row)) for each in audit.rows if each.distance is not None]
    slots = {part.slot for _, part in looked_at if part}
    wrong: dict[str, str] = {}
    for row, part in looked_at:
        if part and row in off:
            wrong.setdefault(part.slot, f"the audit found that {off[row]}")
    return wrong if wrong.keys() < slots else {}
