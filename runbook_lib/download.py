"""Download: bring committed parts home, each verified against its own record and the plan before its record lands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.layout import committed, count, missing, sync_folder, write_atomic

from . import corpus as corpora
from . import hosts as machines
from .checks import Checks
from .errors import DataError, HostError, RunbookError
from .plan import Plan
from .result import parts
from .run import Run


@dataclass(frozen=True)
class Collected:
    """What one round brought: `rows` home in all, `new` parts, and the parts refused, by name with the reason."""

    rows: int
    new: int
    refused: tuple[str, ...]
    failures: tuple[str, ...]


def collect(run: Run, on_progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> Collected:
    """Fetch every committed part that is not home yet, all hosts side by side.

    A part that its record or the plan does not vouch for is taken out of the host's parts, so that its rows are redone,
    and never gets a final name here.
    """
    plan, fingerprints = run.plan(), corpora.load(run.corpus).fingerprints()
    run.local.parts.mkdir(parents=True, exist_ok=True)
    results = machines.side_by_side(
        run.profile, run.name, lambda host: _collect_host(run, host, plan, fingerprints, on_progress)
    )
    new, refused, failures = 0, [], []
    for name, result in results.items():
        if isinstance(result, RunbookError):
            failures.append(f"{name}: {result}")
        else:
            new += result[0]
            refused += result[1]
    rows = plan.rows - count(missing(0, plan.rows, committed(run.local.parts)))
    return Collected(rows, new, tuple(refused), tuple(failures))


def _collect_host(
    run: Run,
    host: machines.Local,
    plan: Plan,
    fingerprints: np.ndarray[Any, Any],
    on_progress: Callable[[str, int, int], None],
) -> tuple[int, list[str]]:
    here = set(committed(run.local.parts))
    there = [tuple(r) for r in host.poll()["committed"]]
    wanted = [r for r in there if r not in here]
    refused = []
    for done, (start, stop) in enumerate(wanted):
        on_progress(host.name, done, len(wanted))
        try:
            _fetch(run, host, plan, fingerprints, start, stop)
        except DataError as error:
            refused.append(f"{host.name}: {error}")
            run.journal.write("part refused", host=host.name, start=start, stop=stop, reason=str(error))
            remote = host.folder.part(start, stop)
            host.remove(remote.with_suffix(".json"))  # the record first: without it there is no part
            host.remove(remote)
    on_progress(host.name, len(wanted), len(wanted))
    return len(wanted) - len(refused), refused


def _fetch(
    run: Run, host: machines.Local, plan: Plan, fingerprints: np.ndarray[Any, Any], start: int, stop: int
) -> None:
    """One part: fetched aside, held against record, plan and corpus; then the array moves in, then its record."""
    remote, home = host.folder.part(start, stop), run.local.part(start, stop)
    aside = run.folder / "incoming" / host.name / home.name
    try:
        raw = _record(host, remote.with_suffix(".json"))
        write_atomic(aside.with_suffix(".json"), raw)
        part = parts.read(aside.with_suffix(".json"))
        _get(host, part, remote, aside)
        if problems := parts.verify(part, plan, fingerprints):
            raise DataError(f"{remote.name}: {'; '.join(problems)}")
        aside.replace(home)
        sync_folder(home.parent)
        aside.with_suffix(".json").replace(home.with_suffix(".json"))
        sync_folder(home.parent)
    except OSError as error:
        raise HostError(f"{host.name}: keeping {remote.name} on this machine: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
            aside.with_suffix(".json").unlink(missing_ok=True)


def _record(host: machines.Local, path: Path) -> bytes:
    try:
        return host.read(path)
    except HostError as error:
        raise DataError(str(error)) from None


def _get(host: machines.Local, part: parts.Part, remote: Path, aside: Path) -> None:
    """Fetch a part's array. DataError only when it is the host's own file that is gone or damaged: where the way home
    or the disk here failed, the part there is sound and must stay."""
    try:
        host.get(remote, aside, part.sha256)
    except HostError as error:
        if host.sha256(remote) == part.sha256:
            raise
        raise DataError(f"{remote.name}: {error}") from None


def complete(run: Run) -> Checks:
    """Whether every row is home: the plan's "verify completion", counted in rows and not in files."""
    plan = run.plan()
    gaps = missing(0, plan.rows, committed(run.local.parts))
    named = ", ".join(f"{low}-{high}" for low, high in gaps[:10]) + (" …" if len(gaps) > 10 else "")
    checks = Checks("Every row is home")
    checks.add(
        "rows home",
        not gaps,
        f"{plan.rows - count(gaps):,} of {plan.rows:,}" + (f"; missing rows {named}" if gaps else ""),
        f"{plan.rows:,}",
        "run 02_launch and 03_monitor again: they do what is missing",
    )
    return checks
