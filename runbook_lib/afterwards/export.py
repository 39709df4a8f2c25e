"""A result written as one file, or folder, that other tools read: a row a document, its vector beside it.

Written piece by piece under another name, and given its own when all bytes that were read are those of the merged
matrix. In float16 half of each number is lost; what that costs a search is measured on the vectors themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from worker.files import make_folder, sync_folder

from ..errors import DataError
from ..result import whole as wholes
from ..result.loss import Loss, half, measured
from ..run.disk import explain_disk_errors
from . import card
from .finished import ROWS, Finished, checked_blocks

FORMS = ("parquet", "hf", "safetensors", "npy")
DTYPES = ("float32", "float16")
SHARD_BYTES = 500 * 2**20  # of one file in a folder for `datasets`, about

OnRows = Callable[[int, int], None]


def _ignore(done: int, total: int) -> None:
    """Take no notice."""


@dataclass(frozen=True)
class Exported:
    """What was written: the path, its bytes, and what float16 cost (None for float32)."""

    path: Path
    bytes: int
    loss: Loss | None


@explain_disk_errors("exporting the result")
def export(
    result: Finished,
    form: str,
    target: Path | None = None,
    dtype: str = "float32",
    texts: bool = False,
    on_rows: OnRows = _ignore,
) -> Exported:
    """Write the result in a form of FORMS and return where. `texts`: also the text as encoded, of each document.

    Raises DataError if the target is there, or if the matrix is not the one that was merged: then nothing is left.
    """
    if form not in FORMS or dtype not in DTYPES:
        raise DataError(f"export: expected one of {', '.join(FORMS)} in {' or '.join(DTYPES)}, found {form} in {dtype}")
    target = (target or _default(result, form, dtype)).absolute()
    if os.path.lexists(target):
        raise DataError(f"{target}: there is such a file already. Next: take it away, or give another name (--out)")
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.part")
    _remove(partial)
    try:
        loss = measured(result.merged.embeddings, result.shape, half) if dtype == "float16" else None
        writer = {"parquet": _parquet_file, "hf": _folder, "safetensors": _safetensors, "npy": _npy}[form]
        writer(_Job(result, partial, dtype, texts, loss, on_rows))
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        _remove(partial)
    size = sum(file.stat().st_size for file in (target.rglob("*") if target.is_dir() else [target]) if file.is_file())
    return Exported(target, size, loss)


@dataclass(frozen=True)
class _Job:
    """One export: what is written where and how."""

    result: Finished
    path: Path
    dtype: str
    texts: bool
    loss: Loss | None
    on_rows: OnRows

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the vectors as they are written, in blocks of ROWS rows."""
        total = self.result.manifest.documents
        for block in checked_blocks(self.result, lambda done: self.on_rows(done, total)):
            yield block.astype(self.dtype) if self.dtype != "float32" else block


def _default(result: Finished, form: str, dtype: str) -> Path:
    half = "_float16" if dtype == "float16" else ""
    suffix = {"hf": "_dataset"}.get(form, f".{form}")
    return result.run.profile.output.folder / f"{result.run.name}{half}{suffix}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------- vectors alone


def _npy(job: _Job) -> None:
    """Write the matrix alone, as numpy reads it."""
    head = {"descr": np.dtype(job.dtype).newbyteorder("<").str, "fortran_order": False, "shape": _shape(job)}
    with job.path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        _rows(job, file)


