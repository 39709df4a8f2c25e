"""A host: a machine with slots, reached by a few verbs: run, put, get, start, alive, stop, and one reading, poll.

Today there is one kind: `Local`, a folder per host on this machine, for one-box users and for the demo. Every verb is
safe to repeat, has a deadline where it waits, and names host and command when it fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import worker
from worker import process
from worker.layout import HostFolder, safe_text, sha256_file, write_atomic
from worker.snapshot import snapshot

from .errors import HostError, RunbookError
from .profile import HostSpec, Profile

BUNDLE = Path(worker.__file__).parent

T = TypeVar("T")


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit code and the text it printed."""

    exit_code: int
    out: str
    err: str


@dataclass(frozen=True)
class Content:
    """Something to bring to a host: its size, its sha256, and its bytes from the start whenever asked."""

    size: int
    sha256: str
    chunks: Callable[[], Iterator[bytes]]


class Local:
    """A folder on this machine as a host. Its workers are detached: they outlive the notebook that started them."""

    kind = "local"

    def __init__(self, spec: HostSpec, run: str):
        self.spec = spec
        self.name = spec.name
        self.workdir = Path(spec.workdir).expanduser()
        self.folder = HostFolder(self.workdir / run)
        self.python = spec.environment or sys.executable

    def run(self, argv: Sequence[str], timeout_s: float, cwd: Path | None = None) -> Completed:
        """Run a command to its end. Raises HostError when it cannot start or takes longer than `timeout_s`."""
        try:
            done = subprocess.run(
                list(argv), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except OSError as error:
            raise HostError(f"{self.name}: cannot start {argv[0]}: {error}", argv=argv) from None
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s", argv=argv) from None
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def put(self, target: Path, content: Content, on_bytes: Callable[[int], None] = lambda n: None) -> bool:
        """Bring `content` to the host, whole or not at all; False when it was there already."""
        return _place(self.name, target, content, on_bytes)

    def get(self, source: Path, target: Path, sha256: str, on_bytes: Callable[[int], None] = lambda n: None) -> bool:
        """Bring a file home, whole and with this sha256 or not at all; False when it was here already."""
        try:
            size = source.stat().st_size
        except OSError as error:
            raise HostError(f"{self.name}: fetching {source}: {error}") from None
        return _place(self.name, target, Content(size, sha256, lambda: _chunks(source)), on_bytes)

    def read(self, path: Path, limit: int = 64 * 2**20) -> bytes:
        """The bytes of a small file. Raises HostError."""
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise HostError(f"{self.name}: reading {path}: {error}") from None
        if len(data) > limit:
            raise HostError(f"{self.name}: {path} is larger than {limit} bytes")
        return data

    def sha256(self, path: Path) -> str | None:
        """The sha256 of a file there; None where there is no such file, or none that can be read."""
        try:
            return sha256_file(path)
        except OSError:
            return None

    def tail(self, path: Path, lines: int = 20) -> str:
        """The last lines of a log, safe to print; empty when there is none."""
        try:
            with path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 400 * lines))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return safe_text("\n".join(text.splitlines()[-lines:]), limit=100_000)

    def start(self, argv: Sequence[str], log: Path, cwd: Path) -> process.Identity:
        """Start a command that outlives us: its own session, output appended to `log`, input closed."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        identity = process.identify(child.pid)
        _children.append(child)
        return identity

    def alive(self, identity: Mapping[str, Any] | None) -> bool:
        """True while exactly the recorded process runs."""
        _reap()
        return process.alive(identity)

    def stop(self, identity: Mapping[str, Any], grace_s: float = 15.0) -> bool:
        """Ask the recorded process, and nobody else, to end; then end it."""
        return process.stop(identity, grace_s)

    def poll(self) -> dict[str, Any]:
        """One reading of everything the monitor needs."""
        _reap()
        return snapshot(self.folder.root, self.name)

    def workers(self, reading: Mapping[str, Any]) -> list[process.Identity]:
        """The workers of a reading that live: by their own report, or, before the first, by their supervisor's."""
        own = [(entry["report"] or {}).get("process") for entry in reading["slots"].values()]
        started = [slot.get("process") for slot in ((reading["supervisor"] or {}).get("slots") or {}).values()]
        living = {found["pid"]: found for found in [*started, *own] if found and self.alive(found)}
        return list(living.values())

    def remove(self, path: Path) -> None:
        """Remove one file or folder of this run. Raises HostError for anything outside the run's folder."""
        root = self.folder.root
        # Where the path really leads, links and `..` followed, except a link that is itself what is to go.
        real, real_root = path.parent.resolve() / path.name, root.parent.resolve() / root.name
        if path.name == ".." or (real != real_root and real_root not in real.parents):
            raise HostError(f"{self.name}: refused to remove {path}: not inside {root}")
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)  # two hosts may share the folder
        elif path.is_dir():
            shutil.rmtree(path)


# Children that outlive a phase but end while this process still lives must be reaped, or they look alive as zombies.
_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk


def file_content(path: Path, sha256: str | None = None) -> Content:
    """A file of this machine as something to bring to a host."""
    return Content(path.stat().st_size, sha256 or sha256_file(path), lambda: _chunks(path))


def json_content(value: dict[str, Any]) -> Content:
    """A JSON record as something to bring to a host."""
    data = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return Content(len(data), hashlib.sha256(data).hexdigest(), lambda: iter([data]))


def _place(host: str, target: Path, content: Content, on_bytes: Callable[[int], None]) -> bool:
    """Write with the same care as over a network: temporary name, sha256 of what was written, fsync, rename."""
    if target.is_file() and target.stat().st_size == content.size and sha256_file(target) == content.sha256:
        on_bytes(content.size)
        return False

    def counted() -> Iterator[bytes]:
        for chunk in content.chunks():
            on_bytes(len(chunk))
            yield chunk

    try:
        found = write_atomic(target, counted(), expected=content.sha256)
    except ValueError as error:
        raise HostError(f"{host}: bringing {target.name}: {error}; nothing was left under that name") from None
    except OSError as error:
        raise HostError(f"{host}: writing {target}: {error}") from None
    return bool(found)


def connect(spec: HostSpec, run: str) -> Local:
    """The host of a profile's entry. Raises HostError for a kind that this version does not drive."""
    if spec.kind != "local":
        raise HostError(
            f"{spec.name}: kind {spec.kind} is read but not driven by this version; "
            "it drives hosts of kind local (folders and GPUs of this machine)"
        )
    return Local(spec, run)


def side_by_side(profile: Profile, run: str, do: Callable[[Local], T]) -> dict[str, T | RunbookError]:
    """`do` for every host of the profile at once: host -> result or failure, so that one dead host hides no other."""

    def one(spec: HostSpec) -> T | RunbookError:
        try:
            return do(connect(spec, run))
        except RunbookError as error:
            return error
        except OSError as error:
            return HostError(f"{spec.name}: {error}")

    with ThreadPoolExecutor(max_workers=min(8, len(profile.hosts))) as pool:
        return dict(zip([spec.name for spec in profile.hosts], pool.map(one, profile.hosts), strict=True))


def bundle_files() -> list[tuple[str, Path]]:
    """The files of the worker package, by the path that each takes below the run's folder on a host."""
    return [(f"worker/{path.name}", path) for path in sorted(BUNDLE.glob("*.py"))]
