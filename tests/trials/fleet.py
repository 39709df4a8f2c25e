"""Trials of a run under way: faults wherever they strike, and persons who act beside the driver."""

from __future__ import annotations

import re
import signal

from ..chaos import processes
from .scene import Scene
from .table import trial

KIND = "fleet"


def _driver_killed(phase: str) -> None:
    @trial(KIND, 0.05, name=f"driver_killed_in_{phase}")
    def killed(scene: Scene) -> None:
        scene.save_profile()
        command = scene.start("run", "profile.yaml")
        scene.wait(lambda: command.over() or (scene.runs and _started(scene, phase)), f"the phase {phase}")
        command.kill()
        scene.repaired(scene.run(rounds=1))
        scene.hold(len(scene.runs) == 1, "another run was begun")


def _started(scene: Scene, phase: str) -> bool:
    journal = scene.here / "journal.jsonl"
    return journal.exists() and f'"phase started", "phase": "{phase}' in _spaced(journal.read_text())


def _spaced(text: str) -> str:
    return "\n".join(
        f'"phase started", "phase": "{found}'
        for line in text.splitlines()
        if '"phase started"' in line and (found := re.search(r'"phase": ?"(\w+)', line)) and (found := found.group(1))
    )


for _phase in ("01_preflight", "02_launch", "03_monitor", "04_merge_validate"):
    _driver_killed(_phase)


def _beside(name: str, *words: str) -> None:
    """A person's act beside the driver: both do what they are to do."""

    @trial(KIND, 0.6, name=f"beside_the_driver_{name}")
    def beside(scene: Scene) -> None:
        with scene.working() as command:
            done = scene.runbook(*[scene.here.name if word == "RUN" else word for word in words])
            scene.hold(done.well, f"the person's act failed: {done.out[-300:]}")
            scene.repaired(command.wait())


_beside("restart", "restart", "RUN")
_beside("restart_all_words", "restart", "RUN", "all")
_beside("restart_a_host", "restart", "RUN", "two")
_beside("restart_a_slot", "restart", "RUN", "cluster0_gpu1")
_beside("note", "note", "RUN", "my neighbour's drill")
_beside("move", "move", "RUN", "one")
_beside("fetch", "fetch", "RUN")


@trial(KIND, 0.6)
def beside_the_driver_stop(scene: Scene) -> None:
    """A person's stop stays: the driver ends in words and undoes nothing; the same command goes on later."""
    with scene.working() as command:
        stopped = scene.runbook("stop", scene.here.name)
        scene.hold(stopped.well, f"stop failed: {stopped.out[-300:]}")
        done = command.wait()
        scene.refused(done, "stop")
        if scene.processes():
            scene.blame("workers were started again after a person stopped them")
    scene.repaired(scene.run(rounds=1))


@trial(KIND, 0.6)
def beside_nobody_a_watch_before_the_launch(scene: Scene) -> None:
    """03 before 02: the watch waits and starts nothing; once somebody launches, both see the end."""
    scene.save_profile()
    scene.hold(scene.runbook("check", "profile.yaml").well, "the preflight failed")
    watch = scene.start("watch", scene.here.name)
    scene.wait(lambda: watch.over() or "02_launch" in watch.said, "the words of a watch before the launch")
    scene.hold(not watch.over() and not scene.processes(), f"it did not wait: {watch.said[-300:]}")
    scene.repaired(scene.run(rounds=1))
    scene.hold(watch.wait(30).well, f"the watch did not see the end: {watch.said[-300:]}")
    if re.search("dead", (scene.here / "notes" / "failures.log").read_text()):
        scene.blame("what was not launched yet is told as dead")


@trial(KIND, 0.6)
def restart_given_twice_at_once(scene: Scene) -> None:
    """Two persons restart at the same moment, beside the driver."""
    with scene.working() as command:
        first = scene.start("restart", scene.here.name)
        second = scene.start("restart", scene.here.name)
        first.wait(), second.wait()
        scene.repaired(command.wait())


@trial(KIND, 0.6)
def status_of_a_live_run_has_a_rate(scene: Scene) -> None:
    """One look is enough for a rate and the time left."""
    with scene.working(4) as command:
        done = scene.runbook("status", scene.here.name)
        if "no rate yet" in done.out or not re.search(r"rows/s", done.out):
            scene.blame(f"no rate in the status of a live run: {done.out[:300]}")
        scene.repaired(command.wait())


@trial(KIND, 0.6)
def another_takes_over(scene: Scene) -> None:
    """A second driver with --take-over: the first ends, and says why."""
    with scene.working() as command:
        done = scene.runbook("run", "profile.yaml", "--take-over")
        first = command.wait(30)
        scene.hold(first.code not in (0, None), "the first driver did not end")
        scene.repaired(done)


@trial(KIND, 0.6)
def a_second_driver(scene: Scene) -> None:
    """A second driver without it is refused in words that a person can read."""
    with scene.working() as command:
        done = scene.runbook("run", "profile.yaml", "--run", scene.here.name)
        scene.refused(done, "driven|under way")
        if re.search(r'\{"', done.out):
            scene.blame("the refusal shows raw JSON")
        scene.repaired(command.wait())


@trial(KIND, 0.6)
def everything_of_a_host_killed(scene: Scene) -> None:
    """All processes of a host at once, while somebody watches: started again, and told."""
    with scene.working() as command:
        for each in [each for each in scene.processes() if each.option("--host") == "one"]:
            processes.signal_it(each, signal.SIGKILL)
        scene.repaired(command.wait())
    scene.told("one")


@trial(KIND, 0.6)
def everything_killed_while_nobody_watches(scene: Scene) -> None:
    """The driver, then all hosts: found, told and mended by the same command."""
    with scene.working() as command:
        command.kill()
        for each in scene.processes()[::-1]:
            processes.signal_it(each, signal.SIGKILL)
    scene.repaired(scene.run(rounds=1))
    scene.told("one|two")


@trial(KIND, 0.6)
def a_host_stops_answering_its_files(scene: Scene) -> None:
    """The run's folder on a host goes for some seconds and comes back."""
    with scene.working() as command:
        root = scene.root("one")
        root.rename(root.with_name("away"))
        scene.wait(lambda: not [p for p in scene.processes() if p.option("--host") == "one"], "its workers end", 30)
        if not root.exists():  # else the driver was there first, and the host began anew
            root.with_name("away").rename(root)
        command.wait()
    scene.repaired(scene.run())
