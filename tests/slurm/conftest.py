"""A project whose only host is a cluster: real Slurm, real supervisors, an encoder without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import slurm

from tests.slurm.project import Project


@contextmanager
def laid_out(cluster: slurm.Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    made = Project(folder, cluster=cluster)
    made.lay_out()
    yield made
    made.clean_up()


@pytest.fixture
def project(cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project folder with a corpus, and a profile whose two tasks share a folder."""
    with laid_out(cluster, tmp_path / "scene", monkeypatch) as made:
        yield made


@pytest.fixture
def lone_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The same on a cluster of its own, for a controller that loses jobs: nodes do not take their numbers again."""
    if why := slurm.available():
        pytest.skip(f"no Slurm: {why}")
    with slurm.start(tmp_path / "slurm") as own, laid_out(own, tmp_path / "scene", monkeypatch) as made:
        yield made
