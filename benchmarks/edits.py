"""Kinds of edits in a sealed archive, each a function of the run's folder; for faults.py."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runbook_lib.run.run import PHASES, Run
from worker.files import read_json, sha256_file, write_json

SUM = '(id="sha256-merged-articles.jsonl" value=")'


@dataclass(frozen=True)
class Edit:
    """A kind of edit: what it is, and what does it to a run's folder."""

    name: str
    do: Callable[[Run], None]


def _byte(name: str) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        path = next(iter(sorted(run.folder.glob(name))))
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 1
        path.write_bytes(raw)

    return do


def _gone(name: str) -> Callable[[Run], None]:
    return lambda run: next(iter(sorted(run.folder.glob(name)))).unlink()


def _replaced(name: str, was: str, now: str) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        path = next(iter(sorted(run.folder.glob(name))))
        path.write_text(re.sub(was, now, path.read_text(), count=1))

    return do


def _in_record(key: str, value: object) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        path = sorted(run.local.parts.glob("*.json"))[0]
        record = read_json(path) or {}
        record[key] = [value, *record[key][1:]] if isinstance(record[key], list) else value
        write_json(path, record)

    return do


def _in_figures(run: Run) -> None:
    path = run.report / "validation.json"
    whole = json.loads(path.read_text())
    whole["figures"]["norms"]["max"] = 1.25
    write_json(path, whole)


def swap_rows_everywhere(run: Run) -> None:
    """Two rows change places in matrix and parts, and every record is made to agree."""
    matrix = run.merged / "embeddings.npy"
    vectors = np.load(matrix)
    vectors[[3, 40]] = vectors[[40, 3]]
    np.save(matrix, vectors)
    sums: dict[str, str] = {str(matrix.name): sha256_file(matrix)}
    for array in sorted(run.local.parts.glob("*.npy")):
        start, stop = map(int, re.findall(r"\d+", array.stem))
        if stop > len(vectors):
            continue
        np.save(array, vectors[start:stop])
        record = array.with_suffix(".json")
        norms = np.linalg.norm(vectors[start:stop].astype(np.float64), axis=1)
        stated = {"sha256": sha256_file(array), "norms": [round(float(norm), 7) for norm in norms]}
        write_json(record, {**(read_json(record) or {}), **stated})
        sums[array.name] = stated["sha256"]
        sums[record.name] = sha256_file(record)
    _manifest(run, sums)


def _manifest(run: Run, sums: dict[str, str]) -> None:
    from runbook_lib.result import founding
    from runbook_lib.result.merged import Merged, _digest

    merged = Merged(run.merged)
    value = json.loads(merged.manifest_file.read_text())
    value["outputs"]["embeddings.npy"]["sha256"] = sums["embeddings.npy"]
    for part in value["parts"]:
        part["sha256"] = sums.get(part["name"], part["sha256"])
        part["record"] = sums.get(part["name"].replace(".npy", ".json"), part["record"])
    before = merged.manifest()
    assert before is not None
    value["founding"]["sha256"] = founding.sha256(merged.content(before))
    value.pop("sha256")
    write_json(merged.manifest_file, {**value, "sha256": _digest(value)})


def _text(run: Run) -> None:
    path: Path = run.corpus / "texts.jsonl"
    raw = path.read_bytes()
    at = raw.index(b" the ")
    path.write_bytes(raw[:at] + b" teh " + raw[at + 5 :])


def _extra_part(run: Run) -> None:
    """A part that nobody merged, as if a host had sent it: a copy under the name of other rows."""
    path = sorted(run.local.parts.glob("*.npy"))[0]
    for source in (path, path.with_suffix(".json")):
        shutil.copy(source, source.with_name(f"rows_000000000_000000004{source.suffix}"))


def _linked(run: Run) -> None:
    path = run.report / "hosts.json"
    outside = run.folder.parent / "hosts.json"
    shutil.move(path, outside)
    path.symlink_to(outside)


def _header(run: Run) -> None:
    """The matrix's header says one row less: its last row is then bytes after the end."""
    path = run.merged / "embeddings.npy"
    path.write_bytes(path.read_bytes().replace(b"(60, ", b"(59, ", 1))


def _line_twice(run: Run) -> None:
    path = run.merged / "articles.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], lines[4], *lines[6:]]))


def _list_reordered(run: Run) -> None:
    lines = run.sums.read_bytes().splitlines(keepends=True)
    run.sums.write_bytes(b"".join([*lines[1:], lines[0]]))


