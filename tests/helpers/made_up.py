"""A run with made-up vectors: a corpus numbered by `corpus.build`, a plan, and parts committed as a worker does it.

No model and no torch. `run_folder(tmp_path)` gives a `MadeUp`; `commit_all` fills its parts, `commit_part` makes a
single one, with anything in its record changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runbook_lib.corpus import corpus, inspection, numbering
from runbook_lib.phases import merge, publish, reuse, validate
from runbook_lib.profile import profile
from runbook_lib.result import earlier
from runbook_lib.run import opening, plan, run
from worker import again, encode
from worker.files import read_json, write_atomic, write_json
from worker.layout import HostFolder
from worker.rows import planned_parts

DIM = 8
MODEL_TOKENS = 512  # what the made-up model reads
WORDS = ("lake", "iron", "sonnet", "comet", "ferry", "violin", "glacier", "lantern", "cactus", "harbour", "quartz")


def documents(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` documents in the founding shape, all texts different."""
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"id-{i}" if i % 2 else i,
            "title": f"Title {i}: café 東京" if i % 3 == 0 else f"Title {i}",
            "text": f"{i} " + " ".join(rng.choice(WORDS, 5 + i % 7)),
            "url": f"https://example.org/{i}",
        }
        for i in range(count)
    ]


def vectors(rows: int, dim: int = DIM, seed: int = 1) -> np.ndarray:
    """Unit vectors, float32 (rows, dim), the same for the same seed."""
    found = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def vectors_of_texts(numbered: corpus.Corpus, dim: int = DIM) -> np.ndarray:
    """Unit vectors that depend on the text alone, float32 (rows, dim): what two runs of one model compute."""
    seeds = [int.from_bytes(print_.tobytes()[:8], "big") for print_ in numbered.fingerprints()]
    return np.concatenate([vectors(1, dim, seed) for seed in seeds])


def commit(folder: HostFolder, start: int, values: np.ndarray, record: dict[str, Any]) -> None:
    """Commit rows from `start` on as a worker does, whatever the record says that no worker would write."""
    stop = start + len(values)
    array = folder.part(start, stop)
    digest = write_atomic(array, encode.npy_chunks(np.ascontiguousarray(values)))
    stated = {"start": start, "stop": stop, "sha256": digest, "bytes": array.stat().st_size}
    write_json(array.with_suffix(".json"), {**record, **stated})


