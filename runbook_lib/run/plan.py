"""The plan: which slot does which rows, in which parts, with which model. Saved, hashed and checked independently."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from worker.batches import TOKEN_BUDGET
from worker.device import NEW
from worker.files import read_json, write_json
from worker.layout import FORMAT
from worker.rows import Covered, Range, count, missing
from worker.wire import PADDED

from ..errors import DataError
from .disk import explain_disk_errors
from .fences import Fence

# Rows that one slot does in 10-30 s: a kill costs at most one part.
PART_ROWS_CUDA = 1024
# On a CPU the same in full batches, for a model of about this many bytes of weights (all-MiniLM-L6-v2): the time grows
# with the weights. Never so few that most of them are not full, nor so many rows that a part's record is long.
PART_BATCHES_CPU, FEWEST_BATCHES_CPU = 32, 4
CPU_WEIGHTS_BYTES = 90_000_000
MOST_ROWS_CPU = 512
FASTER_THAN_A_CPU = 4  # mps and xpu: a guess, so that a part is not too long for what was never measured
BYTES_A_TOKEN = 4  # of text, about
# Even a short shard is cut, so that progress shows and a kill costs little.
PARTS_PER_SHARD = 4
# On more slots than this the last parts of slow slots are what all wait for: so a shard has many parts, of not too few
# rows (docs/scale.md has the curve). A run of many rows on few slots has no more parts than a folder holds well.
FLEET, PARTS_IN_A_FLEET, FEWEST_ROWS = 64, 96, 128
MOST_PARTS = 20_000


@dataclass(frozen=True)
class ModelIdentity:
    """Which model: a part of any other is refused. `digest` is over all its files; `normalises` its own contract."""

    name: str
    revision: str
    digest: str
    dim: int
    normalises: bool


@dataclass(frozen=True)
class Slot:
    """One GPU or CPU share and the rows [start, stop) it was first given."""

    slot: str
    host: str
    index: int
    device: str
    threads: int
    start: int
    stop: int
    gpu: str | None = None

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Move:
    """Rows [start, stop) that went from one slot to another in the revision `epoch`, and why."""

    epoch: int
    start: int
    stop: int
    source: str
    target: str
    why: str


@dataclass(frozen=True)
class Amendment:
    """Rows whose texts were mended in the revision `epoch`; `corpus` is the fingerprint of the corpus before."""

    epoch: int
    corpus: str
    rows: tuple[int, ...]


class _SharedOut:
    """Who has which rows by a plan: of each slot, of each host, and where each shard began."""

    def __init__(self, slots: Sequence[Slot], moves: Sequence[Move]):
        first = {slot.slot: [(slot.start, slot.stop)] if slot.rows else [] for slot in slots}
        self.rows = {name: list(rows) for name, rows in first.items()}  # in this revision
        self.files = first  # of each shard file that the slot's host was given for it
        for move in moves:
            taken = (move.start, move.stop)
            if move.source in first:
                own = self.rows[move.source]
                self.rows[move.source] = [left for low, high in own for left in missing(low, high, [taken])]
            if move.target in first:
                self.rows[move.target].append(taken)
                self.files[move.target].append(taken)
        self.used: dict[str, list[Slot]] = {}  # of each host, those that have rows or had some
        for slot in slots:
            if self.files[slot.slot]:
                self.used.setdefault(slot.host, []).append(slot)
        self.grid = sorted(slot.start for slot in slots if slot.rows)


class _Once:
    """Room beside the fields of a frozen record for what is worked out of them."""

    __slots__ = ("_once",)
    _once: _SharedOut


@dataclass(frozen=True)
class Plan(_Once):
    """One revision of the plan. Rows count documents first, then questions.

    A slot's rows are those it was first given, without the ones that moved away, with the ones that moved to it.
    """

    run: str
    epoch: int
    documents: int
    questions: int
    corpus: str
    model: ModelIdentity
    dtype: str
    prompt: str
    question_prompt: str
    max_tokens: int | None
    part_rows: int
    slots: tuple[Slot, ...]
    moves: tuple[Move, ...] = ()
    run_id: str = ""
    amendments: tuple[Amendment, ...] = ()
    fences: tuple[Fence, ...] = ()
    batching: str = PADDED
    why_padded: str = ""
    chunk_tokens: int | None = None  # long documents are read in chunks of so many tokens; None: they are cut

    @property
    def rows(self) -> int:
        """Documents and questions together."""
        return self.documents + self.questions

    @property
    def sha256(self) -> str:
        """The plan's own digest: equal plans have equal digests."""
        value = self._plain()
        for name in ("run_id", "amendments", "fences", "why_padded"):
            if not value[name]:  # as in a version without them: its digest still holds
                del value[name]
        if self.batching == PADDED:  # likewise
            del value["batching"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, object]:
        """The fields, without one that says what every version before did."""
        value = asdict(self)
        return {name: each for name, each in value.items() if (name, each) != ("chunk_tokens", None)}

    @property
    def _shared_out(self) -> _SharedOut:
        """Who has which rows: worked out once, as moves and slots may be many."""
        try:
            return self._once
        except AttributeError:
            object.__setattr__(self, "_once", _SharedOut(self.slots, self.moves))
            return self._once

    def ranges(self, slot: Slot) -> list[Range]:
        """The rows of a slot in this revision; each range lies in one file of `files`."""
        return list(self._shared_out.rows[slot.slot])

    def left(self, slot: Slot, have: Covered | Iterable[Sequence[int]]) -> int:
        """Return how many of a slot's rows are in none of these ranges."""
        covered = Covered.of(have)
        return sum(count(covered.missing(start, stop)) for start, stop in self._shared_out.rows[slot.slot])

    def files(self, slot: Slot) -> list[Range]:
        """The rows of each shard file that a slot's host was given for it."""
        return list(self._shared_out.files[slot.slot])

    def grid(self, row: int) -> int:
        """Return where the shard that first had `row` begins: parts are cut from there, also after its rows moved."""
        place = bisect_right(self._shared_out.grid, row)
        if not place or row >= self.rows:
            raise DataError(f"row {row} is not within the plan's 0-{self.rows}")
        return self._shared_out.grid[place - 1]

    def rows_ever_given(self, host: str) -> list[Range]:
        """Return all rows that a host was given in any revision: those it has done count."""
        return [rows for slot in self._shared_out.used.get(host, ()) for rows in self._shared_out.files[slot.slot]]

    def of_host(self, host: str) -> list[Slot]:
        """The slots of one host that have rows, or had some."""
        return list(self._shared_out.used.get(host, ()))

    @property
    def used(self) -> list[Slot]:
        """The slots that have rows, or had some."""
        return [slot for slot in self.slots if self._shared_out.files[slot.slot]]

    @property
    def hosts(self) -> list[str]:
        """The hosts that have rows, or had some, in the profile's order."""
        return list(self._shared_out.used)

    def first(self) -> Plan:
        """The first revision: before any rows moved."""
        return replace(self, epoch=1, moves=(), fences=())

    def moved(self, moves: Sequence[Move]) -> Plan:
        """Return the next revision. Raises DataError if a row would belong to no slot, or to two."""
        after = replace(self, epoch=self.epoch + 1, moves=(*self.moves, *moves))
        if wrong := problems((rows for slot in after.slots for rows in after.ranges(slot)), after.rows):
            raise DataError(f"moving rows: {'; '.join(wrong[:5])}; the plan stays as it was")
        return after

    def amended(self, corpus: str, rows: Sequence[int]) -> Plan:
        """Return the next revision, for a corpus with other texts in these rows."""
        amendment = Amendment(self.epoch + 1, self.corpus, tuple(rows))
        return replace(self, epoch=self.epoch + 1, corpus=corpus, amendments=(*self.amendments, amendment))

    def with_fences(self, fences: Sequence[Fence]) -> Plan:
        """Return the next revision, with these fences."""
        return replace(self, epoch=self.epoch + 1, fences=tuple(fences))

    @explain_disk_errors("writing the plan")
    def save(self, path: Path) -> None:
        """Write the plan with its digest."""
        write_json(path, {"format": FORMAT, **self._plain(), "sha256": self.sha256})


