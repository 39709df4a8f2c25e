"""What a device takes while it works: power by nvidia-smi, memory by the system."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from worker import draw
from worker.draw import Draw, power_of, process_bytes

GPU = "GPU-11111111-1111-1111-1111-111111111111"
OTHER = "GPU-22222222-2222-2222-2222-222222222222"


@pytest.mark.parametrize(
    ("lines", "watts"),
    [
        (f"{OTHER}, 1, 2, 40, 70.5\n{GPU}, 99, 2000, 61, 512.25", 512.25),
        (f"{GPU}, 99, 2000, 61, [N/A]", None),
        (f"{OTHER}, 1, 2, 40, 70.5", None),
        (f"{GPU}, 99, 2000, 61", None),
        (f"{GPU}, 99, 2000, 61, -3", None),
        ("", None),
    ],
)
def test_the_power_of_a_gpu_is_read_by_its_uuid(lines: str, watts: float | None) -> None:
    assert power_of(GPU, lines) == watts


def test_the_power_is_that_of_the_second_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [f"{GPU}, 99, 2000, 61, {watts}" for watts in (60, 60, 500, 520)]
    heard: list[str] = []

    def sample(timeout_s: float) -> str:
        heard.append(said[min(len(heard), 3)])
        return heard[-1]

    monkeypatch.setattr(draw, "gpu_sample", sample)
    monkeypatch.setattr(draw, "EVERY_S", 0.001)
    with Draw(GPU) as measured:
        deadline = time.monotonic() + 20
        while len(heard) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert measured.watts >= 500


@pytest.mark.process
def test_a_program_that_is_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "{GPU}, 99, 2000, 61, 250.5"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with Draw(GPU) as measured:
        deadline = time.monotonic() + 20
        while not measured.watts and time.monotonic() < deadline:
            time.sleep(0.01)
    assert measured.watts == 250.5


def test_without_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "gpu_sample", lambda timeout_s: pytest.fail("asked"))
    with Draw("") as measured:
        pass
    assert measured.watts == 0.0


def test_a_process_that_held_memory_says_so_afterwards() -> None:
    before, held = process_bytes(), bytearray(64 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    assert before > 2**20 and process_bytes() >= len(held)
