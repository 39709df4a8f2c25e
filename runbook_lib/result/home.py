"""The parts at home: which of them differ from their records, and how such a part is put aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worker.files import sync_folder

from ..corpus import corpus as corpora
from ..errors import DataError
from ..run.run import Run
from .part_identity import fence_of
from .parts import read, verify


def unusable_parts(run: Run) -> Iterator[tuple[Path, str]]:
    """Return the parts at home that this run cannot use, each with the reason; reads every byte."""
    plan, fingerprints = run.plan(), corpora.load(run.corpus).fingerprints()
    for path in run.committed_parts:
        try:
            problems = verify(read(path), plan, fingerprints)
        except DataError as error:
            problems = [str(error)]
        if problems:
            yield path, "; ".join(problems)


def plainly_unusable_parts(run: Run) -> Iterator[tuple[Path, str]]:
    """Return the parts at home of fenced slots, and those whose array is missing or has another size than recorded.

    No sums are computed.
    """
    plan = run.plan() if run.plan_file.exists() else None
    for path in run.committed_parts:
        try:
            part = read(path)
            size = path.stat().st_size if path.is_file() else None
        except (DataError, OSError) as error:
            yield path, str(error)
            continue
        if plan and (fenced := fence_of(part.record, plan)):
            yield path, fenced
        elif size != part.bytes:
            yield path, f"expected {part.bytes} bytes, {'no such file' if size is None else f'found {size}'}"


def put_aside(run: Run, path: Path, why: str) -> None:
    """Move a part out of the parts folder, its record first: without a record the part does not count."""
    run.refused.mkdir(exist_ok=True)
    for file in (path.with_suffix(".json"), path):
        if file.exists():
            file.replace(_free(run.refused / file.name))
    sync_folder(path.parent)
    run.journal.write("part put aside", part=path.name, reason=why)


def _free(path: Path) -> Path:
    """Return a free file name next to `path`: earlier refused files are kept as evidence."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free
