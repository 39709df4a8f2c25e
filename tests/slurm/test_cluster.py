"""The cluster that tests stand on: a real Slurm, whose nodes fail as nodes do, and that ends with who made it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fleet
import pytest
import slurm
from box import HOST, MakeBox, script
from waiting import wait_for

UP = """
import sys, time
import slurm
from box import HOST, MakeBox, script
from pathlib import Path
with slurm.start(Path(sys.argv[1]), nodes=1) as cluster:
    print(*(daemon.pid for daemon in cluster._daemons.values()), *cluster.pids("n1"), flush=True)
    time.sleep(600)
"""


def submitted(cluster: slurm.Cluster, folder: Path, script: str, *options: str) -> str:
    """The number of a job that runs `script` in a folder."""
    return cluster.run("sbatch", "--parsable", f"--chdir={folder}", *options, f"--wrap={script}").strip()


def state(cluster: slurm.Cluster, job: str) -> str:
    return cluster.run("squeue", "-h", "--states=all", f"--jobs={job}", "-o", "%T").strip()


def test_a_job_runs_on_a_node_with_a_host_name_and_gpus_of_its_own(cluster: slurm.Cluster, tmp_path: Path) -> None:
    submitted(cluster, tmp_path, "echo $(hostname) $CUDA_VISIBLE_DEVICES $$ > said", "--gres=gpu:2", "--nodelist=n2")
    said = wait_for(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text().split(), "the job")
    assert said[:2] == ["n2", "0,1"]
    assert int(said[2]) < 1000, "its process has the number that its node gives"


def test_a_node_that_crashed_takes_its_job_along_and_comes_back(cluster: slurm.Cluster, tmp_path: Path) -> None:
    job = submitted(cluster, tmp_path, "echo $$ > pid; sleep 600", "--nodelist=n1", "--no-requeue")
    pid = wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "the job")
    outside = cluster.outside("n1", int(pid))
    cluster.crash("n1")
    try:
        wait_for(lambda: not alive(outside), "its processes are gone")
    finally:
        cluster.boot("n1")
    wait_for(lambda: state(cluster, job) != "RUNNING", "the controller knows that it is gone", 120)
    assert submitted(cluster, tmp_path, "touch again", "--nodelist=n1")
    wait_for(lambda: (tmp_path / "again").exists(), "the node works again", 180)


def test_on_a_node_that_is_cut_off_a_job_goes_on(cluster: slurm.Cluster, tmp_path: Path) -> None:
    script = "for i in $(seq 600); do echo $i >> counted; sleep 0.1; done"
    job = submitted(cluster, tmp_path, script, "--nodelist=n2")
    wait_for(lambda: (tmp_path / "counted").exists(), "the job")
    cluster.cut("n2")
    before = (tmp_path / "counted").read_text()
    wait_for(lambda: len((tmp_path / "counted").read_text()) > len(before), "it counts on")
    cluster.heal("n2")
    cluster.run("scancel", job)
    wait_for(lambda: state(cluster, job) == "CANCELLED", "it is cancelled")


def test_a_controller_that_comes_back_knows_its_nodes(cluster: slurm.Cluster) -> None:
    cluster.kill_controller()
    with pytest.raises(fleet.FleetError):
        cluster.run("squeue")
    cluster.start_controller()
    assert "n1" in cluster.run("sinfo", "-h", "-N", "-o", "%N")


def test_a_cluster_ends_with_the_process_that_made_it(tmp_path: Path) -> None:
    if why := slurm.available():
        pytest.skip(f"no Slurm: {why}")
    path = os.pathsep.join(sys.path)
    maker = subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path / "mine")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    with maker:
        pids = [int(word) for word in maker.stdout.readline().split()]
        assert len(pids) >= 4
        maker.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in pids), "all of it is gone")


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_without_root_or_slurm_it_says_why_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "SEARCH", str(tmp_path))
    if os.geteuid() == 0:
        assert "No munged on this machine: install Slurm" in slurm.available()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in slurm.available() or sys.platform != "linux"
    with pytest.raises(fleet.FleetError, match=r"needs root|needs Linux"), slurm.start(tmp_path):
        pass


def test_a_slots_gpu_is_one_of_those_that_its_task_was_given(cluster: slurm.Cluster, make_box: MakeBox) -> None:
    """The real supervisor in a real task with made-up GPUs; its workers only say which one they see."""
    box = make_box([f"text {row}" for row in range(8)], slots=3)
    said = f'case "$*" in *encode*) echo "$CUDA_VISIBLE_DEVICES" >> {box.root}/$9.gpu;; esac; exit 1'
    python = script(box.root / "python", f"#!/bin/sh\n{said}\n")
    slots = [{**spec, "device": "cuda", "gpu": f"env:{k}"} for k, spec in enumerate(box.assignment["slots"])]
    box.save(python=python, slots=slots, scheduler="slurm", heartbeat_s=1.0, back_off_s=[0.1] * 5)
    supervise = f"exec {sys.executable} -m worker supervise --root {box.root} --host {HOST}"
    submitted(cluster, box.root, supervise, "--gres=gpu:2", "--no-requeue")
    fenced = {"cluster0_gpu0", "cluster0_gpu1", "cluster0_gpu2"}
    wait_for(lambda: {slot for slot in fenced if box.supervised(slot).get("state") == "fenced"} == fenced, "all tried")
    seen = {path.name: set(path.read_text().split()) for path in box.root.glob("*.gpu")}
    assert seen == {"cluster0_gpu0.gpu": {"0"}, "cluster0_gpu1.gpu": {"1"}}
    (reason,) = {entry["reason"] for entry in box.exits("cluster0_gpu2")}
    assert "at least 3 GPUs for this slot, the scheduler gave 2 (0,1)" in reason
