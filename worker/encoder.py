"""The model on one device: texts in, vectors out, as `encode_document` and `encode_query` of the library give them.

They pad batches of a fixed number of rows; this feeds the same preprocessing and the same modules with batches by token
budget instead, so a row's vector is the library's own up to the rounding of another batch shape.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from . import accelerator, linear
from .again import NORM_BOUND
from .batches import batches, cheapest, few_shapes, padded_tokens, rows_of, wide
from .device import NEW, budget, kind
from .fetching import fetched, pinned
from .pipeline import through
from .text_model import TextModel, library_versions
from .text_model import load_before_forks as load_before_forks
from .texts import DOCUMENT, KINDS, kind_of
from .tokenizing import Features, Lengths
from .wire import Described, Libraries, TriedGpu

# Words of an error that means it: torch's own, Linux's, those of cuBLAS and cuDNN, of mps, and the last two of xpu.
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "status_alloc_failed",
    "invalid buffer size",
    "out_of_device_memory",
    "out_of_host_memory",
)


class RowError(Exception):
    """One row cannot be encoded whatever is tried."""

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row}: {reason}")
        self.row = row
        self.reason = reason


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a smaller batch may succeed."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in NO_MEMORY)


class Encoder:
    """A loaded model; `encode` turns the texts of one part into float32 vectors (rows, dim)."""

    def __init__(
        self,
        folder: Path,
        device: str,
        dtype: str,
        max_tokens: int | None,
        threads: int | None = None,
        templates: dict[str, str] | None = None,
    ):
        """Load from `folder` without network. `device`: cpu, cuda, mps or xpu; `dtype`: float32, bfloat16, float16.

        `templates`: by kind of text, the prompt that its texts were filled into, such as `query: {text}`.
        """
        if threads:
            torch.set_num_threads(threads)
        self.dtype = dtype
        self.device = device
        self.texts = TextModel(folder, device, dtype, max_tokens, templates or {})
        self.model = self.texts.model
        self.limits = self.texts.limits
        self.max_tokens = self.limits[DOCUMENT]
        self.normalises = self.texts.normalises
        self.shape_as(device)
        self.out_of_memory = 0
        # A batch has never more rows than this: set where larger ones are known to end the process.
        self.row_limit: int | None = None
        # Whether batches are made ready and started while others are computed. Not after a death: it was one of them.
        self.ahead = self.device.startswith("cuda")
        self._row_cap: int | None = None
        self._calm = 0
        self._float32: Any = None
        self._processor: Callable[[], Encoder] = lambda: Encoder(
            folder, "cpu", "float32", max_tokens, threads, templates
        )

    def shape_as(self, device: str) -> None:
        """Lay out batches as for this kind of device, wherever they are computed."""
        self.kind, self.budget = kind(device), budget(device)
        self.texts.width_of = wide if self.kind in NEW else None

    @property
    def packed(self) -> bool:
        """Whether a batch is one row of tokens without padding."""
        return self.texts.packing is not None

    def pack(self) -> str:
        """Pad nothing from now on; else all stays as it is, and it says why."""
        if self.device != "cpu" or self.dtype != "float32":
            return f"it is computed in {self.dtype} on {self.device}, and only float32 on a cpu is packed"
        return self.texts.pack(self.budget)

    def describe(self) -> Described:
        """Device, versions and the model's own limit of tokens, for the record of a part."""
        name, limit = accelerator.name(self.device), self.texts.own_limits[DOCUMENT]
        name += f", {linear.NAME}" if self.texts.linear else ""
        return Described(f"{self.device} ({name})", str(torch.__version__), platform.python_version(), limit)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that decide a vector."""
        return {"torch": str(torch.__version__), **library_versions()}

    def lengths(self, texts: Sequence[str]) -> Lengths:
        """Tokens of each text before truncation, special tokens included; and where they are kept, which."""
        lengths = [0] * len(texts)
        read: list[np.ndarray | None] = [None] * len(texts)
        for positions in _by_kind(texts):
            found = self.texts.tokens([texts[i] for i in positions])
            for i, tokens, kept in zip(positions, found, found.read):
                lengths[i], read[i] = tokens, kept
        return Lengths(lengths, read)

    def cut(self, lengths: Sequence[int], texts: Sequence[str]) -> list[int]:
        """`lengths` as the model reads them: at most its limit for texts of that kind."""
        limits = [self.limits[kind_of(text)] for text in texts]
        return [n if limit is None else min(n, limit) for n, limit in zip(lengths, limits)]

    def layout(self, lengths: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
        """The positions of each batch: those of documents first, none holds both kinds."""
        cut = self.cut(lengths, texts)
        layout = []
        for positions in _by_kind(texts):
            of_kind = self._cut_into([cut[i] for i in positions])
            layout += [[positions[i] for i in batch] for batch in of_kind]
        return layout

    def _cut_into(self, lengths: list[int]) -> list[list[int]]:
        if self.kind in NEW:
            return few_shapes(lengths, self.budget, self.texts.heads)
        return (rows_of if self.packed else batches if self.kind == "cuda" else cheapest)(lengths, self.budget)

    def _forward(self, model: Any, texts: list[str]) -> np.ndarray:
        return self._start(model, texts, self.texts.features(model, texts))()

    @torch.inference_mode()
    def _start(self, model: Any, texts: list[str], features: Features) -> Callable[[], np.ndarray]:
        """Have one batch computed; what is returned waits for its vectors."""
        return fetched(self.texts.vectors(model, kind_of(texts[0]), features).float())

    def _shrinking(self, texts: list[str], rows: list[int], features: Features | None) -> Callable[[], np.ndarray]:
        """Have one batch computed; when memory runs out it is halved at the same place, and grows back later."""
        caps = [cap for cap in (self._row_cap, self.row_limit) if cap]
        if caps and len(texts) > min(caps):
            return self._in_pieces(texts, rows, min(caps))
        try:
            if features is None:
                features = self.texts.features(self.model, texts)
            vectors = self._start(self.model, texts, features)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        else:
            self._calm += 1
            if self._row_cap and self._calm >= 20:  # twenty batches without trouble: the neighbour may have left
                self._row_cap, self._calm = self._row_cap * 2, 0
            return vectors
        # Outside the except clause: the traceback would keep the failed batch's tensors alive.
        self.out_of_memory += 1
        accelerator.release(self.device)
        if len(texts) == 1:
            self._blame(rows[0], reason)
        self._row_cap, self._calm = max(1, len(texts) // 2), 0
        return self._in_pieces(texts, rows, self._row_cap)

    def _blame(self, row: int, reason: str) -> None:
        """Raise RowError for a row too large for the device, but RuntimeError when not even a word fits any more."""
        try:
            self._forward(self.model, ["word"])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise RuntimeError(f"out of memory even for one word: something else holds the memory ({reason})") from None
        raise RowError(row, f"out of memory even alone: {reason}")

    def _in_pieces(self, texts: list[str], rows: list[int], size: int) -> Callable[[], np.ndarray]:
        starts = range(0, len(texts), size)
        pieces = [self._shrinking(texts[i : i + size], rows[i : i + size], None)() for i in starts]
        return lambda: np.concatenate(pieces)

    def encode(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        rows: Sequence[int],
        before_batch: Callable[[list[int]], None] = lambda rows: None,
    ) -> np.ndarray:
        """Vectors of `texts` in their order, float32 (len(texts), dim).

        `rows` are the row numbers, for messages; `before_batch` is told all rows that are being computed. Raises
        RowError for a row that cannot be encoded alone.
        """
        read = lengths.read if isinstance(lengths, Lengths) else [None] * len(texts)

        def make_ready(batch: list[int]) -> Features | None:
            try:
                features = self.texts.features(self.model, [texts[i] for i in batch], [read[i] for i in batch])
                return pinned(features) if self.device.startswith("cuda") else features
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return None  # done again in its turn, and halved

        def start(batch: list[int], features: Features | None) -> Callable[[], np.ndarray]:
            return self._shrinking([texts[i] for i in batch], [rows[i] for i in batch], features)

        def tell(begun: list[list[int]]) -> None:
            before_batch([rows[i] for batch in begun for i in batch])

        vectors: np.ndarray | None = None
        for batch, of_batch in through(self.layout(lengths, texts), make_ready, start, tell, self.ahead):
            if vectors is None:
                vectors = np.empty((len(texts), of_batch.shape[1]), np.float32)
            vectors[batch] = of_batch
        assert vectors is not None  # a part has at least one row
        return vectors

    def padding(self, lengths: Sequence[int], texts: Sequence[str]) -> dict[str, int]:
        """Real and padded tokens of the layout that `encode` uses for these texts."""
        cut = self.cut(lengths, texts)
        read = [wide(n) for n in cut] if self.kind in NEW else cut
        padded = sum(cut) if self.packed else padded_tokens(read, self.layout(lengths, texts))
        return {"real_tokens": sum(cut), "padded_tokens": padded}

    def readers(self) -> list[str]:
        """The kinds of text that are read each in a way of its own: one where all are read alike."""
        return self.texts.readers()

    def as_the_library(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts of one kind by the library's own entry point."""
        return np.asarray(self.texts.as_the_library(texts), np.float32)

    def bad_rows(self, vectors: np.ndarray) -> dict[int, str]:
        """Positions whose vector no honest encoding gives, with the reason: NaN, infinity, zero, or a wrong norm."""
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        bad: dict[int, str] = {}
        for i in np.flatnonzero(~np.isfinite(norms)):
            bad[int(i)] = "NaN or infinity in the vector"
        for i in np.flatnonzero(norms == 0):
            bad[int(i)] = "a vector of zeros"
        if self.normalises:
            for i in np.flatnonzero(np.abs(norms - 1) > NORM_BOUND[self.dtype]):
                bad.setdefault(int(i), f"norm {norms[i]:.6g}, but the model normalises")
        return bad

    def redo(self, texts: Sequence[str], positions: Sequence[int], vectors: np.ndarray) -> dict[int, str]:
        """Compute some positions again, one by one in float32; give those that are still bad.

        Where shapes are few the device itself is in doubt: there the processor does it.
        """
        without_memory: dict[int, str] = {}
        for i in positions:
            try:
                vectors[i] = self._again(texts[i])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                without_memory[i] = "redoing it ran out of memory"
        still = {positions[i]: reason for i, reason in self.bad_rows(vectors[list(positions)]).items()}
        return {i: ", and ".join(filter(None, (reason, without_memory.get(i)))) for i, reason in still.items()}

    def _again(self, text: str) -> Any:
        """The vector of one text (dim,), in float32."""
        if self.kind in NEW:
            processor = self._float32 = self._float32 or self._processor()
            return processor.encode([text], processor.lengths([text]), [-1])[0]
        if self._float32 is None:
            self._float32 = self.model if self.dtype == "float32" else copy.deepcopy(self.model).float()
        return self._forward(self._float32, [text])[0]


def _by_kind(texts: Sequence[str]) -> list[list[int]]:
    """The positions of the documents, then those of the questions."""
    groups = [[i for i, text in enumerate(texts) if kind_of(text) == kind] for kind in KINDS]
    return [positions for positions in groups if positions]


def libraries(device: str) -> Libraries:
    """Versions, the CUDA that torch was built for, and for each GPU whether one matrix product comes out right."""
    gpus: list[TriedGpu] = []
    answer: Libraries = {
        "versions": {"torch": str(torch.__version__), **library_versions()},
        "cuda_build": torch.version.cuda,
        "gpus": gpus,
    }
    for index in range(torch.cuda.device_count() if device == "cuda" else 0):
        gpu: TriedGpu = {"uuid": f"GPU-{getattr(torch.cuda.get_device_properties(index), 'uuid', '')}"}
        if wrong := accelerator.product(f"cuda:{index}"):
            gpu["error"] = wrong
        gpus.append(gpu)
    if device in NEW:
        answer["product"] = accelerator.product(device)
    return answer
