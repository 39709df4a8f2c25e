"""A cluster before anything starts: what a scheduler or a node would refuse is found by preflight, in its words."""

from __future__ import annotations

from typing import Any

import pytest
import slurm
from waiting import wait_for

from runbook_lib.hosts import hosts
from runbook_lib.hosts.bundle import bring_bundle
from runbook_lib.phases import cluster as clusters
from runbook_lib.phases.probe_answer import parse_answer
from runbook_lib.profile import profile
from runbook_lib.run import opening
from runbook_lib.run.checks import Check, Checks
from runbook_lib.run.machine_facts import MachineFacts
from tests.slurm.project import Project


def looked(project: Project, **entry: Any) -> tuple[bool, dict[str, Check], dict[str, MachineFacts]]:
    """What a look at the cluster found: whether it will do, the checks by name, the facts of its tasks."""
    project.entry |= entry
    project.save_profile()
    this = opening.create(profile.load(project.project / "profile.yaml"))
    checks = Checks("a cluster")
    facts: dict[str, MachineFacts] = {spec.name: {"gpus": []} for spec in this.hosts}
    good = clusters.look(this, checks, this.hosts, facts)
    return good, {check.name: check for check in checks}, facts


def test_a_node_says_what_a_task_is_given(project: Project) -> None:
    good, checks, facts = looked(project, threads=2, slots=2)
    assert good and all(check.ok for check in checks.values()), checks
    assert "Slurm 2" in str(checks["scheduler"].seen) and "work" in str(checks["scheduler"].seen)
    assert {name: each["cores"] for name, each in facts.items()} == {"cluster.0": 4, "cluster.1": 4} or (
        facts["cluster.0"]["cores"] <= 4
    ), "fewer where this machine has fewer"
    assert str(checks["node"].seen).startswith("n")


@pytest.mark.parametrize(
    ("entry", "name", "words"),
    [
        ({"partition": "nope"}, "partition", "nope"),
        ({"gres": "gpu:9"}, "tasks", "sbatch"),
        ({"extra": ["--constraint=moon"]}, "tasks", "feature"),
        ({"extra": ["--no-such-option"]}, "tasks", "unrecognized option"),
        ({"threads": 64}, "tasks", "sbatch"),
        ({"environment": "/nowhere/python"}, "libraries", "/nowhere/python"),
    ],
)
def test_what_cannot_be_had_is_refused_in_the_schedulers_words(
    project: Project, entry: dict[str, Any], name: str, words: str
) -> None:
    good, checks, _ = looked(project, **entry)
    failed = [check for check in checks.values() if not check.ok]
    assert not good and failed, checks
    assert any(words in f"{check.name} {check.seen}" for check in failed), failed


def test_a_folder_that_nodes_do_not_see_is_found(project: Project, cluster: slurm.Cluster) -> None:
    with cluster.hidden(project.workdir("one")):
        good, checks, _ = looked(project)
    assert not good and not checks["node"].ok
    assert "from a node" in checks["node"].remedy or "workdir" in checks["node"].remedy


def test_a_controller_that_is_away_is_said(project: Project, cluster: slurm.Cluster) -> None:
    cluster.kill_controller()
    try:
        good, checks, _ = looked(project)
    finally:
        cluster.start_controller()
    assert not good and "scheduler" in checks and not checks["scheduler"].ok


def test_gpus_of_a_task_are_counted_and_named_by_their_place(project: Project) -> None:
    project.save_profile()
    this = opening.create(profile.load(project.project / "profile.yaml", {"hosts.cluster.gres": "gpu:2"}))
    host = hosts.connect(this.hosts[0], this.name)
    host.claim(this.id)
    bring_bundle(host)
    argv = [host.python, "-m", "worker", "allotted", "--root", str(host.folder.root)]
    answer = parse_answer(host.run_there(argv, 60.0, host.folder.root))
    assert answer["allotted"]["gpus"] == ["0", "1"] and answer["allotted"]["not_locked"] == ""


def test_a_cluster_that_is_full_is_no_reason_to_wait_where_the_profile_says_enough(
    project: Project, cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "NODE_S", 4.0)
    script = ["sbatch", "--parsable", f"--chdir={project.folder}", "--array=0-1", "--exclusive", "--wrap=sleep 600"]
    blocker = cluster.run(*script).strip()
    wait_for(lambda: cluster.run("squeue", "-h", "-r", f"--job={blocker}", "-o", "%T").count("RUNNING") == 2)
    try:
        good, checks, _ = looked(project)
        assert not good and checks["node"].ok and checks["node"].warn
        assert "did not end within 4 s" in str(checks["node"].seen)
        assert "PENDING" in str(checks["node"].seen), "and why it waits"
    finally:
        cluster.run("scancel", blocker)
    assert "rb-try" not in cluster.run("squeue", "-h", "-o", "%j"), "the job that was to look is gone"
