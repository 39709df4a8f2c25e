"""The merged result of a run: its files, and the manifest that commits them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from worker.files import read_json, sha256_file, write_json
from worker.layout import FORMAT

from .. import records
from ..errors import DataError
from ..records import Json, Written
from .founding import FoundingContent
from .manifest import Manifest

MANIFEST_BYTES = 2**30  # our own file, with some 250 bytes a part
AGAIN = "merge again (04_merge_validate, or runbook run)"


@dataclass(frozen=True)
class Merged:
    """The paths of a run's merged files; `Merged(run.merged)`."""

    folder: Path

    @property
    def embeddings(self) -> Path:
        """Row i is the vector of document i: float32 (documents, dim)."""
        return self.folder / "embeddings.npy"

    @property
    def questions(self) -> Path:
        """The questions' vectors, if the run has questions: float32 (questions, dim)."""
        return self.folder / "questions.npy"

    @property
    def articles(self) -> Path:
        """One line for each document: row, id, title, url, tokens, truncated, fingerprint."""
        return self.folder / "articles.jsonl"

    @property
    def manifest_file(self) -> Path:
        """Written last: without it there is no merged result."""
        return self.folder / "manifest.json"

    def manifest(self) -> Manifest | None:
        """Read the manifest; return None before the first merge. Raises DataError if it was changed."""
        try:
            value = read_json(self.manifest_file, MANIFEST_BYTES)
        except (OSError, ValueError) as error:
            raise DataError(f"reading the manifest: {error}; delete {self.manifest_file} and {AGAIN}") from None
        if value is None:
            return None
        if value.pop("sha256", None) != _digest(value) or value.get("format") != FORMAT:
            raise DataError(f"{self.manifest_file}: changed since it was written; delete it and {AGAIN}")
        return records.parse(Manifest, value, str(self.manifest_file))

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest with its own digest: this makes the merged result valid."""
        value = records.plain(manifest)
        write_json(self.manifest_file, {**value, "sha256": _digest(value)})

    def content(self, manifest: Manifest) -> FoundingContent:
        """Return the content of the file in the founding shape."""
        return FoundingContent(
            embeddings=self.embeddings,
            articles=self.articles,
            documents=manifest.documents,
            dim=manifest.dim,
            model=manifest.model.name,
            timestamp=manifest.timestamp,
        )

    def problems(self, manifest: Manifest) -> list[str]:
        """Return in words which merged files differ from the manifest; reads every file."""
        return [line for name, stated in manifest.outputs.items() for line in differences(self.folder / name, stated)]


def _digest(manifest: Json) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def differences(path: Path, stated: Written, quick: bool = False) -> list[str]:
    """Return in words how a file differs from its stated size and sha256; with `quick`, compare the size only.

    It is read only if the size is right. An unreadable file counts as different.
    """
    try:
        size = path.stat().st_size
        if size != stated.bytes:
            return [f"{path}: expected {stated.bytes} bytes, found {size}"]
        sha256 = stated.sha256 if quick else sha256_file(path)
    except FileNotFoundError:
        return [f"{path}: no such file"]
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    return [] if sha256 == stated.sha256 else [f"{path}: expected sha256 {stated.sha256}, found {sha256}"]
