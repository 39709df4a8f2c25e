"""Trials of devices and documents: a bad device costs its own slot, and no document is blamed by it."""

from __future__ import annotations

import json
import os
import resource
import signal

from ..chaos import processes
from .scene import NAMES, SLOTS, Scene
from .table import trial

KIND = "device"


def _bad_gpu(mode: str, *told: str) -> None:
    """One of four devices is bad from the beginning and for good; the others do its rows."""

    @trial(KIND, 1.2 if mode.startswith("hang") else 0.4, name=f"one_gpu_{mode.replace('-', '_')}")
    def bad(scene: Scene) -> None:
        scene.modes("one", cluster0_gpu1=mode)
        scene.save_profile()
        scene.repaired(scene.run(rounds=1))
        scene.innocent()
        scene.told("cluster0_gpu1", *told)


for _mode, _told in (
    ("nan", "nan"), ("nan-long", "nan"), ("nan-often", "nan"), ("inf", "infinity|nan"), ("zeros", "zero"),
    ("half", "norm"), ("constant", ""), ("turned", ""), ("raise", "illegal instruction"), ("kill", "SIGKILL"),
    ("hang", "no sign of work|stuck|not one row"), ("kill-load", "SIGKILL"),
    ("hang-load", "no sign of work|stuck|not one row"),
    ("raise-load", "no CUDA-capable device"),
):  # fmt: skip
    _bad_gpu(_mode, *filter(None, [_told]))


def _bad_host(mode: str) -> None:
    """Every device of one host is bad: the other host does it all."""

    @trial(KIND, name=f"one_host_{mode.replace('-', '_')}")
    def bad(scene: Scene) -> None:
        scene.modes("one", cluster0_gpu0=mode, cluster0_gpu1=mode)
        scene.save_profile()
        scene.repaired(scene.run(rounds=1))
        scene.innocent()
        scene.told("cluster0_gpu0")


for _mode in ("nan", "raise", "kill", "raise-load", "hang-load"):
    _bad_host(_mode)


def _all_bad(mode: str, *words: str) -> None:
    """No device is any good: refused with the reason, no document is blamed; once mended the same command goes on."""

    @trial(KIND, name=f"every_gpu_{mode.replace('-', '_')}")
    def bad(scene: Scene) -> None:
        for number, name in enumerate(NAMES):
            scene.modes(name, **{f"cluster{number}_gpu{slot}": mode for slot in range(SLOTS)})
        scene.save_profile()
        scene.refused(scene.runbook("run", "profile.yaml"), *words)
        scene.innocent()
        for name in NAMES:
            scene.modes(name)
        scene.repaired(scene.run())


_all_bad("nan", "nan")
_all_bad("raise", "illegal instruction")
_all_bad("raise-load", "no CUDA-capable device")


@trial(KIND, 0.4)
def gpu_goes_bad_in_the_middle(scene: Scene) -> None:
    """A device that was right for a while gives NaN from then on."""
    with scene.working() as command:
        scene.modes("two", cluster1_gpu0="nan")
        scene.repaired(command.wait())
    scene.innocent()


@trial(KIND, 0.4)
def gpu_is_bad_for_a_while(scene: Scene) -> None:
    """A device raises for some seconds, then it is well again."""
    with scene.working() as command:
        scene.modes("two", cluster1_gpu0="raise", cluster1_gpu1="raise")
        scene.wait(lambda: _deaths(scene, "two") >= 2, "deaths")
        scene.modes("two")
        scene.repaired(command.wait())
    scene.innocent()
    scene.told("illegal instruction")


def _deaths(scene: Scene, name: str) -> int:
    total = 0
    for path in (scene.root(name) / "progress").glob("*.exits.json"):
        total += len(json.loads(path.read_text()).get("exits", []))
    return total


@trial(KIND, 0.05)
def gpu_is_slow(scene: Scene) -> None:
    """A device is twenty times slower than the others: they take its rows."""
    scene.modes("one", cluster0_gpu0="slow")
    scene.save_profile()
    scene.repaired(scene.run(rounds=1))


def _poison(word: str, *told: str) -> None:
    """A document that no device can do is named with title and id, all others are done; mended, it is put in."""

    @trial(KIND, name=f"document_{word}")
    def poisoned(scene: Scene) -> None:
        scene.texts[7] = f"{word} of a lake"
        scene.write_corpus()
        scene.save_profile()
        done = scene.run(rounds=2)
        scene.refused(done, r"row 7\b", "T7|d7", *told)
        scene.innocent({7})
        scene.hold(scene.given_up() == {7}, "row 7 was not given up")
        scene.told(r"row 7\b", *told)
        before = scene.computed()
        scene.texts[7] = "a mended text of a lake"
        scene.write_corpus()
        scene.repaired(scene.run("--amend"))
        scene.hold(len(scene.runs) == 1, "another run was begun")
        if scene.computed() - before > 16:
            scene.blame(f"{scene.computed() - before} rows were computed for one that was mended")


