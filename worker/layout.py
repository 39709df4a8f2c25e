"""File names, JSON fields and the one way to write a file: shared by the worker and the control machine.

Standard library only, so the control machine reads a worker's files without torch. On a host:

    <workdir>/<run>/
        run.json                        which run this is, with its random id
        worker/                         this package
        hosts/<host>.json               what the host's supervisor is to do (written by launch)
        shards/rows_<start>_<stop>.jsonl  one line a row: {"row": 17, "text": "as encoded"}
        parts/rows_<start>_<stop>.npy   float32 (stop - start, dim), C order
        parts/rows_<start>_<stop>.json  the commit: what the .npy is, with its sha256
        progress/<slot>.json            one writer: that slot's worker
        progress/<slot>.exits.json      one writer: the supervisor; exit codes and reasons
        progress/rows.lock              a byte a row, locked while a worker computes it
        progress/known.json             what known texts give on this host's processor
        progress/host_<host>.json       one writer: the supervisor; its own heartbeat
        progress/host_<host>.reserve    its place for a last word when the disk is full
        quarantine/row_<row>.json       a document that no worker could encode, and why
        logs/<slot>.log, logs/host_<host>.log
    <workdir>/models/<digest>/          a model, shared by runs
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

FORMAT = 1
JSON_LIMIT = 64 * 2**20  # bytes of one file
PART_FILE = re.compile(r"rows_([0-9]{9})_([0-9]{9})\.(npy|json)")
QUARANTINE_FILE = re.compile(r"row_([0-9]{9})\.json")
SLOT_NAME = re.compile(r"cluster[0-9]{1,4}_gpu[0-9]{1,4}")
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# What a look leaves behind: by the Finder, Spotlight, a copy to another disk (macOS), the Explorer (Windows), Dolphin
# (KDE), an office program, a network disk, JupyterLab. Nobody reads it, so no digest and no list holds it.
LITTER = re.compile(
    r"\._.*|\.DS_Store|\.localized|Icon\r|\.Spotlight-V100|\.fseventsd|\.Trashes|\.TemporaryItems|\.apdisk|__MACOSX"
    r"|\.DocumentRevisions-V100|\.VolumeIcon\.icns|\.AppleD(ouble|esktop|B)|Thumbs\.db|[Dd]esktop\.ini|\$RECYCLE\.BIN"
    r"|System Volume Information|\.directory|\.Trash-\d+|\.~lock\..*#|\.nfs[0-9a-f]+|\.ipynb_checkpoints"
)

Range = tuple[int, int]

# What all runs of an account share on a host, beside their folders; and what Windows keeps, whatever the suffix.
SHARED_FOLDERS = ("models", "environments")
DEVICE_NAMES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


@dataclass(frozen=True)
class HostFolder:
    """Every path of one run on one host; nobody else joins these names."""

    root: Path

    @property
    def mark(self) -> Path:
        """Which run this folder is of: its name and its random id, written when the folder was made."""
        return self.root / "run.json"

    @property
    def parts(self) -> Path:
        """Committed slices of rows."""
        return self.root / "parts"

    @property
    def quarantine(self) -> Path:
        """Rows that no worker could encode."""
        return self.root / "quarantine"

    def assignment(self, host: str) -> Path:
        """What the supervisor of `host` is to do."""
        return self.root / "hosts" / f"{host}.json"

    def shard(self, start: int, stop: int) -> Path:
        """The rows [start, stop), one JSON line each; named by them, so that rows can move from slot to slot."""
        return self.root / "shards" / f"rows_{start:09d}_{stop:09d}.jsonl"

    def part(self, start: int, stop: int) -> Path:
        """The array of rows [start, stop); its commit has the suffix .json."""
        return self.parts / f"rows_{start:09d}_{stop:09d}.npy"

    def quarantined(self, row: int) -> Path:
        """The record of one row that could not be encoded."""
        return self.quarantine / f"row_{row:09d}.json"

    def progress(self, slot: str) -> Path:
        """The worker's own report."""
        return self.root / "progress" / f"{slot}.json"

    def lock(self, slot: str) -> Path:
        """Held by the living worker of a slot, so that a second one leaves."""
        return self.root / "progress" / f"{slot}.lock"

    @property
    def rows_lock(self) -> Path:
        """Each row's byte is locked by the worker that computes it, so that no two do the same rows."""
        return self.root / "progress" / "rows.lock"

    def suspects(self, slot: str) -> Path:
        """The rows being encoded right now: read after a death, to find the document that kills its worker."""
        return self.root / "progress" / f"{slot}.suspects.json"

    @property
    def known(self) -> Path:
        """What the known texts give on this host's processor: a device that gives something else is broken."""
        return self.root / "progress" / "known.json"

    @property
    def known_lock(self) -> Path:
        """Held by the worker that has them computed."""
        return self.root / "progress" / "known.lock"

    def exits(self, slot: str) -> Path:
        """How the slot's workers ended: codes and reasons, kept by the supervisor."""
        return self.root / "progress" / f"{slot}.exits.json"

    def supervisor(self, host: str) -> Path:
        """The supervisor's own report."""
        return self.root / "progress" / f"host_{host}.json"

    def reserve(self, host: str) -> Path:
        """What the supervisor of a host has to say while its disk is full."""
        return self.root / "progress" / f"host_{host}.reserve"

    def supervisor_lock(self, host: str) -> Path:
        """Held by the living supervisor of a host."""
        return self.root / "progress" / f"host_{host}.lock"

    def stop_request(self, host: str) -> Path:
        """Exists while the operator wants this host's workers stopped."""
        return self.root / "progress" / f"host_{host}.stop"

    def restart_request(self, slot: str) -> Path:
        """Exists while the operator wants this slot's worker started anew."""
        return self.root / "progress" / f"{slot}.restart"

    def log(self, name: str) -> Path:
        """The log of a slot, or of `host_<host>`; appended, never truncated."""
        return self.root / "logs" / f"{name}.log"


