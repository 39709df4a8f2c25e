"""A worker that reads long documents in chunks: what it commits, and that a kill changes no byte of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from box import MakeBox
from made_up import run_folder
from vectors import cosines, vectors_of

from runbook_lib.phases import recompute
from runbook_lib.profile.profile import ModelSpec
from runbook_lib.run import model as models
from worker.chunked import ChunkedEncoder
from worker.chunks import counts

LIMIT = 32


def texts(rows: int) -> list[str]:
    draw = random.Random(5)
    return [" ".join(draw.choices(["river", "stone", "1984", "über"], k=draw.randint(1, 60))) for _ in range(rows)]


def test_what_is_committed_is_the_mean_of_the_chunks_and_the_same_bytes_after_a_kill(
    make_box: MakeBox, tiny_bert: Path
) -> None:
    some = texts(24)
    box = make_box(some, part_rows=6, model=tiny_bert, chunk_tokens=LIMIT)
    assert box.end(box.supervisor()) == 0, box.logs()
    encoder = ChunkedEncoder(tiny_bert, "cpu", "float32", LIMIT, 1)
    of_each = counts(encoder.lengths(some)) or []
    assert max(of_each) > 3 and min(of_each) == 1
    committed = {part: box.folder.part(*part).read_bytes() for part in box.parts()}
    for start, stop in committed:
        record = box.record(start, stop)
        assert record["chunks"] == of_each[start:stop] and record["chunk_tokens"] == LIMIT
        assert record["truncated"] == [] and record["max_tokens"] is record["model_max_tokens"] is None
        assert all(again["cosine"] >= 1 - 1e-6 for again in record["again"])
        array = np.load(box.folder.part(start, stop), allow_pickle=False)
        assert cosines(array, vectors_of(encoder, some[start:stop])).min() >= 1 - 1e-6
    for suffix in (".json", ".npy"):  # as after a kill: one part was never committed
        box.folder.part(6, 12).with_suffix(suffix).unlink()
    assert box.end(box.supervisor()) == 0, box.logs()
    assert {part: box.folder.part(*part).read_bytes() for part in box.parts()} == committed


def test_who_computes_rows_again_reads_them_in_the_same_chunks(tmp_path: Path, tiny_bert: Path) -> None:
    some = [text for text in texts(12) if len(text) > 200][:2]
    made = run_folder(tmp_path, chunk_tokens=LIMIT)
    plan = replace(made.plan, prompt="{text}", question_prompt="{text}")
    model = models.resolve(ModelSpec(str(tiny_bert)))
    answers = list(recompute.answers(made.run, plan, model, [(text, False) for text in some], "float32", 120.0))
    encoder = ChunkedEncoder(tiny_bert, "cpu", "float32", LIMIT, 1)
    assert [answer.chunks for answer in answers] == counts(encoder.lengths(some))
    vectors = np.array([answer.vector for answer in answers])
    assert cosines(vectors, vectors_of(encoder, some)).min() >= 1 - 1e-6
