"""Batches without padding: each text has the vector that it has alone, or the model is padded as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import odd_models as odd  # noqa: E402
import transformers as all_models  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from worker import packed_attention as packed  # noqa: E402
from worker import packing  # noqa: E402
from worker.encoder import Encoder  # noqa: E402
from worker.texts import DOCUMENT, QUERY, Question  # noqa: E402

Make = Callable[[Path], list[Any]]

ODD = ["", "<pad>", "river <pad> stone <mask>", "lake", "river stone 東京 ß", "x " * 200]
TEXTS = ODD + [" ".join(random.Random(k).choices(odd.WORDS, k=k)) for k in (3, 5, 5, 5, 9, 17, 33, 60, 61, 62, 90)]
ONE_KEY = {"num_key_value_heads": 1}
KEY_OF_16 = {**ONE_KEY, "head_dim": 16}
LAYERS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_hidden_layers": 3}


def config(name: str, **more: Any) -> Any:
    return odd.config(getattr(all_models, f"{name}Config"), **more)


def family(name: str, pooling: Any = "mean", side: str = "right", limit: int | None = 64, **more: Any) -> Make:
    """A model of transformers by its name, with a pooling."""

    def make(folder: Path) -> list[Any]:
        made = getattr(all_models, f"{name}Model")(config(name, **more))
        return [odd.raw(folder, made, odd.tokenizer(limit, side=side)), odd.mean(pooling)]

    return make


def encoder_that_was_causal(folder: Path) -> list[Any]:
    """Only its configuration says that a token sees all others; its modules say otherwise."""
    causal = config("Qwen3", **KEY_OF_16)
    causal.is_causal = False
    return [odd.raw(folder, odd.Qwen3Model(causal), odd.tokenizer(side="left")), odd.mean()]


def gemma(**more: Any) -> Make:
    sizes = {**KEY_OF_16, **LAYERS, "query_pre_attn_scalar": 16, "max_position_embeddings": 128}
    return family("Gemma3Text", sliding_window=16, **sizes, **more)


LONGER = {"max_position_embeddings": 68}  # positions are counted from the one behind the padding's

PACKED: dict[str, Make] = {
    **{f"BERT {mode}": family("Bert", mode, max_position_embeddings=64) for mode in odd.parts.Pooling.POOLING_MODES},
    "BERT, two poolings": family("Bert", ["cls", "mean"], max_position_embeddings=64),
    "BERT, a decoder": family("Bert", max_position_embeddings=64, is_decoder=True),
    "BERT, padded on the left": family("Bert", side="left", max_position_embeddings=64),
    "BERT and all other modules": lambda folder: [
        odd.raw(folder),
        odd.mean(),
        odd.dense(),
        odd.parts.LayerNorm(odd.WIDTH),
        odd.parts.Dropout(0.2),
        odd.parts.Normalize(),
    ],
    "BERT, prompts left out": lambda folder: [odd.raw(folder), odd.mean(["mean", "lasttoken"], include_prompt=False)],
    "BERT, a chat template": lambda folder: [
        odd.raw(folder, words=odd.tokenizer(chat_template=odd.CHAT)),
        odd.mean(),
    ],
    "RoBERTa": family("Roberta", **LONGER),
    "XLM-R": family("XLMRoberta", **LONGER),
    "CamemBERT": family("Camembert", **LONGER),
    "MPNet": family("MPNet", **LONGER),
    "DistilBERT": family("DistilBert", "cls", dim=odd.WIDTH, n_heads=2, n_layers=2, hidden_dim=64),
    "ALBERT": family("Albert", embedding_size=16, max_position_embeddings=64),
    "ELECTRA": family("Electra", embedding_size=16, max_position_embeddings=64),
    "ModernBERT": family("ModernBert", num_hidden_layers=4, local_attention=16),
    "Gemma 3, both ways": gemma(use_bidirectional_attention=True),
    "Gemma 3, causal": gemma(use_bidirectional_attention=False, side="left"),
    "Qwen3": family("Qwen3", "lasttoken", "left", **KEY_OF_16),
    "Qwen3, windows": family("Qwen3", side="left", use_sliding_window=True, sliding_window=8, **KEY_OF_16, **LAYERS),
    "Qwen3, both ways": encoder_that_was_causal,
    "Llama": family("Llama", side="left", **ONE_KEY),
    "Mistral, windows": family("Mistral", side="left", sliding_window=9, **ONE_KEY),
    "GPT-2": lambda folder: [odd.decoder(folder, "right", odd.GPT2Model), odd.mean("weightedmean")],
    "T5": lambda folder: [odd.t5(folder), odd.mean()],
}
# Of a module of its own, of layers that we do not reach, of what the check finds: with the reason.
PADDED: dict[str, tuple[Make, str]] = {
    "MobileBERT": (
        family("MobileBert", embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16),
        "packed its vectors are others",
    ),
    "ESM that counts masks": (
        family("Esm", mask_token_id=4, token_dropout=True, position_embedding_type="rotary", **LONGER),
        "packed its vectors are others",
    ),
    "DeBERTa": (family("DebertaV2", relative_attention=True, pos_att_type=["c2p"]), "an attention of their own"),
    "RoFormer": (family("RoFormer", embedding_size=odd.WIDTH), "an attention of their own"),
    "Gemma 2": (family("Gemma2", query_pre_attn_scalar=16, **KEY_OF_16), "attention with softcap"),
    "a window that is too long to be tried": (
        family("Mistral", side="left", limit=None, sliding_window=1200, **ONE_KEY),
        "its windows of 1,200 tokens",
    ),
    "a CNN": (lambda f: [odd.raw(f), odd.parts.CNN(odd.WIDTH, 16), odd.parts.Pooling(48, "mean")], "a module CNN"),
    "weights of words": (lambda f: [odd.raw(f), odd.weights_of_words(), odd.mean()], "a module WordWeights"),
    "words without order": (lambda f: [odd.static()], "its texts are read by StaticEmbedding"),
    "other encoders for questions": (lambda f: [odd.two_routes(f)], "its texts are read by Router"),
    "CLIP": (lambda f: [odd.clip(f)], "it has no pooling"),
    "CLIP's half for texts": (
        family("CLIPText", limit=48, max_position_embeddings=64, eos_token_id=2),
        "packed it raises ValueError: Sequence length must be less than",
    ),
}
PROMPTS = {DOCUMENT: "passage: {text}", QUERY: "query: {text}"}


def built(make: Make, folder: Path) -> Path:
    torch.manual_seed(3)
    return odd.save(make(folder), folder)


def loaded(folder: Path, templates: dict[str, str] | None = None) -> Encoder:
    return Encoder(folder, "cpu", "float32", None, 1, templates)


def encoded(encoder: Encoder, texts: list[str]) -> np.ndarray:
    return encoder.encode(texts, encoder.lengths(texts), range(len(texts)))


def away(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest 1 - cosine of two rows, whose lengths have to be the same."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    sizes = np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1)
    assert np.allclose(*sizes, rtol=1e-5)
    return float((1 - (found * expected).sum(axis=1) / (sizes[0] * sizes[1])).max())


# ------------------------------------------------------------------------------------------------- the same vectors


@pytest.mark.parametrize("templates", [{}, PROMPTS], ids=["", "with prompts"])
@pytest.mark.parametrize("name", PACKED)
def test_each_text_of_a_row_has_the_vector_that_the_library_gives_it_alone(
    name: str, templates: dict[str, str], tmp_path: Path
) -> None:
    """Documents and questions, short and cut, and those with the tokenizer's own words in them."""
    folder = built(PACKED[name], tmp_path / "model")
    encoder, own = loaded(folder, templates), SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    before = {kind: text.replace("{text}", "") for kind, text in templates.items()}
    texts = [text for text in TEXTS if text or name != "GPT-2"]
    as_staged = [before.get(DOCUMENT, "") + text for text in texts]
    as_staged += [Question(before.get(QUERY, "") + text) for text in texts]
    some = range(0, len(as_staged), 3) if templates else range(len(as_staged))
    asked = [as_staged[i] for i in some if encoder.lengths([as_staged[i]])[0]]
    assert encoder.pack() == ""
    found = encoded(encoder, asked)
    alone = np.stack([alone_by(own, text, before) for text in asked])
    assert away(found, alone) < 1e-10
    lengths = encoder.lengths(asked)
    assert encoder.padding(lengths, asked)["padded_tokens"] == sum(encoder.cut(lengths, asked))
    assert found.tobytes() == encoded(encoder, asked).tobytes()


