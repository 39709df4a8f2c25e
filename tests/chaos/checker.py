"""The judge of a history. It shares no code with the product: it reads the files as their format says they are.

What a row must be is made anew from the texts; nothing that the product computed is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PART = re.compile(r"rows_([0-9]{9})_([0-9]{9})\.json")
TEMPORARY = re.compile(r"\..+\.part")


@dataclass(frozen=True)
class Verdict:
    """What became of a history's rows, and whatever else is not as promised."""

    lost: int = 0
    wrong: int = 0
    doubled: int = 0
    broken: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.wrong or self.doubled or self.broken)

    def __str__(self) -> str:
        counts = f"lost {self.lost}, wrong {self.wrong}, doubled {self.doubled}"
        return counts + "".join(f"\n    {line}" for line in self.broken)


def expected(texts: Sequence[str]) -> np.ndarray:
    """The vectors that these texts have: 32 numbers of the text's digest, of length one."""
    raw = b"".join(hashlib.blake2b(text.encode(), digest_size=64).digest() for text in texts)
    whole = np.frombuffer(raw, "<i2").reshape(len(texts), 32).astype(np.int64)
    return (whole / np.sqrt((whole**2).sum(axis=1, keepdims=True))).astype(np.float32)


def merged(folder: Path, texts: Sequence[str], wanted: np.ndarray, least: float = 0.0) -> Verdict:
    """The merged result: matrix, articles and manifest against the texts.

    The matrix is to be `wanted` bit for bit, or, where `least` is given, each row to have at least that cosine with it.
    """
    try:
        matrix = np.load(folder / "embeddings.npy", allow_pickle=False)
        articles = [json.loads(line) for line in (folder / "articles.jsonl").read_bytes().splitlines()]
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        return Verdict(lost=len(texts), broken=(f"no merged result: {error}",))
    if matrix.shape != wanted.shape or matrix.dtype != wanted.dtype:
        lost = max(0, len(wanted) - len(matrix))
        return Verdict(lost=lost or len(wanted), broken=(f"the matrix is {matrix.dtype} {matrix.shape}",))
    wrong = set(np.flatnonzero(_differ(matrix, wanted, least)).tolist())
    seen = Counter(article.get("row") for article in articles)
    taken = _taken(manifest, len(texts))
    doubled = {row for row, times in seen.items() if times > 1} | set(np.flatnonzero(taken > 1).tolist())
    lost = set(range(len(texts))) - set(seen) | set(np.flatnonzero(taken == 0).tolist())
    for row, article in enumerate(articles[: len(texts)]):
        digest = hashlib.sha256(texts[row].encode()).hexdigest()[:32]
        if (article.get("row"), article.get("id"), article.get("fingerprint")) != (row, f"d{row}", digest):
            wrong.add(row)
    return Verdict(len(lost), len(wrong), len(doubled), tuple(_outputs(folder, manifest)))


def _differ(matrix: np.ndarray, wanted: np.ndarray, least: float) -> np.ndarray:
    if not least:
        return (matrix.view(np.uint32) != wanted.view(np.uint32)).any(axis=1)
    a, b = matrix.astype(np.float64), wanted.astype(np.float64)
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return ~(cosine >= least)  # a NaN is below too


def _taken(manifest: Mapping[str, object], rows: int) -> np.ndarray:
    """From how many parts the manifest takes each row."""
    taken = np.zeros(rows, int)
    for part in manifest["parts"]:
        if part["rows"]:
            taken[part["rows"][0] : part["rows"][1]] += 1
    return taken


def _outputs(folder: Path, manifest: Mapping[str, object]) -> list[str]:
    found = []
    for name, stated in manifest["outputs"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != stated["sha256"]:
            found.append(f"{name} is not what the manifest says")
    return found


def founding(path: Path, folder: Path) -> list[str]:
    """Whether the result as one pickle is there, and the one that the manifest names."""
    try:
        stated = json.loads((folder / "manifest.json").read_bytes())["founding"]["sha256"]
        return [] if hashlib.sha256(path.read_bytes()).hexdigest() == stated else [f"{path.name} is another"]
    except (OSError, ValueError, KeyError) as error:
        return [f"no {path.name}: {error}"]


def journal(path: Path) -> list[str]:
    """What is wrong with the chain of a journal."""
    found, before = [], "0" * 64
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True)):
        try:
            record = json.loads(line)
            if (record["prev"], record["seq"]) != (before, number):
                found.append(f"journal line {number + 1} does not follow from the line before")
        except (ValueError, KeyError, TypeError):
            found.append(f"journal line {number + 1} is none")
        before = hashlib.sha256(line).hexdigest()
    return found[:3]


def parts(folder: Path, spared: Collection[str] = ()) -> list[str]:
    """Final names in a folder of parts under which something half or wrong stands; `spared` are those we damaged.

    Somebody may work there at this moment, so a record that changed or went meanwhile says nothing.
    """
    where = f"{folder.parent.parent.name}/"
    suspects = [path for path in _records(folder) if path.stem not in spared]
    return [f"{where}{path.name}: {why}" for path in suspects if (why := _why_not(path))]


def _records(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if PART.fullmatch(path.name))
    except OSError:
        return []


def _why_not(path: Path) -> str:
    before = _bytes(path)
    why = _differs(before, _bytes(path.with_suffix(".npy")))
    return why if before and before == _bytes(path) else ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _differs(record: bytes, array: bytes) -> str:
    try:
        stated = json.loads(record)["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        return f"no record: {error}"
    return "" if hashlib.sha256(array).hexdigest() == stated else f"its array ({len(array)} bytes) is another"


def strangers(folder: Path) -> list[str]:
    """Names in a folder of parts that are neither a part's nor a temporary file's."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    known = [n for n in names if PART.fullmatch(n.replace(".npy", ".json")) or TEMPORARY.fullmatch(n)]
    return [f"a stranger among the parts: {name}" for name in sorted(set(names) - set(known))]


def rows_encoded(log: Path) -> int:
    """How many rows the workers of a host computed, by the encoder's own account."""
    try:
        return sum(int(line.split()[1]) for line in log.read_text().splitlines() if len(line.split()) == 3)
    except FileNotFoundError:
        return 0


def workers(log: Path) -> int:
    """How many workers of a host computed anything."""
    try:
        return len({line.split()[-1] for line in log.read_text().splitlines() if line.split()})
    except FileNotFoundError:
        return 0


def parts_of(log: Path, pid: int) -> int:
    """How many parts this worker began."""
    try:
        return sum(line.split()[-1:] == [str(pid)] for line in log.read_text().splitlines())
    except FileNotFoundError:
        return 0


def untouched(sums: Mapping[Path, str]) -> list[str]:
    """Files that are not what they were."""
    found = []
    for path, sha256 in sums.items():
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            found.append(f"somebody else's file was harmed: {path.parent.name}/{path.name}")
    return found
