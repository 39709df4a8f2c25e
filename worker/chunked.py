"""An encoder that reads long documents in chunks: a document's vector is the mean of the vectors of its chunks.

The mean is weighted with the tokens of each chunk, and normalised where the model normalises: the method of OpenAI's
cookbook, "Embedding texts that are longer than the model's maximum context length" (2023). A document of one chunk has
the vector that it would have without. Questions are cut as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .chunks import cut_up
from .encoder import Encoder
from .texts import DOCUMENT, kind_of
from .tokenizing import Lengths
from .wire import Described


@dataclass(frozen=True)
class Chunks:
    """The chunks of one document, as they are encoded, and their tokens."""

    texts: list[str]
    lengths: Lengths


class ChunkedLengths(Lengths):
    """Tokens of each text, and by position the chunks of those that are read in several."""

    def __init__(self, whole: Lengths, chunks: dict[int, Chunks]):
        super().__init__(whole, whole.read)
        self.chunks = chunks

    @property
    def chunks_of_each(self) -> list[int]:
        """In how many chunks each text is read."""
        return [len(self.chunks[i].texts) if i in self.chunks else 1 for i in range(len(self))]


@dataclass(frozen=True)
class _Call:
    """Texts that are encoded in one go: all that are short, or all chunks of some documents."""

    positions: list[int]  # of the texts that they are of, one a text of this call
    texts: list[str]
    lengths: Lengths


class ChunkedEncoder(Encoder):
    """The encoder of `too_long: chunk`."""

    def __init__(
        self,
        folder: Path,
        device: str,
        dtype: str,
        chunk_tokens: int,
        threads: int | None = None,
        templates: dict[str, str] | None = None,
    ):
        """Load as `Encoder` does. Raises ValueError for a model that reads fewer tokens than a chunk may have."""
        super().__init__(folder, device, dtype, chunk_tokens, threads, templates)
        if self.max_tokens != chunk_tokens:
            raise ValueError(
                f"model.too_long: chunk: chunks of {chunk_tokens} tokens are asked for, but the model reads "
                f"{self.max_tokens}: set model.max_tokens: {self.max_tokens}"
            )
        self.chunk_tokens = chunk_tokens
        self._template = (templates or {}).get(DOCUMENT, "{text}")
        # Nothing of a document is cut.
        self.max_tokens, self.limits = None, {**self.limits, DOCUMENT: None}

    def describe(self) -> Described:
        """As of any encoder, but that no document is too long for it."""
        return replace(super().describe(), model_max_tokens=None)

    def lengths(self, texts: Sequence[str]) -> ChunkedLengths:
        """Tokens of each text, special ones included, and its chunks."""
        whole = super().lengths(texts)
        return ChunkedLengths(whole, self._chunks(texts, whole))

    def _chunks(self, texts: Sequence[str], lengths: Sequence[int]) -> dict[int, Chunks]:
        """By position, the chunks of the documents that are longer than one."""
        if isinstance(lengths, ChunkedLengths):
            return lengths.chunks
        long = [i for i, n in enumerate(lengths) if n > self.chunk_tokens and kind_of(texts[i]) == DOCUMENT]
        return {i: self._cut_up(texts[i], lengths[i]) for i in long}

    def _cut_up(self, text: str, tokens: int) -> Chunks:
        def count(some: list[str]) -> list[int]:
            return list(Encoder.lengths(self, some))

        pieces, _ = cut_up(text, tokens, self.chunk_tokens, self._template, count)
        return Chunks(pieces, Encoder.lengths(self, pieces))

    def _groups(self, chunks: dict[int, Chunks]) -> list[list[int]]:
        """Positions of long documents that are encoded together: their chunks fill one batch, or it is one document.

        A group alone is laid out as it is among others: so it can be computed again, bit by bit.
        """
        groups: list[list[int]] = []
        size = 0
        for i, of_one in chunks.items():
            tokens = sum(of_one.lengths)
            if not groups or size + tokens > self.budget:
                groups.append([])
                size = 0
            groups[-1].append(i)
            size += tokens
        return groups

    def _calls(self, texts: Sequence[str], lengths: Sequence[int]) -> Iterator[_Call]:
        chunks = self._chunks(texts, lengths)
        read = lengths.read if isinstance(lengths, Lengths) else [None] * len(texts)
        short = [i for i in range(len(texts)) if i not in chunks]
        if short:
            known = Lengths([lengths[i] for i in short], [read[i] for i in short])
            yield _Call(short, [texts[i] for i in short], known)
        for group in self._groups(chunks):
            yield _Call(
                [i for i in group for _ in chunks[i].texts],
                [text for i in group for text in chunks[i].texts],
                Lengths(
                    [n for i in group for n in chunks[i].lengths],
                    [tokens for i in group for tokens in chunks[i].lengths.read],
                ),
            )

    def layout(self, lengths: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
        """The positions that are encoded together: batches of short texts, then groups of long documents."""
        chunks = self._chunks(texts, lengths)
        short = [i for i in range(len(texts)) if i not in chunks]
        batches = super().layout([lengths[i] for i in short], [texts[i] for i in short]) if short else []
        return [[short[i] for i in batch] for batch in batches] + self._groups(chunks)

    def padding(self, lengths: Sequence[int], texts: Sequence[str]) -> dict[str, int]:
        """Real and padded tokens of what is encoded; of texts whose chunks are not known, as if they were even."""
        if not isinstance(lengths, ChunkedLengths):  # some may not be tokenized here: they ended a worker
            sizes = [(text, size) for text, n in zip(texts, lengths) for size in self._even(n)]
            return super().padding([size for _, size in sizes], [text for text, _ in sizes])
        all_calls = [super(ChunkedEncoder, self).padding(c.lengths, c.texts) for c in self._calls(texts, lengths)]
        return {name: sum(each[name] for each in all_calls) for name in ("real_tokens", "padded_tokens")}

    def _even(self, tokens: int) -> list[int]:
        parts = max(1, -(-tokens // self.chunk_tokens))
        return [-(-tokens // parts)] * parts

    def encode(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        rows: Sequence[int],
        before_batch: Callable[[list[int]], None] = lambda rows: None,
    ) -> np.ndarray:
        """Vectors of `texts` in their order, float32 (len(texts), dim), as of any encoder."""
        vectors: np.ndarray | None = None
        for call in self._calls(texts, lengths):
            found = super().encode(
                call.texts,
                call.lengths,
                [rows[i] for i in call.positions],
                lambda begun: before_batch(list(dict.fromkeys(begun))),
            )
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            self._put(vectors, call, found)
        assert vectors is not None  # a part has at least one row
        return vectors

    def as_the_library(self, texts: Sequence[str]) -> np.ndarray:
        """The same by the library's own entry point, float32 (len(texts), dim). All of one kind."""
        vectors: np.ndarray | None = None
        for call in self._calls(texts, self.lengths(texts)):
            found = super().as_the_library(call.texts)
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            self._put(vectors, call, found)
        assert vectors is not None
        return vectors

    def _put(self, vectors: np.ndarray, call: _Call, found: np.ndarray) -> None:
        """Put what came of a call in its place: of several chunks the mean."""
        at = 0
        while at < len(call.positions):
            position, stop = call.positions[at], at + 1
            while stop < len(call.positions) and call.positions[stop] == position:
                stop += 1
            vectors[position] = self._mean(found[at:stop], call.lengths[at:stop])
            at = stop

    def _mean(self, vectors: np.ndarray, tokens: Sequence[int]) -> Any:
        """The mean of the vectors of chunks, (dim,); no numbers where one of them is bad, which a mean would hide."""
        if len(vectors) == 1:
            return vectors[0]
        if self.bad_rows(vectors):
            return np.full(vectors.shape[1], np.nan, np.float32)
        whole = np.average(vectors.astype(np.float64), axis=0, weights=tokens)
        norm = float(np.linalg.norm(whole))
        return (whole / norm if self.normalises and norm else whole).astype(np.float32)

    def _again(self, text: str) -> Any:
        """The vector of one text (dim,), in float32."""
        chunks = self.lengths([text]).chunks.get(0)
        if chunks is None:
            return super()._again(text)
        vectors = np.stack([super(ChunkedEncoder, self)._again(piece) for piece in chunks.texts])
        return self._mean(vectors, chunks.lengths)
