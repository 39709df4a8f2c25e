"""The encoder for a run's choices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .encoder import Encoder


def make(
    folder: Path,
    device: str,
    dtype: str,
    max_tokens: int | None,
    chunk_tokens: int | None,
    threads: int | None = None,
    templates: dict[str, str] | None = None,
) -> Encoder:
    """Load it. Long documents are cut at `max_tokens`, or read in chunks of at most `chunk_tokens`."""
    if chunk_tokens is not None:
        from .chunked import ChunkedEncoder

        return ChunkedEncoder(folder, device, dtype, chunk_tokens, threads, templates)
    from .encoder import Encoder

    return Encoder(folder, device, dtype, max_tokens, threads, templates)
