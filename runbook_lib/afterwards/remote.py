"""An export copied to where fsspec reaches: s3://, gs://, abfs://, hf://, and so on. It is read back from there.

Logins are those that the service's own library finds (its variables, its files); none is given in an address.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from worker.escape import safe_text

from ..errors import DataError

CHUNK = 2**22
# It would not look at a host's key, or sends a password as it is typed, or cannot write.
REFUSED = {"sftp": "scp or rsync", "ssh": "scp or rsync", "ftp": "a service with encryption"}
REFUSED |= dict.fromkeys(("http", "https"), "the service's own kind of address, such as s3:// or hf://")
SENDS = "Next: export to a folder (--out FOLDER), then send that"


def is_address(out: str) -> bool:
    """Whether `out` names a place of fsspec, and not a file or folder here."""
    return "://" in out


def look(address: str) -> None:
    """Raise DataError where nothing could be written there: before hours of export, not after."""
    files, root = _opened(address)
    with _explained(address):
        there = files.exists(root)
    if there:
        raise DataError(f"{address}: there is something already; nothing was written. Next: give another name (--out)")


def send(path: Path, address: str, on_bytes: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Copy a file, or a folder with all in it, and read it back; return its bytes.

    Raises DataError if something is there already, or where it does not read back as it was: then nothing is left.
    """
    look(address)
    files, root = _opened(address)
    pairs = [(path, root)] if path.is_file() else [(file, f"{root}/{_below(file, path)}") for file in _all(path)]
    total, done = sum(file.stat().st_size for file, _ in pairs), 0
    try:
        with _explained(address):
            for file, target in pairs:
                if "/" in target:
                    files.makedirs(target.rpartition("/")[0], exist_ok=True)
                with file.open("rb") as source, files.open(target, "wb") as there:
                    for piece in iter(lambda: source.read(CHUNK), b""):
                        there.write(piece)
                        done += len(piece)
                        on_bytes(done, 2 * total)
        for file, target in pairs:
            with file.open("rb") as source, _explained(address), files.open(target, "rb") as there:
                sent, stored = _sha256(source), _sha256(there)
            if sent != stored:
                raise DataError(f"{target}: read back as sha256 {stored}, sent {sent}; nothing was left there. {SENDS}")
            done += file.stat().st_size
            on_bytes(done, 2 * total)
    except BaseException:
        _take_away(files, root, [target for _, target in pairs])
        raise
    return total


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the place in it."""
    if "::" in address.partition("?")[0]:  # of a chain only the first link would be looked at here; it is not shown
        raise DataError(f"an address in several steps (`::`) is not sent to from here: name the last one. {SENDS}")
    parts = urlsplit(address)
    if parts.password is not None or parts.query:
        raise DataError(
            "the address holds a password or a key, which would stay in the shell's history. Next: take it out; the "
            "login is found where the service's own library looks for it"
        )
    if parts.scheme in REFUSED:
        raise DataError(f"{parts.scheme}:// is not sent to from here: use {REFUSED[parts.scheme]}. {SENDS}")
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{parts.scheme}:// needs a package that is not here: {safe_text(str(error), 200)}") from None
    except ValueError as error:
        known = ", ".join(sorted(each for each in fsspec.available_protocols() if each not in REFUSED))
        raise DataError(f"{address}: {safe_text(str(error), 200)}; known are: {known}") from None
    return files, str(root).rstrip("/")


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn whatever a service's library raises into words: each has errors of its own."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        what = safe_text(f"{type(error).__name__}: {error}", 300)
        raise DataError(f"{address}: {what}. {SENDS}") from None


def _all(folder: Path) -> Iterator[Path]:
    return iter(sorted(each for each in folder.rglob("*") if each.is_file()))


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    for piece in iter(lambda: file.read(CHUNK), b""):
        digest.update(piece)
    return digest.hexdigest()


def _take_away(files: Any, root: str, targets: list[str]) -> None:
    """Remove what was sent, and the folders made for it, which are empty then; some stores have none.

    What holds `root` stays: it may have been there before, and be a bucket.
    """
    above = {target.rpartition("/")[0] for target in targets}
    folders = {folder for folder in above if f"{folder}/".startswith(f"{root}/")}
    for remove, paths in ((files.rm_file, targets), (files.rmdir, sorted(folders, key=len, reverse=True))):
        for path in paths:
            with contextlib.suppress(Exception):  # it is not there, or cannot be reached any more
                remove(path)