def run_name_problem(name: str) -> str:
    """Why a run cannot be called so, in words; empty where it can. Some disks fold case, or drop a last dot."""
    if not RUN_NAME.fullmatch(name):
        return f"run name {safe_text(name, 120)!r}: letters, digits, '.', '_' and '-' only, at most 100"
    folded = name.casefold().rstrip(".")
    if folded in SHARED_FOLDERS or DEVICE_NAMES.fullmatch(folded) or name.endswith("."):
        return f"run name {name!r}: kept for something else, or folded onto another name by some disks; take another"
    return ""


_roots: set[Path] = set()


def never_make(root: Path) -> None:
    """From now on this process makes no run's folder `root`: one that went, as when a disk is unmounted, stays gone.

    Else the last words of a worker would make it anew, without the mark that says whose it is.
    """
    _roots.add(root)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are not there: a power cut takes none of them with what is in it."""
    if folder.is_dir():
        return
    if folder in _roots:
        raise FileNotFoundError(errno.ENOENT, "the run's folder is gone", str(folder))
    make_folder(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)
    sync_folder(folder.parent)


def sync(fd: int) -> None:
    """Have what was written on the disk itself: a Mac's fsync leaves it in the drive's memory, which may lose power."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):  # not every file system has it, and fsync says what is wrong
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network and FUSE file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


