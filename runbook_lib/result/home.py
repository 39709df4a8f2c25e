"""The parts at home, looked at: which are not what their records say, and how such a part is put aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worker.files import sync_folder
from worker.layout import committed

from ..corpus import corpus as corpora
from ..errors import DataError
from ..run.run import Run
from .parts import read, verify


def unsound(run: Run) -> Iterator[tuple[Path, str]]:
    """The parts at home that this run cannot use, each with the reason; every byte is read."""
    plan, fingerprints = run.plan(), corpora.load(run.corpus).fingerprints()
    for path in _paths(run):
        try:
            problems = verify(read(path), plan, fingerprints)
        except DataError as error:
            problems = [str(error)]
        if problems:
            yield path, "; ".join(problems)


def truncated_or_missing(run: Run) -> Iterator[tuple[Path, str]]:
    """The parts at home whose array is gone, or has another size than its record says; sums are not made."""
    for path in _paths(run):
        try:
            stated = read(path).bytes
            size = path.stat().st_size if path.is_file() else None
        except (DataError, OSError) as error:
            yield path, str(error)
            continue
        if size != stated:
            yield path, f"expected {stated} bytes, {'no such file' if size is None else f'found {size}'}"


def put_aside(run: Run, path: Path, why: str) -> None:
    """Take a part out of the parts, its record first: without it there is none, and its rows are missing."""
    run.refused.mkdir(exist_ok=True)
    for file in (path.with_suffix(".json"), path):
        if file.exists():
            file.replace(_free(run.refused / file.name))
    sync_folder(path.parent)
    run.journal.write("part put aside", part=path.name, reason=why)


def _free(path: Path) -> Path:
    """A name beside those that are there: what was refused before is evidence too."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free


def _paths(run: Run) -> list[Path]:
    return [run.local.part(start, stop) for start, stop in committed(run.local.parts)]