def _other_case(run: Run) -> None:
    (run.merged / "articles.jsonl").rename(run.merged / "Articles.jsonl")


def _vouched_for(run: Run) -> None:
    """The notes, and a line added to the journal, as anybody can, that says they were written so."""
    (path,) = run.notes.glob("execution_report_*.md")
    path.write_text(path.read_text().replace("SUCCESS", "SUCCESS!"))
    name = path.relative_to(run.folder).as_posix()
    run.journal.write("record written", wrote={name: sha256_file(path)})


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        run.journal.path.write_bytes(b"".join(change(run.journal.path.read_bytes().splitlines(keepends=True))))

    return do


def _parts_exchanged(run: Run) -> None:
    """Two parts of as many rows change places, each under the other's name."""
    one, two = sorted(run.local.parts.glob("*.npy"))[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


ARCHIVE = (
    Edit("a byte of the matrix", _byte("merged/embeddings.npy")),
    Edit("a byte of a part", _byte("parts/*.npy")),
    Edit("a part's array gone", _gone("parts/*.npy")),
    Edit("a part's record gone", _gone("parts/*.json")),
    Edit("a text", _text),
    Edit("a fingerprint in a record", _in_record("fingerprints", "0" * 32)),
    Edit("a norm in a record", _in_record("norms", 1.5)),
    Edit("tokens in a record", _in_record("tokens", 9999)),
    Edit("the dtype in a record", _in_record("dtype", "bfloat16")),
    Edit("an article's title", _replaced("merged/articles.jsonl", '"title": "', '"title": "x')),
    Edit("a question's vector", _byte("merged/questions.npy")),
    Edit("a stored figure", _in_figures),
    Edit("a printed figure", _replaced("report/report.html", ">60<", ">61<")),
    Edit("a printed sum", _replaced("report/report.html", f'{SUM}[0-9a-f]{{8}}', r"\g<1>00000000")),
    Edit("the printed verdict", _replaced("report/report.html", "60 documents", "99 documents")),
    Edit("a check's verdict in a result", _replaced(f"report/{PHASES[1]}.result.json", '"ok": true', '"ok": false')),
    Edit("a line of the journal", _replaced("journal.jsonl", '"run created"', '"run created."')),
    Edit("a line of the journal gone", _lines(lambda lines: [*lines[:2], *lines[3:]])),
    Edit("two lines of the journal exchanged", _lines(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])),
    Edit("the notes, with a line added to the journal", _vouched_for),
    Edit("words of the report", _replaced("report/report.html", "What is not proved", "What is proved")),
    Edit("two parts exchanged", _parts_exchanged),
    Edit("the notes", _replaced("notes/execution_report_*.md", "SUCCESS", "SUCCESS!")),
    Edit("the plan", _replaced("plan.json", '"part_rows": 8', '"part_rows": 9')),
    Edit("a slot in the plan", _replaced("plan.json", '"device": "cpu"', '"device": "xpu"')),
    Edit("the manifest", _replaced("merged/manifest.json", '"documents": 60', '"documents": 61')),
    Edit("the audit's rows", _replaced("report/audit.json", '"distance": [0-9.e-]+', '"distance": 0.5')),
    Edit("the number of a row of the audit gone", _replaced("report/audit.json", '"row": [0-9]+, ', "")),
    Edit("the run's id gone", _replaced("run.json", '"id": "[0-9a-f]{32}", ', "")),
    Edit("a file too many", lambda run: (run.report / "extra.html").write_text("all is well") and None),
    Edit("a part too many", _extra_part),
    Edit("a link for a file", _linked),
    Edit("the matrix's header", _header),
    Edit("a line of the articles twice", _line_twice),
    Edit("a name in other letters", _other_case),
    Edit("the list in another order", _list_reordered),
    Edit("the profile", _replaced("profile.yaml", "interval_s: [0-9.]+", "interval_s: 77")),
    Edit("what a host said of itself", _replaced("report/hosts.json", '"hosts"', '"hosts_"')),
    Edit("the run's id", _replaced("run.json", '"id": "[0-9a-f]{8}', '"id": "00000000')),
    Edit("the record of what has final names", _replaced("published.json", '"at": "2', '"at": "1')),
    Edit("the corpus's record", _replaced("corpus/corpus.json", '"template": "', '"template": " ')),
    Edit("two rows, with every record and sum made to agree", swap_rows_everywhere),
)  # fmt: skip
