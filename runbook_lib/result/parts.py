"""Parts that came home: what each one's record says, whether it is true, and which part gives which row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.layout import HOST_NAME, PART_FILE, SLOT_NAME, Range, count, missing, read_json, safe_text, sha256_file

from ..errors import DataError
from ..plan import Plan
from .large_files import PIECE_BYTES

SHA256 = re.compile(r"[0-9a-f]{64}")
FINGERPRINT_BYTES = 16
ITEM_BYTES = 4  # float32
# The lists of a record with one entry a row: dropped where many parts are held at once.
PER_ROW = ("fingerprints", "tokens", "truncated", "norms")
# A message names this many ranges, rows or files and counts the rest.
NAMED = 10

Piece = tuple["Part", int, int]  # the rows [lo, hi) of a part


@dataclass(frozen=True)
class Part:
    """One committed slice of rows, as its record states it (`verify` tells whether truly); `path` is the array's."""

    start: int
    stop: int
    path: Path
    sha256: str
    bytes: int
    dim: int
    slot: str
    host: str
    record: dict[str, Any]

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The array's file name."""
        return self.path.name

    def slim(self) -> Part:
        """The same part without what its record holds for every single row."""
        return replace(self, record={key: value for key, value in self.record.items() if key not in PER_ROW})


def named(items: Sequence[object], separator: str = ", ") -> str:
    """The first few of `items` for a message, and how many more there are."""
    text = separator.join(safe_text(str(item), 300) for item in items[:NAMED])
    return text + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


# ---------------------------------------------------------------------------------------------------------- reading


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _one_per_row(rows: int, start: int, record: dict[str, Any]) -> bool:
    """Whether the lists that go row by row are of the right length and kind."""
    tokens, fingerprints, norms = record.get("tokens"), record.get("fingerprints"), record.get("norms")
    return (
        isinstance(norms, list)
        and len(norms) == rows
        and all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < 1e30 for n in norms)
        and isinstance(tokens, list)
        and len(tokens) == rows
        and all(map(_is_count, tokens))
        and isinstance(fingerprints, list)
        and len(fingerprints) == rows
        and all(_are_rows(record.get(key), start, start + rows) for key in ("truncated", "redone_float32"))
    )


def _are_rows(value: object, start: int, stop: int) -> bool:
    return isinstance(value, list) and all(_is_count(row) and start <= row < stop for row in value)


def read(path: Path) -> Part:
    """The part of an array's or a record's path, as recorded. Raises DataError when the record is not one."""
    path = path.with_suffix(".npy")
    source = path.with_suffix(".json")
    name = PART_FILE.fullmatch(path.name)
    if name is None:
        raise DataError(f"{path.name}: not the name of a part")
    try:
        record = read_json(source)
    except (OSError, ValueError) as error:
        raise DataError(f"{source.name}: the record cannot be read: {safe_text(str(error))}") from None
    if record is None:
        raise DataError(f"{source.name}: no such record")
    start, stop = int(name.group(1)), int(name.group(2))
    well_formed = {
        f"rows {start}-{stop} as in its name": (record.get("start"), record.get("stop")) == (start, stop)
        and start < stop,
        "a sha256": isinstance(record.get("sha256"), str) and SHA256.fullmatch(record["sha256"]),
        "a size in bytes": _is_count(record.get("bytes")),
        "a dim": _is_count(record.get("dim")) and record["dim"] > 0,
        "a slot": isinstance(record.get("slot"), str) and SLOT_NAME.fullmatch(record["slot"]),
        "a host": isinstance(record.get("host"), str) and HOST_NAME.fullmatch(record["host"]),
        "a model": isinstance(record.get("model"), dict),
        "a limit of tokens, or none": record.get("max_tokens") is None or _is_count(record["max_tokens"]),
        "tokens, fingerprint and truncation of every row": _one_per_row(stop - start, start, record),
    }
    if wrong := [what for what, holds in well_formed.items() if not holds]:
        raise DataError(f"{source.name}: the record does not state {'; '.join(wrong)}")
    return Part(
        start, stop, path, record["sha256"], record["bytes"], record["dim"], record["slot"], record["host"], record
    )


# -------------------------------------------------------------------------------------------------------- verifying


def verify(part: Part, plan: Plan, fingerprints: np.ndarray) -> list[str]:
    """What keeps a part from being merged, in words; empty when it is this run's, whole, and of these documents.

    `fingerprints` are the corpus's, uint8 (rows, 16).
    """
    found = _identity(part, plan)
    if part.stop > plan.rows:
        return [*found, f"rows: {part.start}-{part.stop} are not within the plan's 0-{plan.rows}"]
    return found + _texts(part, fingerprints) + _array(part)


