"""Bring a model's weights from the hub to this host, at one commit, each held against its sha256.

One JSON object comes on standard input: {"name", "revision", "files": [{"path", "bytes", "sha256"}], "folder", "token",
"endpoint"}. The token is in the memory of this process and nowhere else: not in its arguments, its environment, a file
or a message. What came of a file stays aside in the model's folder, so the next run goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Iterator  # noqa: UP035  (Python 3.9 on lab boxes)

from . import owned
from .escape import safe_text
from .files import make_folder, put_in_place, sha256_file

ORDER_LIMIT = 2**24
FULL = {errno.ENOSPC, errno.EDQUOT}
CHUNK = 2**20  # what came of one is lost when a connection breaks
# The library sends no telemetry and prints nothing; the download was allowed by the one who gave the order.
SETTINGS = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "critical"}
UNSET = ("HF_DEBUG", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_ENABLE_HF_TRANSFER")


class FetchError(Exception):
    """The weights cannot be brought; the message is for people."""


@dataclass(frozen=True)
class Wanted:
    """One file of the model, by its path inside the model's folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Order:
    """What is to be brought, from where and to which folder."""

    name: str
    revision: str
    files: tuple[Wanted, ...]
    folder: Path
    token: str | None = field(repr=False)
    endpoint: str | None


def run(source: BinaryIO) -> int:
    """Do what an order says; print what was done as one line of JSON, or why not; give the exit code."""
    token = None
    try:
        order = _order(source.read(ORDER_LIMIT))
        token = order.token
        print(json.dumps(fetch(order)))
        return 0
    except FetchError as error:
        why = str(error)
    except Exception as error:  # whatever it is, its words go through the filter
        why = f"{type(error).__name__}: {error}"
    print(_without(why, token), file=sys.stderr)
    return 1


def _without(text: str, token: str | None) -> str:
    """One line for people, without the token."""
    return safe_text(" ".join((text.replace(token, "***") if token else text).split()))


def _order(raw: bytes) -> Order:
    order = None
    try:
        value = json.loads(raw)
        files = tuple(Wanted(str(f["path"]), int(f["bytes"]), str(f["sha256"])) for f in value["files"])
        order = Order(value["name"], value["revision"], files, Path(value["folder"]), value["token"], value["endpoint"])
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # what they say shows what was read
    if order is None or not _makes_sense(order):
        raise FetchError("expected an order on standard input: one JSON object, as the launch writes it")
    return order


def _makes_sense(order: Order) -> bool:
    texts = isinstance(order.name, str) and isinstance(order.endpoint, (str, type(None))) and order.folder.is_absolute()
    token = order.token is None or (isinstance(order.token, str) and re.fullmatch("[!-~]+", order.token))
    files = all(
        re.fullmatch("[0-9a-f]{64}", file.sha256)
        and file.bytes >= 0
        and not PurePosixPath(file.path).is_absolute()
        and not {"..", ".fetch"} & set(PurePosixPath(file.path).parts)
        for file in order.files
    )
    return bool(texts and token and files and re.fullmatch("[0-9a-f]{40}", str(order.revision)))


def fetch(order: Order) -> dict[str, int]:
    """Bring what is missing; how many files and bytes are new. Raises FetchError.

    Two hosts with one home, or two launches: one fetches, the other waits and finds everything there.
    """
    aside = order.folder / ".fetch"
    try:
        make_folder(aside, 0o700)
        if why := owned.model(order.folder):
            raise FetchError(why)
        with _alone(aside / "lock"):
            missing = [file for file in order.files if not _there(order.folder / file.path, file)]
            _check_room(aside, missing)
            for file in missing:
                _bring(order, file, aside)
    except OSError as error:
        raise FetchError(_of_disk(order.folder, error)) from None
    return {"new": len(missing), "bytes": sum(file.bytes for file in missing)}


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, waiting for the process that has it; it goes with the process that holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:  # such as a network file system without locks
            raise FetchError(f"cannot lock {path}: {error.strerror}; use download: here") from None
        yield
    finally:
        os.close(fd)


def _there(path: Path, file: Wanted) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and sha256_file(path) == file.sha256


def _part(aside: Path, file: Wanted) -> Path:
    return aside / f"{file.sha256[:32]}.part"