def alone_by(own: SentenceTransformer, text: str, before: dict[str, str]) -> np.ndarray:
    if isinstance(text, Question):
        prompt = before.get(QUERY, "")
        return own.encode_query([str(text[len(prompt) :])], prompt=prompt)[0]
    prompt = before.get(DOCUMENT, "")
    return own.encode_document([text[len(prompt) :]], prompt=prompt)[0]


@pytest.mark.parametrize("name", PADDED)
def test_a_model_that_cannot_be_packed_says_why_and_stays_as_it_was(name: str, tmp_path: Path) -> None:
    make, why = PADDED[name]
    encoder = loaded(built(make, tmp_path / "model"))
    texts = ["lake", "river stone river", "lake iron"]
    before = encoded(encoder, texts)
    assert why in encoder.pack()
    assert not encoder.packed
    assert encoded(encoder, texts).tobytes() == before.tobytes()


def test_a_limit_below_a_long_window_makes_it_no_window(tmp_path: Path) -> None:
    make = family("Mistral", side="left", limit=None, sliding_window=1200, **ONE_KEY)
    folder = built(make, tmp_path / "model")
    assert Encoder(folder, "cpu", "float32", 600, 1).pack() == ""


def test_only_float32_on_a_cpu_is_packed(tmp_path: Path) -> None:
    folder = built(PACKED["BERT mean"], tmp_path / "model")
    assert "only float32 on a cpu" in Encoder(folder, "cpu", "bfloat16", None, 1).pack()


