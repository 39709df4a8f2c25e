"""What a process does to files, call by call; and, sharing no code with the product, whether what is left is whole.

`Tap` stands between a process and the system for the calls that change files below one folder: it records them, or
ends the process by SIGKILL at the n-th, or in the middle of the n-th when that one writes, or lets the n-th fail.
Python's own file objects, whose calls nobody can see, are swapped for their twins written in Python (`_pyio`): the
same calls, through `os`.

`Checker` is the judge. Standard library only: it knows the files by their description, not by the code that makes them.
"""

from __future__ import annotations

import _pyio
import ast
import builtins
import errno
import hashlib
import io
import json
import os
import re
import signal
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# -------------------------------------------------------------------------------------------------------- recording

# What would change files unseen: refused, so that nothing is left out in silence.
UNKNOWN = (
    "pwritev",
    "writev",
    "sendfile",
    "copy_file_range",
    "posix_fallocate",
    "link",
    "symlink",
    "truncate",
)


@dataclass(frozen=True)
class Call:
    """One call that changed files: `path` and `target` are below the root, `file` numbers a file whatever its name."""

    kind: str  # create mkdir write cut sync sync_folder rename unlink rmdir; ack: the caller was told that it is done
    path: str
    file: int = -1
    offset: int = 0
    data: bytes = b""
    target: str = ""
    said: tuple[Any, ...] = ()


