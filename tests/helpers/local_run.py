"""A run on local hosts with a made-up model folder: no torch, no real weights, processes only where a test starts them.

`new_run(tmp_path)` gives a run whose profile names two hosts; `planned(run)` takes it through preflight without loading
the model. The hosts' Python is a shell script: it supervises for real, and its workers sleep.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import made_up
from waiting import wait_for

from runbook_lib.corpus import corpus
from runbook_lib.hosts import hosts
from runbook_lib.phases import preflight
from runbook_lib.profile import profile
from runbook_lib.run import model, opening, plan, run
from runbook_lib.slots.snapshot import Snapshot
from runbook_lib.slots.watcher import Watcher
from worker.files import read_json
from worker.layout import HostFolder
from worker.rows import planned_parts

HOST = "  - {{name: {name}, kind: local, slots: {slots}, device: cpu, workdir: {name}, environment: {python}}}\n"
PYTHON = f'#!/bin/sh\ncase "$3" in supervise) exec "{sys.executable}" "$@";; warm) exit 1;; *) exec sleep 300;; esac\n'


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def model_folder(folder: Path, prompts: dict[str, str] | None = None, dim: int = 4, **config: Any) -> Path:
    """The files of a sentence-transformers model, as far as they are read without torch."""
    modules = ["", "1_Pooling", "2_Normalize"]
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    assert [path for _, path in kinds] == modules
    write_json(folder / "modules.json", [{"path": p, "type": f"sentence_transformers.models.{t}"} for t, p in kinds])
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim})
    write_json(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 512, **config})
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts or {}})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64})
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def new_run(
    tmp_path: Path, count: int = 18, slots: int = 1, names: tuple[str, ...] = ("one", "two"), **keys: Any
) -> run.Run:
    """A fresh run of `count` documents; `keys` are further lines of the profile."""
    model_folder(tmp_path / "model")
    python = executable(tmp_path / "bin" / "python", PYTHON)
    (tmp_path / "corpus.json").write_text(json.dumps(made_up.documents(count)))
    lines = {"corpus": "{path: corpus.json}", "model": "{name: ./model}", "part_rows": 3, **keys}
    lines.setdefault("hosts", "\n" + "".join(HOST.format(name=n, slots=slots, python=python) for n in names))
    text = "".join(f"{key}: {value}\n" for key, value in {"run": "t", **lines}.items())
    (tmp_path / "profile.yaml").write_text(text)
    return opening.create(profile.load(tmp_path / "profile.yaml"))


def numbered(this: run.Run) -> tuple[model.Model, corpus.Corpus]:
    """Model and corpus, as preflight finds them."""
    _, found = preflight.the_model(this)
    _, texts = preflight.the_corpus(this, found)
    assert found is not None and texts is not None
    return found, texts


def planned(this: run.Run, cores: int = 2) -> plan.Plan:
    """The plan of a run whose hosts were not looked at."""
    facts = {host.name: {"cores": cores, "gpus": []} for host in this.profile.hosts}
    checks, made = preflight.the_plan(this, *numbered(this), facts)
    assert checks.ok and made is not None
    return made


def host(this: run.Run, name: str = "one") -> hosts.Host:
    return hosts.connect(next(spec for spec in this.profile.hosts if spec.name == name), this.name)


def folder(this: run.Run, name: str = "one") -> HostFolder:
    return host(this, name).folder


def nobody_there(folder: Path) -> Path:
    """Credentials for a machine that refuses connections: a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_json(folder / "nobody.credentials", {"address": "127.0.0.1", "port": port, "username": "me", "password": "x"})
    (folder / "nobody.credentials").chmod(0o600)
    return folder / "nobody.credentials"


def look(this: run.Run) -> Snapshot:
    """One look of the monitor at all slots."""
    return Watcher(this, this.plan()).poll()


def alive(this: run.Run, name: str = "one") -> bool:
    """Whether a host's supervisor lives."""
    return host(this, name).poll().supervisor_alive


def worker(this: run.Run) -> dict[str, Any]:
    """The process of the only slot's worker, by a supervisor that lives."""
    return wait_for(
        lambda: alive(this) and read_json(folder(this).supervisor("one"))["slots"]["cluster0_gpu0"]["process"]
    )


def commit_all(this: run.Run) -> None:
    """Parts on the hosts, as their workers would have committed them."""
    plan = this.plan()
    made = made_up.MadeUp(this, plan, numbered(this)[1], made_up.vectors(plan.rows, plan.model.dim))
    for slot in plan.slots:
        for start, stop in planned_parts(slot.start, slot.stop, plan.part_rows):
            made_up.commit(folder(this, slot.host), start, made.vectors[start:stop], made.record(start, stop))
