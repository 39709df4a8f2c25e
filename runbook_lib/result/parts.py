"""Downloaded parts: what the record of each says, whether it is true, and which part gives which row."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from worker.escape import safe_text
from worker.fields import WireError
from worker.files import read_json
from worker.layout import PART_FILE
from worker.rows import Range, count, missing
from worker.wire import PartRecord

from ..errors import DataError
from ..run.plan import Plan
from .array_file import HEAD_LIMIT, ITEM_BYTES, first_row
from .large_files import PIECE_BYTES
from .part_identity import differences_from_plan, slot_of
from .part_record import parsed, size_limit
from .survey import has_direction, norms_of

FINGERPRINT_BYTES = 16
NORM_ROUNDING = 1e-6  # a record has norms with seven decimals
# A message lists this many ranges, rows or files and counts the rest.
NAMED = 10

Piece = tuple["Part", int, int]  # the rows [lo, hi) of a part


@dataclass(frozen=True)
class Part:
    """One committed slice of rows, as its record states it (`verify` checks that); `path` is the array file."""

    start: int
    stop: int
    path: Path
    sha256: str
    bytes: int
    dim: int
    slot: str
    host: str
    record: PartRecord

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The array's file name."""
        return self.path.name

    def without_row_data(self) -> Part:
        """Return the part without the fields of its record that hold a value for every row.

        What is the same in all parts, such as the prompts, is then held once for all of them.
        """
        texts: Any = {name: sys.intern(value) for name, value in vars(self.record).items() if type(value) is str}
        none: Any = {name: () for name in ("fingerprints", "tokens", "truncated", "norms")}
        rest = replace(self.record, **none, chunks=None, again=None, **texts)
        return replace(self, record=rest)


def first_few(items: Sequence[object], separator: str = ", ") -> str:
    """Return the first `items` for a message, and the number of the others."""
    text = separator.join(safe_text(str(item), 300) for item in items[:NAMED])
    return text + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


# ---------------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> Part:
    """Read the part at the path of its array or record. Raises DataError if the record is invalid."""
    path = path.with_suffix(".npy")
    source = path.with_suffix(".json")
    name = PART_FILE.fullmatch(path.name)
    if name is None:
        raise DataError(f"{path.name}: not the name of a part")
    start, stop = int(name.group(1)), int(name.group(2))
    try:
        value = read_json(source, size_limit(stop - start))
    except (OSError, ValueError) as error:
        raise DataError(f"{source.name}: the record cannot be read: {safe_text(str(error))}") from None
    if value is None:
        raise DataError(f"{source.name}: no such record")
    try:
        record = parsed(value, start, stop)
    except WireError as why:
        raise DataError(f"{source.name}: the record does not state what it must: {why}") from None
    return Part(start, stop, path, record.sha256, record.bytes, record.dim, record.slot, record.host, record)


# -------------------------------------------------------------------------------------------------------- verifying


def with_plan_slot(part: Part, plan: Plan) -> Part:
    """Return the part with slot and host from the plan, whatever its record says."""
    slot = slot_of(plan, part.slot, part.start)
    return replace(part, slot=slot.slot, host=slot.host)


def verify(part: Part, plan: Plan, fingerprints: np.ndarray) -> list[str]:
    """Return in words why a part must not be merged; empty if it is whole and of this run and these documents.

    `fingerprints` are the corpus's, uint8 (rows, 16).
    """
    problems = differences_from_plan(part.record, plan)
    if part.stop > plan.rows:
        return [*problems, f"rows: {part.start}-{part.stop} are not within the plan's 0-{plan.rows}"]
    return problems + _texts(part, fingerprints) + _array(part)


def fingerprint_bytes(texts: Sequence[object]) -> np.ndarray | None:
    """Convert hexadecimal fingerprints to uint8 (rows, 16); None if one of them is invalid."""
    if not all(isinstance(text, str) and len(text) == 2 * FINGERPRINT_BYTES for text in texts):
        return None
    try:
        raw = bytes.fromhex("".join(map(str, texts)))
    except ValueError:
        return None
    if len(raw) != FINGERPRINT_BYTES * len(texts):  # fromhex skips spaces
        return None
    return np.frombuffer(raw, np.uint8).reshape(-1, FINGERPRINT_BYTES)


def _texts(part: Part, fingerprints: np.ndarray) -> list[str]:
    stated = fingerprint_bytes(part.record.fingerprints)
    if stated is None:
        return ["fingerprints: not hexadecimal ones"]
    wanted = np.asarray(fingerprints[part.start : part.stop])
    if wanted.shape != stated.shape:
        return [f"fingerprints: the corpus has none for all of rows {part.start}-{part.stop}"]
    rows = part.start + np.flatnonzero((wanted != stated).any(axis=1))
    return (
        [f"fingerprints: the text of {len(rows)} rows is not the corpus's: rows {first_few(rows.tolist())}"]
        if len(rows)
        else []
    )