def open_private(path: Path, flags: int) -> BinaryIO:
    """A file for writing, made for us only where it is not there; a link under its name is not followed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | flags, 0o600)
    return os.fdopen(fd, "wb")


def write_atomic(path: Path, data: bytes | Iterable[bytes], mode: int = 0o600, expected: str | None = None) -> str:
    """Write `data` whole under `path` or not at all, and give its sha256; ValueError when it is not `expected`.

    A temporary name in the same folder, fsync, rename, fsync of the folder: a final name always means a whole file.
    """
    make_folder(path.parent, 0o777 if mode & 0o077 else 0o700)  # what is for us only lies in folders for us only
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    digest = hashlib.sha256()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        with os.fdopen(fd, "wb") as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            sync(file.fileno())
        if expected not in (None, digest.hexdigest()):
            raise ValueError(f"expected sha256 {expected}, found {digest.hexdigest()}")
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which file
            error.filename = str(path)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return digest.hexdigest()


def write_json(path: Path, value: Any, mode: int = 0o600) -> str:
    """`write_atomic` of a JSON value; sorted keys, so equal values are equal bytes."""
    return write_atomic(path, json_line(json.dumps(value, sort_keys=True, ensure_ascii=False)), mode)


def json_line(text: str) -> bytes:
    """JSON as a line of UTF-8; half a surrogate pair, which UTF-8 cannot hold, stands as its escape."""
    return (text + "\n").encode("utf-8", "backslashreplace")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def is_assignment(value: Any) -> bool:
    """Whether this can be what a host is to do, as launch writes it: slots, each with its shards."""
    slots = value.get("slots") if isinstance(value, dict) else None
    return isinstance(slots, list) and all(map(_is_slot, slots))


def _is_slot(spec: Any) -> bool:
    if not isinstance(spec, dict) or not isinstance(spec.get("slot"), str) or not isinstance(spec.get("shards"), list):
        return False
    return all(
        isinstance(s, dict) and all(isinstance(s.get(k), int) for k in ("start", "stop")) for s in spec["shards"]
    )


def read_assignment(path: Path) -> dict[str, Any] | None:
    """What a host is to do, or None where there is no such file. Raises ValueError for anything else in its place."""
    found = read_json(path)
    if found is not None and not is_assignment(found):
        raise ValueError(f"{path}: not what launch writes there")
    return found


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is no such file.

    Raises ValueError for anything but one whole object of at most `limit` bytes: NaN, deep nesting and half files too.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        return None
    if len(raw) > limit:
        raise ValueError(f"{path}: larger than {limit} bytes")
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(text: str) -> str:
    """A document's fingerprint: the first 128 bits of the sha256 of its text as encoded, as 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def committed(parts: Path) -> list[Range]:
    """The row ranges committed in a folder, sorted: judged by name, since only a commit has a final .json name."""
    found = []
    try:
        names = os.listdir(parts)  # noqa: PTH208  (asked at every look, of thousands of names)
    except FileNotFoundError:
        return []
    for name in names:
        match = PART_FILE.fullmatch(name) if name.endswith(".json") else None
        if match and match.group(1) < match.group(2):
            found.append((int(match.group(1)), int(match.group(2))))
    return sorted(found)


def is_litter(path: str) -> bool:
    """Whether a file is one that a look leaves behind, or lies in such a folder; `path` as seen from our own folder."""
    return any(LITTER.fullmatch(name) for name in path.split("/"))


def quarantined(folder: Path) -> list[int]:
    """The rows that were given up, sorted."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(m.group(1)) for name in names if (m := QUARANTINE_FILE.fullmatch(name)))


def joined(ranges: Iterable[Sequence[int]]) -> list[Range]:
    """The same rows in as few ranges as can be, sorted: what is looked at many times is joined once."""
    found: list[Range] = []
    for low, high in sorted((int(low), int(high)) for low, high in ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def missing(start: int, stop: int, have: Iterable[Range]) -> list[Range]:
    """The parts of [start, stop) that no range of `have` covers; `have` may overlap and be in any order."""
    gaps = []
    at = start
    for low, high in sorted(have):
        if low >= stop:
            break
        if low >= high:
            continue
        if low > at:
            gaps.append((at, low))
        at = max(at, high)
    if at < stop:
        gaps.append((at, stop))
    return gaps


def planned_parts(start: int, stop: int, part_rows: int, grid: int | None = None) -> list[Range]:
    """The parts of [start, stop): cut every `part_rows` rows from `grid` on, where their first shard began (`start`).

    Fixed by the first plan, so that a restart, and a slot to which rows moved, meet the same boundaries.
    """
    grid = start if grid is None else grid
    first = grid + (start - grid) // part_rows * part_rows
    return [(max(low, start), min(low + part_rows, stop)) for low in range(first, stop, part_rows)]


def count(ranges: Iterable[Range]) -> int:
    """How many rows lie in ranges that do not overlap."""
    return sum(stop - start for start, stop in ranges)


_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def safe_text(text: str, limit: int = 2000) -> str:
    """`text` for a terminal, a log or a page: control, bidirectional and unpaired characters shown as escapes.

    Newline and tab stay; zero-width joiners stay, because emoji and several scripts need them.
    """
    out = []
    for char in text[:limit]:
        if char in "\n\t\u200c\u200d" or unicodedata.category(char) not in _HIDDEN:
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) > 0xFF else f"\\x{ord(char):02x}")
    return "".join(out) + ("…" if len(text) > limit else "")
