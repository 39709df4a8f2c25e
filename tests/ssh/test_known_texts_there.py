"""Known texts on machines over SSH, held against this machine: a wrong host, and hosts that are all wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fleet as fleets
import forking
import pytest
from small_run import PROFILE, make_profile, runbook
from wrong_slot import host_python

from runbook_lib.run import opening
from worker.files import read_json
from worker.layout import committed

HOST = "  - {{name: {0}, kind: ssh, slots: 1, device: cpu, threads: 1, credentials: {1}, environment: {2}}}\n"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, fleets.Host]]:
    """Two that share the processes of this machine, so that what they start can be forked."""
    if why := fleets.available("loopback"):
        pytest.skip(f"no SSH hosts: {why}")
    sshd = ["SetEnv OMP_WAIT_POLICY=passive"]
    with fleets.start(tmp_path_factory.mktemp("fleet"), mode="loopback", sshd=sshd) as started:
        yield started.hosts


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_host_that_is_off_this_machine_is_fenced_and_two_that_are_stop_the_launch(
    hosts: dict[str, fleets.Host], tmp_path: Path, wrong: int
) -> None:
    path, right = make_profile(tmp_path), forking.python()
    noisy = host_python(tmp_path, "noise", right)
    text = PROFILE.split("hosts:")[0] + "hosts:\n"
    for far, python, name in zip(hosts.values(), (right if wrong == 1 else noisy, noisy), ("one", "two"), strict=True):
        far.write_credentials(tmp_path / f"{name}.credentials", key_filename=str(far.key))
        text += HOST.format(name, tmp_path / f"{name}.credentials", python)
    path.write_text(text)
    said = runbook("run", path, cwd=tmp_path, code=wrong - 1)
    (folder,) = (tmp_path / "runs").iterdir()
    this = opening.open_folder(folder)
    if wrong == 2:
        assert "known texts alike on every slot" in said and "off what this machine gives" in said
        assert not list(this.journal.events("slot fenced")) and not this.result_file("03_monitor").exists()
        runbook("stop", this.folder, cwd=tmp_path)
        return
    (fenced,) = this.journal.events("slot fenced")
    assert fenced["slot"] == "cluster1_gpu0" and "off what this machine gives" in fenced["reason"]
    records = [read_json(this.local.part(*part).with_suffix(".json")) for part in committed(this.local.parts)]
    assert {record["slot"] for record in records} == {"cluster0_gpu0"}
    assert "FAILED" not in runbook("verify", this.folder, cwd=tmp_path)
