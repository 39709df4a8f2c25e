#!/usr/bin/env python3
"""Verify the archive of a run with Python 3.9 and numpy only; nothing of the software that made it is imported.

    python verify.py FOLDER [--allowed-signers FILE]

A copy lies in every archive, and is the word of whoever made the archive: take this file from the release, where its
sha256 stands. Exit code 0 if all checks hold. What only `runbook verify` looks at is said at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

PHASES = ("01_preflight", "02_launch", "03_monitor", "04_merge_validate")
LISTED = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")
LITTER = re.compile(
    r"\._.*|\.DS_Store|\.localized|Icon\r|\.Spotlight-V100|\.fseventsd|\.Trashes|\.TemporaryItems|\.apdisk|__MACOSX"
    r"|\.DocumentRevisions-V100|\.VolumeIcon\.icns|\.AppleD(ouble|esktop|B)|Thumbs\.db|[Dd]esktop\.ini|\$RECYCLE\.BIN"
    r"|System Volume Information|\.directory|\.Trash-\d+|\.~lock\..*#|\.nfs[0-9a-f]+|\.ipynb_checkpoints"
)
PASSING = ("candidate/", "rejected/", "replaced/", "incoming/")
NORM = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
AGAIN = {"float32": 1 - 1e-5, "float16": 0.999, "bfloat16": 0.98}  # least cosine of a row that was computed twice
TWICE = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}  # of rows that came home twice
TOLERANCE = {"float32": (1e-6, 1e-6), "bfloat16": (1e-4, 1.0), "float16": (1e-5, 1.0)}  # of rows of the audit
NAMESPACE = "embedding-runbook"
STAMP = re.compile(r"result sha256 ([0-9a-f]{64})")
BLOCK, DRAWN, NEIGHBOURS, GATE, OLD_BATCHING = 4096, 299, 6, "may the next phase start?", ("batching", "padded")
GOOD = (
    "every byte is the sealed one{}; texts, records, arrays and figures follow from each other. Not looked at here: "
    "how the vectors fit the texts by words, rows computed again, the corpus's source, the pickle, geometry and "
    "retrieval, rates and times, vectors taken from an earlier run. Not proved: that no single row is off."
)


class Checks:
    """What was held against what; a check that cannot be made has failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def hold(self, name: str, problems: Callable[[], list[str]]) -> None:
        """Make one check and print it."""
        try:
            wrong = problems()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            wrong = [f"cannot be checked: {type(error).__name__}: {error}"]
        self.failed += [name] if wrong else []
        print("FAILED" if wrong else "ok    ", name, *[ascii("; ".join(wrong[:10]))[:1000]] * bool(wrong))


