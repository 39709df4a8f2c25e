"""Does the model load here and give an honest vector? Asked before any shard is staged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog."


def devices(cuda: bool) -> dict[str, Any]:
    """What can be known before a model is here: that the libraries import, and that every GPU multiplies matrices."""
    from .encoder import libraries

    found = libraries(cuda)
    if cuda and not found["gpus"]:
        found["error"] = f"torch {found['versions']['torch']} sees no GPU (built for CUDA {found['cuda_build']})"
    return found


def probe(model: Path, device: str, dtype: str) -> dict[str, Any]:
    """Load `model`, encode one sentence; give dim, norm, timings and versions. Raises what loading raises."""
    began = time.monotonic()
    import numpy as np

    from .encoder import Encoder

    encoder = Encoder(model, device, dtype, None)
    loaded_s = time.monotonic() - began
    vectors = encoder.encode([SENTENCE], encoder.lengths([SENTENCE]), [0])
    return {
        "dim": int(vectors.shape[1]),
        "norm": float(np.linalg.norm(vectors[0].astype(np.float64))),
        "bad": encoder.bad_rows(vectors).get(0, ""),
        "normalises": encoder.normalises,
        "max_tokens": encoder.max_tokens,
        "loaded_s": round(loaded_s, 2),
        **encoder.describe(),
    }
