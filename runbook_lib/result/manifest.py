"""The manifest of a merged result: what went in, part by part, what came out, and what is known of the making."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Written
from ..run.plan import ModelIdentity


@dataclass(frozen=True)
class MergedPart:
    """A part that was there: its array's name and sha256, its record's sha256, whose it is.

    `rows`: the [lo, hi) that were taken from it, or nothing where other parts had them all.
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
    """What a slot gave: parts, rows of the result, and the seconds it computed."""

    host: str
    parts: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Tally:
    """Tokens of texts, how many texts were cut, and the tokens (and their share) that the model never read."""

    tokens: int
    truncated_rows: int
    tokens_cut: int
    share_cut: float


@dataclass(frozen=True)
class Tallies:
    """The same of the documents and of the questions."""

    documents: Tally
    questions: Tally


@dataclass(frozen=True)
class Amended:
    """Rows whose texts were mended in the revision `epoch` of the plan."""

    epoch: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """What a merged result is. `plan` and `corpus` are digests; `outputs` are the files beside it, by name.

    `seen`: for a key of the parts' records, each value with the number of parts that have it. `seconds` are of all
    slots together. `founding` is the file in the founding shape, which lies elsewhere.
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
    quarantined: tuple[int, ...] = ()  # always none: a row that was given up has no vector, and then no manifest

    @property
    def part_sums(self) -> set[tuple[str, str]]:
        """Name and sha256 of each part."""
        return {(part.name, part.sha256) for part in self.parts}