class Archive:
    """The files of a run's folder, and what its records say."""

    def __init__(self, root: Path):
        self.root, self.sums, self.later = root, dict[str, str](), ""
        lines = self.bytes("journal.jsonl").splitlines(keepends=True)
        self.journal, self.events = lines, [json.loads(line) for line in lines]
        self.plan, self.manifest = self.json("plan.json"), self.json("merged/manifest.json")
        self.results = {phase: self.json(f"report/{phase}.result.json") for phase in PHASES}
        self.since, self.work = self.json("whole/since.json"), self.json("corpus/corpus.json")
        self.corpus = "whole" if self.since else "corpus"  # with --since `corpus` has only the rows that were computed
        self.record = self.json(f"{self.corpus}/corpus.json")
        self.documents, self.dim = int(self.record["documents"]), int(self.plan["model"]["dim"])
        self.prints, self.work_prints = (self.array(f"{c}/fingerprints.npy", "|u1") for c in (self.corpus, "corpus"))
        self.matrix = self.array("merged/embeddings.npy")
        self.tokens, self.cut = np.zeros(self.documents, np.int64), np.zeros(self.documents, bool)
        self.chunks = np.ones(self.documents, np.int64)
        self.norms = np.zeros(self.documents)

    def bytes(self, name: str) -> bytes:
        """Return what a file holds; nothing if there is none."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else b""

    def json(self, name: str) -> Any:
        """Return the object of a JSON file; an empty one if there is none."""
        return json.loads(self.bytes(name) or b"{}")

    def lines(self, name: str) -> Iterator[Any]:
        """Yield the objects of a file of JSON lines."""
        with (self.root / name).open("rb") as file:
            yield from map(json.loads, file)

    def array(self, name: str, dtype: str = "<f4") -> np.ndarray:
        """Return a two-dimensional array, mapped; the file must end after its last row."""
        array: np.memmap = np.load(self.root / name, mmap_mode="r", allow_pickle=False)
        size = (self.root / name).stat().st_size
        if array.dtype.str != dtype or array.ndim != 2 or not array.flags.c_contiguous:
            raise ValueError(f"{name}: {array.dtype} {array.shape}")
        if size != array.offset + array.nbytes:
            raise ValueError(f"{name}: {size} bytes, {array.offset + array.nbytes} by its header")
        return array

    def sha256(self, name: str) -> str:
        """Return the sum of a file, which is read once."""
        if name not in self.sums:
            digest = hashlib.sha256()
            with (self.root / name).open("rb") as file:
                while piece := file.read(2**20):
                    digest.update(piece)
            self.sums[name] = digest.hexdigest()
        return self.sums[name]

    def changed(self, stated: dict[str, Any], where: str = "") -> list[str]:
        """Return which files have another sum than is stated of them ({name: {"sha256": ...}})."""
        return [f"{where}{n}: another sha256" for n, s in stated.items() if self.sha256(where + n) != s["sha256"]]


def digest_of(record: dict[str, Any]) -> str:
    """Return the sum of a record without its own field `sha256`."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def unlike(what: str, found: dict[str, Any], stated: dict[str, Any]) -> list[str]:
    """Return in words which fields differ; two fractions may do so in their last digits."""
    wrong = []
    for key, value in found.items():
        said: Any = stated.get(key)
        near = float in (type(value), type(said)) and None not in (value, said)
        if not (math.isclose(value, said, rel_tol=2e-5, abs_tol=2e-5) if near else value == said):
            wrong.append(f"{what}: {key} is {value}, not {said}")
    return wrong


# ------------------------------------------------------------------------------------------------------------- bytes


def listed(a: Archive) -> dict[str, str]:
    """Return the list of sums. Raises ValueError unless it has the one form that it may have."""
    found: dict[str, str] = {}
    for line in a.bytes("SHA256SUMS").splitlines(keepends=True):
        match = LISTED.fullmatch(line)
        name = match[2].decode() if match else ""
        if not match or name <= max(found, default="") or {"", ".", ".."} & set(name.split("/")):
            raise ValueError(f"a line of SHA256SUMS is not one: {line[:200]!r}")
        found[name] = match[1].decode()
    return found


def present(a: Archive) -> set[str]:
    """Return the files that count. Raises ValueError for what is neither a plain file nor a folder."""
    names = set()
    for folder, folders, files in os.walk(a.root):
        folders[:] = [name for name in folders if not LITTER.fullmatch(name)]
        for name in [*files, *(name for name in folders if Path(folder, name).is_symlink())]:
            path = Path(folder, name)
            shown = path.relative_to(a.root).as_posix()
            passing = name.endswith(".lock") or (name.startswith(".") and name.endswith(".part"))
            if passing or LITTER.fullmatch(name) or shown == "SHA256SUMS.sig":
                continue
            if path.is_symlink() or not path.is_file() or any(unicodedata.category(c) in ("Cc", "Cs") for c in shown):
                raise ValueError(f"{shown}: not a plain file, or not a plain name")
            names.add(shown)
    return names


