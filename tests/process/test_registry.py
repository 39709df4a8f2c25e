"""An environment that several tests need at once is made by one of them."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import registry


def test_an_environment_is_made_once_and_whoever_asks_meanwhile_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    both = threading.Barrier(2)

    def uv(*argv: str) -> subprocess.CompletedProcess[str]:
        if argv[0] == "venv":
            made.append(argv[-1])
            time.sleep(0.2)  # as long as another one needs to come in between
        else:
            Path(argv[argv.index("--python") + 1]).parent.mkdir(parents=True)
        return subprocess.CompletedProcess(argv, 0, "", "")

    def ask(_: int) -> bool:
        both.wait()
        return registry.with_packages("a", "b").parent.is_dir()

    monkeypatch.setattr(registry, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(registry, "uv", uv)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [True, True]
    assert len(made) == 1
