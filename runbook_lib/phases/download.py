"""Download: fetch committed parts; each is verified against its record and the plan before its record is stored."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.escape import safe_text
from worker.files import make_folder, sync_folder, write_atomic
from worker.layout import committed
from worker.rows import Covered, Range, count, missing

from ..corpus import corpus as corpora
from ..errors import DataError, HostError, LinkLost, RunbookError
from ..hosts import hosts as machines
from ..result import done_twice, home, part_identity, parts
from ..result.array_file import HEAD_LIMIT, ITEM_BYTES
from ..result.part_record import size_limit
from ..run import locks
from ..run.checks import Checks
from ..run.disk import explain, explain_disk_errors
from ..run.opening import limited
from ..run.plan import Plan
from ..run.run import Run
from ..slots import incidents
from .progress import OnProgress, ignore

TRIES = 3  # a part that was refused this often for the same reason is not fetched again
STREAMS = 2  # parallel downloads from one host: while one part is checked, the next one is transferred


@dataclass(frozen=True)
class Collected:
    """The result of one round: all `rows` at home, the number of `new` parts, the refused parts with the reasons.

    `aside`: parts at home whose size differed from their record; they were put aside and fetched again.
    """

    rows: int
    new: int
    refused: tuple[str, ...]
    failures: tuple[str, ...]
    aside: tuple[str, ...] = ()


@explain_disk_errors("bringing parts home")
def collect(run: Run, on_progress: OnProgress = ignore) -> Collected:
    """Fetch every committed part that is not at home yet, from all hosts in parallel.

    `on_progress(host, bytes, total bytes)` is called meanwhile.

    A part that does not match its record or the plan is removed from the host, so that its rows are redone, and never
    gets a final name here. A part at home whose size differs from its record is put aside first.
    """
    cut = list(home.plainly_unusable_parts(run))
    for path, why in cut:
        home.put_aside(run, path, why)
    plan, here = run.plan(), Covered(committed(run.local.parts))

    def wanted(host: machines.Host) -> list[Range]:
        return not_home(plan, host.name, _committed_there(run, host), here)

    new, refused, failures = _from_hosts(run, plan, wanted, on_progress, None)
    rows = plan.rows - count(missing(0, plan.rows, committed(run.local.parts)))
    aside = tuple(f"{path.name}: {why}" for path, why in cut)
    return Collected(rows, new, tuple(refused), tuple(failures), aside)


@explain_disk_errors("bringing parts home")
def fetch_parts(run: Run, parts_by_host: Mapping[str, Sequence[Range]], outage_s: float | None = None) -> list[str]:
    """Fetch these parts, each from its host, as `collect` does; return the refused ones with the reasons.

    Nothing is listed, here or there: while a run is watched this is done again and again. `outage_s`: how long a broken
    transfer is retried.
    """
    if not parts_by_host:
        return []
    hosts = limited(run, ",".join(parts_by_host))
    return _from_hosts(hosts, run.plan(), lambda host: list(parts_by_host[host.name]), ignore, outage_s)[1]


def not_home(plan: Plan, host: str, there: Sequence[Range], here: Covered) -> list[Range]:
    """Return the committed parts of a host that are not `here`.

    From a folder that two hosts share, each host fetches its own rows; of moved rows, the first part wins.
    """
    new = [part for part in there if here.missing(*part)]
    own = Covered(plan.rows_ever_given(host) if new else ())
    return [part for part in new if count(own.missing(*part)) < part[1] - part[0]]


def _from_hosts(
    run: Run,
    plan: Plan,
    wanted: Callable[[machines.Host], list[Range]],
    on_progress: OnProgress,
    outage_s: float | None,
) -> tuple[int, list[str], list[str]]:
    """Fetch what is wanted of each host; return the number of new parts, the refused ones, and the failed hosts."""
    fingerprints = corpora.load(run.corpus).fingerprints()
    make_folder(run.local.parts)

    def one(host: machines.Host) -> tuple[int, list[str]]:
        try:
            return _collect_host(run, host, plan, fingerprints, wanted(host), on_progress, outage_s)
        finally:
            incidents.link_breaks(run, host.name, host.breaks())

    results = machines.side_by_side(run, one)
    new, refused, failures = 0, [], []
    for name, error in results.failures.items():
        failures.append(f"{name}: {error}")
        incidents.host_failed(run, name, "parts brought home", error)
    for came, not_taken in results.ok.values():
        new += came
        refused += not_taken
    return new, refused, failures


def _committed_there(run: Run, host: machines.Host) -> list[Range]:
    """Return what a host has committed, and write into the journal how its workers ended."""
    reading = host.poll()
    incidents.record(run, host.name, reading)
    return list(reading.committed)


def _collect_host(
    run: Run,
    host: machines.Host,
    plan: Plan,
    fingerprints: np.ndarray[Any, Any],
    wanted: Sequence[Range],
    on_progress: OnProgress,
    outage_s: float | None,
) -> tuple[int, list[str]]:
    again = {part for part, (times, _) in _repeated_refusals(run, host.name).items() if times >= TRIES}
    wanted = [part for part in wanted if tuple(part) not in again and not _is_home(run, part)]
    total = sum(stop - start for start, stop in wanted) * plan.model.dim * ITEM_BYTES
    moved = 0
    refused: list[str] = []
    gone: list[Range] = []
    counting = threading.Lock()

    def count_bytes(n: int) -> None:
        nonlocal moved
        with counting:  # by two threads
            moved += n
            on_progress(host.name, min(moved, total), total)

    def fetch(part: Range) -> None:
        start, stop = part
        try:
            for last in (False, True):  # twice: a folder may be missing for a moment, and good work must stay
                try:
                    _fetch(run, host, plan, fingerprints, start, stop, count_bytes, outage_s)
                    return
                except DataError:
                    if part not in host.poll().committed:
                        gone.append(part)  # nothing to refuse; the next round tries again
                        return
                    if last:
                        raise
        except DataError as error:
            refused.append(f"{host.name}: {error}")
            run.journal.write("part refused", host=host.name, start=start, stop=stop, reason=str(error))
            remote = host.folder.part(start, stop)
            host.remove(remote.with_suffix(".json"))  # the record first: without it there is no part
            host.remove(remote)

    with ThreadPoolExecutor(STREAMS) as pool:
        futures = [pool.submit(fetch, part) for part in wanted]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()  # after a failure the rest waits for the next round
    return len(wanted) - len(refused) - len(gone), refused


def _is_home(run: Run, part: Range) -> bool:
    return run.local.part(*part).with_suffix(".json").exists()


def _fetch(
    run: Run,
    host: machines.Host,
    plan: Plan,
    fingerprints: np.ndarray[Any, Any],
    start: int,
    stop: int,
    on_bytes: Callable[[int], None],
    outage_s: float | None,
) -> None:
    """Fetch one part into `incoming/`, verify it with record, plan and corpus, then move the array, then its record."""
    remote, home = host.folder.part(start, stop), run.local.part(start, stop)
    aside = run.folder / "incoming" / host.name / home.name
    try:
        if stop > plan.rows:
            raise DataError(f"{remote.name}: rows: {start}-{stop} are not within the plan's 0-{plan.rows}")
        if stop - start > plan.part_rows:
            raise DataError(f"{remote.name}: rows: expected at most {plan.part_rows} in a part, found {stop - start}")
        raw = _record(host, remote.with_suffix(".json"), size_limit(stop - start))
        write_atomic(aside.with_suffix(".json"), raw)
        with _read_as_data(remote.name):
            part = parts.read(aside.with_suffix(".json"))
        if fenced := part_identity.fence_of(part.record, plan):
            raise DataError(f"{remote.name}: {fenced}")
        _get(host, part, remote, aside, (stop - start) * plan.model.dim * ITEM_BYTES + HEAD_LIMIT, on_bytes, outage_s)
        with _read_as_data(remote.name):
            if problems := parts.verify(part, plan, fingerprints):
                raise DataError(f"{remote.name}: {'; '.join(problems)}")
        with locks.held(run.landing_lock):
            if fenced := part_identity.fence_of(part.record, run.plan()):  # meanwhile
                raise DataError(f"{remote.name}: {fenced}")
            if home.with_suffix(".json").exists():  # of rows that moved, another host was first
                apart = min(done_twice.furthest(home, aside), sys.float_info.max)
                done_twice.note(run.journal, host.name, home, aside, apart)
                return
            aside.replace(home)
            sync_folder(home.parent)
            aside.with_suffix(".json").replace(home.with_suffix(".json"))
            sync_folder(home.parent)
    except OSError as error:
        raise HostError(explain(f"{host.name}: keeping {remote.name} on this machine", error)) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
            aside.with_suffix(".json").unlink(missing_ok=True)


@contextlib.contextmanager
def _read_as_data(name: str) -> Iterator[None]:
    """Turn any error of reading a host's file into a DataError: this file is refused, and no other."""
    try:
        yield
    except (RunbookError, OSError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"{name}: cannot be read as a part ({type(error).__name__}: {safe_text(str(error), 200)})"
        ) from error


