"""One worker: encode the rows of one slot's shard that are not committed yet, part by part.

Top to bottom: settings, what is left to do, load, loop, commit. Whatever kills it, starting it again does the rest.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import locks, malloc, owned, process, states
from .allotted import assignment_of, placed
from .any_encoder import AnyEncoder
from .around import Around, Task
from .blame import GivenUp, LeftToOthers, Suspects, quarantine
from .canaries import Canaries
from .device import kind
from .escape import safe_text
from .fields import read_record
from .files import never_make, write_atomic, write_json
from .guard import Guard
from .layout import HostFolder
from .part import encode_part
from .progress import Progress
from .recheck import Recheck
from .room import DISK_FULL
from .say import say
from .second import DeviceFault, Second
from .share import Refused, Share
from .texts import DOCUMENT, QUERY
from .wire import PACKED, Again, Assignment, EncodingIdentity, Holder, ModelName, PartRecord, RowsRecord, WorkerReport

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_BUSY, EXIT_DISK, EXIT_DEVICE, EXIT_STOPPED = 0, 1, 2, 3, 5, 6, 143


class Stopped(BaseException):
    """This worker was asked to end."""


class Leaving:
    """Told by SIGUSR1 that its time is nearly over, a worker ends after the part that it computes."""

    def __init__(self) -> None:
        self.asked = False
        self._share: Share | None = None
        signal.signal(signal.SIGUSR1, self._told)

    def after_this_part(self, share: Share) -> None:
        """What is told from here on ends this share of the work; what was told before does at once."""
        self._share = share
        if self.asked:
            share.stop()

    def _told(self, signum: int, frame: object) -> None:
        self.asked = True
        if self._share:
            self._share.stop()


def npy_chunks(vectors: Any) -> Iterator[bytes]:
    """A float32 array as the bytes of a .npy file."""
    import numpy as np

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(vectors))
    yield head.getvalue()
    yield vectors.tobytes()


def commit(folder: HostFolder, vectors: Any, record: PartRecord) -> None:
    """Write the array, float32 (rows, dim), then its record, with the array's sum and size: the record commits.

    Neither is ever modified afterwards.
    """
    array = folder.part(record.start, record.stop)
    if array.with_suffix(".json").exists():  # rows moved to another slot, and that one was faster
        say(f"rows {record.start}-{record.stop} are committed already; left as they are")
        return
    digest = write_atomic(array, npy_chunks(vectors))
    whole = replace(record, sha256=digest, bytes=array.stat().st_size)
    write_json(array.with_suffix(".json"), whole.to_json())


def take_lock(path: Path, verb: str = "", host: str = "", or_without: bool = False) -> int | None:
    """A lock that ends with this process and says whose it is, or None when another one holds it.

    `or_without`: on a file system that refuses locks, as a cluster's may, it goes on without one: the scheduler starts
    a task once, and what is computed twice all the same is one result.
    """
    try:
        lock = locks.take(path)
    except OSError as error:
        if not or_without:
            raise
        say(f"{error}: goes on without")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if lock is not None:
        with contextlib.suppress(OSError):  # a full disk: held all the same
            locks.sign(lock, Holder(process.identify(os.getpid()), verb, host))
    return lock


def load(assignment: Assignment, device: str, dtype: str, threads: int) -> AnyEncoder:
    """The model that an assignment names, on a device. Raises Refused where it cannot be packed and is to be."""
    from .loading import make

    if device == "cpu":
        malloc.keep()
    templates = {DOCUMENT: assignment.prompt, QUERY: assignment.question_prompt}
    limits = assignment.max_tokens, assignment.chunk_tokens
    encoder = make(Path(assignment.model.folder), device, dtype, *limits, threads, templates)
    if assignment.batching == PACKED and (why := encoder.pack()):
        raise Refused(
            f"{assignment.model.folder}: batches: expected packed, as the run began and as this host could when it was "
            f"tried; seen: {why}. Next: give it the libraries of then (runbook check says which it has), or begin "
            "another run (runbook run PROFILE --new)"
        )
    return encoder


def _identity(encoder: AnyEncoder, assignment: Assignment, vectors: Any) -> EncodingIdentity:
    model = ModelName(assignment.model.name, assignment.model.revision, assignment.model.digest)
    return EncodingIdentity(
        model,
        assignment.dtype,
        assignment.prompt,
        assignment.question_prompt,
        max_tokens=encoder.max_tokens,
        normalises=encoder.normalises,
        dim=int(vectors.shape[1]),
        batching=assignment.batching,
        chunk_tokens=assignment.chunk_tokens,
    )


def work(folder: HostFolder, share: Share, progress: Progress) -> None:
    """Do what is left of one slot, then help its neighbours. Raises LeftToOthers for rows that it cannot do."""
    suspects = Suspects(folder, share.slot)
    suspects.spare()  # until a row is computed again, a death is not its fault
    done = share.done()
    progress.update(rows_committed=done, write=True)
    say(f"worker {share.slot}: {share.rows} rows, {done} committed before, {share.left()} to do")
    if (task := share.next()) is None:
        return
    share.release(task[0])  # others may do these rows, should the model never come to be loaded
    with contextlib.ExitStack() as ended:
        second = ended.enter_context(contextlib.closing(Second(folder, share.assignment, share.spec, progress.doing)))
        recheck = ended.enter_context(contextlib.closing(Recheck(folder, share, progress.doing)))
        canaries = Canaries(folder, share.slot, share.assignment, progress)
        _encode_all(folder, share, progress, suspects, second, recheck, canaries)


def _ready(folder: HostFolder, share: Share, progress: Progress, second: Second, canaries: Canaries) -> AnyEncoder:
    """The model of a slot, loaded on a device that does known texts as the processor does."""
    assignment = share.assignment
    progress.update(state=states.LOADING, write=True)
    second.begin()
    began = time.monotonic()
    if why := owned.used(folder.root, Path(assignment.model.folder)):
        raise Refused(why)
    encoder = load(assignment, share.spec.device, assignment.dtype, share.spec.threads)
    loaded_s, device = round(time.monotonic() - began, 2), encoder.describe().device
    say(f"model loaded in {loaded_s} s: {device}, {assignment.dtype}")
    progress.update(loaded_s=loaded_s, device=device, write=True)
    second.check(encoder)
    if why := second.blind():
        say(f"the device is not held against what the processor gives: {why}")
    canaries.compute(encoder)
    progress.update(state=states.RUNNING, computed=0, write=True)
    return encoder


def _record(
    encoder: AnyEncoder, share: Share, task: Task, vectors: Any, rows: RowsRecord, twice: tuple[Again, ...]
) -> PartRecord:
    """What a part is; `sha256` and `bytes` are known once its array is written."""
    assignment = task.assignment
    return PartRecord(
        **vars(_identity(encoder, assignment, vectors)),
        **vars(encoder.describe()),
        **vars(rows),
        start=task.rows[0],
        stop=task.rows[1],
        sha256="",
        bytes=0,
        slot=share.slot,
        host=assignment.host,
        run=assignment.run,
        run_id=assignment.run_id,
        corpus=assignment.corpus,
        epoch=assignment.epoch,
        threads=share.spec.threads,
        written_at=time.time(),
        why_padded=assignment.why_padded,
        again=twice,
    )


def _too_full(device: str) -> str:
    """Why this worker is to end at the end of a part; only on mps does the driver keep memory for itself."""
    if kind(device) != "mps":
        return ""
    from .accelerator import too_full

    return too_full()


def _encode_all(
    folder: HostFolder,
    share: Share,
    progress: Progress,
    suspects: Suspects,
    second: Second,
    recheck: Recheck,
    canaries: Canaries,
) -> None:
    encoder = _ready(folder, share, progress, second, canaries)
    left_to_others: dict[int, str] = {}
    began = time.monotonic()
    computed, again = 0, False
    with contextlib.closing(Around(share, suspects, encoder)) as around:
        while (task := around.next()) or again:
            if task is None:  # of a part that was not done whole, the rest is to be done
                again = False
                continue
            (low, high), ahead = task.rows, encoder.ahead
            encoder.ahead = ahead and not suspects.careful
            suspects.expect(())
            if encoder.ahead:
                around.prepare()
            progress.update(part=task.rows, rows_in_part=0, helping=task.owner if task.owner != share.slot else None)
            noting = _Noting(suspects, progress)
            recheck.begin(task)
            try:
                vectors, rows = encode_part(
                    encoder, task.texts, low, suspects, noting, second, task.condemned, task.lengths
                )
                twice = recheck.end(encoder, task, vectors, rows, suspects)
            except (GivenUp, LeftToOthers) as error:
                if isinstance(error, GivenUp):
                    for row, why in error.rows.items():
                        quarantine(folder, row, why, share.slot, sure=True)
                else:
                    left_to_others.update(error.rows)
                    share.leave(error.rows)
                suspects.clear()
                share.release(task.rows)
                again = True
                continue
            finally:
                encoder.ahead = ahead
            suspects.clear(range(low, high))  # before the commit: what a full disk does is not the rows' fault
            second.check(encoder, whole=False)  # before it, too: what a device that went bad computed is not believed
            if canaries.due():
                canaries.compute(encoder)
            computed += high - low
            spent = time.monotonic() - began
            progress.update(
                computed=computed,
                rows_in_part=0,
                part=None,
                processing_time=round(spent, 3),
                rate=round(computed / spent, 3),
                out_of_memory=encoder.out_of_memory,
            )
            record = _record(encoder, share, task, vectors, rows, twice)
            around.commit(task.rows, functools.partial(_commit, folder, share, progress, task.owner, vectors, record))
            second.tell(high - low, rows.by_processor or 0)
            if why := _too_full(share.spec.device):
                raise RuntimeError(why)  # what is committed stays, and the next worker goes on
        around.committed()
        if canaries.due(at_end=True):
            canaries.compute(encoder)
    if left_to_others:
        raise LeftToOthers(left_to_others)


class _Noting:
    """Told the rows that are being computed, it notes them, and how many of the part are computed."""

    def __init__(self, suspects: Suspects, progress: Progress):
        self._suspects, self._progress = suspects, progress
        self._begun: list[int] = []
        self._ended = self._batches = 0

    def __call__(self, rows: list[int]) -> None:
        self._suspects.note(rows)
        self._ended += len(set(self._begun).difference(rows))
        self._batches += 1
        if rows == self._begun:  # of one long document: work goes on, and no row ends
            self._progress.doing(f"row {rows[0]}: batch {self._batches} of this part")
        self._begun = rows
        self._progress.update(rows_in_part=self._ended)


def _commit(folder: HostFolder, share: Share, progress: Progress, owner: str, vectors: Any, record: PartRecord) -> None:
    """Commit a part, and say so."""
    commit(folder, vectors, record)
    done = share.done()
    progress.update(epoch=record.epoch, rows_committed=done, write=True)
    of = f" of {owner}" if owner != share.slot else ""
    say(f"committed rows {record.start}-{record.stop}{of}: {done}/{share.rows}")


def run(root: Path, host: str, slot: str) -> int:
    """Be the worker of `slot`; give the exit code, having said why in the log and in the progress file."""
    never_make(root)
    assignment = assignment_of(HostFolder(root), host)
    folder = placed(HostFolder(root), assignment)
    lock = take_lock(folder.lock(slot), "encode", host, or_without=bool(assignment and assignment.scheduler))
    if lock is None:
        say(f"worker {slot}: another worker holds {folder.lock(slot)}; this one leaves")
        return EXIT_BUSY
    me = process.identify(os.getpid())
    progress = Progress(
        folder.progress(slot),
        WorkerReport(
            slot,
            host,
            process=me,
            state=states.STARTING,
            started_at=time.time(),
            canaries=read_record(WorkerReport, folder.progress(slot)).canaries,  # of the workers before
        ),
        assignment.heartbeat_s if assignment else None,
    )

    def stopped(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not break into the last words
        raise Stopped

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the operator's terminal is not for the workers
    signal.signal(signal.SIGTERM, stopped)
    leaving = Leaving()
    code, state, reason = EXIT_FAILED, states.FAILED, ""
    guard: Guard | None = None
    try:
        progress.start()
        with contextlib.closing(Share(folder, host, slot)) as share:
            leaving.after_this_part(share)
            progress.update(run=share.assignment.run, epoch=share.assignment.epoch)
            guard = Guard(folder, share.assignment)
            guard.start()
            work(folder, share, progress)
        code, state = (EXIT_STOPPED, states.STOPPED) if leaving.asked else (EXIT_DONE, states.DONE)
        reason = states.TAKEN if leaving.asked else ""
    except Stopped:
        code, state, reason = EXIT_STOPPED, states.STOPPED, "ended by SIGTERM"  # by whom, its supervisor may know
        with contextlib.suppress(OSError):
            reason = "stopped by the operator" if folder.stop_request(host).exists() else reason
    except Refused as error:
        code, reason = EXIT_REFUSED, str(error)
    except DeviceFault as error:
        code, reason = EXIT_DEVICE, str(error)
    except LeftToOthers as error:
        reason = f"left to another device: {error}"
    except OSError as error:
        code = EXIT_DISK if error.errno in DISK_FULL else EXIT_FAILED
        reason = f"{type(error).__name__}: {error}"
        say(traceback.format_exc())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        say(traceback.format_exc())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if code in (EXIT_STOPPED, EXIT_DISK):
            with contextlib.suppress(OSError):
                folder.suspects(slot).unlink(missing_ok=True)
        say(f"worker {slot}: {state} (exit {code}){': ' + reason if reason else ''}")
        progress.close(state=state, reason=safe_text(reason), ended_at=time.time(), exit_code=code)
        os.close(lock)
        if guard:  # the slot is free: a supervisor that starts now does not meet us
            guard.close(wanted=code == EXIT_STOPPED)
    return code
