"""The manifest of a merged result: its parts, its files, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Written
from ..run.plan import ModelIdentity


@dataclass(frozen=True)
class MergedPart:
    """A part at the time of the merge: its array's name and sha256, its record's sha256, its slot and host.

    `rows`: the [lo, hi) that were taken from it, or empty if other parts had all of them.
    """

    name: str
    sha256: str
    slot: str
    host: str
    epoch: int | None
    rows: tuple[int, ...]
    record: str = ""


@dataclass(frozen=True)
class SlotShare:
    """The contribution of a slot: parts, rows of the result, and seconds of computing."""

    host: str
    parts: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Tally:
    """The number of tokens and of cut texts, and the tokens (and their share) that the model never read."""

    tokens: int
    truncated_rows: int
    tokens_cut: int
    share_cut: float


@dataclass(frozen=True)
class Chunked:
    """Documents that were read in chunks of at most `tokens`: how many in more than one, and the chunks of all."""

    tokens: int
    documents: int
    chunks: int


@dataclass(frozen=True)
class Tallies:
    """The tallies of the documents and of the questions."""

    documents: Tally
    questions: Tally


@dataclass(frozen=True)
class Amended:
    """Rows whose texts were corrected in the revision `epoch` of the plan."""

    epoch: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Since:
    """The earlier run from which vectors were taken, and how many documents are what.

    `matrix`: its matrix, as sealed; `limit`: the tokens read of a text there. `added`, `changed` and `reused` are the
    documents of this run; `removed` those that are no longer in the corpus. `computed`: the different texts among the
    added and changed ones; `spot`: reused rows that are computed again as a check. `runs`: each run that computed a
    row of this result, with its number of rows; this run is the last.
    """

    run: str
    run_id: str
    folder: str
    matrix: Written
    articles: Written
    documents: int
    limit: tuple[str, ...]
    added: int
    changed: int
    removed: int
    reused: int
    computed: int
    spot: int
    runs: tuple[RowsOf, ...]


@dataclass(frozen=True)
class RowsOf:
    """How many rows of a result a run computed."""

    run: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The description of a merged result. `plan` and `corpus` are digests; `outputs`: the files beside it, by name.

    `seen`: for a key of the parts' records, each value with its number of parts. `seconds`: the sum over all slots.
    `founding`: the file in the founding shape, which lies in another folder.
    """

    format: int
    run: str
    timestamp: str
    plan: str
    epoch: int
    corpus: str
    model: ModelIdentity
    dtype: str
    prompt: str
    question_prompt: str
    dim: int
    documents: int
    questions: int
    parts: tuple[MergedPart, ...]
    rows_done_twice: int
    slots: dict[str, SlotShare]
    seconds: float
    seen: dict[str, dict[str, int]]
    redone_float32: int
    lengths: Tallies
    outputs: dict[str, Written]
    founding: Written
    amended: tuple[Amended, ...] = ()
    since: Since | None = None  # only of a run with --since; `parts` and `corpus` are then of its work rows
    chunked: Chunked | None = None  # None: long texts are cut
    quarantined: tuple[int, ...] = ()  # always empty: with a given-up row there is no merge and no manifest

    @property
    def part_sums(self) -> set[tuple[str, str]]:
        """Name and sha256 of each part."""
        return {(part.name, part.sha256) for part in self.parts}