def _array(part: Part) -> list[str]:
    """Return what is wrong with the .npy: check its bytes first, because only a whole file has a valid header."""
    try:
        with part.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != part.bytes:
                return [f"bytes: expected {part.bytes}, found {size}"]
            head = file.read(HEAD_LIMIT)
            digest = hashlib.sha256(head)
            while chunk := file.read(PIECE_BYTES):
                digest.update(chunk)
            if digest.hexdigest() != part.sha256:
                return [f"sha256: expected {part.sha256}, found {digest.hexdigest()}"]
            file.seek(first_row(head, size, part.rows, part.dim))
            return _vectors(part, file)
    except FileNotFoundError:
        return ["array: there is a record but no .npy"]
    except (OSError, DataError) as error:
        return [str(error) if isinstance(error, DataError) else f"array: {safe_text(str(error), 200)}"]


def _vectors(part: Part, file: BinaryIO) -> list[str]:
    """Check each row's direction and norm against the record: new sums over a bad array cannot hide a fault.

    `file` is positioned at the first row; it is read in pieces of whole rows.
    """
    stated = np.array(part.record.norms, dtype=np.float64)
    row_bytes = part.dim * ITEM_BYTES
    pieces = iter(partial(file.read, max(1, PIECE_BYTES // row_bytes) * row_bytes), b"")
    norms = np.concatenate([norms_of(np.frombuffer(raw, "<f4").reshape(-1, part.dim)) for raw in pieces])
    with np.errstate(invalid="ignore"):
        right = has_direction(norms) & (np.abs(norms - stated) <= NORM_ROUNDING * np.maximum(1.0, stated))
    rows = np.flatnonzero(~right)
    if not len(rows):
        return []
    first = f"row {part.start + rows[0]} has norm {norms[rows[0]]:.7g}, its record says {stated[rows[0]]:.7g}"
    return [f"vectors: {len(rows)} are not as their record says: {first}"]


# --------------------------------------------------------------------------------------------------------- covering


def cover(parts: Sequence[Part], rows: int) -> list[Piece]:
    """Choose which rows [lo, hi) to take from which part, so that each of [0, rows) is taken once, in order.

    Parts overlap after rows were moved; the first by range wins, so the result does not depend on which host was
    faster. Raises DataError with the rows that no part has.
    """
    chosen: list[Piece] = []
    at = 0
    for part in sorted(parts, key=lambda part: (part.start, part.stop)):
        low, high = max(at, part.start), min(part.stop, rows)
        if low < high:
            chosen.append((part, low, high))
            at = high
    if gaps := missing(0, rows, ((low, high) for _, low, high in chosen)):
        raise DataError(
            f"{count(gaps)} of {rows} rows have no vector yet: {describe(gaps)}; "
            "run again (runbook run): what is committed stays, the missing rows are done"
        )
    return chosen


def describe(ranges: Sequence[Range]) -> str:
    """Return half-open ranges for a message: `rows 100-200`, at most ten of them."""
    return first_few([f"rows {low}-{high}" for low, high in ranges])


def within(pieces: Sequence[Piece], low: int, high: int) -> list[Piece]:
    """Cut the pieces to the rows [low, high)."""
    cut = [(part, max(a, low), min(b, high)) for part, a, b in pieces]
    return [piece for piece in cut if piece[1] < piece[2]]


def row_bytes(piece: Piece) -> Iterator[bytes]:
    """Return the raw float32 bytes of a piece's rows, and hash the whole file: the copied bytes are the verified ones.

    Raises DataError if the file is no longer the recorded one: at once if the shape differs, else after the last byte.
    """
    part, low, high = piece
    width = ITEM_BYTES * part.dim
    changed = f"{part.path}: changed while it was merged; nothing was written. Run the merge again"
    digest, at = hashlib.sha256(), 0
    with part.path.open("rb") as file:
        chunk = file.read(PIECE_BYTES)
        try:
            begin = first_row(chunk, part.bytes, part.rows, part.dim)
        except DataError as error:
            raise DataError(f"{changed} ({error})") from None
        first, last = begin + (low - part.start) * width, begin + (high - part.start) * width
        while chunk:
            digest.update(chunk)
            wanted = chunk[max(0, first - at) : max(0, last - at)]
            at += len(chunk)
            if wanted:
                yield wanted
            chunk = file.read(PIECE_BYTES)
    if digest.hexdigest() != part.sha256:
        raise DataError(changed)