def _have(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _check_room(aside: Path, files: list[Wanted]) -> None:
    need = sum(max(0, file.bytes - _have(_part(aside, file))) for file in files)
    free = shutil.disk_usage(aside).free
    if free < need:
        raise FetchError(f"{aside.parent}: the disk is too full: {need} bytes are to come, {free} are free")


def _bring(order: Order, file: Wanted, aside: Path) -> None:
    """Fetch one file: whole and with its sha256 under its name, or not at all."""
    part = _part(aside, file)
    resumed = _have(part)
    _download(order, file, part)
    if (actual := sha256_file(part)) != file.sha256:
        part.unlink()
        if resumed:  # what lay here from before may be what is wrong
            _download(order, file, part)
            actual = sha256_file(part)
    if actual != file.sha256:
        part.unlink(missing_ok=True)
        raise FetchError(
            f"{file.path} of {order.name}: expected sha256 {file.sha256}, the hub gave {actual}; it was removed"
        )
    target = order.folder / file.path
    make_folder(target.parent)
    with part.open("rb") as whole:
        put_in_place(whole, part, target)


def _download(order: Order, file: Wanted, part: Path) -> None:
    """Get what `part` lacks. The hub's library goes on by itself after a short outage; after a long one it gives up."""
    os.environ.update(SETTINGS)
    for name in UNSET:
        os.environ.pop(name, None)
    try:
        # http_get and not hf_hub_download: that one throws away what came of a file when it is interrupted.
        from huggingface_hub import constants, hf_hub_url, utils
        from huggingface_hub.file_download import http_get
    except ImportError as error:
        raise FetchError(
            f"{sys.executable} has no usable huggingface_hub ({error}); install it there, or use download: here"
        ) from None
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    url = hf_hub_url(order.name, file.path, revision=order.revision, endpoint=order.endpoint)
    headers = {"Accept-Encoding": "identity"}
    if order.token:  # goes to the hub only: the library leaves it out where the hub sends us to another machine
        headers["Authorization"] = f"Bearer {order.token}"
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "r+b") as out:
        if out.seek(0, os.SEEK_END) > file.bytes:
            out.truncate(out.seek(0))
        while True:
            have = out.tell()
            try:
                http_get(url, out, resume_size=have, headers=headers, expected_size=file.bytes)
                break
            except Exception as error:
                if out.tell() > file.bytes or _status(error) == 416:
                    part.unlink()
                    why = f"the hub has no file of {file.bytes} bytes there"
                    raise FetchError(f"{file.path} of {order.name}: {why}") from None
                if _status(error) or _is_of_disk(error) or out.tell() == have:
                    raise FetchError(_of_hub(order, file, error, utils)) from None
                time.sleep(1.0)  # cut, and more had come: not every version of the library goes on from there


def _status(error: Exception) -> int | None:
    """What the hub answered, if it is that."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _is_of_disk(error: Exception) -> bool:
    """Whether it is a file's and not the network's, whose errors are of their own kinds."""
    return type(error) is OSError and bool(error.errno)


def _of_hub(order: Order, file: Wanted, error: Exception, kinds: Any) -> str:
    """Why the hub did not give a file, and what to do about it. `kinds` has the library's kinds of errors."""
    what = f"{file.path} of {order.name}"
    if isinstance(error, kinds.GatedRepoError):
        return f"{what}: the hub refuses: accept the model's licence with the account of the token (hf_token)"
    if isinstance(error, (kinds.RevisionNotFoundError, kinds.EntryNotFoundError)):
        return f"{what}: the hub has no such file at {order.revision}"
    if isinstance(error, kinds.RepositoryNotFoundError):
        return f"{what}: the hub knows no such model (or it is private: hf_token)"
    if _status(error) in (401, 403):
        return f"{what}: the hub refuses the token ({_status(error)}); see hf_token"
    if status := _status(error):
        # 5xx, 408 and 429 pass; any other answer will be the same again.
        passing = status >= 500 or status in (408, 429)
        then = "run again, it goes on where it was" if passing else "look at model.name, model.revision and HF_ENDPOINT"
        return f"{what}: the hub answers {status}; {then}"
    if isinstance(error, OSError) and _is_of_disk(error):
        return _of_disk(order.folder, error)
    kind = type(error).__name__
    then = "use download: here, or run again where that is to pass"
    return f"{what}: the hub cannot be reached from this host ({kind}: {error}); {then}"


def _of_disk(folder: Path, error: OSError) -> str:
    full = "the disk is full; free some of it and run again" if error.errno in FULL else error.strerror or str(error)
    return f"{folder}: {full}"
