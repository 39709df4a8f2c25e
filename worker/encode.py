"""One worker: encode the rows of one slot's shard that are not committed yet, part by part.

Top to bottom: settings, what is left to do, load, loop, commit. Whatever kills it, starting it again does the rest.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from . import locks, process
from .layout import (
    FORMAT,
    HostFolder,
    fingerprint,
    safe_text,
    write_atomic,
    write_json,
)
from .progress import Progress, read_report, write_report
from .share import Refused, Share
from .texts import DOCUMENT, QUERY

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_BUSY, EXIT_DISK, EXIT_STOPPED = 0, 1, 2, 3, 5, 143

# What a full disk, a quota and a limit on the size of files say.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# A batch that ended two workers is looked at row by row; a row that then ends two more, alone, is given up. One death
# alone would not do: the system's own killer, or a person, may strike at the same batch again.
DEATHS_BEFORE_SUSPICION = 2
DEATHS_TO_GIVE_UP = 4

# When most rows of a part are bad, it is the model or the device; in a part of fewer rows than this, chance.
FEW_ROWS = 8


class Stopped(BaseException):
    """The operator asked this worker to end."""


def say(text: str) -> None:
    """One line of the log that is our standard output. Losing it is better than ending: the disk may be full."""
    stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{stamp} {safe_text(text, 20_000)}\n".encode()
    with contextlib.suppress(OSError):  # not print: what its buffer keeps would change the exit code at the end
        os.write(1, line)


class Suspects:
    """Remembers which rows are being computed, so that a death names them."""

    def __init__(self, folder: HostFolder, slot: str):
        self._path = folder.suspects(slot)
        self._boot = process.boot_id()
        before = read_report(self._path)
        if before.get("boot") != self._boot:  # the machine went down: nobody knows why
            before = {}
        self.rows: list[int] = before.get("rows", [])
        self.deaths = before.get("deaths", 0) + 1 if self.rows else 0

    def note(self, rows: Sequence[int]) -> None:
        """These rows are computed next."""
        same = set(rows) <= set(self.rows)
        write_report(self._path, {"rows": list(rows), "deaths": self.deaths if same else 0, "boot": self._boot})

    def spare(self) -> None:
        """A death is not theirs from here on, until the next `note`: what was counted stays."""
        write_report(self._path, {"rows": self.rows, "deaths": self.deaths - 1, "boot": self._boot})

    def clear(self) -> None:
        """All rows are computed, or the worker ends for a reason that is not theirs."""
        self._path.unlink(missing_ok=True)


def quarantine(folder: HostFolder, row: int, reason: str, slot: str) -> None:
    """Give a row up, by name: the others go on, the run ends as incomplete."""
    say(f"row {row} given up: {reason}")
    record = {"format": FORMAT, "row": row, "reason": safe_text(reason), "slot": slot, "at": time.time()}
    write_json(folder.quarantined(row), record)


def npy_chunks(vectors: Any) -> Iterator[bytes]:
    """A float32 array as the bytes of a .npy file."""
    import numpy as np

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(vectors))
    yield head.getvalue()
    yield vectors.tobytes()


def commit(folder: HostFolder, start: int, vectors: Any, record: dict[str, Any]) -> None:
    """Write the array, then its record: the record commits. Neither is ever modified afterwards."""
    stop = start + len(vectors)
    array = folder.part(start, stop)
    if array.with_suffix(".json").exists():  # rows moved to another slot, and that one was faster
        say(f"rows {start}-{stop} are committed already; left as they are")
        return
    digest = write_atomic(array, npy_chunks(vectors))
    record = {**record, "start": start, "stop": stop, "sha256": digest, "bytes": array.stat().st_size}
    write_json(array.with_suffix(".json"), record)


def try_alone(encoder: Any, texts: list[str], start: int, suspects: Suspects) -> None:
    """Compute each suspect by itself, so that a death names it.

    A harmless word goes first. Where that ends the worker, the device or the software is broken: no row is blamed, no
    row given up, and the supervisor gives up the slot. The vectors are thrown away: the batches, and with them the
    bytes, stay as planned. Only when the rows lived alone and ended one more worker together, the system may be killing
    it for its memory, and batches are made smaller.
    """
    rows = [row for row in suspects.rows if start <= row < start + len(texts)]
    if rows:
        suspects.spare()
        encoder.encode(["word"], encoder.lengths(["word"]), rows[:1])
    if len(rows) > 1 and suspects.deaths > DEATHS_BEFORE_SUSPICION:
        encoder.row_limit = max(1, len(rows) // 4 ** (suspects.deaths - DEATHS_BEFORE_SUSPICION))
        say(f"batches of at most {encoder.row_limit} rows: one of {len(rows)} ended {suspects.deaths} workers")
        return
    for row in rows:
        say(f"row {row} tried alone: its batch ended {suspects.deaths} workers")
        suspects.note([row])
        text = [texts[row - start]]
        encoder.encode(text, encoder.lengths(text), [row])


def redo(encoder: Any, texts: list[str], start: int, bad: dict[int, str], vectors: Any, suspects: Suspects) -> None:
    """Compute bad vectors again in float32. Raises RowError for one that stays bad."""
    from .encoder import RowError

    say(f"redone in float32: {', '.join(f'row {start + i} ({reason})' for i, reason in list(bad.items())[:10])}")
    still: dict[int, str] = {}
    for i in bad:
        suspects.note([start + i])
        still.update(encoder.redo(texts, [i], vectors))
        if len(still) > len(texts) // 2 and len(texts) >= FEW_ROWS:
            raise RuntimeError(
                f"most vectors of rows {start}-{start + len(texts)} are bad, also in float32 (row {start + i}: "
                f"{still[i]}): not the texts are at fault but the model or the device"
            )
    for i, reason in still.items():
        raise RowError(start + i, f"{reason}, also in float32")


def encode_part(
    encoder: Any, texts: list[str], start: int, suspects: Suspects, noting: Callable[[list[int]], None]
) -> tuple[Any, dict[str, Any]]:
    """The vectors of a part and what is to be recorded of them. Raises RowError for a row that must be given up."""
    import numpy as np

    began = time.monotonic()
    rows = list(range(start, start + len(texts)))
    out_of_memory = encoder.out_of_memory
    if suspects.deaths >= DEATHS_BEFORE_SUSPICION:
        try_alone(encoder, texts, start, suspects)
    suspects.note(rows)  # a text may end its worker in the tokenizer already
    lengths = encoder.lengths(texts)
    vectors = encoder.encode(texts, lengths, rows, noting)
    bad = encoder.bad_rows(vectors)
    redone = sorted(bad)
    if bad:
        redo(encoder, texts, start, bad, vectors, suspects)
    record = {
        "fingerprints": [fingerprint(text) for text in texts],
        "tokens": lengths,
        "truncated": [start + i for i, cut in enumerate(encoder.cut(lengths, texts)) if cut < lengths[i]],
        "norms": [round(float(n), 7) for n in np.linalg.norm(vectors.astype(np.float64), axis=1)],
        "redone_float32": [start + i for i in redone],
        "out_of_memory": encoder.out_of_memory - out_of_memory,
        "dim": int(vectors.shape[1]),
        "seconds": round(time.monotonic() - began, 4),
        **encoder.padding(lengths, texts),
    }
    return vectors, record


def take_lock(path: Path, **who: str) -> int | None:
    """A lock that ends with this process and says whose it is, or None when another one holds it."""
    lock = locks.take(path)
    if lock is not None:
        with contextlib.suppress(OSError):  # a full disk: held all the same
            locks.sign(lock, {**who, "process": process.identify(os.getpid())})
    return lock


def work(folder: HostFolder, share: Share, progress: Progress) -> None:
    """Do what is left of one slot, then help its neighbours."""
    slot, assignment = share.slot, share.assignment
    suspects = Suspects(folder, slot)
    if suspects.deaths >= DEATHS_TO_GIVE_UP and len(suspects.rows) == 1 and share.knows(suspects.rows[0]):
        quarantine(folder, suspects.rows[0], f"ended {suspects.deaths} workers, the last ones alone", slot)
        suspects.clear()
    done = share.done()
    progress.update(rows_committed=done, write=True)
    say(f"worker {slot}: {share.rows} rows, {done} committed before, {share.left()} to do")
    task = share.next()
    if task is None:
        return

    progress.update(state="loading model", write=True)
    began = time.monotonic()
    from .encoder import Encoder, RowError

    model, threads = assignment["model"], share.spec["threads"]
    encoder = Encoder(
        Path(model["folder"]),
        share.spec["device"],
        assignment["dtype"],
        assignment["max_tokens"],
        threads,
        {DOCUMENT: assignment["prompt"], QUERY: assignment["question_prompt"]},
    )
    loaded_s = round(time.monotonic() - began, 2)
    shared = {
        "format": FORMAT,
        "slot": slot,
        **{key: assignment[key] for key in ("run", "run_id", "host", "corpus", "dtype", "prompt", "question_prompt")},
        "model": {key: model[key] for key in ("name", "revision", "digest")},
        "max_tokens": encoder.max_tokens,
        "normalises": encoder.normalises,
        "threads": threads,
        **encoder.describe(),
    }
    say(f"model loaded in {loaded_s} s: {shared['device']}, {assignment['dtype']}")
    progress.update(state="running", loaded_s=loaded_s, device=shared["device"], write=True)

    began = time.monotonic()
    committed_now = 0
    while task:
        (low, high), shard, owner = task
        in_part = 0

        def noting(rows: list[int]) -> None:
            nonlocal in_part
            suspects.note(rows)
            progress.update(rows_in_part=in_part)
            in_part += len(rows)

        progress.update(part=[low, high], rows_in_part=0, helping=owner if owner != slot else None)
        try:
            vectors, record = encode_part(encoder, shard.read(low, high), low, suspects, noting)
        except RowError as error:
            quarantine(folder, error.row, error.reason, slot)
            suspects.clear()
            task = share.next()  # the rest of this part comes first
            continue
        suspects.clear()  # before the commit: what a full disk does is not the rows' fault
        epoch = share.assignment["epoch"]
        commit(folder, low, vectors, {**shared, **record, "epoch": epoch, "written_at": time.time()})
        committed_now += high - low
        done = share.done()
        spent = time.monotonic() - began
        progress.update(
            epoch=epoch,
            rows_committed=done,
            rows_in_part=0,
            part=None,
            processing_time=round(spent, 3),
            rate=round(committed_now / spent, 3),
            out_of_memory=encoder.out_of_memory,
            write=True,
        )
        say(f"committed rows {low}-{high}{f' of {owner}' if owner != slot else ''}: {done}/{share.rows}")
        task = share.next()


def run(root: Path, host: str, slot: str) -> int:
    """Be the worker of `slot`; give the exit code, having said why in the log and in the progress file."""
    folder = HostFolder(root)
    lock = take_lock(folder.lock(slot), verb="encode", host=host)
    if lock is None:
        say(f"worker {slot}: another worker holds {folder.lock(slot)}; this one leaves")
        return EXIT_BUSY
    progress = Progress(
        folder.progress(slot), slot=slot, host=host, process=process.identify(os.getpid()), started_at=time.time()
    )
    progress.update(state="starting")

    def stopped(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not break into the last words
        raise Stopped

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the operator's terminal is not for the workers
    signal.signal(signal.SIGTERM, stopped)
    code, state, reason = EXIT_FAILED, "failed", ""
    try:
        progress.start()
        with contextlib.closing(Share(folder, host, slot)) as share:
            progress.update(run=share.assignment["run"], epoch=share.assignment["epoch"])
            work(folder, share, progress)
        code, state = EXIT_DONE, "done"
    except Stopped:
        code, state, reason = EXIT_STOPPED, "stopped", "stopped by the operator"
    except Refused as error:
        code, reason = EXIT_REFUSED, str(error)
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
    return code
