"""The downloaded parts: the norms of their rows and the number of cut texts, from the parts' records."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from worker.files import read_json
from worker.layout import HostFolder
from worker.rows import Range
from worker.wire import PartRecord

from .norms import Norms


class Arrived:
    """Reads the record of each part once, at the first poll after its download."""

    def __init__(self, folder: HostFolder):
        self._folder = folder
        self._known: set[Range] = set()
        self.norms = Norms()
        self.truncated = 0

    def update(self, home: Sequence[Range]) -> None:
        """Read the records of the parts that are new among those at home."""
        for low, high in home:
            if (low, high) in self._known:
                continue
            self._known.add((low, high))
            try:
                record = PartRecord.from_json(read_json(self._folder.part(low, high).with_suffix(".json")))
            except (OSError, ValueError):  # damaged after its download: the merge refuses it, watching goes on
                continue
            self.norms.add(array("d", record.norms))
            self.truncated += len(record.truncated)
