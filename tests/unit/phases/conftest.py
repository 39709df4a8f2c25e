"""What tests of several phases begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_run import new_run, planned

from runbook_lib.phases import workers
from runbook_lib.run import run


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., run.Run]]:
    """Makes a planned run, `make(**keys)` as `new_run`; its processes are ended when the test ends."""
    made: list[run.Run] = []

    def new(**keys: Any) -> run.Run:
        this = new_run(tmp_path, **keys)
        made.append(this)
        planned(this)
        return this

    yield new
    for this in made:
        workers.stop(this)