def _record(host: machines.Host, path: Path, limit: int) -> bytes:
    try:
        return host.read(path, limit)
    except LinkLost:
        raise
    except HostError as error:
        raise DataError(str(error)) from None


def _get(
    host: machines.Host,
    part: parts.Part,
    remote: Path,
    aside: Path,
    limit: int,
    on_bytes: Callable[[int], None],
    outage_s: float | None,
) -> None:
    """Fetch a part's array. Raises DataError only if the host's file is missing or damaged: if the connection or the
    disk here failed, the host's part is good and must stay."""
    if part.bytes > limit:
        raise DataError(f"{remote.name}: its record says {part.bytes} bytes, its rows have at most {limit}")
    try:
        host.get(remote, aside, part.sha256, on_bytes, limit=limit, outage_s=outage_s)
    except LinkLost:
        raise
    except HostError as error:
        if host.sha256(remote) == part.sha256:
            raise
        raise DataError(f"{remote.name}: {error}") from None


def _repeated_refusals(run: Run, host: str = "") -> dict[Range, tuple[int, str]]:
    """Return part -> (how often it was refused for the same reason since watching began, that reason)."""
    refusals: dict[Range, tuple[int, str]] = {}
    for event in run.journal.events("watching", "part refused"):
        if event["event"] == "watching":
            refusals.clear()
        elif host in ("", event["host"]):
            part, reason = (event["start"], event["stop"]), f"{event['host']}: {event['reason']}"
            times, before = refusals.get(part, (0, ""))
            refusals[part] = (times + 1 if reason == before else 1, reason)
    return refusals


def _remedy(run: Run) -> str:
    """Return the remedy for missing rows: another one if the usual one failed several times for the same reason."""
    again = [why for times, why in _repeated_refusals(run).values() if times >= TRIES]
    if not again:
        return "run 02_launch and 03_monitor again: they do what is missing"
    return (
        f"a person has to look: {len(again)} parts were done {TRIES} times and refused each time for the same reason "
        f"({again[0][:300]}); find what is different on that host (its libraries, its disk), or move its rows away: "
        f"runbook move {run.name} HOST"
    )


def complete(run: Run) -> Checks:
    """Check that every row is at home: the plan's "verify completion", counted in rows and not in files."""
    plan = run.plan()
    gaps = missing(0, plan.rows, committed(run.local.parts))
    named = ", ".join(f"{low}-{high}" for low, high in gaps[:10]) + (" …" if len(gaps) > 10 else "")
    checks = Checks("Every row is home")
    checks.add(
        "rows home",
        not gaps,
        f"{plan.rows - count(gaps):,} of {plan.rows:,}" + (f"; missing rows {named}" if gaps else ""),
        f"{plan.rows:,}",
        _remedy(run),
    )
    return checks
