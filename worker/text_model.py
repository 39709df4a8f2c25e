"""A model as sentence-transformers loads it, asked as its own `encode_document` and `encode_query` ask it.

The only door to that library. What decides a vector there is kept: the task (a model may have other heads for queries
than for documents), the prompt apart from the text where the model treats it apart, the limits, the width. One thing is
different on purpose: a text is a text. The library takes a string that looks like an address or a file for a picture,
a film or a sound, and opens it; a corpus is data, and nothing that it says is ever opened.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers import __version__ as library_version
from transformers import __version__ as transformers_version

from .linear import LaidOut, laid_out
from .packing import Packing, why_not
from .packing_check import self_check
from .texts import DOCUMENT, KINDS, QUERY, Question, fixed_prompt, kind_of
from .tokenizing import Lengths, Once
from .widths import widened

# A limit above this is none: tokenizers write 1e30 where they know of none.
NO_LIMIT = 10_000_000
USUAL_HEADS = 16
# What only a picture, a film or a sound leaves in the features of a batch.
MEDIA = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "image_sizes", "image_grid_thw")
ADDRESS = "data:image/png;base64,AAAA"  # names a picture without a file or an address: to try what is done with it


def library_versions() -> dict[str, str]:
    """Versions of this library and of the one below it."""
    return {"sentence-transformers": str(library_version), "transformers": str(transformers_version)}


_loaded: dict[Any, tuple[Any, LaidOut]] = {}  # before this process was forked: the pages are shared


def load_before_forks(folder: Path, dtype: str) -> None:
    """Load a model on the processor for the processes that are forked from this one, each of which may change it."""
    _take_every_string_for_a_text()
    _loaded[_key(folder, dtype)] = _load(folder, "cpu", dtype)


def _load(folder: Path, device: str, dtype: str) -> tuple[Any, LaidOut]:
    kept = {_dtype_key(): getattr(torch, dtype), "use_safetensors": True}
    model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=kept).eval()
    return model, laid_out(model)


def _key(folder: Path, dtype: str) -> Any:
    """What a loaded model was made of: another one if a file was replaced since."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return dtype, tuple((str(path), s.st_ino, s.st_size, s.st_mtime_ns) for path in files for s in (path.stat(),))


