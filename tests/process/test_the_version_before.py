"""What the version before left goes on working: a sealed run is verified, and one under way is brought to its end."""

from __future__ import annotations

import fcntl
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_run import by_the_library, runbook

from worker.files import sha256_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
PLACE = Path("/tmp/runbook_before")  # where both runs were made: their files name this path
OURS = PLACE / ".unpacked_by_a_test"


def unpack(name: str, folder: Path) -> Path:
    """Lay out an archive of the version before, with the modes that its files had."""
    with tarfile.open(FIXTURES / f"{name}_the_version_before.tar.xz") as archive:
        archive.extractall(folder, filter="tar")
    return folder


@pytest.fixture
def place() -> Iterator[Path]:
    """The place where both runs were made, empty, for one test at a time; all of it is gone afterwards."""
    with PLACE.with_name(f"{PLACE.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if PLACE.exists() and not OURS.exists():
            pytest.skip(f"{PLACE} is there and was not made by this test: its runs can be tried there only")
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir()
        OURS.touch()
        try:
            yield PLACE
        finally:
            shutil.rmtree(PLACE)


def test_its_sealed_run_is_verified_and_a_changed_byte_in_it_is_found(place: Path) -> None:
    unpack("sealed_by", place)
    assert "0 files" not in runbook("verify", "sealed", cwd=place)
    matrix = place / "runs" / "sealed" / "merged" / "embeddings.npy"
    raw = matrix.read_bytes()
    matrix.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert "embeddings.npy" in runbook("verify", "sealed", cwd=place, code=1)


@pytest.fixture
def under_way(place: Path) -> Iterator[Path]:
    """Its run under way, where it was made."""
    unpack("run_of", place)
    (place / "venv").symlink_to(sys.prefix)
    yield place
    runbook("stop", "way", cwd=place)


def parts(folder: Path) -> dict[Path, str]:
    """Every file of a part, on the hosts and at home, and its sha256."""
    return {path: sha256_file(path) for path in folder.rglob("rows_*") if path.parent.name == "parts"}


def test_its_run_under_way_ends_well_and_keeps_every_part_as_it_is(under_way: Path) -> None:
    before = parts(under_way)
    assert len(before) >= 8
    assert "All checks hold" in runbook("run", "small.yaml", "--run", "way", cwd=under_way)
    after = parts(under_way)
    assert len(after) > len(before)
    assert {path: after.get(path) for path in before} == before
    found = np.load(under_way / "runs" / "way" / "merged" / "embeddings.npy", allow_pickle=False)
    expected = by_the_library(under_way / "corpus.jsonl")
    assert found.shape == expected.shape == (400, 384)
    assert (found * expected).sum(axis=1).min() >= 1 - 1e-6
