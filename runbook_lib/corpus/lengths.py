"""How long the texts are, in characters: counted by length, so that memory does not grow with the documents."""

from __future__ import annotations

from collections import Counter

import numpy as np


class Lengths:
    """The number of texts of each length."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.texts = 0

    def add(self, characters: int) -> None:
        """Count one more text."""
        self._counts[characters] += 1
        self.texts += 1

    def statistics(self) -> dict[str, int]:
        """Return total, min, median, p95 and max; there must be a text."""
        values = np.array(sorted(self._counts), dtype=np.int64)
        counts = np.array([self._counts[value] for value in values.tolist()], dtype=np.int64)
        ends = np.cumsum(counts)

        def quantile(share: float) -> float:
            """The value at this place of all lengths in order; between two, in proportion, as numpy's percentile."""
            place = share * (self.texts - 1)
            low, high = (float(values[np.searchsorted(ends, at, side="right")]) for at in _around(place, self.texts))
            part = place - int(place)
            return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)

        return {
            "total": int((values * counts).sum()),
            "min": int(values[0]),
            "median": int(quantile(0.5)),
            "p95": int(quantile(0.95)),
            "max": int(values[-1]),
        }


def _around(place: float, texts: int) -> tuple[int, int]:
    return int(place), min(int(place) + 1, texts - 1)