def _safetensors(job: _Job) -> None:
    """Write the matrix as the tensor `vectors`, as the format's specification has it: length, JSON, bytes."""
    rows, dim = _shape(job)
    size = rows * dim * np.dtype(job.dtype).itemsize
    tensor = {"dtype": "F32" if job.dtype == "float32" else "F16", "shape": [rows, dim], "data_offsets": [0, size]}
    head = json.dumps({"__metadata__": card.facts(job.result, job.loss), "vectors": tensor}, ensure_ascii=True).encode()
    head += b" " * (-len(head) % 8)
    with job.path.open("xb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        _rows(job, file)


def _rows(job: _Job, file: IO[bytes]) -> None:
    for block in job.blocks():
        file.write(np.ascontiguousarray(block).data)
    file.flush()
    os.fsync(file.fileno())


def _shape(job: _Job) -> tuple[int, int]:
    return job.result.manifest.documents, job.result.manifest.dim


# ------------------------------------------------------------------------------------------------- tables


def _parquet_file(job: _Job) -> None:
    import pyarrow.parquet

    schema = _schema(job)
    with pyarrow.parquet.ParquetWriter(job.path, schema, compression="zstd", use_dictionary=["title"]) as writer:
        for table in _tables(job, schema):
            writer.write_table(table, row_group_size=ROWS)
    _sync(job.path)


def _folder(job: _Job) -> None:
    """Write a folder that `datasets.load_dataset` reads: shards of Parquet, a card, and Croissant's description."""
    import pyarrow.parquet

    rows, dim = _shape(job)
    per_shard = max(1, SHARD_BYTES // (dim * np.dtype(job.dtype).itemsize * ROWS)) * ROWS
    count = max(1, -(-rows // per_shard))
    data = job.path / "data"
    data.mkdir(parents=True)
    schema = _schema(job)
    tables = _tables(job, schema)
    for number in range(count):
        path = data / f"train-{number:05d}-of-{count:05d}.parquet"
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["title"]) as writer:
            for table in islice(tables, per_shard // ROWS):
                writer.write_table(table, row_group_size=ROWS)
        _sync(path)
    if next(tables, None) is not None:  # also lets the digest of all bytes be compared
        raise DataError(f"{job.path}: more rows than the {rows} that the manifest states")
    card.write(job.path, job.result, schema, job.loss)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _schema(job: _Job) -> Any:
    """The columns, ids as numbers where all are."""
    import pyarrow

    kinds = {type(document["id"]) for document in job.result.documents()}
    if kinds == {int}:
        widest = max(document["id"] for document in job.result.documents())
        key = pyarrow.uint64() if isinstance(widest, int) and widest >= 2**63 else pyarrow.int64()
    else:
        key = pyarrow.string()
    value = pyarrow.float32() if job.dtype == "float32" else pyarrow.float16()
    fields = [("row", pyarrow.int64()), ("id", key), ("title", pyarrow.string()), ("url", pyarrow.string())]
    fields += [("tokens", pyarrow.int32()), ("truncated", pyarrow.bool_())]
    fields += [("chunks", pyarrow.int32())] if job.result.manifest.chunked else []
    fields += [("text", pyarrow.string())] if job.texts else []
    fields += [("vector", pyarrow.list_(value, job.result.manifest.dim))]
    metadata = {f"runbook.{name}": value for name, value in card.facts(job.result, job.loss).items()}
    return pyarrow.schema(fields, metadata)


def _tables(job: _Job, schema: Any) -> Iterator[Any]:
    import pyarrow

    documents = job.result.documents()
    texts = wholes.all_documents(job.result.run).texts(range(job.result.manifest.documents)) if job.texts else iter(())
    for block in job.blocks():
        lines = list(islice(documents, len(block)))
        columns: dict[str, list[Any]] = {name: [line.get(name) for line in lines] for name in schema.names[:-1]}
        if job.texts:
            columns["text"] = list(islice(texts, len(block)))
        if schema.field("id").type == pyarrow.string():
            columns["id"] = [str(value) for value in columns["id"]]
        arrays = [pyarrow.array(columns[name], schema.field(name).type) for name in schema.names[:-1]]
        flat = pyarrow.array(np.ascontiguousarray(block).reshape(-1), schema.field("vector").type.value_type)
        vectors = pyarrow.FixedSizeListArray.from_arrays(flat, job.result.manifest.dim)
        yield pyarrow.Table.from_arrays([*arrays, vectors], schema=schema)