def check_bytes(a: Archive, checks: Checks) -> None:
    """Hold files, list, journal and sealing against each other."""
    stated: dict[str, str] = {}
    sealed = 0  # lines of the journal

    def as_listed() -> list[str]:
        nonlocal sealed
        stated.update(listed(a))
        digest = hashlib.sha256()
        for number, line in enumerate(a.journal, 1):
            digest.update(line)
            sealed = number if digest.hexdigest() == stated.get("journal.jsonl") else sealed
        there, since = present(a), wrote(a.events[sealed:])
        a.later = ", but for what the journal says came later" * (0 < sealed < len(a.events))
        wrong = [] if sealed else ["journal.jsonl"]
        for name in sorted({*stated, *there - {"SHA256SUMS"}} - {"journal.jsonl"}):
            if is_litter(name) or (name in there and a.sha256(name) == stated.get(name)):
                continue
            if name not in there or a.sha256(name) != since.get(name):
                wrong.append(f"{name}: gone, changed, or not listed")
            elif signature_of(a).is_file() or any(key_of(a)):  # anybody can add a line to a journal
                wrong.append(f"{name}: written after the list was signed")
        return wrong

    def chained() -> list[str]:
        before = ["0" * 64, *(hashlib.sha256(line).hexdigest() for line in a.journal)]
        return [f"line {n} of the journal" for n, e in enumerate(a.events) if (e["prev"], e["seq"]) != (before[n], n)]

    def as_sealed() -> list[str]:
        rest = "".join(f"{s}  {n}\n" for n, s in stated.items() if n != "journal.jsonl" and not is_litter(n))
        said = a.events[sealed - 1]
        right = said["event"] == "sealed" and said.get("list") in (None, hashlib.sha256(rest.encode()).hexdigest())
        return [] if sealed and right else ["not the list that was sealed"]

    def as_written() -> list[str]:
        sums = wrote(a.events)
        sums.setdefault("profile.yaml", a.results[PHASES[-1]].get("inputs", {}).get("profile", ""))
        names = [n for n, s in sums.items() if s and n != "plan.json" and not n.startswith(PASSING)]
        return [f"{n}: another sha256" for n in names if (a.root / n).is_file() and a.sha256(n) != sums[n]]

    checks.hold("every file as listed, and none besides", as_listed)
    checks.hold("each line of the journal follows from the one before", chained)
    checks.hold("the list is the sealed one", as_sealed)
    checks.hold("files as the journal says they were written", as_written)


def wrote(events: list[dict[str, Any]]) -> dict[str, str]:
    """Return for each file the sum that the last event names which wrote it."""
    return {name: sha256 for event in events for name, sha256 in (event.get("wrote") or {}).items()}


def is_litter(name: str) -> bool:
    """Return whether a file is what a look with a Finder left, or lies in such a folder."""
    return any(LITTER.fullmatch(step) for step in name.split("/"))


def signature_of(a: Archive) -> Path:
    """Return where the signature of the list is."""
    return a.root / "SHA256SUMS.sig"


def key_of(a: Archive) -> list[str]:
    """Return by which key the list was signed, by the last sealing."""
    return [event.get("signed") or "" for event in a.events if event["event"] == "sealed"][-1:]


