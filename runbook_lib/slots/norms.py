"""The norms of very many rows as a histogram that widens its bins as it must: memory does not grow with the rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

FINE = 4096  # bins at most: a picture has a hundredth of them, so a norm is in its bar or at the edge of the next one
NARROWEST = 2.0**-44  # of a bin; a power of two, so that bins are joined in pairs


class Norms:
    """Norms, counted in bins of one width; `bad` counts those that are zero or no length at all."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.rows = self.bad = 0
        self.min, self.max, self._sum = math.inf, -math.inf, 0.0
        self._width, self._counts = NARROWEST, Counter[int]()
        self.add(values)

    def __len__(self) -> int:
        """How many rows were counted, with the bad ones."""
        return self.rows

    def __iter__(self) -> Iterator[float]:
        """The norms, each as the lower edge of its bin."""
        return (at * self._width for at in self._counts.elements())

    def add(self, values: Iterable[float]) -> None:
        """Count more norms."""
        values = list(values)
        finite = [value for value in values if 0 <= value < math.inf]
        self.rows += len(values)
        self.bad += len(values) - sum(value > 0 for value in finite)
        if not finite:
            return
        self.min, self.max = min(self.min, *finite), max(self.max, *finite)
        self._sum += sum(finite)
        self._widen()
        self._counts.update([math.floor(value / self._width) for value in finite])

    def _widen(self) -> None:
        """Join bins in pairs until those from the least to the greatest norm are few enough."""
        pairs = 0
        while (self.max - self.min) / self._width >= FINE:
            self._width, pairs = 2 * self._width, pairs + 1
        if pairs:
            joined = Counter[int]()
            for at, count in self._counts.items():
                joined[at >> pairs] += count
            self._counts = joined

    def copy(self) -> Norms:
        """The same, which stays as it is."""
        other = Norms()
        other.__dict__.update(self.__dict__, _counts=self._counts.copy())
        return other

    @property
    def mean(self) -> float:
        """The mean of the norms; there must be one."""
        return self._sum / self._counts.total()

    def histogram(self, bins: int, narrowest: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (counts, edges) of equal bins from the least to the greatest norm, at least `narrowest` in all."""
        if not self._counts:
            return np.zeros(0), np.zeros(0)
        room = max(0.0, narrowest - (self.max - self.min)) / 2
        places = np.array([(at + 0.5) * self._width for at in self._counts])
        weights = np.array(list(self._counts.values()))
        low, high = self.min - room, self.max + room
        counts, edges = np.histogram(np.clip(places, low, high), bins=bins, range=(low, high), weights=weights)
        return counts, edges