# -------------------------------------------------------------------------------------------------- what is refused


Q, K = torch.ones(1, 2, 5, 4), torch.ones(1, 1, 5, 4)
BOUNDS = torch.tensor([0, 2, 5])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"cu_seq_lens_q": None}, "a padded batch of 1"),
        ({"query": torch.ones(2, 2, 5, 4)}, "a padded batch of 2"),
        ({"attention_mask": torch.ones(1, 1, 5, 5)}, "a mask or dropout"),
        ({"dropout": 0.1}, "a mask or dropout"),
        ({"softcap": 30.0}, "attention with softcap"),
        ({"s_aux": torch.ones(2), "of_tomorrow": 1}, "attention with of_tomorrow, s_aux"),
        ({"cu_seq_lens_q": torch.tensor([0, 2, 4])}, "5 tokens and 5 keys, of texts with 4"),
        ({"cu_seq_lens_q": torch.tensor([1, 5])}, "of texts with 5"),
        ({"key": torch.ones(1, 1, 7, 4)}, "5 tokens and 7 keys"),
        ({"position_bias": torch.zeros(1, 2, 5, 5), "sliding_window": 2}, "a bias and a window"),
    ],
)
def test_attention_gives_nothing_rather_than_something_wrong(given: dict[str, Any], why: str) -> None:
    asked = {"query": Q, "key": K, "value": K, "attention_mask": None, "cu_seq_lens_q": BOUNDS, "softcap": None}
    found, _ = packed.attention(torch.nn.Module(), **asked)
    assert found.shape == (1, 5, 2, 4)
    with pytest.raises(packed.NotPacked, match=why):
        packed.attention(torch.nn.Module(), **{**asked, **given})


def test_a_padded_batch_of_a_packed_model_raises(tmp_path: Path) -> None:
    """It would be computed without its mask, and nobody would see."""
    encoder = loaded(built(PACKED["BERT mean"], tmp_path / "model"))
    assert encoder.pack() == ""
    encoder.model[0].can_flatten_inputs = False
    features = encoder.texts.features(encoder.model, ["lake", "river stone"])
    with pytest.raises(packed.NotPacked, match="a padded batch of 2"):
        encoder.texts.vectors(encoder.model, DOCUMENT, features)


def test_a_text_of_no_tokens_raises(tmp_path: Path) -> None:
    """Its neighbour's first token would be pooled for it."""
    bare = odd.tokenizer()
    bare.backend_tokenizer.post_processor = None
    encoder = loaded(built(lambda folder: [odd.raw(folder, words=bare), odd.mean()], tmp_path / "model"))
    assert encoder.pack() == ""
    with pytest.raises(packed.NotPacked, match="a text of no tokens"):
        encoded(encoder, ["lake", ""])


def test_the_librarys_own_entry_point_pads_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(built(PACKED["MPNet"], tmp_path / "model"))
    expected = encoder.as_the_library(TEXTS)
    assert encoder.pack() == ""
    assert encoder.as_the_library(TEXTS).tobytes() == expected.tobytes()
    calls = packed.CALLS.count
    encoded(encoder, TEXTS)
    assert packed.CALLS.count > calls


