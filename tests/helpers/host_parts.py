"""A host's folder with parts of a made-up run in it, for those who bring them home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np

from runbook_lib.hosts import hosts
from runbook_lib.run.run import Run

RANGES = [(0, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 21)]


class There:
    """A made-up run and the parts in its host's folder."""

    def __init__(self, tmp_path: Path, dim: int = made_up.DIM, names: Sequence[str] = ("here",)) -> None:
        self.made = made_up.run_folder(tmp_path, dim=dim)
        spec = replace(self.made.run.profile.hosts[0], workdir=str(tmp_path / "host"))
        specs = tuple(replace(spec, name=name) for name in names)
        self.run = Run(self.made.run.folder, replace(self.made.run.profile, hosts=specs))
        self.folder = hosts.connect(spec, self.run.name).folder

    def commit(self, start: int, stop: int, rows: np.ndarray | None = None, **changes: Any) -> Path:
        values = self.made.vectors[start:stop] if rows is None else rows
        made_up.commit(self.folder, start, values, self.made.record(start, stop, **changes))
        return self.folder.part(start, stop)

    def commit_all(self) -> list[Path]:
        return [self.commit(*r) for r in RANGES]

    def names(self, folder: Path | None = None) -> list[str]:
        return sorted(path.name for path in (folder or self.run.local.parts).iterdir())
