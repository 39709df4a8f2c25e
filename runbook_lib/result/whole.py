"""The whole corpus of a run with --since: all its documents, and where each one's vector comes from.

The run's own corpus then holds only what must be computed, its *work rows*, so that plan, hosts and monitor see an
ordinary small corpus. In `whole/`, beside the files of a corpus:

    take.npy        int64 (documents,): a row of the earlier matrix, or -1 - w for the run's work row w
    lengths.npy     int64 (documents,): of a taken row what was recorded then (`taken.packed`); -1 of a work row
    computed_by.npy int32 (documents,): index into `runs` of the record: the run that computed the vector
    spot.npy        int64 (rows, 2): taken rows that are computed again: the document, and its work row
    changes.jsonl   one line for each document that was added, changed or removed
    since.json      the commit, written last: the earlier run, the counts, and the sha256 of these files
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.files import sync, write_json

from .. import records
from ..corpus import corpus as corpora
from ..corpus.corpus import Corpus
from ..corpus.keys import Rows
from ..errors import DataError
from ..records import Written
from ..run.plan import Plan
from ..run.run import Run
from .manifest import Since

FILES = ("take.npy", "lengths.npy", "computed_by.npy", "spot.npy", "changes.jsonl")
AGAIN = "Next: remove the folders whole and corpus of this run, then run again: they are made again"


@dataclass(frozen=True)
class _Record:
    """since.json."""

    since: Since
    corpus: str  # the fingerprint of the work rows
    files: dict[str, Written]


@dataclass(frozen=True)
class Whole:
    """All documents of a run with --since, and the origin of each one's vector."""

    corpus: Corpus
    since: Since
    work: str
    files: dict[str, Written]

    @property
    def folder(self) -> Path:
        """The folder of the whole corpus."""
        return self.corpus.folder

    @property
    def documents(self) -> int:
        """The number of documents: rows of the result."""
        return self.corpus.documents

    def take(self) -> Rows:
        """Where each document's vector is: a row of the earlier matrix, or -1 - w for work row w."""
        return self._array("take.npy", (self.documents,))

    def lengths(self) -> Rows:
        """Of each taken row 2 * tokens + cut; -1 of a work row."""
        return self._array("lengths.npy", (self.documents,))

    def computed_by(self) -> np.ndarray:
        """For each document the index into `since.runs` of the run that computed its vector."""
        return self._array("computed_by.npy", (self.documents,))

    def spot(self) -> Rows:
        """The taken rows that are computed again: (rows, 2) of document and work row."""
        return self._array("spot.npy", (self.since.spot, 2))

    def _array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        try:
            values: npt.NDArray[Any] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / name}: {error}. {AGAIN}") from None
        if values.shape != shape:
            raise DataError(f"{self.folder / name}: expected {shape}, found {values.shape}. {AGAIN}")
        return values

    @property
    def stated(self) -> dict[str, Written]:
        """All files of the folder but the two records, as they state them."""
        return {**self.files, **self.corpus.files}


def commit(folder: Path, since: Since, work: Corpus) -> None:
    """Write the record of the whole corpus in `folder`: from here on it is one."""
    for name in FILES:
        with (folder / name).open("rb") as file:
            sync(file.fileno())
    files = {name: Written.of(folder / name) for name in FILES}
    write_json(folder / "since.json", records.plain(_Record(since, work.fingerprint, files)))


def load(run: Run) -> Whole | None:
    """Return the whole corpus of a run with --since; None for other runs. Raises DataError if it is damaged."""
    if not run.since:
        return None
    record = records.read(_Record, run.whole / "since.json")
    if record is None:
        raise DataError(f"{run.whole / 'since.json'}: no such file. {AGAIN}")
    whole = Whole(corpora.load(run.whole), record.since, record.corpus, record.files)
    for name in FILES:
        size = (run.whole / name).stat().st_size if (run.whole / name).is_file() else "no such file"
        if name not in record.files or size != record.files[name].bytes:
            raise DataError(f"{run.whole / name}: {size}, not as recorded. {AGAIN}")
    return whole


def all_documents(run: Run) -> Corpus:
    """Return the corpus of a run's result: with --since all documents, and not the work rows alone."""
    whole = load(run)
    return corpora.load(run.corpus) if whole is None else whole.corpus


def work_row(whole: Whole | None, plan: Plan, row: int) -> int | None:
    """Return the row of the plan that computed a row of the result; None if it was taken. Questions come last."""
    if whole is None:
        return row
    if row >= whole.documents:
        return plan.documents + row - whole.documents
    place = int(whole.take()[row])
    return None if place >= 0 else -1 - place
