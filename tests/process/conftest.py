"""What tests of whole processes begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forking
import pytest
from local_run import executable, new_run, planned
from vanishing import LIGHT, can_vanish, gone

from runbook_lib.phases import launch, staging, workers
from runbook_lib.run import run

KEYS = {"part_rows": 3, "monitor": "{interval_s: 0.2, unreachable_s: 0.5}"}


@pytest.fixture
def forks() -> Iterator[None]:
    """What this process starts by its own Python is forked where `forking.py` can do so."""
    with forking.own_python():
        yield


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., run.Run]]:
    """Makes a launched run of two hosts whose workers are real but for the model; some documents say WAIT."""
    made: list[run.Run] = []
    can_vanish(monkeypatch)

    def new(waits: tuple[int, ...] = (), slots: int = 1, count: int = 24, **keys: Any) -> run.Run:
        (tmp_path / "bin").mkdir(exist_ok=True)
        this = new_run(tmp_path, count=count, slots=slots, **{**KEYS, **keys})
        texts = json.loads((tmp_path / "corpus.json").read_text())
        for row in waits:
            texts[row]["text"] = "WAIT " + texts[row]["text"]
        (tmp_path / "corpus.json").write_text(json.dumps(texts))
        executable(tmp_path / "bin" / "python", LIGHT)
        made.append(this)
        model = tmp_path / "model" / "1_Pooling" / "config.json"
        model.write_text(json.dumps({"word_embedding_dimension": 8}))
        planned(this)
        assert staging.stage(this).ok and launch.start(this).ok
        return this

    yield new
    gone.clear()
    for this in made:
        workers.stop(this)
