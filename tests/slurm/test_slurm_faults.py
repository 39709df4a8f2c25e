"""What a cluster does to a run: a time limit, a node that crashes or is cut off, a job that its controller lost."""

from __future__ import annotations

import json
import time

import slurm

from tests.slurm.project import BEAT_S, Project


def test_a_task_at_its_time_limit_ends_after_its_part_and_is_submitted_again(project: Project) -> None:
    project.paced(12.0)  # seven parts of a task take longer than a minute
    project.entry = {"time": "1"}
    command = project.begun()
    project.ended_well(command, 400)
    assert project.submissions() >= 2
    ends = [each for path in project.there_before("*.exits.json") for each in json.loads(path.read_text())["exits"]]
    assert {each["reason"] for each in ends} <= {"ended by the scheduler"}
    assert project.shown() == set(), "that is no death"


def test_a_node_that_crashes_costs_time_and_no_row(project: Project, cluster: slurm.Cluster) -> None:
    project.entry = {"extra": ["--exclusive"]}
    command = project.begun()
    node, _ = project.process("cluster.1")
    cluster.crash(node)
    time.sleep(2)
    cluster.boot(node)
    project.ended_well(command, 400)


def test_on_a_node_that_is_cut_off_work_goes_on_and_nothing_is_dead(project: Project, cluster: slurm.Cluster) -> None:
    project.entry = {"extra": ["--exclusive"]}
    command = project.begun()
    node, _ = project.process("cluster.1")
    cluster.cut(node)
    try:
        project.ended_well(command, 400)
    finally:
        cluster.heal(node)


def test_a_job_that_the_controller_lost_works_on_and_no_second_one_is_started(lone_project: Project) -> None:
    project, cluster = lone_project, lone_project.cluster
    project.paced(0.6)
    command = project.begun()
    cluster.kill_controller()
    for path in (cluster.folder / "state").glob("job*"):
        path.unlink()  # it had not saved the job yet
    time.sleep(4 * BEAT_S)  # with nobody to ask, the heartbeat alone decides
    assert not command.over(), command.said[-2000:]
    cluster.start_controller()
    project.ended_well(command, 400)
    assert project.submissions() == 1
