"""How files are written and read, on hosts and at home."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import files, layout
from worker.files import read_json, write_atomic, write_json

OLD = b"the old content"


def kept(path: Path) -> bool:
    """Whether the folder holds the old file under its final name, and nothing else."""
    return path.read_bytes() == OLD and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that is there already."""
    path = tmp_path / "target.bin"
    path.write_bytes(OLD)
    return path


# ---------------------------------------------------------------------------------------------------- write_atomic


def test_a_file_is_written_whole_with_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    digest = write_atomic(path, iter([b"abc", b"", b"def"]))
    assert path.read_bytes() == b"abcdef"
    assert digest == hashlib.sha256(b"abcdef").hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("in the middle"), KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupted_writing_leaves_the_old_file(target: Path, error: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise error

    with pytest.raises(type(error)):
        write_atomic(target, chunks())
    assert kept(target)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="input/output"):
        write_atomic(target, b"new")
    assert kept(target)


def test_a_wrong_sha256_leaves_the_old_file(target: Path) -> None:
    with pytest.raises(ValueError, match="expected sha256 0000"):
        write_atomic(target, b"new", expected="0000")
    assert kept(target)


@pytest.mark.process
def test_a_full_disk_leaves_the_old_file(target: Path) -> None:
    """The limit on the size of files stands in for the disk: it too fails in the middle of a write."""
    code = (
        "import resource, sys; from pathlib import Path; from worker.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_atomic(Path(sys.argv[1]), (bytes(30_000) for _ in range(10)))\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=Path(layout.__file__).parents[1])
    assert done.returncode == errno.EFBIG
    assert kept(target)


@pytest.mark.process
@pytest.mark.parametrize("works", [True, False])
def test_on_a_mac_the_drive_is_asked_to_write_what_it_holds(
    target: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    asked: list[int] = []

    def fcntl(fd: int, command: int) -> None:
        asked.append(command)
        if not works:
            raise OSError(errno.ENOTSUP, "not supported")

    real, synced = os.fsync, []
    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", fcntl)
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
    write_atomic(target, b"new")
    assert asked == [51, 51] and len(synced) == (0 if works else 2)  # the file and its folder
    assert target.read_bytes() == b"new"


def test_a_folder_that_cannot_be_synced_is_no_failure(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_link_under_the_final_name_is_replaced_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(OLD)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    write_atomic(link, b"new")
    assert (elsewhere.read_bytes(), link.read_bytes(), link.is_symlink()) == (OLD, b"new", False)


# ------------------------------------------------------------------------------------------------------- read_json


def test_no_file_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    one = write_json(tmp_path / "1.json", {"b": 1.5, "a": "ä\n\x1b"})
    assert one == write_json(tmp_path / "2.json", {"a": "ä\n\x1b", "b": 1.5})
    assert read_json(tmp_path / "1.json") == {"a": "ä\n\x1b", "b": 1.5}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b"[1]",
        b"17",
        b"null",
        b'{"a": 1} {"b": 2}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b"\x00" * 20,
        b'{"a": ' * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_anything_but_one_whole_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_huge_file_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        read_json(path, limit=1000)
