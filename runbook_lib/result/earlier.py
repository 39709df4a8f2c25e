"""The earlier run of `--since`: its vectors may be taken if it is sealed, whole, and of the same model and choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worker.files import sha256_file

from ..errors import DataError, ProfileError
from ..records import Written
from ..run.model import Model
from ..run.opening import open_folder
from ..run.reading import Reading
from ..run.run import Run
from . import survey as surveys
from .articles import MergedArticle, merged_lines
from .manifest import Manifest
from .merged import Merged, differences
from .sealed import listed, was_sealed

WITHOUT = "Next: name another run, or leave out --since: runbook run PROFILE --new computes all documents"


@dataclass(frozen=True)
class Earlier:
    """A sealed run whose vectors may be taken: its result as sealed, and its manifest."""

    run: Run
    merged: Merged
    manifest: Manifest

    @property
    def matrix(self) -> Written:
        """Size and sha256 of its matrix, as sealed."""
        return self.manifest.outputs[self.merged.embeddings.name]

    def refused(self, why: str) -> DataError:
        """Return the error that says why its vectors cannot be taken."""
        return _refused(self.run.folder, why)

    def articles(self) -> Iterator[MergedArticle]:
        """Its documents in order. Raises DataError for a line that is none."""
        for row, line in enumerate(merged_lines(self.merged.articles)):
            if line is None or line.get("row") != row:
                raise DataError(f"{self.merged.articles}: line {row + 1}: expected the record of row {row}. {WITHOUT}")
            yield line


def open_earlier(folder: Path, own: Path | None = None) -> Earlier:
    """Open the run in `folder` as sealed; only sizes and small files are read. Raises DataError with the reason.

    `own`: the folder of the run that is to take its vectors.
    """
    refused = partial(_refused, folder)
    if own is not None and folder.resolve() == own.resolve():
        raise refused("it is this run itself")
    if not folder.is_dir():
        raise refused("it is gone: no such folder. Bring it back, if it was moved or deleted")
    try:
        run = open_folder(folder)
        merged = Merged(run.merged)
        manifest = merged.manifest()
        sealed = run.finished and was_sealed(run)
        sums = {name: sha256 for sha256, name in listed(run)} if sealed else {}
    except (DataError, ProfileError, OSError) as error:
        raise refused(f"it cannot be read: {error}") from None
    if manifest is None or not sealed:
        raise refused(f"it is not finished and sealed: its result is not proved (runbook status {folder.name})")
    prefix = merged.folder.name
    files = {f"{prefix}/{name}": stated.sha256 for name, stated in manifest.outputs.items()}
    files[f"{prefix}/{merged.manifest_file.name}"] = sha256_file(merged.manifest_file)
    if changed := [name for name, sha256 in files.items() if sums.get(name) != sha256]:
        raise refused(f"it is damaged: {', '.join(changed)} is not what was sealed (runbook verify {folder.name})")
    if wrong := [
        line for n, stated in manifest.outputs.items() for line in differences(merged.folder / n, stated, True)
    ]:
        raise refused(f"it is damaged: {wrong[0]} (runbook verify {folder.name})")
    return Earlier(run, merged, manifest)


def _refused(folder: Path, why: str) -> DataError:
    return DataError(f"--since {folder}: {why}. {WITHOUT}")


def check_same_model(earlier: Earlier, model: Model, dtype: str, reading: Reading) -> None:
    """Raise DataError unless the earlier vectors are those that this model would compute with these choices."""
    before, plan = earlier.manifest, earlier.run.plan()
    was_read = Reading(plan.max_tokens, plan.chunk_tokens)
    facts = (
        ("model", before.model.digest, model.digest),
        ("dtype", before.dtype, dtype),
        ("prompt", before.prompt, model.template),
        ("model.max_tokens", was_read.limit(model), reading.limit(model)),
        ("tokens of a chunk (model.too_long: chunk)", was_read.chunk_tokens, reading.chunk_tokens),
        ("numbers a vector", before.dim, model.dim or before.dim),
    )
    if wrong := [f"{what}: {was!r} there, {now!r} in this profile" for what, was, now in facts if was != now]:
        raise _refused(earlier.run.folder, f"its vectors are of other choices: {'; '.join(wrong)}")


def check_bytes(earlier: Earlier) -> None:
    """Read matrix and articles whole. Raises DataError if a byte of them changed since they were sealed."""
    for path in (earlier.merged.embeddings, earlier.merged.articles):
        if wrong := differences(path, earlier.manifest.outputs[path.name]):
            raise _refused(earlier.run.folder, f"it is damaged: {wrong[0]}")


def open_matrix(folder: Path, stated: Written, dim: int) -> np.ndarray:
    """Return the matrix of the run in `folder`, mapped, once its sha256 is as `stated`. Raises DataError."""
    path = Merged(folder / "merged").embeddings
    if wrong := differences(path, stated):
        raise DataError(
            f"--since {folder}: the vectors that this run takes from there are not there as they were: {wrong[0]}. "
            "Next: bring that run back as it was, or begin another run without --since (runbook run PROFILE --new)"
        )
    shape = surveys.header(path)
    if shape.dim != dim:
        raise DataError(f"--since {folder}: expected {dim} numbers a vector, found {shape.dim}. {WITHOUT}")
    matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return matrix
