"""What the parts' records and the manifest claim, computed again from arrays, texts and each other.

A record is the word of the host that wrote it: its norms, its cut flags and its tallies are believed only where they
follow from something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from worker.escape import safe_text

from ..corpus.keys import blocks
from ..errors import DataError
from ..run.checks import Checks
from ..run.plan import Plan
from . import whole as wholes
from .evidence import Evidence
from .manifest import Chunked, Manifest, MergedPart, Tally
from .merged import AGAIN
from .part_identity import differences_from_plan
from .parts import NORM_ROUNDING, Part, fingerprint_bytes, first_few, read

RECORDS = "records say what the arrays and texts say"
MANIFEST = "the manifest's sums as computed again"
REMEDY = "a record that is not true: have its host looked at, delete the part here and there, and run again"


@dataclass
class _Found:
    """What is wrong by part, and the sums over the rows that were taken from each."""

    wrong: list[str] = field(default_factory=list)
    absent: int = 0
    rows: int = 0  # of all parts
    redone: int = 0
    seconds: float = 0.0
    tokens: list[int] = field(default_factory=lambda: [0, 0])  # of documents, of questions
    cut: list[int] = field(default_factory=lambda: [0, 0])
    lost: list[int] = field(default_factory=lambda: [0, 0])
    chunks: int = 0  # of documents
    in_chunks: int = 0  # documents that were read in more than one


def check(checks: Checks, e: Evidence) -> None:
    """Hold every record of the run's parts against plan, fingerprints, the merged articles and the matrix's norms."""
    found, rows = _Found(), _by_plan(e)
    fingerprints, folder = e.corpus.fingerprints(), e.run.local.parts
    for stated, part in _parts(folder, e.manifest, found):
        problems = differences_from_plan(part.record, e.plan) + _fingerprints(part, fingerprints)
        problems += _cuts(part, rows) + _chunks(part, rows, e.plan)
        problems += _norms(part, stated, rows.norms) if rows.norms is not None else []
        found.wrong += [f"{part.name}: {problem}" for problem in problems]
        _count(found, part, stated.rows, e.plan.documents)
    absent = f"; {found.absent} parts are no longer here" if found.absent else ""
    good = f"{len(e.manifest.parts) - found.absent} records: plan, fingerprints, norms, cuts{absent}"
    checks.add(RECORDS, not found.wrong, first_few(found.wrong, "; ") or good, "", REMEDY)
    if not found.absent:
        wrong = _unlike_manifest(found, e)
        checks.add(MANIFEST, not wrong, first_few(wrong, "; ") or "tokens, cuts, rows, seconds", "", AGAIN)


@dataclass(frozen=True)
class _ByPlan:
    """What the result says of each document of the plan: tokens, whether it was cut, and its norm if there is one."""

    tokens: np.ndarray
    cut: np.ndarray
    chunks: np.ndarray
    norms: np.ndarray | None


def _by_plan(e: Evidence) -> _ByPlan:
    """Return the result's rows in the plan's order; with --since the plan has only those that were computed."""
    norms = e.matrix.survey.norms if e.matrix else None
    if e.whole is None:
        return _ByPlan(e.audit.tokens, e.audit.cut, e.audit.chunks, norms)
    place = np.full(e.plan.documents, -1, np.int64)  # of each work row a document that has its vector
    for part in blocks(e.whole.documents):
        take = np.asarray(e.whole.take()[part])
        mine = np.flatnonzero(take < 0)
        place[-1 - take[mine]] = part.start + mine
    spot = np.asarray(e.whole.spot())
    known = place >= 0
    if not (known | np.isin(np.arange(len(place)), spot[:, 1] if len(spot) else spot)).all():
        raise DataError(f"{e.whole.folder}: work rows that no document has. {wholes.AGAIN}")
    tokens, cut = np.full(len(place), -1, np.int64), np.zeros(len(place), np.bool_)
    chunks = np.zeros(len(place), np.int64)
    for own, all_rows in ((tokens, e.audit.tokens), (cut, e.audit.cut), (chunks, e.audit.chunks)):
        own[known] = all_rows[place[known]]
    if norms is None:
        return _ByPlan(tokens, cut, chunks, None)
    of_rows = np.full(len(place), -1.0)  # of rows that are computed as a check only, the matrix has none
    of_rows[known] = np.asarray(norms)[place[known]]
    return _ByPlan(tokens, cut, chunks, of_rows)


def _parts(folder: Path, manifest: Manifest, found: _Found) -> Iterator[tuple[MergedPart, Part]]:
    for stated in manifest.parts:
        path = folder / stated.name
        if not path.exists():
            found.absent += 1
            continue
        try:
            yield stated, read(path)
        except DataError as error:
            found.wrong.append(safe_text(str(error), 300))


def _fingerprints(part: Part, fingerprints: np.ndarray) -> list[str]:
    stated, wanted = fingerprint_bytes(part.record.fingerprints), np.asarray(fingerprints[part.start : part.stop])
    if stated is None or stated.shape != wanted.shape:
        return ["fingerprints that are none"]
    rows = part.start + np.flatnonzero((wanted != stated).any(axis=1))
    return [f"fingerprints of other texts: rows {first_few(rows.tolist())}"] if len(rows) else []


def _cuts(part: Part, rows: _ByPlan) -> list[str]:
    """Whether the rows said to be cut are those with more tokens than are read, and the articles say so too."""
    record = part.record
    tokens = np.array(record.tokens)
    cut = np.zeros(part.rows, np.bool_)
    cut[[row - part.start for row in record.truncated]] = True
    over = tokens > record.max_tokens if record.max_tokens is not None else np.zeros(part.rows, np.bool_)
    wrong = (
        [f"cut flags that do not follow from tokens: rows {_rows(part, cut != over)}"] if (cut != over).any() else []
    )
    stop = min(part.stop, len(rows.tokens))
    if part.start < stop:
        here, said = slice(0, stop - part.start), rows.tokens[part.start : stop]
        other = (said != tokens[here]) | (rows.cut[part.start : stop] != cut[here])
        other &= said >= 0  # rows that are computed as a check only are in no article
        wrong += [f"other tokens or cuts than the articles have: rows {_rows(part, other)}"] if other.any() else []
    return wrong


def _chunks(part: Part, rows: _ByPlan, plan: Plan) -> list[str]:
    """Whether as many chunks are stated as tokens need, and the articles say so too; no chunks where texts are cut."""
    if plan.chunk_tokens is None or part.record.chunks is None:
        same = plan.chunk_tokens is None and part.record.chunks is None
        return [] if same else ["chunks: expected them of every row, or of none, as in the plan"]
    chunks, tokens = np.array(part.record.chunks), np.array(part.record.tokens)
    tokens[max(0, plan.documents - part.start) :] = 1  # a question is cut
    wrong_number = (chunks * plan.chunk_tokens < tokens) | ((chunks > 1) & (tokens <= plan.chunk_tokens))
    wrong = [f"chunks that do not follow from tokens: rows {_rows(part, wrong_number)}"] if wrong_number.any() else []
    stop = min(part.stop, len(rows.chunks))
    if part.start < stop:
        other = rows.chunks[part.start : stop] != chunks[: stop - part.start]
        other &= rows.tokens[part.start : stop] >= 0  # rows that are computed as a check only are in no article
        wrong += [f"other chunks than the articles have: rows {_rows(part, other)}"] if other.any() else []
    return wrong


def _norms(part: Part, stated: MergedPart, norms: np.ndarray) -> list[str]:
    """Whether the record's norms are those of the rows that the matrix has from this part."""
    low, high = stated.rows or (part.start, part.start)
    high = min(high, len(norms))
    if low >= high:
        return []
    claimed = np.array(part.record.norms[low - part.start : high - part.start], np.float64)
    with np.errstate(invalid="ignore"):
        right = np.abs(norms[low:high] - claimed) <= NORM_ROUNDING * np.maximum(1.0, claimed)
        right |= norms[low:high] < 0
    rows = low + np.flatnonzero(~right)
    return [f"norms that its vectors do not have: rows {first_few(rows.tolist())}"] if len(rows) else []


