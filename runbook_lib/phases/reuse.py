"""Reuse: number the whole corpus of a run with --since, and find which vectors the earlier run has already.

A vector is taken if the text as encoded (its fingerprint), model, dtype, max_tokens and prompt are the same. The other
texts, each once, and a few of the taken ones as a check form the run's own corpus. Memory does not grow with either.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus import corpus as corpora
from ..corpus import subset
from ..corpus.corpus import Corpus
from ..corpus.formats.whole_file import WholeFile
from ..corpus.keys import KEY_BYTES, NONE, Keys, Rows, blocks, first_rows, id_key
from ..result import earlier as earlier_runs
from ..result import whole as wholes
from ..result.earlier import Earlier
from ..result.manifest import RowsOf, Since
from ..result.taken import packed
from ..run.disk import explain_disk_errors
from ..run.model import Model
from ..run.reading import Reading
from ..run.run import Run

SPOT_ROWS = 64  # taken rows that are computed again: if none is wrong, fewer than one in 20 of all is, at 95 %
SCRATCH = "scratch"


def check_earlier(run: Run, model: Model) -> Earlier:
    """Return the earlier run of a run with --since. Raises DataError if its vectors cannot be taken."""
    earlier = earlier_runs.open_earlier(Path(run.since), run.folder)
    spec = run.profile.model
    earlier_runs.check_same_model(earlier, model, spec.dtype, Reading.of(spec, model))
    earlier_runs.check_bytes(earlier)
    return earlier


@explain_disk_errors("comparing the corpus with the earlier run")
def number(run: Run, earlier: Earlier, build: Callable[[Path], Corpus]) -> Corpus:
    """Number the whole corpus into `run.whole`, and what must be computed into `run.corpus`; return the latter.

    `build(folder)` numbers the profile's corpus into a folder. `run.corpus` comes last: without it all is done again.
    """
    whole = build(run.whole)
    scratch = run.whole / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    known = _read_earlier(earlier, scratch)
    tables = _Tables(run.whole, scratch, whole.documents, known)
    tables.match(whole)
    spot = tables.choose_spot(run.id)
    computed = tables.number(spot)
    _write_changes(run.whole / "changes.jsonl", whole, earlier, tables)
    work = subset.write(whole, tables.work_rows, computed + len(spot), scratch / run.corpus.name)
    wholes.commit(run.whole, _since(run, earlier, tables, computed, len(spot)), work)
    shutil.rmtree(run.corpus, ignore_errors=True)
    work.folder.replace(run.corpus)
    shutil.rmtree(scratch)
    return corpora.load(run.corpus)


def in_words(since: Since) -> str:
    """Say how many documents are taken from the earlier run, and what is left to compute."""
    return (
        f"{since.reused:,} of {since.reused + since.added + since.changed:,} documents from run {since.run}; "
        f"{since.added:,} added, {since.changed:,} changed, {since.removed:,} removed; to compute: {since.computed:,} "
        f"different texts, and {since.spot:,} of the taken ones again, as a check"
    )


def _array(folder: Path, name: str, dtype: str, *shape: int) -> Any:
    """Return a new array in a file, which is read and written as it is used."""
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)


@dataclass(frozen=True)
class _Known:
    """The documents of the earlier run: keys of their texts and ids, lengths, and which of `runs` computed them."""

    prints: Keys
    ids: Keys
    lengths: Rows
    computed_by: np.ndarray
    runs: tuple[str, ...]


def _read_earlier(earlier: Earlier, scratch: Path) -> _Known:
    rows = earlier.manifest.documents
    make = partial(_array, scratch)
    prints, ids = make("earlier_prints", "|u1", rows, KEY_BYTES), make("earlier_ids", "|u1", rows, KEY_BYTES)
    lengths, computed_by = make("earlier_lengths", "<i8", rows), make("earlier_by", "<i4", rows)
    runs: dict[str, int] = {}
    for row, article in enumerate(earlier.articles()):
        try:
            prints[row] = np.frombuffer(bytes.fromhex(article["fingerprint"]), np.uint8)
            ids[row] = np.frombuffer(id_key(article["id"]), np.uint8)
            lengths[row] = packed(article["tokens"], article["truncated"], article.get("chunks", 0))
        except (KeyError, ValueError, TypeError) as error:
            raise earlier.refused(f"row {row} of its articles is no record of this version: {error}") from None
        computed_by[row] = runs.setdefault(article.get("computed_by") or earlier.manifest.run, len(runs))
    return _Known(prints, ids, lengths, computed_by, tuple(runs))


class _Tables:
    """The tables of `whole/` as they are filled, one number a document, and those that only this module needs."""

    def __init__(self, folder: Path, scratch: Path, documents: int, known: _Known):
        self.folder, self.scratch, self.documents, self.known = folder, scratch, documents, known
        make = partial(_array, folder)
        self.take, self.lengths = make("take", "<i8", documents), make("lengths", "<i8", documents)
        self.computed_by = make("computed_by", "<i4", documents)
        make = partial(_array, scratch)
        self.ids = make("ids", "|u1", documents, KEY_BYTES)
        self.first, self.work = make("first", "<i8", documents), make("work", "<i8", documents)
        self.same_id = make("same_id", "<i8", documents)
        self.still_there = make("still_there", "<i8", len(known.ids))

    def match(self, whole: Corpus) -> None:
        """Find each text in the earlier run, else its first place here; and each id in the other run."""
        for row, article in enumerate(whole.articles()):
            self.ids[row] = np.frombuffer(id_key(article["id"]), np.uint8)
        prints = whole.fingerprints()[: self.documents]
        first_rows(prints, self.known.prints, self.take, self.scratch)
        first_rows(prints, prints, self.first, self.scratch)
        first_rows(self.ids, self.known.ids, self.same_id, self.scratch)
        first_rows(self.known.ids, self.ids, self.still_there, self.scratch)

    def choose_spot(self, seed: str) -> Rows:
        """Return the documents, ascending, whose taken vectors are computed again: one at random of each share."""
        reused = sum(int((self.take[part] >= 0).sum()) for part in blocks(self.documents))
        count = min(SPOT_ROWS, reused)
        ranks = []
        for share in range(count):
            low, high = share * reused // count, (share + 1) * reused // count
            draw = int.from_bytes(hashlib.sha256(f"{seed} {share}".encode()).digest()[:8], "big")
            ranks.append(low + draw % (high - low))
        wanted, found, before = np.asarray(ranks, np.int64), [], 0
        for part in blocks(self.documents):
            rows = part.start + np.flatnonzero(self.take[part] >= 0)
            here = wanted[(wanted >= before) & (wanted < before + len(rows))] - before
            found.append(rows[here])
            before += len(rows)
        return np.concatenate(found).astype(np.int64)

    def number(self, spot: Rows) -> int:
        """Number the work rows, fill the tables of `whole/`, and return how many texts must be computed."""
        number = computed = 0
        for part in blocks(self.documents):
            rows = np.arange(part.start, part.stop)
            taken = self.take[part] >= 0
            once = ~taken & (self.first[part] == rows)
            chosen = once | np.isin(rows, spot)
            self.work[part] = np.where(chosen, number + np.cumsum(chosen) - 1, NONE)
            number, computed = number + int(chosen.sum()), computed + int(once.sum())
            source = np.where(taken, self.take[part], 0)
            self.lengths[part] = np.where(taken, self.known.lengths[source], NONE)
            self.computed_by[part] = np.where(taken, self.known.computed_by[source], len(self.known.runs))
            # A text that stands twice has the work row of its first place, which is not after it.
            self.take[part] = np.where(taken, self.take[part], -1 - self.work[self.first[part]])
        pairs = np.stack([spot, self.work[spot]], axis=1) if len(spot) else np.zeros((0, 2), np.int64)
        np.save(self.folder / "spot.npy", pairs.astype("<i8"), allow_pickle=False)
        for table in (self.take, self.lengths, self.computed_by):
            table.flush()
        return computed

    def work_rows(self) -> Iterator[Rows]:
        """Yield the documents that have a work row of their own, ascending, block by block."""
        for part in blocks(self.documents):
            yield part.start + np.flatnonzero(self.work[part] >= 0)

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many documents were added, changed and removed, and how many are reused."""
        added = changed = reused = 0
        for part in blocks(self.documents):
            taken, known = self.take[part] >= 0, self.same_id[part] >= 0
            added, changed = added + int((~taken & ~known).sum()), changed + int((~taken & known).sum())
            reused += int(taken.sum())
        gone = sum(int((self.still_there[part] == NONE).sum()) for part in blocks(len(self.still_there)))
        return added, changed, gone, reused

    def rows_of_runs(self, own: str) -> tuple[RowsOf, ...]:
        """Return how many rows each run computed; this run, `own`, is the last."""
        names = (*self.known.runs, own)
        rows = np.zeros(len(names), np.int64)
        for part in blocks(self.documents):
            rows += np.bincount(self.computed_by[part], minlength=len(names))
        return tuple(RowsOf(name, int(count)) for name, count in zip(names, rows, strict=True))


