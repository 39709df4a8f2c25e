"""The product with one safety mechanism taken out: the suite must go red for each, or it proves nothing.

A mechanism has patches for the worker's side (in the stand-in for the host's Python) and for the operator's (in the
driver). `mix` are the faults that it protects from; a mechanism that two walls stand for is taken out with both.
This file is loaded by its path on a host, so it imports nothing of the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.files import write_atomic


def _as_it_is() -> None:
    """Nothing to patch on this side."""


@dataclass(frozen=True)
class Mechanism:
    """One safety mechanism: what it is, how it is taken out on either side, and the faults that it is for."""

    what: str
    mix: dict[str, float]
    on_host: Callable[[], None] = _as_it_is
    on_driver: Callable[[], None] = _as_it_is
    tier: str = "A"


# ------------------------------------------------------------------------------------------------------------ writing


def no_rename() -> None:
    """Files grow under their final names."""
    from worker import encode, files

    def write(path, data, mode=0o600, expected=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = data if isinstance(data, bytes) else b"".join(data)
        with path.open("wb", buffering=0) as file:
            file.write(raw[: len(raw) // 2])
            time.sleep(0.2)  # as long as a large file takes
            file.write(raw[len(raw) // 2 :])
        return hashlib.sha256(raw).hexdigest()

    files.write_atomic = encode.write_atomic = write


def record_first() -> None:
    """The record is written before its array."""
    from worker import encode
    from worker.files import write_atomic, write_json

    def commit(folder, vectors, record):
        array = folder.part(record.start, record.stop)
        raw = b"".join(encode.npy_chunks(vectors))
        stated = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        write_json(array.with_suffix(".json"), {**record.to_json(), **stated})
        time.sleep(0.2)
        write_atomic(array, raw)

    encode.commit = commit


# ----------------------------------------------------------------------------------------------------------- checking


def _no_array_check(part):
    return []


def no_digest_at_collect() -> None:
    """What comes home is not held against its record's sha256."""
    from runbook_lib.hosts import local
    from runbook_lib.result import parts

    real_verify = parts.verify

    def verify(part, plan, fingerprints):
        real, parts._array = parts._array, _no_array_check
        try:
            return real_verify(part, plan, fingerprints)
        finally:
            parts._array = real

    def place(host, target, content, on_bytes):
        write_atomic(target, content.chunks())
        return True

    local._place = place
    parts.verify = verify  # as download calls it; merge has its own name for it


def no_digest_at_merge() -> None:
    """What is merged is not held against its record's sha256."""
    from runbook_lib.phases import merge
    from runbook_lib.result import parts

    def verify(part, plan, fingerprints):
        return parts.differences_from_plan(part.record, plan) + parts._texts(part, fingerprints)

    def row_bytes(piece):
        part, low, high = piece
        width, raw = 4 * part.dim, part.path.read_bytes()
        header = len(raw) - part.rows * width
        yield raw[header + (low - part.start) * width : header + (high - part.start) * width]

    merge.verify, merge.row_bytes = verify, row_bytes


def no_identity() -> None:
    """A part's run, corpus, model, dtype and prompt are not looked at."""
    from runbook_lib.result import parts

    parts.differences_from_plan = lambda record, plan: []


def no_fingerprints() -> None:
    """The fingerprints of a part's rows are not held against the corpus's."""
    from runbook_lib.result import parts

    parts._texts = lambda part, fingerprints: []


def no_shard_digest() -> None:
    """A worker takes any shard that has the right number of rows."""
    from worker import share

    real = share.Shard.__init__

    def begin(self, path, start, stop, sha256, *documents):
        real(self, path, start, stop, hashlib.sha256(path.read_bytes()).hexdigest(), *documents)

    share.Shard.__init__ = begin


def no_corpus_hash() -> None:
    """A source that changed since it was numbered is taken as it is."""
    from runbook_lib.corpus import corpus

    corpus.Corpus.source_unchanged = lambda self, path: True


def no_nan_check_on_host() -> None:
    """A vector of NaN is as good as any; its norm, the second wall, is said to be one; no row is computed again."""
    import numpy as np

    from worker import encode
    from worker.encoder import Encoder
    from worker.recheck import Recheck

    Encoder.bad_rows = lambda self, vectors: {}
    Recheck.end = lambda *words: ()
    real = encode.encode_part

    def part(*words):
        vectors, record = real(*words)
        return vectors, replace(record, norms=tuple(np.nan_to_num(np.array(record.norms), nan=1.0).tolist()))

    encode.encode_part = part


def no_known_texts() -> None:
    """No device is held against the known texts; that its vectors are numbers is the second wall."""
    from worker.second import Second

    Second.check = lambda self, encoder, whole=True: None
    no_nan_check_on_host()


def no_norms_at_home() -> None:
    """A part's vectors are whatever they are."""
    from runbook_lib.result import parts

    parts._vectors = lambda part, file: []


