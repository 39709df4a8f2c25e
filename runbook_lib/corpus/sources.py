"""The files of a corpus: one file, a folder of them, a pattern such as `data/*.parquet`, or a folder that `datasets`
saved (`save_to_disk`). They are read in the order of their names, as if they were one file.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.files import sha256_file

from ..errors import CorpusError
from .findings import NAMED, counted
from .formats.readers import PACKED, SUFFIXES
from .formats.source import FETCH_AGAIN, refusal, shown

MOST, FEW = 100_000, 200  # files
SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "hf", "http", "https", "ftp", "sftp")
ADDRESSES = frozenset(f"{scheme}:" for scheme in SCHEMES)
STATE, SPLITS = "state.json", "dataset_dict.json"  # of `datasets`


@dataclass(frozen=True)
class Files:
    """The files of a corpus in their order; `notes`: what of a folder is left out. `one`: a file named itself."""

    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def one(self) -> bool:
        """Whether the path is that of the only file."""
        return self.files == (self.path,)

    def name(self, file: Path) -> str:
        """A file's name below the folder or the pattern's folder."""
        return file.relative_to(_base(self.path)).as_posix() if not self.one else file.name

    def state(self) -> list[tuple[str, int, int, int]]:
        """Return values that differ after a file changed, came or went."""
        states = []
        for file in self.files:
            status = file.stat()
            states.append((self.name(file), status.st_ino, status.st_size, status.st_mtime_ns))
        return states

    def bytes(self) -> int:
        """The size of all together."""
        return sum(file.stat().st_size for file in self.files)

    def sha256(self) -> str:
        """The sha256 of the file; of several, that of the list `sha256sum` would print of them in this order."""
        if self.one:
            return sha256_file(self.path)
        lines = (f"{sha256_file(file)}  {self.name(file)}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def exists(path: Path) -> bool:
    """Whether there is a file or folder of this name, or one that the pattern fits."""
    return path.exists() or (_is_pattern(path) and next(_matches(path), None) is not None)


def find(path: Path) -> Files:
    """Return the files of a corpus. Raises CorpusError where there is none, or where it is not clear which."""
    if scheme := next((part[:-1] for part in path.parts if part.lower() in ADDRESSES), ""):
        reason = f"an address ({scheme}://...), and files of this machine are read"
        raise refusal(path, reason, "download it, and set corpus.path in the profile to the file or folder")
    if path.is_dir():
        return _of_folder(path)
    if path.exists():
        return Files(path, (path,))
    if not _is_pattern(path):
        raise refusal(path, "there is no such file", "set the path in the profile (corpus.path)")
    found = sorted(file for file in _matches(path) if file.is_file() and not _hidden(file, path))
    if not found:
        raise refusal(path, "no file fits this pattern", "set corpus.path in the profile to the files")
    return _several(path, found)


def places(path: Path, named: str = "") -> list[Path]:
    """The files that the corpus is read from, the path itself where that cannot be said; of very many one a folder, and
    those of this name.
    """
    try:
        files = find(path).files
    except (CorpusError, OSError):
        return [path]
    if len(files) <= FEW:
        return list(files)
    return [*{file.parent: file for file in files}.values(), *(file for file in files if file.name == named)]


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path))


def _base(path: Path) -> Path:
    """The folder of a pattern: the part before the first name with a wildcard."""
    for parent in [path, *path.parents]:
        if not _is_pattern(parent):
            return parent
    return Path(path.anchor)


def _matches(path: Path) -> Iterator[Path]:
    return map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def _hidden(file: Path, path: Path) -> bool:
    """Whether a name below the folder is one that programs leave for themselves: `.part`, `_SUCCESS`."""
    return any(name[0] in "._" for name in file.relative_to(_base(path)).parts)


def kind(file: Path) -> str:
    """The last suffix of a file's name that says what it holds, without that of a packer; empty where none does."""
    name = file.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    suffix = Path(name).suffix
    return suffix if suffix in SUFFIXES else ""


def _of_folder(folder: Path) -> Files:
    if (folder / SPLITS).is_file():
        splits = sorted(each.parent.name for each in folder.glob(f"*/{STATE}"))
        named = ", ".join(map(shown, splits[:NAMED])) or "none"
        raise refusal(folder, f"a DatasetDict with the splits {named}", "name one: corpus.path: .../<split>")
    if (folder / STATE).is_file():
        return _of_datasets(folder)
    entries = sorted(each for each in folder.iterdir() if each.name[0] not in "._")
    found = [each for each in entries if each.is_file() and kind(each)]
    kinds = Counter(kind(file) for file in found)
    if not found:
        inside = sorted({kind(file) for file in folder.rglob("*") if kind(file) and file.is_file()})
        fix = f"if they lie further down: corpus.path: {shown(folder, 300)}/**/*{inside[0]}" if inside else ""
        what = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        fix = fix or "name the folder with them, or put the documents into one file, such as JSON lines"
        raise refusal(folder, f"no file of a known kind in this folder ({what})", fix)
    if len(kinds) > 1:
        seen = ", ".join(f"{count} *{suffix}" for suffix, count in sorted(kinds.items()))
        fix = f"say which: corpus.path: {shown(folder, 300)}/*{kinds.most_common(1)[0][0]}"
        raise refusal(folder, f"files of several kinds: {seen}", fix)
    others = [each.name for each in entries if each not in set(found)]
    left_out = f"left out of {shown(folder, 300)}: {', '.join(map(shown, others[:NAMED]))}"
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return _several(folder, found, [left_out + more] if others else [])


def _of_datasets(folder: Path) -> Files:
    """The Arrow files of a folder made by `Dataset.save_to_disk`, in the order that its state gives."""
    try:
        state = json.loads((folder / STATE).read_bytes()[: 64 * 2**20])
        names = [entry["filename"] for entry in state["_data_files"]]
        if not all(type(name) is str and Path(name).name == name for name in names):
            raise ValueError("a name of a file that is not in the folder")
        mapped = state.get("_indices_data_files") or state.get("_indices_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refusal(folder / STATE, f"not the state of a dataset ({shown(error, 200)})", FETCH_AGAIN) from None
    if mapped:
        fix = "save it again: dataset.flatten_indices().save_to_disk(...)"
        raise refusal(folder, "its rows are chosen from the files by a list of indices", fix)
    if not names:
        raise refusal(folder, "a dataset without files: no documents", "name the folder of another one")
    return _several(folder, [folder / name for name in names], ["a folder that `datasets` saved"])


def _several(path: Path, found: list[Path], notes: list[str] | None = None) -> Files:
    if len(found) > MOST:
        raise refusal(path, f"{len(found):,} files, at most {MOST:,} are read", "join them into fewer files")
    names = [shown(file.name) for file in found]
    listed = ", ".join(names if len(names) < 4 else [names[0], names[1], "...", names[-1]])
    return Files(path, tuple(found), (f"{counted(len(found), 'file')} in this order: {listed}", *(notes or ())))
