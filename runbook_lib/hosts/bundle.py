"""The worker's own files: which they are, and how they come to a host."""

from __future__ import annotations

from pathlib import Path

import worker
from worker.files import is_litter

from .content import file_content
from .hosts import Host

BUNDLE = Path(worker.__file__).parent


def bring_bundle(host: Host) -> int:
    """Bring the worker to a host, into the folder that was claimed; return how many of its files were new there."""
    return sum(host.put(host.folder.root / relative, file_content(source)) for relative, source in bundle_files())


def bundle_files() -> list[tuple[str, Path]]:
    """The files of the worker package, by the path that each takes below the run's folder on a host."""
    return [(f"worker/{path.name}", path) for path in sorted(BUNDLE.glob("*.py")) if not is_litter(path.name)]
