"""The checks of every row that the founding plan's ten leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..result import claims, computed_again, done_twice, reused_rows, texts_again
from ..result.array_file import ITEM_BYTES
from ..result.evidence import Evidence
from ..result.figures import Duplicates
from ..result.merged import AGAIN, differences
from ..result.parts import Piece, first_few, read, row_bytes
from ..result.survey import Geometry, Header, Survey, norms_of, rows_where
from ..run.checks import Checks
from ..run.plan import problems
from . import canaries, fencing
from .founding_checks import wrong_norms
from .wrong_rows import UNREAD, about_rows, redo

DIGITS = "float32 in every digit"
# Rules of thumb: a collapsed model exceeds these limits, models in use are far below.
TOP_SHARE_LIMIT, MEAN_COSINE_LIMIT = 0.70, 0.95


def add(e: Evidence, checks: Checks) -> None:
    """Add them, in the order that the report shows."""
    _belongs(e, checks)
    _unchanged(e, checks)
    wrong = problems([part.rows for part in e.manifest.parts if part.rows], e.plan.rows)
    checks.add("every row from exactly one part", not wrong, first_few(wrong) or f"{e.plan.rows} rows", "", AGAIN)
    rows = e.audit.other_text
    about_rows(checks, "every row encoded from the corpus's text", rows, "fingerprints of all", redo(e, rows))
    texts_again.check(checks, e.all_documents)
    claims.check(checks, e)
    checks.extend([done_twice.check(e.run.journal, e.plan.dtype)])
    fencing.tell(checks, e.plan)
    canaries.tell(checks, e.run, did=[part.slot for part in e.manifest.parts if part.rows])
    _asked(e, checks)
    computed_again.check(checks, e.run, e.plan, e.corpus, e.manifest)
    if e.matrix is None:
        checks.add("every row as in its part", False, UNREAD, "", AGAIN)
        return
    if e.whole is None:
        _as_in_parts(e, e.matrix.shape, checks)
    else:
        reused_rows.check(e, e.whole, checks)
    zero = rows_where(e.matrix.survey.norms, lambda norms: norms == 0)
    about_rows(checks, "no vector of zeros", zero, "none", redo(e, zero))
    constant = sorted(set(e.matrix.survey.constant) - set(zero))
    about_rows(checks, "no vector of one value", constant, "none", redo(e, constant))
    _precision(e, e.matrix.survey, set(constant), checks)
    _equal_vectors(e.duplicates, checks)
    _cut_texts(e, checks)
    _spread(e.matrix.geometry, checks)
    _answers(e, checks)


def _belongs(e: Evidence, checks: Checks) -> None:
    facts = (
        ("run", e.plan.run, e.manifest.run),
        ("plan", e.plan.sha256, e.manifest.plan),
        ("corpus", e.corpus.fingerprint, e.manifest.corpus),
        ("dtype", e.plan.dtype, e.manifest.dtype),
    )
    wrong = [f"another {what}" for what, wanted, actual in facts if wanted != actual]
    checks.add("made from this plan and corpus", not wrong, first_few(wrong) or f"plan {e.plan.sha256[:12]}", "", AGAIN)


def _unchanged(e: Evidence, checks: Checks) -> None:
    """Compare files with the manifest; the matrix was hashed during the survey."""
    wrong = []
    for name, stated in e.manifest.outputs.items():
        if name == e.merged.embeddings.name and e.matrix is not None:
            sha256 = e.matrix.survey.sha256
            wrong += [] if sha256 == stated.sha256 else [f"{name}: sha256 {sha256}, expected {stated.sha256}"]
        else:
            wrong += differences(e.merged.folder / name, stated)
    good = f"sha256 of {len(e.manifest.outputs)} files"
    checks.add("files unchanged since the merge", not wrong, first_few(wrong, "; ") or good, "", AGAIN)


def _as_in_parts(e: Evidence, shape: Header, checks: Checks) -> None:
    """Compare the matrix with the downloaded parts, byte by byte, independently of the merge's writing."""
    name, rows, compared, absent = "every row as in its part", list[int](), 0, 0
    try:
        for stated in e.manifest.parts:
            low, high = stated.rows or (0, 0)
            high = min(high, shape.rows)
            path = e.run.local.parts / stated.name
            if low < high and path.exists():
                rows += _unlike(e.merged.embeddings, shape, (read(path), low, high))
                compared += high - low
            elif low < high:
                absent += 1
    except (DataError, OSError) as error:
        checks.add(name, False, error, "", AGAIN)
        return
    good = f"{compared} rows compared" + (f"; {absent} parts are no longer here" if absent else "")
    about_rows(checks, name, rows, good, AGAIN)