def _rows(part: Part, which: np.ndarray) -> str:
    return first_few((part.start + np.flatnonzero(which)).tolist())


def _count(found: _Found, part: Part, taken: tuple[int, ...], documents: int) -> None:
    record = part.record
    found.rows += part.rows
    found.redone += len(record.redone_float32)
    found.seconds += float(record.seconds or 0.0)
    cut = set(record.truncated)
    for row in range(*(taken or (0, 0))):
        kind, tokens = int(row >= documents), record.tokens[row - part.start]
        found.tokens[kind] += tokens
        if record.chunks and not kind:
            found.chunks += record.chunks[row - part.start]
            found.in_chunks += record.chunks[row - part.start] > 1
        if row in cut:
            found.cut[kind] += 1
            found.lost[kind] += max(0, tokens - (record.max_tokens or tokens))


def _unlike_manifest(found: _Found, e: Evidence) -> list[str]:
    manifest, plan = e.manifest, e.plan
    facts: list[tuple[str, object, object]] = [
        ("documents", e.documents, manifest.documents),
        ("questions", plan.questions, manifest.questions),
        ("rows done twice", found.rows - plan.rows, manifest.rows_done_twice),
        ("rows redone in float32", found.redone, manifest.redone_float32),
        ("rows of all slots", plan.rows, sum(share.rows for share in manifest.slots.values())),
        ("parts of all slots", len(manifest.parts), sum(share.parts for share in manifest.slots.values())),
        ("seconds", True, abs(found.seconds - manifest.seconds) <= 0.1 + 0.001 * len(manifest.parts)),
        ("amended rows", [list(a.rows) for a in plan.amendments], [list(a.rows) for a in manifest.amended]),
    ]
    if e.whole is not None:  # of taken rows there are no records here
        found.tokens[0], found.cut[0] = int(e.audit.tokens.sum()), int(e.audit.cut.sum())
        found.lost[0] = manifest.lengths.documents.tokens_cut
        found.chunks, found.in_chunks = int(e.audit.chunks.sum()), int((e.audit.chunks > 1).sum())
    chunked = Chunked(plan.chunk_tokens, found.in_chunks, found.chunks) if plan.chunk_tokens else None
    facts.append(("chunks", chunked, manifest.chunked))
    for kind, stated in enumerate((manifest.lengths.documents, manifest.lengths.questions)):
        share = round(found.lost[kind] / found.tokens[kind], 6) if found.tokens[kind] else 0.0
        facts.append(
            (
                ("documents", "questions")[kind],
                Tally(found.tokens[kind], found.cut[kind], found.lost[kind], share),
                stated,
            )
        )
    return [
        f"{what}: {actual} by the records, the manifest says {stated}"
        for what, actual, stated in facts
        if actual != stated
    ]