class TextModel:
    """A loaded model; `features` and `vectors` take texts of one kind (`worker.texts.Question` marks the questions)."""

    def __init__(self, folder: Path, device: str, dtype: str, max_tokens: int | None, templates: dict[str, str]):
        """Load from `folder` without network. Raises ValueError for a model that cannot be used as it has to be."""
        _take_every_string_for_a_text()
        self.device = device
        ready = _loaded.pop(_key(folder, dtype), None) if device == "cpu" else None
        self.model, self.linear = _load(folder, device, dtype) if ready is None else ready
        self.own_limits = {kind: _limit(_reader(self.model, kind), kind) for kind in KINDS}
        if max_tokens is not None:
            for kind in KINDS:
                _lower_limit(_reader(self.model, kind), kind, max_tokens)
        self.limits = {kind: _limit(_reader(self.model, kind), kind) for kind in KINDS}
        self.packing: Packing | None = None
        self._turn = threading.Lock()  # of a tokenizer, which holds what it was last told
        # From the tokens of a batch to the width it is padded to, where that is not their number.
        self.width_of: Callable[[int], int] | None = None
        self.prompts = {kind: fixed_prompt(templates.get(kind, "{text}")) for kind in KINDS}
        for kind, prompt in self.prompts.items():
            if prompt is None and self._keeps_prompts_apart(kind):
                raise ValueError(
                    f"this model treats the prompt of a {kind} apart from its text, so it cannot hold the title: "
                    "choose a prompt without {title}"
                )
        self._once = self._kept()

    def _kept(self) -> dict[str, Once]:
        """What tokenizes each kind of text once; nothing for a kind whose batches the library makes otherwise."""
        kept: dict[str, Once] = {}
        for kind in KINDS if hasattr(self.model, "preprocess") else ():
            like: str = (Question if kind == QUERY else str)(self.prompts[kind] or "")
            with contextlib.suppress(Exception):  # whatever it is, the library's own way stays
                tokenizer = _reader(self.model, kind).tokenizer
                once = Once(tokenizer, self.limits[kind], self.packing.collate if self.packing else None)
                if once.is_as(functools.partial(self._by_library, self.model), self._count, like):
                    kept[kind] = once
        return kept

    @property
    def width(self) -> int | None:
        """How many numbers of a vector are kept: None for all."""
        width = getattr(self.model, "truncate_dim", None)
        return int(width) if width else None

    @property
    def heads(self) -> int:
        """Heads of attention of the model, by its own configuration; as many as is usual where it says nothing."""
        found = (getattr(getattr(each, "config", None), "num_attention_heads", None) for each in self.model.modules())
        return next((int(heads) for heads in found if isinstance(heads, int) and heads > 0), USUAL_HEADS)

    @property
    def normalises(self) -> bool:
        """Whether every vector has length 1 by the model's own last module; one that is cut afterwards has not."""
        return type(self.model[-1]).__name__ == "Normalize" and self.width is None

    def pack(self, budget: int) -> str:
        """Have batches packed, rows of `budget` tokens, from now on; else all is as it was, and it says why."""
        why = why_not(self.model)
        if not why:
            packing = Packing(self.model)
            why = self_check(packing, self, budget)
            self.packing = None if why else packing
            self._once = self._kept()
        return why

    def readers(self) -> list[str]:
        """The kinds of text that are read each in a way of its own: one where all are read alike."""
        one, two = (_reader(self.model, kind) for kind in KINDS)
        alike = one is two and len(set(self.limits.values())) == 1
        return [DOCUMENT] if alike else list(KINDS)

    def _keeps_prompts_apart(self, kind: str) -> bool:
        excluded = any(getattr(module, "include_prompt", True) is False for module in self.model.modules())
        return excluded or "message" in getattr(_reader(self.model, kind), "modality_config", ())

    def tokens(self, texts: Sequence[str]) -> Lengths:
        """Tokens of each text before truncation, special tokens included, and where known which. All of one kind."""
        once = self._once.get(kind_of(texts[0]))
        if once:
            return once.tokens(texts, self._turn)
        with self._turn:
            return Lengths(self._count(texts))

    def _count(self, texts: Sequence[str]) -> list[int]:
        reader = _reader(self.model, kind_of(texts[0]))
        if "message" in getattr(reader, "modality_config", ()):  # a chat template puts words of its own around each
            untruncated = {"processing_kwargs": {"text": {"truncation": False}}}
            return [int(self._by_library(self.model, [text], **untruncated)["input_ids"].shape[-1]) for text in texts]
        tokenizer: Any = getattr(reader, "tokenizer", None)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor of texts and pictures
        plain = [str(text) for text in texts]
        if hasattr(tokenizer, "encode_batch"):  # a model of words without order: no special tokens, no limit
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(plain, add_special_tokens=False)]
        if not callable(tokenizer):  # a list of words
            return [len(tokenizer.tokenize(text)) for text in plain]
        encoded = tokenizer(plain, add_special_tokens=True, truncation=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def features(self, model: Any, texts: Sequence[str], read: Sequence[Any] = ()) -> dict[str, Any]:
        """What the modules of `model`, this one or a copy, are given for texts of one kind.

        `read`: their tokens as `tokens` gave them; what is not known is tokenized again.
        """
        once = self._once.get(kind_of(texts[0]))
        if once and read and all(tokens is not None for tokens in read):
            return once.features(read)
        with self._turn:
            return self._by_library(model, texts)

    def _by_library(self, model: Any, texts: Sequence[str], **more: Any) -> dict[str, Any]:
        kind = kind_of(texts[0])
        prompt = self.prompts[kind] or ""
        if not prompt or not all(text.startswith(prompt) for text in texts):
            prompt = ""
        plain = [text[len(prompt) :] for text in texts]
        if hasattr(model, "preprocess"):
            features = model.preprocess([str(text) for text in plain], prompt=prompt, task=kind, **more)
        else:  # before sentence-transformers 5.4 (Python 3.9 has 5.1) `encode` did itself what `preprocess` does
            features = model.tokenize([prompt + text for text in plain], task=kind)
            if prompt and (length := model._get_prompt_length(prompt, task=kind)) is not None:
                features["prompt_length"] = length
        if media := [key for key in MEDIA if key in features]:
            raise RuntimeError(f"the library took a text for a picture, a film or a sound ({', '.join(media)})")
        return dict(features)

    def vectors(self, model: Any, kind: str, features: dict[str, Any]) -> torch.Tensor:
        """The vectors of texts of one kind, as `model` gives them, cut to the model's own width."""
        features = self._widened(features, kind)
        features = {
            # From memory that the device reads by itself, it is not waited for.
            name: value.to(self.device, non_blocking=value.is_pinned()) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }
        embeddings = model(features, task=kind).get("sentence_embedding")
        if embeddings is None:
            raise ValueError("the model gives no vector of a text (no sentence_embedding): it has no pooling module")
        vectors: torch.Tensor = embeddings[:, : self.width]
        return vectors

    def _widened(self, features: dict[str, Any], kind: str) -> dict[str, Any]:
        """The features, padded to one of few widths, where that is asked for and the model reads so many tokens."""
        ids, limit = features.get("input_ids"), self.limits[kind]
        if self.width_of is None or limit is None or not isinstance(ids, torch.Tensor):
            return features
        tokenizer: Any = getattr(_reader(self.model, kind), "tokenizer", None)
        pad, side = getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "padding_side", "right")
        if not isinstance(pad, int):
            return features
        return widened(features, min(self.width_of(ids.shape[-1]), limit), pad, side == "left")

    def as_the_library(self, texts: Sequence[str]) -> Any:
        """The vectors of texts of one kind by the library's own entry point, padded as it does."""
        kind = kind_of(texts[0])
        prompt = self.prompts[kind] or ""
        own = self.model.encode_document if kind == DOCUMENT else self.model.encode_query
        with paused(self.linear), paused(self.packing) if self.packing else contextlib.nullcontext():
            return own([str(text[len(prompt) :]) for text in texts], prompt=prompt)


