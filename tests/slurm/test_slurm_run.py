"""The four notebooks on a real Slurm end with the local run's bytes, whatever the cluster does meanwhile."""

from __future__ import annotations

import json
import time

import slurm
from waiting import wait_for

from tests.slurm.project import Project


def test_undisturbed_a_run_has_the_bytes_of_one_on_this_machine(project: Project) -> None:
    command = project.begun()
    script = next((project.there.root / "slurm").glob("rb-trial-*.sh")).read_text()
    assert "#SBATCH --array=0-1\n" in script and "supervise" in script and "#SBATCH --open-mode=append" in script
    project.ended_well(command)
    assert project.submissions() == 1 and not project.jobs()
    assert project.shown() == set()
    project.runbook("clean", project.here.name, "--yes")
    left = [path for path in project.there.root.rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"encoded.log", "run.json"}, "the first is of the stand-in for the model"


def test_a_worker_that_is_killed_is_started_again_in_its_task(project: Project) -> None:
    command = project.begun()
    project.kill("cluster.0", "cluster0_gpu0")
    project.ended_well(command)
    assert project.submissions() == 1, "its supervisor did it, not the scheduler"
    assert project.shown() == {"died"}


def test_a_supervisor_that_is_killed_is_submitted_again_for_what_is_left(project: Project) -> None:
    command = project.begun()
    project.kill("cluster.1")
    project.ended_well(command)
    assert project.submissions() == 2
    assert any("cluster.1: submitted" in str(event["seen"]) for event in project.run_.journal.events("revived"))


def test_an_array_larger_than_the_clusters_limit_is_submitted_in_pieces(project: Project) -> None:
    project.entry = {"tasks": 5, "array_limit": 2}
    command = project.begun()
    project.ended_well(command)
    scripts = [path.read_text() for path in (project.there.root / "slurm").glob("rb-trial-*.sh")]
    assert sorted(text.partition("OFFSET=")[2].split()[0] for text in scripts) == ["0", "2", "4"]


def test_stop_ends_the_tasks_and_the_same_command_goes_on(project: Project) -> None:
    command = project.begun()
    stopped = project.runbook("stop", project.here.name)
    assert stopped.well, stopped.out
    assert not project.jobs()
    command.wait(120)
    before = len(project.parts())
    time.sleep(1)
    assert len(project.parts()) == before
    ends = [each for path in project.there_before("*.exits.json") for each in json.loads(path.read_text())["exits"]]
    assert not ends, "what a person stops is no fault"
    again = project.start("run", "profile.yaml")
    project.ended_well(again)


def test_tasks_that_wait_in_the_queue_are_waited_for(project: Project, cluster: slurm.Cluster) -> None:
    blocker = cluster.run(
        "sbatch", "--parsable", f"--chdir={project.folder}", "--array=0-1", "--exclusive", "--wrap=sleep 600"
    ).strip()
    wait_for(lambda: cluster.run("squeue", "-h", "-r", f"--job={blocker}", "-o", "%T").count("RUNNING") == 2)
    project.profile["monitor"] |= {"first_progress_s": 5, "deadline_s": 5}
    project.save_profile()
    checked = project.start("run", "profile.yaml")
    time.sleep(8)
    cluster.run("scancel", blocker)
    project.ended_well(checked)


def test_jobs_that_are_held_requeued_or_cancelled_by_hand_are_told_and_go_on(
    project: Project, cluster: slurm.Cluster
) -> None:
    project.paced(0.6)
    command = project.begun()
    (name,) = project.jobs()
    job = cluster.run("squeue", "-h", f"--name={name}", "-o", "%F").split()[0]
    cluster.run("scontrol", "requeuehold", f"{job}_0")
    wait_for(lambda: "held in the queue" in project.told_by("status", project.here.name), "it is told", 60)
    cluster.run("scontrol", "release", f"{job}_0")
    cluster.run("scancel", f"{job}_1")
    project.ended_well(command, 400)
    assert project.submissions() == 2, "the one that was cancelled by hand, once more"
    ends = [each for path in project.there_before("*.exits.json") for each in json.loads(path.read_text())["exits"]]
    assert {each["reason"] for each in ends} <= {"ended by the scheduler"}


def test_persons_commands_reach_a_task_a_slot_and_a_whole_cluster(project: Project) -> None:
    project.paced(1.0)
    command = project.begun()
    name = project.here.name
    assert project.runbook("restart", name, "cluster1_gpu0").well
    assert project.runbook("restart", name, "cluster.0").well
    assert "supervisor of cluster.1" in project.told_by("logs", name, "cluster.1")
    listed = project.told_by("status", name, "--hosts", "cluster")
    assert "cluster0_gpu0" in listed and "cluster1_gpu0" in listed
    project.ended_well(command, 300)


def test_a_number_that_went_to_a_strangers_job_is_left_alone(lone_project: Project) -> None:
    project, cluster = lone_project, lone_project.cluster
    project.paced(0.6)
    command = project.begun()
    (name,) = project.jobs()
    ours = cluster.run("squeue", "-h", f"--name={name}", "-o", "%F").split()[0]
    cluster.kill_controller()
    for path in (cluster.folder / "state").glob("job*"):
        path.unlink()
    cluster.start_controller()
    folder = f"--chdir={project.folder}"
    theirs = [cluster.run("sbatch", "--parsable", folder, "--begin=now+1hour", "--wrap=true").strip()]
    while int(theirs[-1]) < int(ours):
        theirs.append(cluster.run("sbatch", "--parsable", folder, "--begin=now+1hour", "--wrap=true").strip())
    assert ours in theirs, "the controller forgot that it had given this number"
    project.runbook("stop", name.removeprefix("rb-").partition("-e1-")[0])
    assert ours in cluster.run("squeue", "-h", "-o", "%A").split()
    command.wait(120)
    cluster.run("scancel", *theirs)