_poison("RAISE", "cannot be encoded")
_poison("KILL", "SIGKILL")
_poison("NOTANUMBER", "nan")


@trial(KIND)
def two_documents_in_one_part(scene: Scene) -> None:
    """Two documents of one part cannot be done, in two ways."""
    scene.texts[17], scene.texts[19] = "RAISE a lake", "KILL a lake"
    scene.write_corpus()
    scene.save_profile()
    scene.refused(scene.run(rounds=2), r"\b17\b", r"\b19\b")
    scene.innocent({17, 19})


@trial(KIND, 0.4)
def worker_killed_by_a_person(scene: Scene) -> None:
    """`kill -9` is told as what it is, and as no more."""
    with scene.working() as command:
        processes.signal_it(scene.some("encode"), signal.SIGKILL)
        scene.repaired(command.wait())
    scene.told("SIGKILL")
    text = (scene.here / "notes" / "failures.log").read_text()
    if "out of memory" in text.lower():
        scene.blame("a kill is told as out of memory")


@trial(KIND, 0.4)
def worker_killed_while_nobody_watches(scene: Scene) -> None:
    """The driver is gone, a worker is killed, its supervisor restarts it: the report tells it all the same."""
    with scene.working() as command:
        command.kill()
        processes.signal_it(scene.some("encode"), signal.SIGKILL)
        scene.wait(lambda: _deaths(scene, "one") + _deaths(scene, "two") >= 1, "the supervisor's note")
    scene.repaired(scene.run())
    scene.told("SIGKILL")


@trial(KIND, 0.6)
def supervisor_killed_beside_its_workers(scene: Scene) -> None:
    """It is started again while its workers live, and that is told."""
    with scene.working() as command:
        victim = scene.some("supervise", "one")
        processes.signal_it(victim, signal.SIGKILL)
        scene.wait(lambda: scene.some("supervise", "one").pid != victim.pid, "another supervisor", 20)
        scene.repaired(command.wait())
    scene.told("supervisor")


@trial(KIND, 0.8)
def supervisor_then_worker_killed_while_nobody_watches(scene: Scene) -> None:
    """Nobody watches; the supervisor dies, later a worker: the host must not stand still."""
    with scene.working() as command:
        command.kill()
        first = scene.some("supervise", "one")
        processes.signal_it(first, signal.SIGKILL)
        scene.wait(lambda: _another(scene, "supervise", first.pid), "another supervisor", 20)
        processes.signal_it(scene.some("encode", "one"), signal.SIGKILL)
        wanted = sum(1 for _ in range(6))
        scene.wait(lambda: len(list(scene.root("one").glob("parts/*.json"))) >= wanted, "its rows")
    scene.repaired(scene.run())


def _another(scene: Scene, kind: str, pid: int) -> bool:
    return any(each.kind == kind and each.option("--host") == "one" and each.pid != pid for each in scene.processes())


@trial(KIND, 0.4)
def disk_full_on_a_host(scene: Scene) -> None:
    """A worker's files may not grow for a while, its last words neither: told while it is so."""
    with scene.working() as command:
        for process in [each for each in scene.processes() if each.option("--host") == "one"]:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        scene.wait(lambda: "disk full" in scene.runbook("status", scene.here.name).out, "status says disk full", 30)
        for process in [each for each in scene.processes() if each.option("--host") == "one"]:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        scene.repaired(command.wait())
    scene.innocent()
    scene.told("disk full|too large|no space")


@trial(KIND, 0.4)
def no_right_to_write_on_a_host(scene: Scene) -> None:
    """In the place of the folder of parts there is a file for a while."""
    with scene.working() as command:
        parts = scene.root("two") / "parts"
        parts.rename(parts.with_name("parts.away"))
        parts.write_text("")
        scene.wait(lambda: _deaths(scene, "two") >= 1 or command.over(), "a death")
        parts.unlink()
        parts.with_name("parts.away").rename(parts)
        command.wait()
    scene.repaired(scene.run())
    scene.innocent()


if os.geteuid() == 0:

    @trial(KIND, 0.4)
    def memory_of_a_worker_runs_out(scene: Scene) -> None:
        """The address space of a worker is nearly all in use: it cannot have more."""
        with scene.working() as command:
            victim = scene.some("encode")
            resource.prlimit(victim.pid, resource.RLIMIT_AS, (64 * 2**20, resource.RLIM_INFINITY))
            scene.repaired(command.wait())
        scene.innocent()