def _unlike(matrix: Path, shape: Header, piece: Piece) -> list[int]:
    """Return the matrix rows that differ from the piece. Raises DataError if the part differs from its record."""
    width = shape.dim * ITEM_BYTES
    at = piece[1] * width
    rows: set[int] = set()
    with matrix.open("rb") as file:
        file.seek(shape.bytes + at)
        for wanted in row_bytes(piece):
            actual = file.read(len(wanted))
            if actual != wanted:
                differ = np.frombuffer(wanted, np.uint8) != np.frombuffer(actual, np.uint8)
                rows.update(((at + np.flatnonzero(differ)) // width).tolist())
            at += len(wanted)
    return sorted(rows)


def _asked(e: Evidence, checks: Checks) -> None:
    """Check the questions' vectors, which have their own file and are not in the founding file."""
    name = "a sound vector for every question"
    if e.asked.problem:
        checks.add(name, False, e.asked.problem, f"{e.plan.questions} questions", AGAIN)
        return
    norms = norms_of(e.asked.vectors)
    bad = ~np.isfinite(norms) | (norms == 0)
    if e.plan.model.normalises:
        bad[wrong_norms(norms, e.plan)] = True
    rows = (e.documents + np.flatnonzero(bad)).tolist()
    about_rows(checks, name, rows, f"{len(norms)} questions", redo(e, rows))


def _precision(e: Evidence, survey: Survey, constant: set[int], checks: Checks) -> None:
    """Check that rows said to be float32 were, by their digits; what most rows have is the model's own way."""
    if e.plan.dtype != "float32":
        return
    name, scaled = DIGITS, [row for row in survey.scaled if row not in constant]
    rows = sorted({*survey.coarse} - constant)
    usual = 2 * len(scaled) > e.documents and not rows
    about_rows(
        checks, name, scaled if usual else sorted({*rows, *scaled}), "no row was computed in 16 bits",
        "most vectors have few different digits: the model's own way, or all compute in 16 bits: the audit decides"
        if usual else redo(e, rows or scaled), warn=usual,
    )  # fmt: skip


def _equal_vectors(shown: Duplicates, checks: Checks) -> None:
    name = "equal vectors have equal texts"
    if not shown.unexplained:
        good = f"{shown.groups} groups of equal vectors, each explained by equal or cut texts"
        checks.add(name, True, good if shown.groups else "all vectors differ")
        return
    rows = "; ".join("rows " + ", ".join(map(str, group)) for group in shown.unexplained_rows)
    summary = f"{shown.unexplained} groups of equal vectors with different texts: {rows}"
    remedy = "read these documents: texts that the tokenizer makes the same are harmless, copied vectors are not"
    checks.add(name, True, summary, "none", remedy, warn=True)


def _cut_texts(e: Evidence, checks: Checks) -> None:
    name, stated = "every document read to its end", e.manifest.lengths.documents
    cut = int(e.audit.cut.sum())
    if not cut:
        chunked = e.manifest.chunked
        how = f"; {chunked.documents:,} documents in several chunks of at most {chunked.tokens:,}" if chunked else ""
        checks.add(name, True, f"{stated.tokens:,} tokens{how}")
        return
    summary = (
        f"{cut} of {e.documents} documents ({cut / e.documents:.1%}) are longer than the model reads; "
        f"{stated.tokens_cut:,} of {stated.tokens:,} tokens ({stated.share_cut:.1%}) were cut off"
    )
    remedy = "their ends are not in the vectors: split long documents, raise model.max_tokens, or accept it"
    taken = e.run.profile.model.too_long != "refuse"  # else preflight stops, where it could count them all
    checks.add(name, taken, summary, "none", remedy, warn=taken)


def _spread(geometry: Geometry, checks: Checks) -> None:
    name = "vectors spread out"
    if geometry.mean_cosine is None:
        checks.add(name, True, "too few vectors to say")
        return
    top, rank = geometry.top_share, geometry.effective_rank
    summary = f"mean cosine {geometry.mean_cosine:.3f}"
    summary += ", all in one direction" if top is None else f", strongest direction {top:.1%} of the variance"
    summary += "" if rank is None else f", effective rank {rank:.1f}"
    limits = f"mean cosine up to {MEAN_COSINE_LIMIT}, strongest direction up to {TOP_SHARE_LIMIT:.0%} (rules of thumb)"
    remedy = "look at the questions' nearest documents: vectors this close together may not tell documents apart"
    crowded = geometry.mean_cosine > MEAN_COSINE_LIMIT or (top is not None and top > TOP_SHARE_LIMIT)
    checks.add(name, True, summary, limits, remedy, warn=crowded)


def _answers(e: Evidence, checks: Checks) -> None:
    """Check that questions find their documents early; only for questions that name one."""
    top1, top10, asked = e.retrieval.top1, e.retrieval.top10, e.retrieval.with_answer
    if not asked or top10 is None:
        return
    ranks = f"first for {top1}, among the first 10 for {top10}, of {asked} questions"
    remedy = "read the nearest documents: wrong prompts or a model for another language show here"
    few = 2 * top10 < asked
    checks.add(
        "questions find their documents", True, ranks, "half among the first 10 (a rule of thumb)", remedy, warn=few
    )
