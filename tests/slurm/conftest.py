"""A project whose only host is a cluster: real Slurm, real supervisors, an encoder without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm

from tests.slurm.project import Project


@pytest.fixture
def project(cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project folder with a corpus, and a profile whose two tasks share a folder."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    made = Project(tmp_path / "scene", cluster=cluster)
    made.lay_out()
    yield made
    made.clean_up()
