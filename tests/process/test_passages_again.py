"""1 % of 20,029 real passages changed: a second run computes these and nothing else but its check of what it took.

Hosts, workers, plan, merge and validation are real; the encoder's vector follows from the text alone, so that a run
takes seconds. With the real model the same is tried on a small corpus, in test_second_run.py.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from local_run import HOST, executable, folder, model_folder
from made_up import published
from waiting import wait_for

from runbook_lib.phases import download, launch, preflight, staging, workers
from runbook_lib.profile import profile
from runbook_lib.report import gate, report
from runbook_lib.result import whole
from runbook_lib.run import opening, run
from runbook_lib.run.checks import Checks
from worker.layout import committed

PASSAGES = Path(__file__).parents[3] / "shared" / "data" / "wiki_passages.jsonl"
SLEEPING = (
    Path(__file__).parents[2] / "benchmarks" / "sleeping.py"
)  # its vectors follow from the text; here it sleeps 0 s
COUNT = 20_029


def rows_left(this, name):
    """How many rows of a host are not committed there."""
    there = committed(folder(this, name).parts)
    return sum(this.plan().left(slot, there) for slot in this.plan().of_host(name))


def finished(top, since=""):
    """A run of the profile in the folder `top`, taken through all phases and sealed."""
    this = opening.create(profile.load(top / "profile.yaml"), since=str(since))
    _, model = preflight.the_model(this)
    checks, corpus = preflight.the_corpus(this, model)
    assert checks.ok, checks
    facts = {spec.name: {"cores": 2, "gpus": []} for spec in this.profile.hosts}
    assert preflight.the_plan(this, model, corpus, facts)[0].ok
    try:
        assert staging.stage(this).ok and launch.start(this).ok

        wait_for(lambda: all(not rows_left(this, name) for name in ("one", "two")), "every row is committed", 600)
        download.collect(this)
        assert download.complete(this).ok
    finally:
        workers.stop(this)
    for phase in run.PHASES[:3]:
        held = Checks(phase)
        held.add("a fact", True, "seen")
        gate.gate(this, phase, held)
    done = published(this)
    assert done.checks.ok, done.checks
    gate.gate(this, run.PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(this)
    return this


@pytest.mark.skipif(not PASSAGES.exists(), reason="no shared/data beside this repository")
def test_of_the_passages_only_what_changed_is_computed_and_all_rows_are_those_of_a_full_run(tmp_path):
    model_folder(tmp_path / "model", dim=8)
    script = f'#!/bin/sh\nexec "{sys.executable}" "{SLEEPING}" 0 "$@"\n'
    python = executable(tmp_path / "bin" / "python", script)
    hosts = "".join(HOST.format(name=name, slots=1, python=python) for name in ("one", "two"))
    lines = [
        "run: passages",
        "corpus: {path: corpus.jsonl}",
        "model: {name: ./model}",
        "part_rows: 256",
        "hosts:",
        hosts,
    ]
    (tmp_path / "profile.yaml").write_text("\n".join(lines))
    documents = [json.loads(line) for line in PASSAGES.read_text(encoding="utf-8").splitlines()]
    assert len(documents) == COUNT

    def write():
        text = "".join(json.dumps(each) + "\n" for each in documents)
        (tmp_path / "corpus.jsonl").write_text(text)

    write()
    first = finished(tmp_path)
    changed = sorted(random.Random(17).sample(range(COUNT), COUNT // 100))
    for row in changed:
        documents[row]["text"] += " Changed since."
    write()
    second = finished(tmp_path, first.folder)
    since = whole.load(second).since
    assert (since.changed, since.reused, since.added, since.removed) == (len(changed), COUNT - len(changed), 0, 0)
    texts = {(documents[row]["title"], documents[row]["text"]) for row in changed}
    assert since.computed <= len(texts), "each text once"
    computed = sum(stop - start for start, stop in committed(second.local.parts))
    assert computed == since.computed + since.spot == second.plan().rows
    before, after = (np.load(this.merged / "embeddings.npy") for this in (first, second))
    same = np.setdiff1d(np.arange(COUNT), changed)
    assert after[same].tobytes() == before[same].tobytes()
    full = np.load(finished(tmp_path).merged / "embeddings.npy")
    assert (after * full).sum(axis=1).min() >= 1 - 1e-6
    assert not (after[changed] == before[changed]).all(axis=1).any(), "what changed is not what it was"
    assert report.verify(second).ok
