"""What differs by kind of device, as far as it can be tried without one: all of it but the device's own arithmetic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worker import accelerator, device, machine
from worker.batches import SCORE_BYTES, WIDTH, few_shapes, wide
from worker.device import Complaints, complaint, settle, there
from worker.encoder import Encoder, is_out_of_memory
from worker.widths import widened

# --------------------------------------------------------------------------------------------------------- few shapes


@pytest.mark.parametrize("heads", [2, 12, 16])
@pytest.mark.parametrize("top", [8, 256, 2048, 8192])
def test_shapes_are_few_and_fit(top: int, heads: int) -> None:
    lengths = np.random.default_rng(top).integers(1, top + 1, size=500).tolist()
    layout = few_shapes(lengths, 8192, heads)
    assert sorted(i for batch in layout for i in batch) == list(range(500))
    shapes = set()
    for batch in layout:
        (width,) = {wide(lengths[i]) for i in batch}
        shapes.add((len(batch), width))
        assert len(batch) == 1 or len(batch) * width <= 8192
        assert len(batch) == 1 or len(batch) * heads * width * width * 4 < SCORE_BYTES
        assert len(batch) & (len(batch) - 1) == 0 and width % WIDTH == 0 and width < max(lengths[i] for i in batch) + 64
    assert len(shapes) <= 8 * -(-top // WIDTH)
    assert [lengths[batch[0]] for batch in layout] == sorted((lengths[batch[0]] for batch in layout), reverse=True)


def test_a_text_of_no_tokens_has_a_width_too() -> None:
    assert few_shapes([0, 0, 0], 8192, 2) == [[0, 1], [2]]


@pytest.mark.parametrize("left", [False, True])
def test_features_are_padded_on_the_side_of_the_tokenizer(left: bool) -> None:
    ids, mask = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 1]])
    found = widened({"input_ids": ids, "attention_mask": mask, "prompt_length": 2}, 5, 9, left)
    assert found["input_ids"].tolist() == ([[9, 9, 5, 6, 7]] if left else [[5, 6, 7, 9, 9]])
    assert found["attention_mask"].tolist() == ([[0, 0, 1, 1, 1]] if left else [[1, 1, 1, 0, 0]])
    assert found["prompt_length"] == 2


@pytest.mark.parametrize("more", [{"position_ids": torch.tensor([[0, 1, 2]])}, {"attention_mask": None}])
def test_features_that_cannot_be_padded_safely_stay_as_they_are(more: dict[str, Any]) -> None:
    features = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.tensor([[1, 1, 1]]), **more}
    features = {key: value for key, value in features.items() if value is not None}
    assert widened(features, 5, 9, left=False)["input_ids"].shape == (1, 3)


TEXTS = [f"text {'word ' * (i % 11)}{i}" for i in range(37)] + ["a", "long " * 90]


def test_the_batches_of_an_apple_gpu_give_the_librarys_vectors_in_few_shapes(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way of batches, computed here."""
    encoder = Encoder(tiny_bert, "cpu", "float32", None)
    encoder.shape_as("mps")
    shapes = []
    real = encoder.model.forward

    def forward(features: dict[str, Any], **more: Any) -> Any:
        shapes.append(tuple(features["input_ids"].shape))
        return real(features, **more)

    monkeypatch.setattr(encoder.model, "forward", forward)
    lengths = encoder.lengths(TEXTS)
    vectors = encoder.encode(TEXTS, lengths, range(len(TEXTS)))
    assert all(width == 64 and rows & (rows - 1) == 0 for rows, width in shapes)
    assert sum(rows for rows, _ in shapes) == len(TEXTS)
    assert encoder.padding(lengths, TEXTS)["padded_tokens"] == 64 * len(TEXTS)
    monkeypatch.undo()
    assert np.abs(vectors - encoder.as_the_library(TEXTS)).max() < 1e-6


def test_a_width_is_never_more_than_the_model_reads(tiny_bert: Path) -> None:
    encoder = Encoder(tiny_bert, "cpu", "float32", 40)
    encoder.shape_as("xpu")
    vectors = encoder.encode(TEXTS, encoder.lengths(TEXTS), range(len(TEXTS)))
    assert np.abs(vectors - encoder.as_the_library(TEXTS)).max() < 1e-6


def test_where_shapes_are_few_a_bad_row_is_redone_by_the_processor_from_the_files(tiny_bert: Path) -> None:
    encoder = Encoder(tiny_bert, "cpu", "float32", None)
    right = encoder.as_the_library(TEXTS[:3])
    encoder.shape_as("mps")
    for parameter in encoder.model.parameters():  # the device's own copy is bad
        parameter.data.fill_(float("nan"))
    vectors = np.full((3, 32), np.nan, np.float32)
    assert encoder.redo(TEXTS[:3], [0, 2], vectors) == {}
    assert np.abs(vectors[[0, 2]] - right[[0, 2]]).max() < 1e-6 and np.isnan(vectors[1]).all()


