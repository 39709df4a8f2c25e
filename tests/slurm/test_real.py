"""With the real model by the command line, and with a login node reached over OpenSSH: the bytes of a local run."""

from __future__ import annotations

import os
from pathlib import Path

import fleet
import pytest
import slurm
from small_run import PROFILE, digest, make_profile, runbook, undisturbed

from runbook_lib.run import opening
from tests.slurm.project import Project

ENTRY = """hosts:
  - {name: cluster, kind: slurm, tasks: 2, slots: 1, device: cpu, threads: 1, workdir: shared, heartbeat_s: 4}
"""


def test_the_real_model_gives_the_bytes_of_this_machine(
    cluster: slurm.Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    path = make_profile(tmp_path)
    path.write_text(PROFILE.split("hosts:")[0] + ENTRY)
    said = runbook("run", path, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    this = opening.open_folder(folder)
    assert digest(this) == undisturbed(tmp_path_factory).digest, said
    assert {host.name for host in this.profile.hosts} == set(this.plan().hosts) == {"cluster.0", "cluster.1"}
    assert "FAILED" not in runbook("verify", folder, cwd=tmp_path)
    assert "dead" not in {event["verdict"] for event in this.journal.events("slot in trouble")}


def test_a_login_node_over_ssh_does_as_well(project: Project, cluster: slurm.Cluster, tmp_path: Path) -> None:
    if why := fleet.available("loopback"):
        pytest.skip(f"no SSH hosts: {why}")
    settings = [f"SetEnv SLURM_CONF={cluster.conf} PATH={os.environ['PATH']}"]
    with fleet.start(tmp_path / "fleet", ["login"], "loopback", sshd=settings) as started:
        (login,) = started.hosts.values()
        project.entry = {"credentials": str(login.credentials)}
        command = project.begun()
        project.kill("cluster.0", "cluster0_gpu0")
        project.ended_well(command)
    assert project.submissions() == 1