def _write_changes(path: Path, whole: Corpus, earlier: Earlier, tables: _Tables) -> None:
    """Write a line for each document that was added, changed or removed, with its row here or in the earlier run."""
    file = WholeFile(path)
    try:
        for row, article in enumerate(whole.articles()):
            if tables.take[row] < 0:
                change = "added" if tables.same_id[row] == NONE else "changed"
                file.write(_line({"change": change, "row": row, "id": article["id"]}))
        for row, article in enumerate(earlier.articles()):
            if tables.still_there[row] == NONE:
                file.write(_line({"change": "removed", "earlier_row": row, "id": article["id"]}))
        file.commit()
    finally:
        file.close()


def _line(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _since(run: Run, earlier: Earlier, tables: _Tables, computed: int, spot: int) -> Since:
    added, changed, removed, reused = tables.counts()
    manifest = earlier.manifest
    return Since(
        run=manifest.run,
        run_id=earlier.run.id,
        folder=str(earlier.run.folder),
        matrix=earlier.matrix,
        articles=manifest.outputs[earlier.merged.articles.name],
        documents=manifest.documents,
        limit=tuple(sorted(manifest.seen.get("max_tokens", {}))),
        added=added,
        changed=changed,
        removed=removed,
        reused=reused,
        computed=computed,
        spot=spot,
        runs=tables.rows_of_runs(run.name),
    )