def test_heads_are_those_of_the_model(tiny_bert: Path) -> None:
    assert Encoder(tiny_bert, "cpu", "float32", None).texts.heads == 2


# -------------------------------------------------------------------------------------------------- words and memory


@pytest.mark.parametrize(
    "said",
    [
        "MPS backend out of memory (MPS allocated: 8.98 GB, other allocations: 192.00 KB, max allowed: 9.07 GB)",
        "Invalid buffer size: 24.00 GiB",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    ],
)
def test_a_lack_of_memory_is_known_by_the_words_of_each_device(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))


def test_a_driver_that_holds_most_of_the_memory_ends_the_worker_and_says_so() -> None:
    assert accelerator.fullness(7 * 10**9, 10**10) == ""
    assert "nearly out of memory: the GPU's driver holds 9.0 GB of the 10.0 GB" in accelerator.fullness(
        9 * 10**9, 10**10
    )
    assert accelerator.fullness(9 * 10**9, 0) == ""


def test_a_processor_multiplies_right_and_a_device_that_is_not_there_says_so() -> None:
    assert accelerator.product("cpu") == ""
    assert accelerator.product("xpu") or torch.xpu.is_available()
    assert accelerator.name("cpu")
    accelerator.release("cpu")


# ------------------------------------------------------------------------------------------- variables, what is there


def test_an_apple_gpu_has_its_variables_and_no_faster_way_around() -> None:
    own = {"PATH": "/bin", "PYTORCH_ENABLE_MPS_FALLBACK": "1", "PYTORCH_MPS_FAST_MATH": "1"}
    found = settle("mps", own)
    assert set(found) == {"PATH", "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO"}
    assert float(found["PYTORCH_MPS_LOW_WATERMARK_RATIO"]) < float(found["PYTORCH_MPS_HIGH_WATERMARK_RATIO"])
    assert settle("cuda", own) == settle("cpu", own) == own


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine on Linux without any GPU."""
    monkeypatch.setattr(machine, "nvidia_smi", lambda: "")
    monkeypatch.setattr(device, "RENDER_NODES", str(tmp_path / "*"))
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


def test_a_machine_without_a_gpu_has_a_processor(bare: pytest.MonkeyPatch) -> None:
    assert there() == "cpu"


def test_where_nvidias_program_is_there_is_cuda(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(machine, "nvidia_smi", lambda: "/usr/bin/nvidia-smi")
    assert there() == "cuda"


@pytest.mark.parametrize(("processor", "kind"), [("arm64", "mps"), ("x86_64", "cpu")])
def test_a_mac_with_apple_silicon_has_mps(bare: pytest.MonkeyPatch, processor: str, kind: str) -> None:
    bare.setattr(sys, "platform", "darwin")
    bare.setattr("platform.machine", lambda: processor)
    assert there() == kind


@pytest.mark.parametrize(
    ("version", "vendor", "kind"),
    [("2.13.0+xpu", "0x8086", "xpu"), ("2.13.0", "0x8086", "cpu"), ("2+xpu", "0x1", "cpu")],
)
def test_an_intel_card_counts_where_torch_was_built_for_it(
    bare: pytest.MonkeyPatch, tmp_path: Path, version: str, vendor: str, kind: str
) -> None:
    bare.setattr("worker.device.metadata.version", lambda name: version)
    (tmp_path / "vendor").write_text(f"{vendor}\n")
    assert there() == kind


# ------------------------------------------------------------------------------------------------ a driver's complaint


def test_a_complaint_is_found_once_and_only_since_the_last_look(tmp_path: Path) -> None:
    log = tmp_path / "slot.log"
    log.write_text("Error: command buffer exited with error status.\n")
    complaints = Complaints(log, "mps")
    assert complaints.look() == ""
    with log.open("a") as file:
        file.write("committed rows 0-8\n  Error: command buffer exited with error status.\nmore\n")
    assert complaints.look() == "Error: command buffer exited with error status."
    assert complaints.look() == ""
    assert complaint(log) == "Error: command buffer exited with error status."


def test_only_the_log_of_an_apple_gpu_is_read(tmp_path: Path) -> None:
    log = tmp_path / "slot.log"
    complaints = Complaints(log, "cuda")
    log.write_text("Error: command buffer exited with error status.\n")
    assert complaints.look() == "" and complaint(tmp_path / "gone") == ""