def _identity(part: Part, plan: Plan) -> list[str]:
    record, model = part.record, part.record["model"]
    facts = [
        ("run", plan.run, record.get("run")),
        ("run id", plan.run_id, record.get("run_id", "")),
        ("corpus", plan.corpus, record.get("corpus")),
        ("model name", plan.model.name, model.get("name")),
        ("model revision", plan.model.revision, model.get("revision")),
        ("model digest", plan.model.digest, model.get("digest")),
        ("dtype", plan.dtype, record.get("dtype")),
        ("prompt", plan.prompt, record.get("prompt")),
        ("question prompt", plan.question_prompt, record.get("question_prompt")),
        ("dim", plan.model.dim, part.dim),
    ]
    return [
        f"{what}: expected {wanted!r}, found {safe_text(repr(seen), 200)}"
        for what, wanted, seen in facts
        if wanted != seen
    ]


def fingerprint_bytes(texts: Sequence[object]) -> np.ndarray | None:
    """Hexadecimal fingerprints as uint8 (rows, 16); None when one of them is not a fingerprint."""
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
    seen = fingerprint_bytes(part.record["fingerprints"])
    if seen is None:
        return ["fingerprints: not hexadecimal ones"]
    wanted = np.asarray(fingerprints[part.start : part.stop])
    if wanted.shape != seen.shape:
        return [f"fingerprints: the corpus has none for all of rows {part.start}-{part.stop}"]
    rows = part.start + np.flatnonzero((wanted != seen).any(axis=1))
    return (
        [f"fingerprints: the text of {len(rows)} rows is not the corpus's: rows {named(rows.tolist())}"]
        if len(rows)
        else []
    )


def _array(part: Part) -> list[str]:
    """What is wrong with the .npy: its bytes first, because a header can only be trusted in a whole file."""
    try:
        size = part.path.stat().st_size
        if size != part.bytes:
            return [f"bytes: expected {part.bytes}, found {size}"]
        sha256 = sha256_file(part.path)
        if sha256 != part.sha256:
            return [f"sha256: expected {part.sha256}, found {sha256}"]
        # Mapped, not read: only the header is looked at. Nothing in it is executed.
        array = np.load(part.path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return ["array: there is a record but no .npy"]
    except Exception as error:  # of many kinds: a header is a text that numpy takes apart
        return [f"array: {safe_text(str(error), 200)}"]
    found = (str(array.dtype.str), array.shape, bool(array.flags.c_contiguous))
    if found != ("<f4", (part.rows, part.dim), True):
        return [f"header: expected float32 ({part.rows}, {part.dim}) in C order, found {array.dtype} {array.shape}"]
    return []


# --------------------------------------------------------------------------------------------------------- covering


def cover(parts: Sequence[Part], rows: int) -> list[Piece]:
    """Which rows [lo, hi) to take from which part, so that each of [0, rows) is taken once, in order.

    Parts overlap after rows were moved; the first by range wins, so the answer does not depend on who was faster.
    Raises DataError naming the rows that no part has.
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
    """Half-open ranges for a message: `rows 100-200`, at most ten of them."""
    return named([f"rows {low}-{high}" for low, high in ranges])


def within(pieces: Sequence[Piece], low: int, high: int) -> list[Piece]:
    """The pieces cut to the rows [low, high)."""
    cut = [(part, max(a, low), min(b, high)) for part, a, b in pieces]
    return [piece for piece in cut if piece[1] < piece[2]]


def row_bytes(piece: Piece) -> Iterator[bytes]:
    """The raw float32 bytes of a piece's rows, while the whole file is hashed: what is copied is what was verified.

    Raises DataError, after the last byte, when the file is no longer the one its record names.
    """
    part, low, high = piece
    width = ITEM_BYTES * part.dim
    header = part.bytes - part.rows * width
    first, last = header + (low - part.start) * width, header + (high - part.start) * width
    digest, at = hashlib.sha256(), 0
    with part.path.open("rb") as file:
        while chunk := file.read(PIECE_BYTES):
            digest.update(chunk)
            wanted = chunk[max(0, first - at) : max(0, last - at)]
            at += len(chunk)
            if wanted:
                yield wanted
    if digest.hexdigest() != part.sha256:
        raise DataError(f"{part.path}: changed while it was merged; nothing was written. Run the merge again")