def no_exact_array() -> None:
    """Whatever stands under an array's name is one, if its record says so."""
    from runbook_lib.result import parts

    parts.first_row = lambda head, size, rows, dim: max(0, size - 4 * rows * dim)
    no_norms_at_home()


def no_second_look() -> None:
    """What is merged and published is believed to be there for good."""
    from runbook_lib.result.merged import Merged

    Merged.problems = lambda self, manifest: []


def no_gap_check() -> None:
    """Rows that no part has are passed over: zeros stand for them, or the sum of bytes would be the second wall."""
    import io

    import numpy as np

    from runbook_lib.phases import merge
    from runbook_lib.result import parts

    wanted = []

    def cover(found, rows):
        wanted[:] = [rows]
        chosen, at = [], 0
        for part in sorted(found, key=lambda part: (part.start, part.stop)):
            low, high = max(at, part.start), min(part.stop, rows)
            if low < high:
                chosen.append((part, low, high))
                at = high
        return chosen

    def matrix(pieces, dim, report):
        whole = np.zeros((wanted[0], dim), np.float32)
        for piece in pieces:
            whole[piece[1] : piece[2]] = np.frombuffer(b"".join(parts.row_bytes(piece)), "<f4").reshape(-1, dim)
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (wanted[0], dim)})
        yield file.getvalue() + whole.tobytes()

    def articles(corpus, documents):
        tokens = {row: (count, cut, print_) for row, count, cut, print_, _ in merge._row_records(documents)}
        for article in corpus.articles():
            count, cut, print_ = tokens.get(article["row"], (0, False, ""))
            line = {**article, "tokens": count, "truncated": cut, "fingerprint": print_}
            yield json.dumps(line).encode() + b"\n"

    merge.cover = parts.cover = cover
    merge._articles, merge._matrix = articles, matrix


# ------------------------------------------------------------------------------------------------------ who, and again


def no_driver_lock() -> None:
    """Anybody may drive at any time."""
    from runbook_lib.run import driver

    @contextlib.contextmanager
    def hold(run):
        yield

    driver.hold = hold


def no_slot_lock() -> None:
    """Any number of workers may work on a slot."""
    from worker import encode

    def take(path, **who):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    encode.take_lock = take


def only_pids() -> None:
    """A process is its number: start time and boot are not looked at."""
    from worker import process

    def alive(identity):
        try:
            return bool(identity) and process.start_time(int(identity["pid"])) is not None
        except (KeyError, TypeError, ValueError):
            return False

    process.alive = process._known_alive = process._surely_alive = alive


def no_guard() -> None:
    """A worker does not look at its supervisor."""
    from worker.guard import Guard

    Guard.run, Guard.act = (lambda self: None), lambda self: None


def no_relaunch() -> None:
    """Nor does whoever watches, or launches, start one anew."""
    from runbook_lib.phases import launch, recover

    recover._restart_dead = lambda *words: []
    launch._supervisor_lost = lambda reading: False


def no_patience() -> None:
    """A worker may show no sign for as long as it likes, also when nothing is left to do."""
    from worker.slot import Slot

    Slot._stalled, Slot.end_idle = (lambda self: False), lambda self: None


def no_choices() -> None:
    """A run goes on by nothing but the text of its profile."""
    from runbook_lib.run import choices

    choices.is_blocked = lambda changes, amend=False: bool(changes)


def by_date() -> None:
    """The latest run is the one whose folder has the latest date."""
    from runbook_lib.run import opening, run_mark

    opening.oldest_first = lambda runs: sorted(
        run_mark.oldest_first(runs), key=lambda folder: folder.stat().st_mtime_ns
    )


def no_resume() -> None:
    """A worker does all that others did again; its look before each part is the second wall."""
    import sys

    if not {"encode", "warm"} & set(sys.argv):  # a worker, or the process from which workers are forked
        return
    from worker import share

    real, before = share.settled, []

    def settled(folder):
        found = real(folder)
        if not before:
            before.append(set(found))
        return [rows for rows in found if rows not in before[0]]

    share.settled = settled
    share.Share._take = lambda self, rows: self._claims.take(rows)


def no_removal() -> None:
    """A part that was refused stays on its host."""
    from runbook_lib.hosts import hosts

    real = hosts.Host.remove

    def remove(self, path):
        if path.parent.name != "parts":
            real(self, path)

    hosts.Host.remove = remove


def no_restaging() -> None:
    """What was sent once is believed to be there."""
    from runbook_lib.hosts import local

    real = local._place

    def place(host, target, content, on_bytes):
        return False if target.exists() else real(host, target, content, on_bytes)

    local._place = place


def no_chain() -> None:
    """A line of the journal does not carry the digest of the line before."""
    from runbook_lib.run import journal

    real = journal.hashlib

    class Nothing:
        @staticmethod
        def sha256(line):
            return real.sha256(b"")

    journal.hashlib = Nothing


