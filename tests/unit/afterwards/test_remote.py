"""An export sent through fsspec is read back; what would be wrong is said before, and nothing stays of what failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import made_up
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from runbook_lib import cli
from runbook_lib.afterwards import remote
from runbook_lib.errors import DataError
from runbook_lib.result import parts


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    """fsspec's memory is the process's."""
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one in a folder of it."""
    (tmp_path / "made" / "data").mkdir(parents=True)
    (tmp_path / "made" / "README.md").write_text("card")
    (tmp_path / "made" / "data" / "rows.npy").write_bytes(b"x" * (remote.CHUNK + 3))
    return tmp_path / "made"


@pytest.mark.parametrize("form", ["npy", "npy-shards", "hf"])
def test_a_result_is_exported_to_an_address(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path, count=60, dim=16)
    made.commit_all()
    made_up.published(made.run)
    monkeypatch.chdir(made.run.folder.parent)
    before = sorted(made.run.profile.output.folder.iterdir())
    assert cli.main(["export", made.run.name, "--to", form, "--out", "memory://lab/vectors"]) == 0
    said = capsys.readouterr().out
    assert "memory://lab/vectors" in said and "read back" in said and ".export-" not in said
    files = fsspec.filesystem("memory")
    if form == "npy":
        with files.open("/lab/vectors") as file:
            assert (np.load(file) == made.vectors[:60]).all()
    else:
        inside = {"npy-shards": "index.json", "hf": "README.md"}[form]
        assert f"/lab/vectors/{inside}" in files.find("/lab/vectors")
    assert sorted(made.run.profile.output.folder.iterdir()) == before
    assert cli.main(["export", made.run.name, "--to", form, "--out", "memory://lab/vectors"]) == 1
    assert "something already" in capsys.readouterr().err


def test_a_folder_and_a_file_arrive_as_they_are(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    size = remote.send(folder, f"file://{tmp_path}/there/set", lambda done, total: seen.append((done, total)))
    assert size == remote.CHUNK + 7 and seen[-1] == (2 * size, 2 * size)
    there = tmp_path / "there" / "set"
    assert {each.relative_to(there).as_posix() for each in there.rglob("*") if each.is_file()} == {
        "README.md",
        "data/rows.npy",
    }
    assert (there / "data" / "rows.npy").read_bytes() == (folder / "data" / "rows.npy").read_bytes()
    remote.send(folder / "README.md", f"file://{tmp_path}/there/one.md")
    assert (tmp_path / "there" / "one.md").read_text() == "card"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("sftp://host/x", "scp or rsync"),
        ("s3://key:secret@bucket/x", "holds a password"),
        ("s3://bucket/x?secret=1", "holds a password"),
        ("nowhere://x", "known are"),
        ("https://example.org/x", "such as s3://"),
        ("simplecache::s3://key:secret@bucket/x", "several steps"),
        ("filecache::sftp://host/x", "several steps"),
    ],
)
def test_what_cannot_be_sent_to_is_said_before_anything_is_written(folder: Path, address: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        remote.send(folder, address)
    assert "key:secret" not in str(caught.value)


def test_a_place_that_keeps_other_bytes_is_told_and_left_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryFileSystem._open

    def changing(self: Any, path: str, mode: str = "rb", **more: Any) -> Any:
        file = kept(self, path, mode, **more)
        if mode == "rb" and path.endswith("rows.npy"):
            file.getbuffer()[5:6] = b"y"
        return file

    monkeypatch.setattr(MemoryFileSystem, "_open", changing)
    with pytest.raises(DataError, match=r"rows\.npy: read back as sha256"):
        remote.send(folder, "memory://lab/set")
    assert fsspec.filesystem("memory").find("/lab") == []
    monkeypatch.setattr(MemoryFileSystem, "_open", kept)
    remote.send(folder, "memory://lab/set")  # nothing is in its way


def test_a_place_that_fails_midway_is_told_and_left_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryFileSystem._open

    def failing(self: Any, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode == "wb" and path.endswith("rows.npy"):
            raise PermissionError("no room for you")
        return kept(self, path, mode, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", failing)
    with pytest.raises(DataError, match="PermissionError: no room for you"):
        remote.send(folder, "memory://lab/set")
    assert fsspec.filesystem("memory").find("/lab") == []
    monkeypatch.setattr(MemoryFileSystem, "_open", kept)
    remote.send(folder, "memory://lab/set")  # nothing is in its way


def test_what_was_there_before_a_failure_stays_though_it_is_empty(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    files.mkdir("/bucket")
    monkeypatch.setattr(remote, "_sha256", lambda file: str(id(file)))
    with pytest.raises(DataError, match="read back"):
        remote.send(folder / "README.md", "memory://bucket/one.md")
    assert files.exists("/bucket") and not files.exists("/bucket/one.md")
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="read back"):
        remote.send(folder, f"file://{tmp_path}/mine/set")
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").iterdir())
