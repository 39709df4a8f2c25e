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
from . import whole as wholes
from .evidence import Evidence
from .manifest import Manifest, MergedPart, Tally
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


def check(checks: Checks, e: Evidence) -> None:
    """Hold every record of the run's parts against plan, fingerprints, the merged articles and the matrix's norms."""
    found, rows = _Found(), _by_plan(e)
    fingerprints, folder = e.corpus.fingerprints(), e.run.local.parts
    for stated, part in _parts(folder, e.manifest, found):
        problems = differences_from_plan(part.record, e.plan) + _fingerprints(part, fingerprints)
        problems += _cuts(part, rows) + (_norms(part, stated, rows.norms) if rows.norms is not None else [])
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
    norms: np.ndarray | None


def _by_plan(e: Evidence) -> _ByPlan:
    """Return the result's rows in the plan's order; with --since the plan has only those that were computed."""
    norms = e.matrix.survey.norms if e.matrix else None
    if e.whole is None:
        return _ByPlan(e.audit.tokens, e.audit.cut, norms)
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
    tokens[known], cut[known] = e.audit.tokens[place[known]], e.audit.cut[place[known]]
    if norms is None:
        return _ByPlan(tokens, cut, None)
    own = np.full(len(place), -1.0)  # of rows that are computed as a check only, the matrix has none
    own[known] = np.asarray(norms)[place[known]]
    return _ByPlan(tokens, cut, own)


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
