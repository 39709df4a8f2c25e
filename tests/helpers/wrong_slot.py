"""A host's Python whose workers compute wrong in a way that no check on that host sees: stands in for a bad machine.

`host_python(folder, harm)` gives the path of one; called as `python -m worker ...` like any. Everything but the vectors
of a worker is the real thing; what is tried before a run, and what computes rows a second time, is right.

    noise    a little noise in every vector: more than rounding, less than a second computation on the host allows
    late     the same, from the third part on
    lower    the tokenizer is given small letters
    first    the vector of a text's first half
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SMALL = 2.5e-3  # of a vector's length: 1 - cosine is 3e-6
CALLS: list[int] = []


def host_python(folder: Path, harm: str, python: str = sys.executable) -> Path:
    """A Python, made in `folder`, whose workers do this harm; what it starts is started by `python`."""
    path = folder / "bin" / f"python-{harm}"
    path.parent.mkdir(parents=True, exist_ok=True)
    wrong, right = (f'exec "{python}" {more}"$@";;' for more in (f'"{__file__}" ', ""))
    path.write_text(f'#!/bin/sh\nexport WRONG_SLOT={harm}\ncase "$3" in encode|warm) {wrong} *) {right} esac\n')
    path.chmod(0o755)
    return path


def noisy(vectors: Any, texts: Sequence[str]) -> Any:
    """Vectors with a little noise, the same for the same text."""
    import numpy as np

    for vector, text in zip(vectors, texts, strict=True):
        noise = np.random.default_rng(zlib.crc32(text.encode())).normal(size=len(vector))
        vector += SMALL * noise / np.linalg.norm(noise)
        vector /= np.linalg.norm(vector)
    return vectors


def patched(encode: Callable[..., Any], harm: str) -> Callable[..., Any]:
    """The encoder's own `encode`, done wrong by a worker."""

    def wrong(self: Any, texts: Sequence[str], lengths: Any, rows: Sequence[int], *more: Any) -> Any:
        if "encode" not in sys.argv:  # the warm process forks second opinions too
            return encode(self, texts, lengths, rows, *more)
        of_part = len(rows) > 0 and rows[0] >= 0
        CALLS.extend([1] * of_part)
        if harm == "noise" or (harm == "late" and len(CALLS) > 2):
            return noisy(encode(self, texts, lengths, rows, *more), texts)
        if harm in ("lower", "first"):
            texts = [t.lower() if harm == "lower" else t[: 1 + len(t) // 2] for t in texts]
            lengths = self.lengths(texts)
        return encode(self, texts, lengths, rows, *more)

    return wrong


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # the worker as sent to this host
    from worker import encoder
    from worker.__main__ import main

    encoder.Encoder.encode = patched(encoder.Encoder.encode, os.environ["WRONG_SLOT"])  # type: ignore[method-assign]
    sys.exit(main(sys.argv[3:]))
