"""The published result of a run, for programs: vectors read from the disk as they are used, documents line by line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..result import publication
from ..result import whole as wholes
from ..result.articles import MergedArticle
from ..result.manifest import Manifest
from ..result.merged import Merged, differences
from ..result.survey import Header, blocks, has_direction, header, norms_of, unit
from ..run import opening
from ..run.run import Run
from . import embed as embedding

BLOCK_BYTES = 8 * 2**20
ROWS = 8192  # at a time


@dataclass(frozen=True)
class Found:
    """A document near a vector: its cosine, its row, and what the corpus says about it."""

    cosine: float
    row: int
    document: MergedArticle


@dataclass(frozen=True)
class Finished:
    """A run's result. Row i of `vectors` belongs to the i-th document of `documents`."""

    run: Run
    merged: Merged
    manifest: Manifest

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 (documents, dim), read-only, mapped from the disk."""
        return _mapped(self.merged.embeddings)

    @cached_property
    def questions(self) -> np.ndarray:
        """float32 (questions, dim), read-only: the vectors of the run's questions; without any, no rows."""
        if not self.manifest.questions:
            return np.zeros((0, self.manifest.dim), np.float32)
        return _mapped(self.merged.questions)

    @property
    def shape(self) -> Header:
        """Rows and width, with the place of the first row in the file."""
        return header(self.merged.embeddings)

    def documents(self) -> Iterator[MergedArticle]:
        """Yield each document in order: row, id, title, url, tokens, truncated, fingerprint. Raises DataError."""
        with self.merged.articles.open("rb") as file:
            row = -1
            for row, line in enumerate(file):
                yield _document(self.merged.articles, row, line)
        if row + 1 != self.manifest.documents:
            expected = f"expected {self.manifest.documents} documents, found {row + 1}"
            raise DataError(f"{self.merged.articles}: {expected}. Next: runbook verify {self.run.name}")

    def table(self) -> dict[str, list[Any]]:
        """All documents as columns: `pandas.DataFrame(run.table())`, `polars.DataFrame(run.table())`."""
        columns: dict[str, list[Any]] = {}
        for document in self.documents():
            for name, value in document.items():
                columns.setdefault(name, []).append(value)
        return columns

    def texts(self, rows: Iterable[int]) -> list[str]:
        """The texts of some rows as they were encoded, with the prompt. Raises DataError without the run's corpus."""
        return list(wholes.all_documents(self.run).texts(rows))

    def embed(self, questions: Sequence[str], model: Path | None = None) -> np.ndarray:
        """Return the vectors of questions by the run's own model, float32 (questions, dim); see `embed.embed`."""
        return embedding.embed(self.run, questions, model)

    def search(self, question: str, count: int = 10, model: Path | None = None) -> list[Found]:
        """Return the documents nearest to a question, best first. Raises DataError where the model is not here."""
        return self.nearest(self.embed([question], model)[0], count)

    def nearest(self, vector: Any, count: int = 10) -> list[Found]:
        """Return the documents with the highest cosine to a vector (dim,), best first; memory does not grow with rows.

        Raises DataError for a vector of another width or without a direction.
        """
        direction = self._direction(vector)
        rows, cosines = np.zeros(0, np.int64), np.zeros(0, np.float32)
        at_once = max(1, BLOCK_BYTES // (4 * self.manifest.dim))
        for low, block in blocks(self.merged.embeddings, self.shape, at_once):
            norms = norms_of(block)
            scores = unit(block, norms) @ direction
            scores[~has_direction(norms)] = -np.inf
            cosines, rows = np.concatenate([cosines, scores]), np.concatenate([rows, low + np.arange(len(block))])
            order = np.lexsort((rows, -cosines))[:count]  # of equal ones the first
            cosines, rows = cosines[order], rows[order]
        documents = self._documents({int(row) for row in rows})
        pairs = zip(cosines, rows, strict=True)
        return [Found(float(cosine), int(row), documents[int(row)]) for cosine, row in pairs if np.isfinite(cosine)]

    def _direction(self, vector: Any) -> np.ndarray:
        given = np.asarray(vector, np.float32).reshape(-1)
        if given.shape != (self.manifest.dim,):
            raise DataError(f"searching {self.run.name}: expected a vector of {self.manifest.dim}, found {given.shape}")
        direction: np.ndarray = unit(given[None])[0]
        if not direction.any():
            raise DataError(f"searching {self.run.name}: the vector is zero or not finite, so nothing is near it")
        return direction

    def _documents(self, wanted: set[int]) -> dict[int, MergedArticle]:
        documents = {}
        with self.merged.articles.open("rb") as file:
            for row, line in enumerate(file):
                if row in wanted:
                    documents[row] = _document(self.merged.articles, row, line)
        if missing := wanted - documents.keys():
            raise DataError(
                f"{self.merged.articles}: no line for row {min(missing)}; runbook verify says what is wrong"
            )
        return documents


def load(run: str | Path | Run) -> Finished:
    """Open the result of a run: a `Run`, its folder, or its name under ./runs.

    Sizes are compared with the record; every byte is `runbook verify`'s. Raises DataError without a published result.
    """
    opened = run if isinstance(run, Run) else opening.find(str(run))
    record = publication.published(opened)
    if record is None:
        raise DataError(f"run {opened.name} has no result yet. Next: runbook run PROFILE --run {opened.name}")
    merged = Merged(opened.merged)
    manifest = merged.manifest()
    if manifest is None:
        raise DataError(f"{merged.manifest_file}: no such file. Next: runbook verify {opened.name}")
    for name, stated in manifest.outputs.items():
        if wrong := differences(merged.folder / name, stated, quick=True):
            raise DataError(f"{wrong[0]}. Next: runbook verify {opened.name}")
    return Finished(opened, merged, manifest)


def checked_blocks(result: Finished, on_rows: Callable[[int], None]) -> Iterator[np.ndarray]:
    """Yield the vectors in blocks of ROWS rows; then raise DataError if any byte was not that which was merged."""
    digest, path, shape = hashlib.sha256(), result.merged.embeddings, result.shape
    with path.open("rb") as file:
        digest.update(file.read(shape.bytes))
    for low, block in blocks(path, shape, ROWS):
        digest.update(block.data)
        yield block
        on_rows(low + len(block))
    expected = result.manifest.outputs[path.name].sha256
    if digest.hexdigest() != expected:
        sums = f"expected sha256 {expected}, found {digest.hexdigest()}"
        raise DataError(f"{path}: {sums}. Next: runbook verify {result.run.name}")


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _document(path: Path, row: int, line: bytes) -> MergedArticle:
    try:
        document: MergedArticle = json.loads(line)
        if document["row"] != row:
            raise ValueError(f"it says row {document['row']}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: line {row + 1} is not the record of row {row}: {error}") from None
    return document