def no_torn_tail() -> None:
    """A journal whose last line is torn is written on as it is."""
    from runbook_lib.run import journal

    journal._whole = lambda raw: raw.splitlines(keepends=True)


def no_host_key() -> None:
    """Whoever answers is believed to be the host."""
    from runbook_lib.hosts.ssh.known_hosts import HostKeys

    HostKeys.check = lambda self, key_type, blob: None


def no_epoch() -> None:
    """Nobody looks whether a host works by the plan of now; nor is it sent along with what starts a dead one anew."""
    from runbook_lib.phases import recover, staging

    real = recover._restart_dead

    def restart(*words):
        stage, staging.stage = staging.stage, lambda *words, **more: None
        try:
            return real(*words)
        finally:
            staging.stage = stage

    recover._up_to_date, recover._restart_dead = (lambda run, state: []), restart


KILLS = {"kill_worker": 6.0, "kill_host": 1.0}
MECHANISMS = {
    "no-rename": Mechanism("a file grows under a temporary name", KILLS, no_rename, no_rename),
    "no-record-order": Mechanism("the record is written after its array", KILLS, record_first),
    "no-digest-at-collect": Mechanism(
        "sha256 of a part when it comes home", {"flip_part": 1.0, "kill_worker": 1.0}, on_driver=no_digest_at_collect
    ),
    "no-digest-at-merge": Mechanism(
        "sha256 of a part when it is merged", {"flip_home": 1.0, "harm_before_merge": 0.3}, on_driver=no_digest_at_merge
    ),
    "no-identity": Mechanism(
        "run, corpus, model, dtype and prompt of a part", {"stranger_part": 1.0}, on_driver=no_identity
    ),
    "no-fingerprint": Mechanism("fingerprint of every row", {"misplaced_part": 1.0}, on_driver=no_fingerprints),
    "no-shard-digest": Mechanism("sha256 of a shard in the worker", {"damage_shard": 1.0}, no_shard_digest),
    "no-corpus-hash": Mechanism("sha256 of the source", {"edit_corpus": 1.0}, on_driver=no_corpus_hash),
    "no-nan-check": Mechanism("NaN and norms of vectors", {"nan_vector": 1.0}, no_nan_check_on_host, no_norms_at_home),
    "no-gap-check": Mechanism("every row has a part", {"harm_before_merge": 1.0}, on_driver=no_gap_check),
    "no-driver-lock": Mechanism("one driver at a time", {"second_driver": 1.0}, on_driver=no_driver_lock),
    "no-slot-lock": Mechanism("one worker a slot", {"second_worker": 1.0}, no_slot_lock),
    "no-process-identity": Mechanism(
        "start time and boot of a process", {"reused_pid": 1.0, "kill_supervisor": 0.5}, only_pids, only_pids
    ),
    "no-resume": Mechanism("committed parts are not done again", {"kill_worker": 1.0}, no_resume),
    "no-removal": Mechanism("a refused part goes from its host", {"flip_part": 1.0}, on_driver=no_removal),
    "no-restaging": Mechanism("what was sent is looked at again", {"damage_shard": 1.0}, on_driver=no_restaging),
    "no-journal-chain": Mechanism("digest of the line before", {"kill_driver": 1.0}, on_driver=no_chain),
    "no-host-key": Mechanism("the host's key", {"impostor": 1.0}, on_driver=no_host_key, tier="B"),
    "no-epoch": Mechanism(
        "a host has the plan of now", {"power_off_and_cut": 1.0, "kill_worker": 1.0}, on_driver=no_epoch, tier="B"
    ),
    "no-torn-tail": Mechanism("a torn line is cut off", {"kill_driver_torn": 1.0}, on_driver=no_torn_tail),
    "no-known-texts": Mechanism(
        "a device is held against known texts", {"nan_device": 1.0}, no_known_texts, no_norms_at_home
    ),
    "no-exact-array": Mechanism("an array is one to the byte", {"empty_zip": 1.0}, on_driver=no_exact_array),
    "no-norms-at-home": Mechanism(
        "a part's vectors are as its record says", {"nan_part": 1.0}, on_driver=no_norms_at_home
    ),
    "no-second-look": Mechanism("a result is looked at again", {"lose_result": 1.0}, on_driver=no_second_look),
    "no-relaunch": Mechanism(
        "a killed supervisor is started again",
        {"kill_supervisor_alone": 1.0, "kill_supervisor": 1.0, "kill_worker": 2.0},
        no_guard,
        no_relaunch,
    ),
    "no-patience": Mechanism("a load that hangs is ended", {"hanging_load": 1.0}, no_patience),
    "no-choices": Mechanism("what cannot change a vector may change", {"edit_profile": 1.0}, on_driver=no_choices),
    "no-run-number": Mechanism("runs are counted, not dated", {"stale_clock": 1.0}, on_driver=by_date),
}