def cut(rows: int, pieces: int) -> list[Range]:
    """[0, rows) in `pieces` half-open ranges whose sizes differ by at most one; some are empty when rows are few."""
    return [(rows * i // pieces, rows * (i + 1) // pieces) for i in range(pieces)]


def part_rows_for(device: str, shard_rows: int, weights_bytes: int, row_tokens: int) -> int:
    """Return the rows of a part: it should take 10-30 s on its slot, and a shard have at least four.

    `row_tokens`: about as many has a row, as the model reads it.
    """
    if device == "cuda":
        usual = PART_ROWS_CUDA
    else:
        faster = FASTER_THAN_A_CPU if device in NEW else 1
        batches = min(PART_BATCHES_CPU, PART_BATCHES_CPU * CPU_WEIGHTS_BYTES // max(1, weights_bytes))
        tokens = max(FEWEST_BATCHES_CPU, batches) * TOKEN_BUDGET["cpu"]
        usual = min(PART_ROWS_CUDA, faster * min(MOST_ROWS_CPU, tokens // max(1, row_tokens)))
    return max(1, min(usual, -(-shard_rows // PARTS_PER_SHARD)))


def part_rows_of_all(part_rows: int, rows: int, slots: int) -> int:
    """Return the rows of a part on this many slots, where `part_rows` would do for one of them."""
    shard = -(-rows // slots)
    if slots > FLEET:
        part_rows = min(part_rows, max(FEWEST_ROWS, shard // PARTS_IN_A_FLEET))
    return max(part_rows, min(-(-rows // MOST_PARTS), shard // PARTS_IN_A_FLEET))


def row_tokens(text_bytes: int, rows: int, limit: int | None) -> int:
    """About how many tokens the model reads of a row, by the bytes of all texts."""
    tokens = max(1, text_bytes // max(1, rows) // BYTES_A_TOKEN)
    return tokens if limit is None else min(tokens, limit)


def problems(ranges: Iterable[Sequence[int]], rows: int) -> list[str]:
    """Return why `ranges` do not cover [0, rows) exactly once: gaps, overlaps, strays. Shares no code with `cut`.

    Counts coverage by a sweep over sorted ends, so neither the order nor the number of ranges matters.
    """
    events: list[tuple[int, int]] = []
    messages = []
    for start, stop in ranges:
        if start > stop or start < 0 or stop > rows:
            messages.append(f"range {start}-{stop} is not within 0-{rows}")
        elif start < stop:
            events += [(start, 1), (stop, -1)]
    events.sort()
    depth, at = 0, 0
    for position, change in events:
        if position > at:
            if depth == 0:
                messages.append(f"gap: rows {at}-{position} belong to nobody")
            elif depth > 1:
                messages.append(f"overlap: rows {at}-{position} belong to {depth} ranges")
            at = position
        depth += change
    if at < rows:
        messages.append(f"gap: rows {at}-{rows} belong to nobody")
    return messages


_known: dict[Path, tuple[tuple[int, int, int], Plan]] = {}  # the plans read last: each look asks for it again
KEPT = 4


def load(path: Path) -> Plan:
    """Read a plan and verify its digest; a file that did not change since is not read again. Raises DataError."""
    try:
        status = path.stat()
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
    except OSError:
        return _read(path)
    known = _known.get(path)
    if known and known[0] == stamp:
        return known[1]
    plan = _read(path)
    while len(_known) >= KEPT and path not in _known:
        _known.pop(next(iter(_known)), None)
    _known[path] = stamp, plan
    return plan


def _read(path: Path) -> Plan:
    try:
        value = read_json(path)
    except ValueError as error:
        raise DataError(f"reading the plan: {error}") from None
    if value is None:
        raise DataError(f"{path}: no plan yet; run 01_preflight (runbook check)")
    digest = value.pop("sha256", None)
    value.pop("format", None)
    try:
        plan = Plan(
            **{
                **value,
                "model": ModelIdentity(**value["model"]),
                "slots": tuple(Slot(**slot) for slot in value["slots"]),
                "moves": tuple(Move(**move) for move in value["moves"]),
                "amendments": tuple(Amendment(**{**a, "rows": tuple(a["rows"])}) for a in value.get("amendments", ())),
                "fences": tuple(Fence(**fence) for fence in value.get("fences", ())),
            }
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a plan of this version: {error}") from None
    if plan.sha256 != digest:
        raise DataError(f"{path}: changed since it was written: expected sha256 {digest}, found {plan.sha256}")
    return plan
