"""What goes to a GPU and comes back from it without waiting: through memory that the device reads and writes by itself.

Elsewhere the same calls do nothing, or wait.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import torch


def pinned(features: dict[str, Any]) -> dict[str, Any]:
    """The same features in memory that a GPU can copy from while this process does something else."""
    return {name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in features.items()}


def fetched(vectors: torch.Tensor) -> Callable[[], np.ndarray]:
    """Have vectors, float32 (rows, dim), copied here; what is returned waits for them.

    On a GPU the copy is begun once they are computed, and this returns at once.
    """
    if vectors.device.type != "cuda":
        here: np.ndarray = vectors.cpu().numpy()
        return lambda: here
    there = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    there.copy_(vectors, non_blocking=True)
    copied: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # its core is for the tokenizer
    copied.record()

    def wait() -> np.ndarray:
        copied.synchronize()
        return there.numpy()

    return wait
