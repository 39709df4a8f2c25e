"""A made-up run with real texts and vectors of 8 numbers: what build, merge and validate of many rows cost.

Texts are short and all different but for one in fifty, so that duplicates are there to be found. Parts are committed
as a worker does it, a slice of rows at a time, so that making them takes little memory whatever their number.
"""

from __future__ import annotations

import json
from pathlib import Path

import made_up
import numpy as np

from runbook_lib.corpus import corpus as corpora
from runbook_lib.corpus import inspection, numbering
from runbook_lib.profile import profile as profiles
from runbook_lib.run import opening
from runbook_lib.run import plan as plans
from runbook_lib.run import run as runs
from worker.rows import planned_parts

DIM, SLOTS, TEXT_CHARACTERS = 8, 16, 350
PROFILE = f"""run: whole
corpus: {{path: corpus.jsonl}}
model: {{name: owner/model, dim: {DIM}, dtype: float32}}
hosts: [{{name: here, kind: local, device: cpu, slots: {SLOTS}}}]
output: {{folder: out, backups: out/backups}}
"""
TEMPLATE = "title: {title} | text: {text}"


def write_corpus(folder: Path, rows: int) -> None:
    """The source file, JSON lines; every fiftieth text is the one before again."""
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(PROFILE)
    words = " ".join(made_up.WORDS) + " "
    filler = (words * (TEXT_CHARACTERS // len(words) + 1))[: TEXT_CHARACTERS - 12]
    with (folder / "corpus.jsonl").open("w") as file:
        for row in range(rows):
            own = row - (row % 50 == 49)
            item = {
                "id": row,
                "title": f"Title {row}",
                "text": f"{own:010d} {filler}",
                "url": f"https://example.org/{row}",
            }
            file.write(json.dumps(item) + "\n")


def number(folder: Path) -> corpora.Corpus:
    """The corpus numbered into the run's folder, which is made where it is not there."""
    profile = profiles.load(folder / "profile.yaml")
    run = runs.Run(profile.runs / "whole", profile)
    if not run.profile_file.exists():
        run = opening.create(profile, "whole")
    return numbering.build(profile.corpus.path, inspection.Fields(), None, None, TEMPLATE, "{text}", run.corpus)


def open_run(folder: Path) -> runs.Run:
    """The run."""
    return opening.open_folder(folder / "runs" / "whole")


def commit_parts(folder: Path) -> None:
    """The plan, and every part of it at home."""
    run = open_run(folder)
    corpus = corpora.load(run.corpus)
    ranges = plans.cut(corpus.rows, SLOTS)
    plan = plans.Plan(
        run=run.name, epoch=1, documents=corpus.rows, questions=0, corpus=corpus.fingerprint,
        model=plans.ModelIdentity("owner/model", "0" * 40, "1" * 64, DIM, True), dtype="float32", prompt=TEMPLATE,
        question_prompt="{text}", max_tokens=16, part_rows=plans.part_rows_for("cuda", ranges[0][1], 0, 1),
        slots=tuple(plans.Slot(f"cluster0_gpu{i}", "here", i, "cpu", 1, a, b) for i, (a, b) in enumerate(ranges)),
        run_id=run.id,
    )  # fmt: skip
    plan.save(run.plan_file)
    made = made_up.MadeUp(run, plan, corpus, np.zeros((1, DIM), np.float32))
    for slot in plan.slots:
        for start, stop in planned_parts(slot.start, slot.stop, plan.part_rows):
            made.commit_part(start, stop, made_up.vectors(stop - start, DIM, seed=start))
