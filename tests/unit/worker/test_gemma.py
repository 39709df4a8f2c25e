"""EmbeddingGemma's architecture in small: bidirectional attention, dense layers, prompts, bfloat16."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gemma
import numpy as np
import pytest
from box import MakeBox
from vectors import cosines, vectors_of

from runbook_lib.errors import ProfileError
from runbook_lib.profile.profile import ModelSpec
from runbook_lib.run import model as models

torch = pytest.importorskip("torch")

from worker.again import NORM_BOUND  # noqa: E402
from worker.encoder import Encoder  # noqa: E402

# Measured with this model and these texts: 0.99994, norms off by up to 0.0032. Other weights differ: no promise.
BFLOAT16_COSINE = 0.999


def texts() -> list[str]:
    """Documents behind the model's own prompt, from one word to more than it reads."""
    draw = random.Random(3)
    words = "river stone bridge sea meaning text old 東京 Ωmega near like word".split()  # noqa: SIM905
    return ["title: none | text: " + " ".join(draw.choices(words, k=int(2 ** draw.uniform(0, 6)))) for _ in range(60)]


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma.build(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="session")
def in_float32(tiny_gemma: Path) -> Encoder:
    return Encoder(tiny_gemma, "cpu", "float32", None, 1)


@pytest.fixture(scope="session")
def in_bfloat16(tiny_gemma: Path) -> Encoder:
    return Encoder(tiny_gemma, "cpu", "bfloat16", None, 1)


def test_the_small_model_is_of_embeddinggemmas_kind(tiny_gemma: Path, in_float32: Encoder) -> None:
    config = json.loads((tiny_gemma / "config.json").read_text())
    assert config["model_type"] == "gemma3_text" and config["use_bidirectional_attention"]
    assert [type(module).__name__ for module in in_float32.model] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Dense",
        "Normalize",
    ]
    assert in_float32.normalises and in_float32.max_tokens == gemma.MAX_TOKENS


def test_attention_looks_both_ways(in_float32: Encoder) -> None:
    """Else every other test here would hold for a model of another kind."""
    one, other = (in_float32.model.preprocess([f"river stone bridge {end}"]) for end in ("a", "b"))
    with torch.inference_mode():
        first = [in_float32.model[0](dict(f))["token_embeddings"][0, 0] for f in (one, other)]
    assert (first[0] - first[1]).abs().max() > 1e-3


def test_float32_equals_the_librarys_own_vectors(in_float32: Encoder) -> None:
    found = vectors_of(in_float32, texts())
    assert found.shape == (60, 768)
    assert cosines(found, in_float32.model.encode(texts(), batch_size=32)).min() >= 1 - 1e-6
    assert not in_float32.bad_rows(found)
    near = found @ found.T
    assert near[~np.eye(len(near), dtype=bool)].min() < 0.9  # the texts are told apart


@pytest.mark.parametrize("prompt", ["query", "document"])
def test_a_prompt_in_the_text_equals_a_prompt_by_name(in_float32: Encoder, prompt: str) -> None:
    """The worker is sent texts with the prompt before them: pooling must count the prompt as the library does."""
    bare = ["the river", "where to find the old stone bridge near the sea"]
    ours = vectors_of(in_float32, [gemma.PROMPTS[prompt] + text for text in bare])
    assert cosines(ours, in_float32.model.encode(bare, prompt_name=prompt)).min() >= 1 - 1e-6


def test_padding_does_not_leak_into_bidirectional_attention(in_float32: Encoder) -> None:
    """All in one batch, padded to the longest, against each alone."""
    together = in_float32._forward(in_float32.model, texts())
    alone = np.concatenate([in_float32._forward(in_float32.model, [text]) for text in texts()])
    assert cosines(together, alone).min() >= 1 - 1e-6


def test_bfloat16_stays_near_float32_and_within_its_norm_bound(in_float32: Encoder, in_bfloat16: Encoder) -> None:
    exact, found = vectors_of(in_float32, texts()), vectors_of(in_bfloat16, texts())
    norms = np.linalg.norm(found.astype(np.float64), axis=1)
    print(f"bfloat16: cosine {cosines(exact, found).min():.6f}, norm off by {np.abs(norms - 1).max():.6f}")
    assert found.dtype == np.float32
    assert not in_bfloat16.bad_rows(found)
    assert np.abs(norms - 1).max() < NORM_BOUND["bfloat16"] / 4
    assert cosines(exact, found).min() >= BFLOAT16_COSINE


def test_bfloat16_equals_the_librarys_own_bfloat16(in_bfloat16: Encoder) -> None:
    found, own = vectors_of(in_bfloat16, texts()), in_bfloat16.model.encode(texts(), batch_size=32)
    assert cosines(found, own.astype(np.float32)).min() >= BFLOAT16_COSINE


def test_a_bad_bfloat16_vector_is_redone_in_float32(in_float32: Encoder, in_bfloat16: Encoder) -> None:
    found = vectors_of(in_bfloat16, texts())
    found[5] = np.nan
    assert in_bfloat16.redo(texts(), [5], found) == {}
    exact = vectors_of(in_float32, texts())
    assert cosines(found, exact)[5] > cosines(found, exact).min()
    assert {p.dtype for p in in_bfloat16.model.parameters()} == {torch.bfloat16}  # the model itself stays as it was


# ------------------------------------------------------------------------------------------------- a whole worker


@pytest.mark.process
def test_a_real_worker_encodes_with_it(make_box: MakeBox, tiny_gemma: Path, in_float32: Encoder) -> None:
    box = make_box(texts(), model=tiny_gemma, part_rows=30, prompt="title: {title} | text: {text}")
    assert box.end(box.worker()) == 0, box.logs()
    assert box.parts() == [(0, 30), (30, 60)]
    found = np.concatenate([np.load(box.folder.part(*part)) for part in box.parts()])
    assert cosines(found, in_float32.model.encode(texts(), batch_size=32)).min() >= 1 - 1e-6
    record = box.record(0, 30)
    assert record["dim"] == 768 and record["max_tokens"] == gemma.MAX_TOKENS and record["normalises"]
    lengths = in_float32.lengths(texts()[:30])
    assert record["truncated"] == [row for row, tokens in enumerate(lengths) if tokens > gemma.MAX_TOKENS] != []


# ------------------------------------------------------------------------------------------- as launch resolves it


def test_its_prompts_dim_and_contract_are_read_from_its_files(tiny_gemma: Path) -> None:
    found = models.resolve(ModelSpec(name=str(tiny_gemma), dtype="bfloat16"))
    assert found.template == "title: {title} | text: {text}"
    assert found.question_template == "task: search result | query: {text}"
    assert (found.dim, found.normalises, found.max_tokens) == (768, True, gemma.MAX_TOKENS)
    assert found.architecture == "gemma3_text"


def test_float16_is_refused_because_its_activations_overflow(tiny_gemma: Path) -> None:
    with pytest.raises(ProfileError, match="float16"):
        models.resolve(ModelSpec(name=str(tiny_gemma), dtype="float16"))