@dataclass(frozen=True)
class MadeUp:
    """A run, what was put into it, and the vectors that its parts hold (documents, then questions)."""

    run: run.Run
    plan: plan.Plan
    corpus: corpus.Corpus
    vectors: np.ndarray

    def record(self, start: int, stop: int, **changes: Any) -> dict[str, Any]:
        """What a worker would record of rows [start, stop), with `changes`."""
        slot = next((s for s in self.plan.slots if s.start <= start < s.stop), self.plan.slots[0])
        prints = self.corpus.fingerprints()
        limit = min(self.plan.max_tokens or MODEL_TOKENS, MODEL_TOKENS)
        record: dict[str, Any] = {
            "format": 1,
            "slot": slot.slot,
            "host": slot.host,
            "run": self.plan.run,
            "run_id": self.plan.run_id,
            "epoch": self.plan.epoch,
            "corpus": self.plan.corpus,
            "dtype": self.plan.dtype,
            "prompt": self.plan.prompt,
            "question_prompt": self.plan.question_prompt,
            "model": {key: getattr(self.plan.model, key) for key in ("name", "revision", "digest")},
            "max_tokens": limit,
            "model_max_tokens": MODEL_TOKENS,
            "normalises": self.plan.model.normalises,
            "threads": 1,
            "device": "cpu (made up)",
            "torch": "0.0",
            "python": "3.11",
            "capability": "none",
            "fingerprints": [prints[row].tobytes().hex() for row in range(start, min(stop, self.plan.rows))],
            "tokens": [10 + row % 10 for row in range(start, stop)],
            "truncated": [row for row in range(start, stop) if 10 + row % 10 > limit],
            "norms": [1.0] * (stop - start),
            "redone_float32": [],
            "out_of_memory": 0,
            "dim": self.vectors.shape[1],
            "seconds": 0.5,
            "real_tokens": 10,
            "padded_tokens": 10,
            "written_at": 0.0,
            "again": [{"row": row, "cosine": 1.0} for row in self.computed_again(start, min(stop, self.plan.rows))],
        }
        if size := self.plan.chunk_tokens:  # nothing is cut then
            chunks = [-(-tokens // size) for tokens in record["tokens"]]
            record |= {"max_tokens": None, "model_max_tokens": None, "truncated": [], "chunk_tokens": size}
            record |= {"chunks": [n if row < self.plan.documents else 1 for row, n in enumerate(chunks, start)]}
        return {**record, **changes}

    def computed_again(self, start: int, stop: int) -> list[int]:
        """The rows of a part that a worker computes a second time."""
        sizes = np.diff(self.corpus.offsets()[start : stop + 1]).tolist()
        return again.chosen(self.plan.run_id, (start, stop), self.plan.grid(start), self.plan.part_rows, sizes)

    def commit_part(self, start: int, stop: int, rows: np.ndarray | None = None, **changes: Any) -> Path:
        """Commit rows [start, stop) as a worker does; `rows` replaces the vectors, `changes` go into the record."""
        values = self.vectors[start:stop] if rows is None else rows
        commit(self.run.local, start, values, self.record(start, stop, **changes))
        return self.run.local.part(start, stop)

    def commit_all(self) -> None:
        """Commit every planned part."""
        for slot in self.plan.slots:
            for start, stop in planned_parts(slot.start, slot.stop, self.plan.part_rows):
                self.commit_part(start, stop)

    def change_record(self, path: Path, **changes: Any) -> None:
        """Overwrite keys of a committed part's record, as a stranger's part would have them."""
        path = path.with_suffix(".json")
        write_json(path, {**(read_json(path) or {}), **changes})


def run_folder(
    tmp_path: Path,
    count: int = 20,
    questions: list[dict[str, Any]] | None = None,
    texts: list[dict[str, Any]] | None = None,
    made: np.ndarray | None = None,
    slots: int = 2,
    part_rows: int = 4,
    dim: int = DIM,
    normalises: bool = True,
    dtype: str = "float32",
    accept: tuple[str, ...] = (),
    since: Path | None = None,
    by_text: bool = False,
    chunk_tokens: int | None = None,
) -> MadeUp:
    """A fresh run under `tmp_path` with a numbered corpus and a plan, and no parts yet.

    `since`: an earlier run; `by_text`: a vector depends on its text alone, as two runs of one model compute it.
    `chunk_tokens`: long documents are read in chunks of so many.
    """
    texts = documents(count) if texts is None else texts
    one = {"question": "Which one is about a lake?", "title": texts[0].get("title")}
    asked = [one] if questions is None else questions
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "corpus.json").write_text(json.dumps(texts))
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    in_chunks = f", max_tokens: {chunk_tokens}, too_long: chunk" if chunk_tokens else ""
    (tmp_path / "profile.yaml").write_text(
        "run: made-up\n"
        f"corpus: {{path: corpus.json, accept: [{', '.join(accept)}]}}\n"
        f"{'questions: questions.json' if asked else ''}\n"
        f"model: {{name: owner/model, dim: {dim}, dtype: {dtype}{in_chunks}}}\n"
        "hosts: [{name: here, kind: local, device: cpu, slots: 2}]\n"
    )
    this = opening.create(profile.load(tmp_path / "profile.yaml"), since=str(since or ""))
    template, question_template = "title: {title} | text: {text}", "query: {text}"

    def build(folder: Path) -> corpus.Corpus:
        fields, source = inspection.Fields(accept=frozenset(accept)), tmp_path / "corpus.json"
        asked_of = tmp_path / "questions.json" if asked else None
        return numbering.build(source, fields, None, asked_of, template, question_template, folder)

    taken_from = earlier.open_earlier(since, this.folder) if since else None
    numbered = reuse.number(this, taken_from, build) if taken_from else build(this.corpus)
    ranges = plan.cut(numbered.rows, slots)
    drawn = plan.Plan(
        run=this.name,
        epoch=1,
        documents=numbered.documents,
        questions=numbered.questions,
        corpus=numbered.fingerprint,
        model=plan.ModelIdentity("owner/model", "0" * 40, "1" * 64, dim, normalises),
        dtype=dtype,
        prompt=template,
        question_prompt=question_template,
        max_tokens=None if chunk_tokens else 16,
        chunk_tokens=chunk_tokens,
        part_rows=part_rows,
        slots=tuple(plan.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, a, b) for i, (a, b) in enumerate(ranges)),
        run_id=this.id,
    )
    drawn.save(this.plan_file)
    if made is None:
        made = vectors_of_texts(numbered, dim) if by_text else vectors(numbered.rows, dim)
    return MadeUp(this, drawn, numbered, made)


def published(this: run.Run) -> publish.Published:
    """What the last notebook does with parts that are home, up to its gate."""
    merge.merge(this)
    merge.write_founding(this)
    return publish.publish(this, *validate.validate(this))


def with_vectors(made: MadeUp, changed: dict[int, np.ndarray]) -> MadeUp:
    """The same run, with some rows' vectors replaced; parts committed from it hold them."""
    rows = made.vectors.copy()
    for row, value in changed.items():
        rows[row] = value
    return replace(made, vectors=rows)