@dataclass
class Tap:
    """Records the calls of this process below `root`; with `kill_at`, ends it at that call (`half`: inside it)."""

    root: Path
    kill_at: int = 0
    half: bool = False
    fault: str = ""  # instead of the kill: EIO, once, or ENOSPC, from then on for all that takes room
    calls: list[Call] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)  # files there are, by name
    _open: dict[int, str | int] = field(default_factory=dict)  # descriptor -> a folder's name, or a file's number
    _lock: Any = field(default_factory=threading.RLock)
    _count: int = 0
    _next: int = 0

    def install(self) -> None:
        """From here on, until the process ends, every call is seen."""
        for name in sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()):
            self.names[name] = self._number()
        self._real = {
            name: getattr(os, name) for name in ("open", "close", "write", "pwrite", "fsync", "ftruncate", "lseek")
        }
        self._real |= {name: getattr(os, name) for name in ("replace", "unlink", "mkdir", "rmdir")}
        for name in self._real:
            if name != "lseek":
                setattr(os, name, getattr(self, f"_{name}_call"))
        os.rename, os.remove, os.fdatasync = os.replace, os.unlink, os.fsync
        for name in UNKNOWN:
            setattr(os, name, _refused(name))
        builtins.open = io.open = _pyio.open  # type: ignore[assignment]

    def ack(self, *said: Any) -> None:
        """What a caller has been told is done: it must be found again after whatever comes."""
        with self._lock:
            self.calls.append(Call("ack", "", said=said))

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _below(self, path: Any) -> str | None:
        text = os.path.relpath(os.fspath(path), self.root)
        return None if text.startswith("..") else text

    def _do(self, call: Call, really: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Count the call; end the process before it or in it; else do it and keep it."""
        self._count += 1
        if self.fault and self._fails(call.kind):
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)), call.path)
        if self._count == self.kill_at and not self.fault:
            if self.half and half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        done = really()
        self.calls.append(call)
        return done

    def _fails(self, kind: str) -> bool:
        later = self.fault == "ENOSPC" and kind in ("create", "mkdir", "write") and self._count > self.kill_at > 0
        return self._count == self.kill_at or later

    def _open_call(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        with self._lock:
            name = self._below(path)
            if name is None:
                return self._real["open"](path, flags, mode, **more)
            there = os.path.lexists(path)
            if flags & os.O_CREAT and not there:
                number = self._number()
                fd = self._do(Call("create", name, number), lambda: self._real["open"](path, flags, mode, **more))
                self.names[name] = number
            elif flags & os.O_TRUNC and os.stat(path).st_size:  # noqa: PTH116
                call = Call("cut", name, self.names[name], 0)
                fd = self._do(call, lambda: self._real["open"](path, flags, mode, **more))
            else:
                fd = self._real["open"](path, flags, mode, **more)
            folder = stat.S_ISDIR(os.fstat(fd).st_mode)
            self._open[fd] = name if folder else self.names[name]
            return fd

    def _close_call(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            self._real["close"](fd)

    def _write_call(self, fd: int, data: Any) -> int:
        with self._lock:
            at = self._real["lseek"](fd, 0, os.SEEK_CUR) if fd in self._open else 0
            return self._write(fd, data, at, lambda raw: self._real["write"](fd, raw))

    def _pwrite_call(self, fd: int, data: Any, offset: int) -> int:
        with self._lock:
            return self._write(fd, data, offset, lambda raw: self._real["pwrite"](fd, raw, offset))

    def _write(self, fd: int, data: Any, at: int, really: Callable[[Any], Any]) -> int:
        number = self._open.get(fd)
        if number is None:
            return int(really(data))
        raw = bytes(data)
        call = Call("write", self._name(number), int(number), at, raw)
        written: int = self._do(call, lambda: really(raw), lambda: really(raw[: len(raw) // 2]))
        assert written == len(raw), "a short write, which is not recorded"
        return written

    def _name(self, number: str | int) -> str:
        return next((name for name, there in self.names.items() if there == number), "(no name)")

    def _fsync_call(self, fd: int) -> None:
        with self._lock:
            found = self._open.get(fd)
            if found is None:
                self._real["fsync"](fd)
            elif isinstance(found, str):
                self._do(Call("sync_folder", found), lambda: self._real["fsync"](fd))
            else:
                self._do(Call("sync", self._name(found), found), lambda: self._real["fsync"](fd))

    def _ftruncate_call(self, fd: int, size: int) -> None:
        with self._lock:
            found = self._open.get(fd)
            if found is None or os.fstat(fd).st_size == size:  # nothing changes
                self._real["ftruncate"](fd, size)
            else:
                self._do(Call("cut", self._name(found), int(found), size), lambda: self._real["ftruncate"](fd, size))

    def _replace_call(self, source: Any, target: Any, **more: Any) -> None:
        with self._lock:
            name, new = self._below(source), self._below(target)
            if name is None or new is None or name not in self.names:
                assert name is None and new is None, "a folder renamed, or a file from elsewhere: not recorded"
                self._real["replace"](source, target, **more)
                return
            call = Call("rename", name, self.names[name], target=new)
            self._do(call, lambda: self._real["replace"](source, target, **more))
            self.names[new] = self.names.pop(name)

    def _unlink_call(self, path: Any, **more: Any) -> None:
        with self._lock:
            name = self._below(path)
            if name is None or name not in self.names:
                self._real["unlink"](path, **more)
                return
            self._do(Call("unlink", name, self.names[name]), lambda: self._real["unlink"](path, **more))
            del self.names[name]

    def _mkdir_call(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        with self._lock:
            name = self._below(path)
            fails = os.path.lexists(path) or not Path(path).parent.is_dir()
            if name is None or fails:
                self._real["mkdir"](path, mode, **more)
            else:
                self._do(Call("mkdir", name), lambda: self._real["mkdir"](path, mode, **more))

    def _rmdir_call(self, path: Any, **more: Any) -> None:
        with self._lock:
            name = self._below(path)
            if name is None:
                self._real["rmdir"](path, **more)
            else:
                self._do(Call("rmdir", name), lambda: self._real["rmdir"](path, **more))


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError(f"os.{name} changes files and is not recorded: teach it to tests/chaos/recorder.py")

    return refuse


# ---------------------------------------------------------------------------------------------------------- checking

PART = re.compile(r"rows_(\d{9})_(\d{9})\.(npy|json)")


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _rows(raw: bytes) -> list[bytes]:
    """The rows of a float32 .npy file, each as its bytes; its header is read here, by the format's description."""
    if raw[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("no .npy")
    end = 10 + int.from_bytes(raw[8:10], "little")
    try:
        head = ast.literal_eval(raw[10:end].decode("latin1").strip())
        kind, order, (count, columns) = head["descr"], head["fortran_order"], head["shape"]
        width = columns * 4
    except (SyntaxError, KeyError, TypeError) as error:
        raise ValueError(f"a header that says nothing: {error}") from None
    if kind != "<f4" or order or len(raw) != end + count * width:
        raise ValueError("not the float32 rows that its header tells of")
    return [raw[end + i * width : end + (i + 1) * width] for i in range(count)]


@dataclass(frozen=True)
class Checker:
    """What an undisturbed run gave: `files`, each array's name with its bytes. Everything is held against it."""

    files: dict[str, bytes]

    @classmethod
    def of(cls, parts: Path) -> Checker:
        """Take the arrays of an undisturbed run as the truth."""
        return cls({path.name: path.read_bytes() for path in parts.glob("rows_*.npy")})

    def final_names(self, parts: Path) -> list[str]:
        """At any instant: an array has the bytes of the undisturbed run, a record is whole and its array lies by it."""
        found = []
        for path in sorted(parts.glob("rows_*")):
            match = PART.fullmatch(path.name)
            if match is None:
                found.append(f"{path.name}: no name of a part")
            elif match.group(3) == "npy" and path.read_bytes() != self.files.get(path.name):
                found.append(f"{path.name}: not whole, or other bytes than undisturbed")
            elif match.group(3) == "json":
                found += self._record(path, int(match.group(1)), int(match.group(2)))
        return found

    def _record(self, path: Path, start: int, stop: int) -> list[str]:
        try:
            record = json.loads(path.read_bytes())
            stated = (record["start"], record["stop"], record["sha256"], record["bytes"], len(record["fingerprints"]))
            raw = path.with_suffix(".npy").read_bytes()
        except (ValueError, KeyError, TypeError) as error:
            return [f"{path.name}: not a whole record: {error}"]
        except OSError:
            return [f"{path.name}: a record without its array"]
        if stated != (start, stop, _sha256(raw), len(raw), stop - start):
            return [f"{path.name}: does not tell of the array beside it"]
        return []

    def every_row_once(self, parts: Path) -> list[str]:
        """At the end: each row in exactly one committed part, bit for bit the undisturbed run's."""
        wanted, seen = self._by_row(self.files), {}
        found = self.final_names(parts)
        for path in sorted(parts.glob("rows_*.json")):
            try:
                rows = self._by_row({path.stem + ".npy": path.with_suffix(".npy").read_bytes()})
            except (OSError, ValueError) as error:
                found.append(f"{path.name}: {error}")
                continue
            found += [f"row {row} is there twice" for row in rows.keys() & seen.keys()]
            seen.update(rows)
        found += [f"row {row} is missing" for row in sorted(wanted.keys() - seen.keys())]
        found += [f"row {row} differs" for row in sorted(seen) if seen[row] != wanted.get(row)]
        return found

    @staticmethod
    def _by_row(files: dict[str, bytes]) -> dict[int, bytes]:
        """Raises ValueError for a file that holds no rows."""
        return {
            int(name.split("_")[1]) + i: row for name, raw in sorted(files.items()) for i, row in enumerate(_rows(raw))
        }

    def still_there(self, parts: Path, acked: Iterable[Sequence[Any]]) -> list[str]:
        """Parts that were said to be committed: array and record."""
        names = [f"rows_{start:09d}_{stop:09d}.{kind}" for start, stop in acked for kind in ("npy", "json")]
        return [f"{name}: was acknowledged and is gone" for name in names if not (parts / name).is_file()]


def journal_problems(path: Path, acked: Iterable[Any], ended: bool = True) -> list[str]:
    """What is wrong with a journal: its chain, and events that were acknowledged (`mark` by `mark`) and are not there.

    `ended=False`: just after the fault, when one last line may be torn; only what stands before it is looked at.
    """
    raw = path.read_bytes() if path.is_file() else b""
    lines = re.findall(rb"[^\n]*\n|[^\n]+\Z", raw)
    marks, found, before = [], [], "0" * 64
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            whole = line.endswith(b"\n") and record["prev"] == before and record["seq"] == number
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            last = number == len(lines) - 1
            found += [] if last and not ended else [f"journal line {number + 1}: torn, or does not follow"]
            break
        marks.append(record.get("mark"))
        before = _sha256(line)
    gone = [mark for mark in acked if marks.count(mark) != 1]
    return found + [f"event {mark} was acknowledged and is there {marks.count(mark)} times" for mark in gone]


def one_of(path: Path, versions: Sequence[bytes], at_least: int) -> list[str]:
    """A file that is replaced whole: it holds one of `versions`, and none before the one acknowledged (-1: none)."""
    if not path.is_file():
        return [] if at_least < 0 else [f"{path.name}: was acknowledged and is gone"]
    raw = path.read_bytes()
    if raw not in versions:
        return [f"{path.name}: not whole under its final name"]
    return [] if versions.index(raw) >= at_least else [f"{path.name}: an older one than was acknowledged"]
