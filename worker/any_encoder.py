"""What the worker needs of an encoder: another one can be put in its place (`worker.encode.load`) by having all this.

An encoder is loaded on one device and holds one model; `worker.encoder.Encoder` is the one with torch. Positions count
from 0 within the texts of a call, rows are those of the corpus. A text is a document, or a question where it is a
`worker.texts.Question`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Protocol

from .wire import Described

if TYPE_CHECKING:
    import numpy as np


def _ignore(rows: list[int]) -> None:
    """Take no notice."""


class AnyEncoder(Protocol):
    """A loaded model on one device. What it raises on a text is taken for the text's fault or the device's."""

    device: str  # cpu or cuda, perhaps with a number
    limits: dict[str, int | None]  # tokens that are read of a text of each kind; None: all
    max_tokens: int | None  # the same of a document
    normalises: bool  # whether every vector has the norm 1, by the model's own contract
    budget: int  # tokens that a batch may hold, padding included
    ahead: bool  # whether the device computes by itself: the next batch is made ready meanwhile; may be set to False
    out_of_memory: int  # how often memory ran out so far; a smaller batch did it then
    row_limit: int | None  # rows that a batch may have; set where larger ones are known to end the process

    def pack(self) -> str:
        """Compute batches without padding from now on; else all stays as it was, and it says why."""

    def describe(self) -> Described:
        """The device and versions in words, and the model's own limit of tokens."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that decide a vector, by name."""

    def readers(self) -> list[str]:
        """The kinds of text that are read each in a way of its own: one where all are read alike."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut, special tokens included."""

    def cut(self, lengths: Sequence[int], texts: Sequence[str]) -> list[int]:
        """`lengths` as the model reads them: at most its limit for texts of that kind."""

    def layout(self, lengths: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
        """The positions of each batch that `encode` makes of these texts."""

    def padding(self, lengths: Sequence[int], texts: Sequence[str]) -> dict[str, int]:
        """`real_tokens` and `padded_tokens` of the batches that `encode` makes of these texts."""

    def encode(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        rows: Sequence[int],
        before_batch: Callable[[list[int]], None] = _ignore,
    ) -> np.ndarray:
        """Vectors of `texts` in their order, float32 (len(texts), dim): the same bytes for the same call.

        `lengths` is what `lengths(texts)` gave; `rows`, one a text, are for messages. `before_batch` is called with
        all rows that are being computed, before another batch of them is begun. Raises an error with `row` and `reason`
        for a row that cannot be encoded alone.
        """

    def bad_rows(self, vectors: np.ndarray) -> dict[int, str]:
        """Positions in `vectors` (rows, dim) that no honest encoding gives, with why: NaN, zero, a wrong norm."""

    def redo(self, texts: Sequence[str], positions: Sequence[int], vectors: np.ndarray) -> dict[int, str]:
        """Compute some positions of `vectors` (len(texts), dim) again in float32, in place; give those still bad."""

    def as_the_library(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts of one kind by the library's own entry point, float32 (len(texts), dim)."""