# ------------------------------------------------------------------------------------------------ what the check sees


Patch = Callable[[pytest.MonkeyPatch], None]
attention, band, one_row, is_causal = packed.attention, packed._band, packing.one_row, packed._is_causal


def shifted(by: int) -> Patch:
    """Texts that begin so many tokens late."""

    def moved(*given: Any, cu_seq_lens_q: Any, **more: Any) -> Any:
        bounds = cu_seq_lens_q.clone()
        bounds[1:-1] += by
        return attention(*given, cu_seq_lens_q=bounds, **more)

    return lambda patch: patch.setattr(packing, "attention", moved)


def without_bounds(*given: Any, cu_seq_lens_q: Any, **more: Any) -> Any:
    return attention(*given, cu_seq_lens_q=cu_seq_lens_q[[0, -1]], **more)


def unscaled(*given: Any, scaling: float, **more: Any) -> Any:
    return attention(*given, scaling=scaling * 1.05, **more)


def window(by: int) -> Patch:
    return lambda patch: patch.setattr(packed, "_band", lambda a, b, c, size, causal: band(a, b, c, size + by, causal))


def positions(padding: int | None) -> Any:
    """Positions that go on from text to text."""

    def collate(texts: Any) -> Any:
        found = one_row(padding)(texts)
        return {**found, "position_ids": torch.arange(found["input_ids"].shape[1])[None] % 60}

    return collate


FAULTS: dict[str, tuple[str, Patch]] = {
    "a boundary one late": ("BERT mean", shifted(1)),
    "a boundary one early": ("Qwen3", shifted(-1)),
    "a boundary one late in MPNet": ("MPNet", shifted(1)),
    "no boundaries": ("T5", lambda patch: patch.setattr(packing, "attention", without_bounds)),
    "another scale": ("BERT cls", lambda patch: patch.setattr(packing, "attention", unscaled)),
    "a window one too wide": ("ModernBERT", window(1)),
    "a window one too narrow": ("Gemma 3, both ways", window(-1)),
    "a causal window one too wide": ("Mistral, windows", window(1)),
    "causal where it is not": ("BERT mean", lambda p: p.setattr(packed, "_is_causal", lambda *given: True)),
    "not causal where it is": ("Llama", lambda p: p.setattr(packed, "_is_causal", lambda *given: False)),
    "by the module's flag alone": (
        "Qwen3, both ways",
        lambda p: p.setattr(packed, "_is_causal", lambda module, given: module.is_causal),
    ),
    "positions that go on": ("BERT mean", lambda p: p.setattr(packing, "one_row", positions)),
    "padding written out counts": ("RoBERTa", lambda p: p.setattr(packing, "one_row", lambda padding: late(padding))),
}


def late(padding: int | None) -> Any:
    """Positions from the one behind the padding's, also where a padding token is written out."""

    def collate(texts: Any) -> Any:
        found = one_row(None)(texts)
        return {**found, "position_ids": found["position_ids"] + (padding or 0) + 1}

    return collate


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_sees_a_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = FAULTS[fault]
    encoder = loaded(built(PACKED[name], tmp_path / "model"))
    before = encoded(encoder, TEXTS)
    spoil(monkeypatch)
    assert "packed its vectors are others: 1 - cosine" in encoder.pack()
    assert encoded(encoder, TEXTS).tobytes() == before.tobytes()


def test_the_checks_row_is_longer_than_the_model_has_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(*given: Any, **more: Any) -> Any:
        seen.append(given[1].shape[2])
        return attention(*given, **more)

    monkeypatch.setattr(packing, "attention", noted)
    assert loaded(built(PACKED["BERT mean"], tmp_path / "model")).pack() == ""
    assert max(seen) > 64
    longer = loaded(built(family("Bert", limit=64, max_position_embeddings=9000), tmp_path / "longer" / "model"))
    seen.clear()
    assert longer.pack() == ""
    assert 2048 < max(seen) < 3000


def test_an_error_of_the_model_is_a_reason_to_pad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(built(PACKED["BERT mean"], tmp_path / "model"))
    before = encoded(encoder, TEXTS)

    def broken(*given: Any, **more: Any) -> Any:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(packing, "attention", broken)
    assert encoder.pack() == "packed it raises IndexError: index out of range in self"
    assert encoded(encoder, TEXTS).tobytes() == before.tobytes()
