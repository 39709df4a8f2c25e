"""What was downloaded: the norms of its rows and how many texts were cut, from the records of the parts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from worker.files import read_json
from worker.layout import HostFolder
from worker.rows import Range
from worker.wire import PartRecord


class Arrived:
    """Reads the record of each part once, at the first look after it came. `norms` is one list that grows."""

    def __init__(self, folder: HostFolder):
        self._folder = folder
        self._known: set[Range] = set()
        self.norms: array[float] = array("d")
        self.norms_bad = 0
        self.truncated = 0

    def update(self, home: Sequence[Range]) -> None:
        """Take in what is new among the parts that are home."""
        for low, high in home:
            if (low, high) in self._known:
                continue
            self._known.add((low, high))
            try:
                record = PartRecord.from_json(read_json(self._folder.part(low, high).with_suffix(".json")))
            except (OSError, ValueError):  # damaged here since it came: the merge refuses it, looking goes on
                continue
            norms = array("d", record.norms)
            self.norms.extend(norms)
            self.norms_bad += sum(not (math.isfinite(norm) and norm > 0) for norm in norms)
            self.truncated += len(record.truncated)