@contextlib.contextmanager
def paused(own: LaidOut | Packing) -> Iterator[None]:
    """Have the model do as the library does meanwhile."""
    own.off()
    try:
        yield
    finally:
        own.on()


def _dtype_key() -> str:
    """What transformers calls the dtype to load in; before 4.56 it handed the name of today on to the model's class."""
    version = [int(number) for number in re.findall(r"[0-9]+", metadata.version("transformers"))]
    return "dtype" if version[:2] >= [4, 56] else "torch_dtype"


def _take_every_string_for_a_text() -> None:
    """Tell the library that no string names a picture, a film or a sound; else it looks for such a file.

    Raises RuntimeError where it does not listen, as another version might not.
    """
    try:
        modality = importlib.import_module("sentence_transformers.base.modality")
    except ImportError:  # before 5.4 it knew of no such strings
        return
    for name in ("is_image_url_or_path", "is_video_url_or_path", "is_audio_url_or_path"):
        setattr(modality, name, lambda text: False)
    if (kind := modality.infer_modality(ADDRESS)) != "text":
        raise RuntimeError(f"sentence-transformers {library_version} takes a text for: {kind}; use another version")


def _reader(model: Any, kind: str) -> Any:
    """The module that reads the texts of a kind: the first one, or the first of that kind's route."""
    first = model[0]
    routes = getattr(first, "sub_modules", None)
    if routes is None:
        return first
    if hasattr(first, "_resolve_route"):
        return routes[first._resolve_route(task=kind, modality="text")][0]
    return routes[kind][0]


def _limit(reader: Any, kind: str) -> int | None:
    """How many tokens of a text are read; None for all."""
    own = (getattr(reader, "processing_kwargs", None) or {}).get("text", {}).get("max_length")
    limit = own or getattr(reader, f"{kind}_length", None) or getattr(reader, "max_seq_length", None)
    return int(limit) if limit and limit < NO_LIMIT else None


def _lower_limit(reader: Any, kind: str, max_tokens: int) -> None:
    """Have no more than `max_tokens` read of a text. Raises ValueError where the model cannot."""
    before = _limit(reader, kind)
    if before is not None and before <= max_tokens:
        return
    try:
        reader.max_seq_length = max_tokens
    except AttributeError:
        raise ValueError("model.max_tokens: this model reads whole texts and cannot read less; leave it out") from None
    if getattr(reader, f"{kind}_length", None):
        setattr(reader, f"{kind}_length", max_tokens)
    if (limit := _limit(reader, kind)) != max_tokens:
        raise ValueError(f"model.max_tokens: asked for {max_tokens}, but the model reads {limit}")
