"""The checks of a result with --since: which rows are whose bytes, and whether taken rows can still be computed.

They go by the files of both runs, not by what the merge held in memory: each taken row has the bytes and the text of
the earlier run's row, each other row the bytes of its part, and a few taken rows come out the same when computed again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from worker import again

from ..corpus.keys import KEY_BYTES, blocks
from ..errors import DataError
from ..run.checks import Checks
from . import taken
from . import whole as wholes
from .articles import merged_lines
from .earlier import open_matrix
from .evidence import Evidence
from .manifest import Since
from .merged import AGAIN, Merged, differences
from .parts import Piece, cover, first_few, read, within
from .sealed import was_sealed
from .survey import has_direction, norms_of
from .whole import Whole

REMEDY = "this row was taken from the earlier run: begin another run without --since (runbook run PROFILE --new)"
IN_PLACE, SAME_TEXT, AS_AGAIN, AS_LONG = (
    "every row as in its part, or as in the earlier run",
    "taken rows have the earlier run's texts",
    "taken rows as computed again",
    "taken rows read to the same length",
)


def work_row(e: Evidence, row: int) -> int | None:
    """Return the row of the plan that computed a row of the result; None if it was taken."""
    return wholes.work_row(e.whole, e.plan, row)


def check(e: Evidence, whole: Whole, checks: Checks) -> None:
    """Add the checks of taken rows. A missing or changed file of the earlier run is one that fails."""
    try:
        before = open_matrix(Path(e.run.since), whole.since.matrix, e.plan.model.dim)
        pieces = _pieces(e)
        _in_place(e, whole, before, pieces, checks)
        _same_texts(e, whole, checks)
        _computed_again(e, whole, before, taken.WorkRows(pieces), checks)
    except (DataError, OSError) as error:
        away = was_sealed(e.run) and not Merged(Path(e.run.since) / e.run.merged.name).embeddings.exists()
        words = f"{error}; it was there when this run was sealed, and all of it was compared then" if away else error
        wanted = "the earlier run and the parts, to compare with"
        checks.add(IN_PLACE, away, words, wanted, "see the message", warn=away)
        return
    limits = tuple(sorted(e.manifest.seen.get("max_tokens", {})))
    checks.add(AS_LONG, limits == whole.since.limit, first_few(limits), first_few(whole.since.limit), REMEDY)


def _pieces(e: Evidence) -> list[Piece]:
    """Return the pieces of the parts that hold the work rows of documents, by the manifest."""
    parts = [read(e.run.local.parts / stated.name) for stated in e.manifest.parts]
    return within(cover(parts, e.plan.rows), 0, e.plan.documents)


def _in_place(e: Evidence, whole: Whole, before: np.ndarray, pieces: list[Piece], checks: Checks) -> None:
    matrix = np.load(e.merged.embeddings, mmap_mode="r", allow_pickle=False)
    work = taken.WorkRows(pieces)
    wrong: list[int] = []
    for low, take in taken.blocks(whole, e.plan.model.dim):
        actual = np.asarray(matrix[low : low + len(take)]).view(np.uint32)
        rows = take >= 0
        unlike = np.zeros(len(take), np.bool_)
        unlike[rows] = (actual[rows] != before[take[rows]].view(np.uint32)).any(axis=1)
        unlike[~rows] = (actual[~rows] != work.vectors(-1 - take[~rows]).view(np.uint32)).any(axis=1)
        wrong += (low + np.flatnonzero(unlike)).tolist()
    reused = whole.since.reused
    good = f"{reused:,} rows as in run {whole.since.run}, {whole.documents - reused:,} as in a part"
    seen = f"{len(wrong):,} rows differ: {first_few(wrong)}" if wrong else good
    checks.add(IN_PLACE, not wrong, seen, "the same bytes", AGAIN)


def _same_texts(e: Evidence, whole: Whole, checks: Checks) -> None:
    """Compare each taken row's fingerprint with that of the row it came from, as its own run recorded it.

    The scratch file, 16 bytes a row, has no name and is not in the run: an archive may be read-only.
    """
    with tempfile.TemporaryFile() as scratch:
        prints = _earlier_prints(Path(e.run.since), whole.since, scratch)
        own, take, wrong = whole.corpus.fingerprints(), whole.take(), list[int]()
        for part in blocks(whole.documents):
            rows = np.flatnonzero(take[part] >= 0)
            unlike = (own[part][rows] != prints[take[part][rows]]).any(axis=1)
            wrong += (part.start + rows[unlike]).tolist()
    seen = f"{len(wrong):,} rows: {first_few(wrong)}" if wrong else "fingerprints of all"
    checks.add(SAME_TEXT, not wrong, seen, "the same fingerprints", REMEDY)


def _earlier_prints(folder: Path, since: Since, scratch: IO[bytes]) -> np.ndarray:
    """Return the fingerprints of the earlier run's documents, (documents, 16), from its verified articles."""
    path = Merged(folder / "merged").articles
    if wrong := differences(path, since.articles):
        raise DataError(f"--since {folder}: {wrong[0]}")
    prints: np.memmap = np.memmap(scratch, np.uint8, "w+", shape=(since.documents, KEY_BYTES))
    for row, line in enumerate(merged_lines(path)):
        prints[row] = np.frombuffer(bytes.fromhex(line["fingerprint"] if line else ""), np.uint8)
    return prints


def _computed_again(e: Evidence, whole: Whole, before: np.ndarray, work: taken.WorkRows, checks: Checks) -> None:
    """Compare some taken vectors with those that this run's hosts computed of the same texts."""
    spot, least = np.asarray(whole.spot()), again.COSINE[e.plan.dtype]
    if not len(spot):
        checks.add(AS_AGAIN, True, "no row was taken")
        return
    old, new = (np.asarray(v, np.float64) for v in (before[whole.take()[spot[:, 0]]], work.vectors(spot[:, 1])))
    lengths = norms_of(old) * norms_of(new)
    cosines = np.where(has_direction(lengths), (old * new).sum(axis=1) / np.where(lengths > 0, lengths, 1.0), -1.0)
    low = np.flatnonzero(~(cosines >= least))
    wrong = [f"row {spot[i, 0]}: cosine {cosines[i]:.7g}" for i in low.tolist()]
    good = f"{len(spot)} of {whole.since.reused:,} rows, lowest cosine {cosines.min():.7f}"
    remedy = f"the model's libraries or devices compute otherwise than in run {whole.since.run}: {REMEDY}"
    checks.add(AS_AGAIN, not wrong, first_few(wrong, "; ") or good, f"at least {least:g} ({e.plan.dtype})", remedy)
