"""The published matrix in other forms: in shards, or smaller as float16 or int8 with what that loses beside it.

    embeddings-00000-of-00016.npy ...   npy-shards: the same float32 rows, one file after the other
    embeddings.npy                      npy-float16: the rows rounded; npy-int8: int8, each row times its scale
    scales.npy                          npy-int8: float32, one for each row; row i is embeddings[i] * scales[i]
    index.json                          the commit, written last: which rows and which sha256 each file has

The matrix is read once and held against its sha256; nothing of an export stays where it changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.files import make_folder, write_json

from .. import records
from ..corpus.columns import Column
from ..errors import DataError
from ..records import Written
from ..run.run import Run
from . import loss, publication
from . import survey as surveys
from .large_files import write
from .merged import Merged
from .survey import Header

FORMAT, INDEX = 1, "index.json"
FLOAT16, INT8, SHARDS = "npy-float16", "npy-int8", "npy-shards"
KINDS = (FLOAT16, INT8, SHARDS)
SHARD_BYTES = 2**30
REMEDY = "Free space there, or name another folder (--out)."


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: the rows [start, stop) of the matrix, and what it is."""

    rows: tuple[int, int]
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Exported:
    """index.json. `recall_at_10` and `lowest_cosine` to float32, see `loss`, over `sampled` rows; None: no loss."""

    format: int
    kind: str
    run: str
    model: str
    documents: int
    dim: int
    matrix_sha256: str
    files: dict[str, ExportedFile]
    recall_at_10: float | None = None
    lowest_cosine: float | None = None
    sampled: int = 0


def export(run: Run, kind: str, folder: Path, shard_bytes: int = SHARD_BYTES) -> Exported:
    """Write the run's published matrix into `folder`, which must be new or empty, and return what it is.

    Raises DataError where nothing is published, the matrix is not as published, or a value does not fit the form.
    """
    if kind not in KINDS:
        raise DataError(f"no export of kind {kind!r}; there are: {', '.join(KINDS)}")
    merged, sha256, shape, model = _source(run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"exporting: {folder} is there and not empty; nothing was written. Next: name another (--out)")
    make_folder(folder)
    try:
        reading = _Reading(merged.embeddings, shape)
        files = _shards(reading, folder, shard_bytes) if kind == SHARDS else _smaller(reading, folder, kind)
        if reading.sha256 != sha256:
            raise DataError(
                f"{merged.embeddings}: sha256 {reading.sha256}, published as {sha256}; nothing was exported. "
                f"Next: runbook verify {run.name}"
            )
        lost = None if kind == SHARDS else loss.measured(merged.embeddings, shape, lambda rows: _read_back(kind, rows))
    except BaseException:
        for file in folder.iterdir():
            file.unlink()
        raise
    index = Exported(FORMAT, kind, run.name, model, shape.rows, shape.dim, sha256, files)
    if lost is not None:
        index = replace(index, recall_at_10=lost.recall, lowest_cosine=lost.lowest_cosine, sampled=shape.rows)
    write_json(folder / INDEX, records.plain(index), 0o644)
    return index


def _source(run: Run) -> tuple[Merged, str, Header, str]:
    merged = Merged(run.merged)
    manifest = merged.manifest() if publication.published(run) else None
    if manifest is None:
        raise DataError(f"exporting: run {run.name} has no published result yet. Next: runbook run PROFILE")
    return (
        merged,
        manifest.outputs[merged.embeddings.name].sha256,
        surveys.header(merged.embeddings),
        manifest.model.name,
    )


class _Reading:
    """The rows of a matrix in order, each read once; `sha256` of the whole file after the last one."""

    def __init__(self, path: Path, shape: Header):
        self.shape = shape
        self._digest = hashlib.sha256()
        with path.open("rb") as file:
            self._digest.update(file.read(shape.bytes))
        self._rows = max(1, surveys.BLOCK_BYTES // (4 * shape.dim))
        self._blocks = surveys.blocks(path, shape, self._rows)
        self._rest = np.zeros((0, shape.dim), np.float32)

    @property
    def sha256(self) -> str:
        """Of what was read."""
        return self._digest.hexdigest()

    def take(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the next rows, a block at a time."""
        while rows:
            if not len(self._rest):
                self._rest = next(self._blocks)[1]
                self._digest.update(self._rest.data)
            block, self._rest = self._rest[:rows], self._rest[rows:]
            rows -= len(block)
            yield block


def _npy(dtype: str, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> Iterator[bytes]:
    """The bytes of a .npy file."""
    head = Column()
    yield next(head.npy(np.dtype(dtype).type, shape))
    head.close()
    for block in chunks:
        yield np.ascontiguousarray(block, dtype).tobytes()


def _shards(reading: _Reading, folder: Path, shard_bytes: int) -> dict[str, ExportedFile]:
    rows, dim = reading.shape.rows, reading.shape.dim
    count = max(1, -(-rows * dim * 4 // shard_bytes))
    files = {}
    for at in range(count):
        start, stop = rows * at // count, rows * (at + 1) // count
        name = f"embeddings-{at:05d}-of-{count:05d}.npy"
        chunks = _npy("<f4", (stop - start, dim), reading.take(stop - start))
        files[name] = _exported((start, stop), write(folder / name, chunks, (stop - start) * dim * 4, REMEDY))
    return files


def _smaller(reading: _Reading, folder: Path, kind: str) -> dict[str, ExportedFile]:
    rows, dim = reading.shape.rows, reading.shape.dim
    scales = Column(folder)

    def small(block: np.ndarray) -> np.ndarray:
        values, scale = _FORMS[kind](block)
        if not np.isfinite(values).all():
            raise DataError(f"exporting: a number is too large for {kind}; nothing was exported. Next: --to {SHARDS}")
        scales.append(scale.tobytes())
        return values

    dtype, width = ("<f2", 2) if kind == FLOAT16 else ("|i1", 1)
    try:
        chunks = _npy(dtype, (rows, dim), map(small, reading.take(rows)))
        written = write(folder / "embeddings.npy", chunks, rows * dim * width, REMEDY)
        files = {"embeddings.npy": _exported((0, rows), written)}
        if kind == INT8:
            written = write(folder / "scales.npy", scales.npy(np.float32, (rows,)), rows * 4, REMEDY)
            files["scales.npy"] = _exported((0, rows), written)
    finally:
        scales.close()
    return files


def _exported(rows: tuple[int, int], written: Written) -> ExportedFile:
    return ExportedFile(rows, written.sha256, written.bytes)


def _as_float16(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        return block.astype(np.float16), np.zeros(0, np.float32)


def _as_int8(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = (np.abs(block).max(axis=1) / 127).astype(np.float32)
    usable = np.where(scale > 0, scale, 1.0)
    return np.rint(block / usable[:, None]).astype(np.int8), scale


def _read_back(kind: str, block: np.ndarray) -> np.ndarray:
    """The rows as a search in that form sees them: a row's scale does not change its direction."""
    values: np.ndarray = _FORMS[kind](block)[0].astype(np.float32)
    return values


_FORMS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {FLOAT16: _as_float16, INT8: _as_int8}