def check_signature(a: Archive, signers: Path | None, checks: Checks) -> str:
    """Verify the signature by the reviewer's own file of allowed signers; return by whom it is."""
    signature, key, by = signature_of(a), key_of(a), "nobody"

    def keygen(*argv: str) -> str:
        with (a.root / "SHA256SUMS").open("rb") as given:
            argv = ("ssh-keygen", "-Y", *argv, "-s", str(signature))
            done = subprocess.run(argv, stdin=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{done.stderr} {done.stdout}")
        return done.stdout.strip()

    def signed() -> list[str]:
        nonlocal by
        if signers and signers.resolve().is_relative_to(a.root.resolve()):
            return [f"{signers} lies in the archive: bring a file of your own"]
        if not signature.is_file():
            return ["there is none"] if signers or any(key) else []
        if signers is None:
            by = keygen("check-novalidate", "-n", NAMESPACE).rpartition(" with ")[2] + ", whoever that is"
            return [] if not any(key) or key[0].split()[-1] in by else [f"by another key than {key[0]}"]
        by = keygen("find-principals", "-f", str(signers)).splitlines()[0]
        keygen("verify", "-n", NAMESPACE, "-f", str(signers), "-I", by)
        return []

    checks.hold("signature of the list", signed)
    return by


# ------------------------------------------------------------------------------------------------ records and texts


def check_records(a: Archive, checks: Checks) -> None:
    """Hold results, plan, manifest and corpus against each other, and every text against its fingerprint."""
    plan, manifest = a.plan, a.manifest

    def results() -> list[str]:
        wrong = []
        for phase, result in a.results.items():
            wrong += unlike(phase, {"phase": phase, "run": plan["run"], "ok": True}, result)
            wrong += [] if result.get("checks") else [f"{phase}: has no check"]
            for c in result.get("checks", []):
                said = "FAILED" if not c["ok"] else "warning" if c.get("warn") else "ok"
                wrong += [] if c["ok"] and c.get("verdict") in ("", None, said) else [f"{phase}: {c['name']}"]
        return wrong

    def one_run() -> list[str]:
        begun = [event for event in a.events if event["event"] == "run created"]
        ids = {a.json("run.json").get("id"), plan.get("run_id"), *(event.get("id") for event in begun)} - {"", None}
        names = {plan["run"], manifest["run"], a.json("published.json").get("run"), *(e["run"] for e in begun)} - {None}
        stands = a.json("published.json")
        marked = not stands or stands["founding"]["path"]
        marked = marked and (not a.bytes("run.json") or re.fullmatch("[0-9a-f]{32}", a.json("run.json")["id"]))
        return [] if marked and len(names) == 1 and len(ids) <= 1 else [f"of {names} {ids}"]

    def outside() -> list[str]:
        stated = a.results[PHASES[-1]].get("figures", {}).get("backup") or {}
        path = Path(stated.get("path", ""))
        away = not stated or not path.parent.is_dir()  # it is on another machine
        same = away or (path.is_file() and a.sha256(str(path)) == stated["sha256"])
        return [] if same else [f"{path}: gone, or another sha256"]

    def sums() -> list[str]:
        unsaid = ("run_id", "amendments", "fences", "why_padded")  # where they are empty
        own = {k: v for k, v in plan.items() if k != "format" and (v or k not in unsaid)}
        own = {k: v for k, v in own.items() if (k, v) != OLD_BATCHING}
        wrong = [] if digest_of(own) == plan["sha256"] else ["plan.json: not its own sum"]
        wrong += [] if digest_of(manifest) == manifest["sha256"] else ["manifest.json: not its own sum"]
        same = {key: plan[key] for key in ("run", "corpus", "dtype", "model", "questions", "prompt", "question_prompt")}
        wrong += unlike("manifest.json", {**same, "plan": plan["sha256"], "documents": a.documents}, manifest)
        made = {"fingerprint": plan["corpus"], "template": plan["prompt"], "question_template": plan["question_prompt"]}
        wrong += unlike("corpus.json", made, a.work)
        wrong += a.changed(manifest["outputs"], "merged/") + a.changed(a.since.get("files", {}), "whole/")
        return wrong + a.changed(a.record["files"], f"{a.corpus}/") + a.changed(a.work["files"], "corpus/")

    def texts() -> list[str]:
        wrong, row = [], -1
        for row, line in enumerate(a.lines(f"{a.corpus}/texts.jsonl")):
            print_ = hashlib.sha256(line["text"].encode("utf-8", "surrogatepass")).digest()[:16]
            wrong += [] if (line["row"], print_) == (row, a.prints[row].tobytes()) else [f"row {row}"]
        sums = [hashlib.sha256(prints.tobytes()).hexdigest() for prints in (a.prints, a.work_prints)]
        whole = sums == [a.record["fingerprint"], a.work["fingerprint"]] and row + 1 == len(a.prints)
        return wrong + ([] if whole else ["not the fingerprints, or not as many texts, as recorded"])

    def articles() -> list[str]:
        wrong, row = [], -1
        documents = a.lines(f"{a.corpus}/articles.jsonl")
        for row, line in enumerate(a.lines("merged/articles.jsonl")):
            same = all(line.get(key) == value for key, value in {**next(documents), "row": row}.items())
            wrong += [] if same and line["fingerprint"] == a.prints[row].tobytes().hex() else [f"row {row}"]
            a.tokens[row], a.cut[row] = line["tokens"], line["truncated"] is True
            a.chunks[row] = line.get("chunks", 1)
        return wrong + ([] if row + 1 == a.documents else [f"{row + 1} articles for {a.documents} documents"])

    checks.hold("every phase has a result whose checks hold", results)
    checks.hold("all records are of one run", one_run)
    checks.hold("plan, corpus, manifest and merged files have their sums", sums)
    checks.hold("the backup, where it is on this machine", outside)
    checks.hold("every text has its fingerprint", texts)
    checks.hold("the merged articles are the corpus's documents", articles)


# ------------------------------------------------------------------------------------------------------------- rows


def check_rows(a: Archive, checks: Checks) -> None:
    """Hold each part against plan, texts, articles and matrix, and the matrix's rows against the model's promise."""
    planned = a.plan["documents"] + a.plan["questions"]
    take = np.load(a.root / "whole/take.npy") if a.since else -1 - np.arange(a.documents)
    place = np.full(a.plan["documents"], -1)  # of each row that was computed, its row in the result
    place[-1 - take[take < 0]] = np.flatnonzero(take < 0)
    asked = a.array("merged/questions.npy") if a.plan["questions"] else np.zeros((0, a.dim), np.float32)

    def parts() -> list[str]:
        wrong, covered, done = [], np.zeros(planned, np.int64), 0
        for stated in a.manifest["parts"]:
            low, high = stated["rows"] or (0, 0)
            covered[low:high] += 1
            start, stop = (int(number) for number in re.findall(r"[0-9]{9}", stated["name"]))
            done += stop - start
            wrong += [f"{stated['name']}: {why}" for why in one_part(a, stated, (start, stop), place, asked)]
        wrong += [] if (covered == 1).all() else [f"rows not taken once: {np.flatnonzero(covered != 1)[:10]}"]
        return wrong + unlike("manifest.json", {"rows_done_twice": done - planned}, a.manifest)

    def vectors() -> list[str]:
        wrong = [] if a.matrix.shape == (a.documents, a.dim) else [f"the matrix is {a.matrix.shape}"]
        bound = NORM[a.plan["dtype"]] if a.plan["model"]["normalises"] else np.inf
        for low in range(0, len(a.matrix), BLOCK):
            block = np.asarray(a.matrix[low : low + BLOCK])
            norms = a.norms[low : low + BLOCK] = np.linalg.norm(block.astype(np.float64), axis=1)
            bad = ~np.isfinite(norms) | (norms == 0) | (np.abs(norms - 1) > bound)
            bad |= (block == block[:, :1]).all(axis=1) & (a.dim > 1)
            if a.plan["dtype"] == "float32":  # the low bits of a vector that was computed in 16 bits are all zero
                bad |= ~((block.view(np.uint32) & 0x1FFF) != 0).any(axis=1) & ((block != 0).sum(axis=1) > a.dim // 2)
            wrong += [f"row {row}" for row in (low + np.flatnonzero(bad)).tolist()]
        norms = np.linalg.norm(asked.astype(np.float64), axis=1)
        bad = ~np.isfinite(norms) | (norms == 0) | (np.abs(norms - 1) > bound)
        return wrong + [f"question {row}" for row in np.flatnonzero(bad).tolist()]

    def second() -> list[str]:
        sizes = np.diff(np.load(a.root / "corpus/offsets.npy", mmap_mode="r"))
        checked = {c["name"]: c for result in a.results.values() for c in result.get("checks", [])}
        if checked.get("vectors agree with a second computation", {}).get("warn", True):
            return []  # some were not computed, and the report says so
        wrong = []
        for stated in a.manifest["parts"]:
            done = {each["row"] for each in a.json(f"parts/{stated['name']}"[:-3] + "json").get("again") or ()}
            start, stop = (int(number) for number in re.findall(r"[0-9]{9}", stated["name"]))
            wrong += [f"row {row}" for row in chosen(a.plan, start, stop, sizes[start:stop]) if row not in done]
        return wrong

    def twice() -> list[str]:
        differ: list[dict[str, Any]] = []
        for event in a.events:
            if event["event"] == "rows done twice" and not event["furthest"] <= TWICE[a.plan["dtype"]]:
                differ.append(event)
            elif event["event"] == "slot fenced":  # what it did is refused since, and the other's stands
                differ = [each for each in differ if event["slot"] not in (each.get("slot"), each.get("by"))]
        return [f"rows {each['start']}-{each['stop']}" for each in differ]

    checks.hold("each part: record, array, texts, articles, matrix", parts)
    checks.hold("norms as the model promises; no NaN, zeros, constants, 16 bits", vectors)
    checks.hold("rows that came home twice agree", twice)
    checks.hold("the rows that the plan chooses were computed a second time", second)


def chosen(plan: dict[str, Any], start: int, stop: int, sizes: np.ndarray) -> list[int]:
    """Return the rows of a part that were to be computed twice, by the run's id; `sizes` are those of their lines."""

    def number(what: str, row: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{plan.get('run_id', '')}/{what}/{row}".encode()).digest()[:8], "big")

    grid = max(slot["start"] for slot in plan["slots"] if slot["stop"] > slot["start"] and slot["start"] <= start)
    place, step = (start - grid) // plan["part_rows"], -(-200 // plan["part_rows"])
    if place % step:
        return []
    turn, by_size = number("turn", grid) + place // step, np.argsort(sizes, kind="stable")
    drawn = start + number("row", start) % (stop - start)
    turns = (start + int(by_size[0]), drawn, start + int(by_size[-1]), drawn)
    return sorted({turns[2 * turn % 4], drawn} if plan["part_rows"] >= 400 else {turns[turn % 4]})


def one_part(
    a: Archive, stated: dict[str, Any], rows: tuple[int, int], place: np.ndarray, asked: np.ndarray
) -> list[str]:
    """Return what is wrong with a part."""
    name, plan, (start, stop) = f"parts/{stated['name']}", a.plan, rows
    source = name.replace(".npy", ".json")
    record, array = a.json(source), a.array(name)
    wrong = [] if a.sha256(name) == stated["sha256"] == record["sha256"] else ["array, record, manifest: other sums"]
    wrong += [] if stated.get("record", "") in ("", a.sha256(source)) else ["not the record that was merged"]
    limits = [n for n in (plan["max_tokens"], record.get("model_max_tokens")) if n is not None]
    wanted = {key: plan[key] for key in ("run", "dtype", "prompt", "question_prompt")}
    wanted |= {"dim": a.dim, "normalises": plan["model"]["normalises"], "max_tokens": min(limits, default=None)}
    wanted |= {"chunk_tokens": plan.get("chunk_tokens"), "start": start, "stop": stop}
    wanted |= {"model": {k: plan["model"][k] for k in ("name", "revision", "digest")}}
    wrong += unlike("record", wanted, record)
    corpora = {plan["corpus"], *(amendment["corpus"] for amendment in plan.get("amendments", ()))}
    known = record["corpus"] in corpora and record.get("run_id", "") == plan.get("run_id", "")
    wrong += [] if known and record.get("batching", "padded") == plan.get("batching", "padded") else ["of another run"]
    second = [each["cosine"] for each in record.get("again") or () if each.get("cosine") is not None]
    wrong += [] if min(second, default=1) >= AGAIN[plan["dtype"]] else ["a second computation is another"]
    prints = bytes.fromhex("".join(record["fingerprints"]))
    wrong += [] if prints == a.work_prints[start:stop].tobytes() else ["fingerprints of other texts"]
    if array.shape != (stop - start, a.dim):
        return [*wrong, f"it is {array.shape}"]
    tokens, cut = np.array(record["tokens"]), np.zeros(stop - start, bool)
    cut[np.array(record["truncated"], np.int64) - start] = True
    over = tokens > (np.inf if record["max_tokens"] is None else record["max_tokens"])
    wrong += [] if (cut == over).all() else ["cut flags that do not follow from tokens"]
    chunks, size = np.array(record.get("chunks") or [1] * len(tokens)), plan.get("chunk_tokens") or np.inf
    off = (chunks * size < tokens) | ((chunks > 1) & (tokens <= size))  # of questions none is read in chunks
    wrong += ["chunks that do not follow from tokens"] if off[: max(0, plan["documents"] - start)].any() else []
    norms = np.linalg.norm(array.astype(np.float64), axis=1)
    near = np.abs(norms - record["norms"]) <= 1e-6 * np.maximum(1, norms)
    wrong += [] if near.all() else ["norms that its vectors do not have"]
    own = place[start:stop]  # rows of the result, of documents; questions come after them
    here, there = np.flatnonzero(own >= 0), own[own >= 0]
    pairs = ((a.tokens, tokens), (a.cut, cut), (a.chunks, chunks))
    told = all((ours[there] == theirs[here]).all() for ours, theirs in pairs)
    wrong += [] if told else ["other tokens, cuts or chunks than the articles have"]
    low, high = stated["rows"] or (start, start)
    taken = (here + start >= low) & (here + start < high)
    same = np.array_equal(a.matrix[there[taken]].view(np.uint32), array[here[taken]].view(np.uint32))
    first = max(low, plan["documents"])
    same &= first >= high or np.array_equal(asked[first - plan["documents"] :][: high - first],
                                            array[first - start : high - start])  # fmt: skip
    return wrong if same else [*wrong, "vectors that the result has otherwise"]


# ---------------------------------------------------------------------------------------------------------- figures


class Page(HTMLParser):
    """The figures of a page: `<data id value>text</data>`."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a figure."""
        self._open = [str(dict(attrs).get(key)) for key in ("id", "value")] if tag == "data" else self._open

    def handle_data(self, data: str) -> None:
        """Take the words of a figure."""
        self._open += [data] if self._open else []

    def handle_endtag(self, tag: str) -> None:
        """End a figure."""
        if tag == "data" and self._open:
            self.found.append((self._open[0], self._open[1], "".join(self._open[2:])))
            self._open = []


def draw(seed: str, rows: int, count: int) -> list[int]:
    """Return so many different rows, or all if they are fewer, in the order in which the seed draws them."""
    chosen = dict[int, None]()
    for number in itertools.count():
        if len(chosen) == min(count, rows):
            return list(chosen)
        chosen[int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest(), "big") % rows] = None
    raise AssertionError("numbers have no end")


def check_figures(a: Archive, checks: Checks) -> None:
    """Hold stored and printed figures, notebooks and the audit's draw against what they follow from."""
    stored, lengths = a.json("report/validation.json").get("figures", {}), a.manifest["lengths"]["documents"]
    kept, asked = a.json("report/audit.json"), a.plan["questions"]
    digests = "".join(f"{digest}\n" for digest in sorted(part["sha256"] for part in a.manifest["parts"])).encode()

    def figures() -> list[str]:
        norms, tokens = a.norms[np.isfinite(a.norms)], a.tokens
        found = {"min": norms.min(), "max": norms.max(), "mean": norms.mean(), "sd": norms.std()}
        wrong = unlike("norms", {key: float(value) for key, value in found.items()}, stored["norms"])
        found = {"min": tokens.min(), "max": tokens.max(), "mean": tokens.mean(), "median": np.median(tokens)}
        counts = {"tokens": int(tokens.sum()), "truncated_rows": int(a.cut.sum())}
        wrong += unlike("lengths", {**{key: float(value) for key, value in found.items()}, **counts}, stored["lengths"])
        wrong += unlike("manifest.json", counts, lengths)
        wrong += unlike("lengths", {key: lengths[key] for key in ("tokens_cut", "share_cut")}, stored["lengths"])
        wanted = {"documents": a.documents, "questions": asked, "dim": a.dim, "dtype": a.plan["dtype"]}
        wrong += unlike("figures", {**wanted, "model": a.plan["model"]["name"]}, stored)
        hashes = np.fromiter((hash(row.tobytes()) for row in a.matrix), np.int64, a.documents)
        equal = np.unique(hashes, return_counts=True)[1]
        several = {"groups": int((equal > 1).sum()), "rows": int(equal[equal > 1].sum())}
        wrong += unlike("duplicates", several, stored["duplicates"])
        looked_at = sorted(draw(a.plan["sha256"], a.documents, NEIGHBOURS))
        same = "neighbours" not in stored or [each["row"] for each in stored["neighbours"]] == looked_at
        return wrong if same else [*wrong, "neighbours of other documents than the plan chooses"]

    def printed() -> list[str]:
        page = Page(a.bytes("report/report.html").decode(errors="replace"))
        shown = {key: (value, text) for key, value, text in page.found}
        wrong = [] if len(shown) == len(page.found) else ["a figure is printed twice"]
        warned = sum(c.get("verdict") == "warning" for result in a.results.values() for c in result["checks"])
        what = f"{a.documents:,} document{'s' * (a.documents != 1)}"
        what += f" and {asked:,} question{'s' * (asked != 1)}" if asked else ""
        last = a.results[PHASES[-1]].get("figures", {})
        backed = " Its backup was read back." if last.get("backup") else ""
        looked = f" {warned} warning{'s' * (warned != 1)} below." if warned else ""
        said = f"{what} are embedded, merged and checked row by row.{backed}{looked}"
        norms, parts = stored["norms"], len([n for n in present(a) if re.fullmatch(r"parts/rows_\d+_\d+\.json", n)])
        share, answered = f"{100 * lengths['truncated_rows'] / a.documents:.2f} %", stored["retrieval"]
        wanted = {
            "verdict": ("true", said),
            "figure-documents": (str(a.documents), f"{a.documents:,}"),
            "figure-vectors": (f"{a.documents:,} × {a.dim:,}",) * 2,
            "figure-parts": (str(parts), f"{parts:,}"),
            "figure-model": (a.plan["model"]["name"],) * 2,
            "figure-documents-cut": (str(lengths["truncated_rows"]), share),
            "figure-norms": (f"{norms['mean']:.9g}", f"mean {norms['mean']:.7f}"),
            "figure-norms-note": (f"{norms['min']:.9f} to {norms['max']:.9f}",) * 2,
            "sha256-founding": (a.manifest["founding"]["sha256"],) * 2,
        }
        wanted |= {f"sha256-merged-{name}": (s["sha256"],) * 2 for name, s in a.manifest["outputs"].items()}
        if answered.get("with_answer"):
            top = f"{answered['top1']} of {answered['with_answer']}"
            wanted["figure-questions-answered"] = (str(answered["top1"]), top)
        if not shown and not any(e.get("list") for e in a.events if e["event"] == "sealed"):
            return []  # of a version that gave figures no ids
        return wrong + [f"{k}: {shown.get(k)} is printed" for k, value in wanted.items() if shown.get(k) != value]

    def notebooks() -> list[str]:
        wrong = []
        for phase in PHASES:
            notebook = a.json(f"report/{phase}.ipynb")
            outputs = [out for cell in notebook.get("cells", []) for out in cell.get("outputs", [])]
            said = "\n".join(json.dumps(out.get("data", {}).get("text/plain")) for out in outputs)
            gates = [event for event in a.events if event["event"] == "gate" and event["phase"] == phase]
            sums, ended = wrote(gates), STAMP.findall(said)
            known = {s for event in gates for n, s in event.get("wrote", {}).items() if n.endswith(".result.json")}
            unstamped = not ended and GATE in said and all(gate.get("stamped") for gate in gates)
            if unstamped or (ended and ended[-1] not in known):
                wrong.append(f"{phase}: ended with a result that no gate wrote")
            path = f"report/{phase}.result.json"
            wrong += [] if sums.get(path) == a.sha256(path) else [f"{path}: not what its gate wrote"]
        return wrong

    def drawn() -> list[str]:
        if not stored.get("audit"):
            return []
        seed = hashlib.sha256(digests + bytes.fromhex(kept["nonce"])).hexdigest()
        wrong = unlike("audit", {"parts": hashlib.sha256(digests).hexdigest(), "seed": seed}, kept)
        wrong += [] if any(e.get("seed") == seed for e in a.events if e["event"] == "audit drawn") else ["no such draw"]
        chosen = draw(seed, len(a.prints), DRAWN if len(a.prints) > 2 * DRAWN else len(a.prints))
        looked_at = [(int(each["row"]), each["uniform"]) for each in kept["rows"]]
        uniform = [row for row, drawn in looked_at if drawn]
        wrong += [] if uniform == chosen[: len(uniform)] else ["its rows do not follow from its seed"]
        known = [each for each in kept["rows"] if each["distance"] is not None]
        wrong += [
            f"row {e['row']} is off by {e['distance']:.2g}" for e in known if not e["distance"] <= kept["tolerance"]
        ]
        furthest = max((each["distance"] for each in known), default=None)
        found = {"seed": seed, "wrong": 0, "uniform": sum(each["uniform"] for each in known),
                 "furthest": None if furthest is None else float(f"{furthest:.2g}")}  # fmt: skip
        return wrong + unlike("audit", found, stored["audit"])

    checks.hold("stored figures: counts, norms, lengths, equal vectors", figures)
    checks.hold("printed figures that follow from these", printed)
    checks.hold("executed notebooks ended with these results", notebooks)
    checks.hold("the audit was drawn after all parts", drawn)


def main() -> int:
    """Verify, print, and say in one sentence what is certain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--allowed-signers", type=Path, metavar="FILE", help="your own: whose signature you trust")
    options = parser.parse_args()
    checks, by, run = Checks(), "nobody", "?"
    try:
        a = Archive(options.folder)
        run = f"{a.plan['run']}, {a.documents:,} documents"
        check_bytes(a, checks)
        by = check_signature(a, options.allowed_signers, checks)
        check_records(a, checks)
        check_rows(a, checks)
        check_figures(a, checks)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        checks.hold("everything can be read", lambda: [why])
    print(f"Run {ascii(run)[1:-1]}, signed by {ascii(by)[1:-1]}:", end=" ")
    print(f"NOT PROVED: {'; '.join(checks.failed)}." if checks.failed else GOOD.format(a.later))
    return int(bool(checks.failed))


if __name__ == "__main__":
    sys.exit(main())
