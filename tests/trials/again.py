"""Trials of continuing: the same command, an edited profile, full disks and odd folders of this machine."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .scene import Scene
from .table import trial

KIND = "again"
Change = Callable[[Scene], None]


def _set(*keys: str, to: Any) -> Change:
    def change(scene: Scene) -> None:
        at = scene.profile
        for key in keys[:-1]:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        at[keys[-1]] = to

    return change


def _may_change(name: str, key: str, change: Change) -> None:
    """A key that cannot change a vector: the run goes on, and the journal has a line."""

    @trial(KIND, 0.05, name=f"edited_{name}")
    def edited(scene: Scene) -> None:
        with scene.working() as command:
            command.kill()
            change(scene)
            scene.save_profile()
        done = scene.run(rounds=1)
        scene.hold(len(scene.runs) == 1, f"a second run was begun: {done.out[:300]}")
        scene.hold(done.well, f"refused: {done.out[-400:]}")
        if "output" not in name:
            scene.right()
        if key not in (scene.here / "journal.jsonl").read_text():
            scene.blame(f"no line of the journal names {key}")


_may_change("a_threshold", "slow_rows_per_s", _set("monitor", "slow_rows_per_s", to=0.02))
_may_change("the_deadline", "deadline_s", _set("monitor", "deadline_s", to=500))
_may_change("the_interval", "interval_s", _set("monitor", "interval_s", to=0.3))
_may_change("recovery", "recovery", _set("recovery", to="ask"))
_may_change("the_policy", "policy", _set("policy", to={"slow": "off"}))
_may_change("the_output", "output", _set("output", "folder", to="elsewhere"))
_may_change("the_backups_output", "backups", _set("output", "backups", to="safe"))


@trial(KIND, 0.4)
def edited_environment(scene: Scene) -> None:
    """Another Python on a host."""
    with scene.working() as command:
        command.kill()
        other = shutil.copy(scene.python, scene.folder / "other-python")
        scene.profile["hosts"][0]["environment"] = str(other)
        scene.save_profile()
    scene.repaired(scene.run(rounds=1))
    scene.hold(len(scene.runs) == 1, "a second run was begun")


@trial(KIND, 0.1)
def edited_hosts_one_more(scene: Scene) -> None:
    """A machine is added to a run under way."""
    with scene.working() as command:
        command.kill()
        scene.workdir("three").mkdir(mode=0o700)
        scene.profile["hosts"].append(
            {**scene.profile["hosts"][0], "name": "three", "workdir": str(scene.workdir("three"))}
        )
        scene.save_profile()
    scene.repaired(scene.run(rounds=1))
    scene.hold(len(scene.runs) == 1, "a second run was begun")


@trial(KIND, 0.1)
def edited_hosts_one_less(scene: Scene) -> None:
    """A machine that has rows is taken out: refused with the way, or its rows are done by the others."""
    with scene.working() as command:
        command.kill()
        gone = scene.profile["hosts"].pop()
        scene.save_profile()
    done = scene.run(rounds=1)
    scene.hold(len(scene.runs) == 1, "a second run was begun")
    if not done.well:
        scene.refused(done, "two")
        scene.profile["hosts"].append(gone)
        scene.save_profile()
        done = scene.run(rounds=1)
    scene.repaired(done)


def _may_not(name: str, key: str, change: Change) -> None:
    """A key that can change a vector: refused by its name, with both ways out, and both work."""

    @trial(KIND, 0.05, name=f"edited_{name}")
    def edited(scene: Scene) -> None:
        with scene.working() as command:
            command.kill()
            before = json.dumps(scene.profile)
            change(scene)
            scene.save_profile()
        scene.refused(scene.runbook("run", "profile.yaml"), key, "--new")
        scene.hold(len(scene.runs) == 1, "a second run was begun in silence")
        scene.profile = json.loads(before)
        scene.save_profile()
        scene.repaired(scene.run(rounds=1))
        scene.hold(len(scene.runs) == 1, "a second run was begun")


_may_not("max_tokens", "max_tokens", _set("model", "max_tokens", to=5))
_may_not("dtype", "dtype", _set("model", "dtype", to="bfloat16"))
_may_not("prompt", "prompt", _set("model", "prompt", to="query: {text}"))
_may_not("the_question_prompt", "question_prompt", _set("model", "question_prompt", to="ask: {text}"))
_may_not("the_field", "corpus.text", _set("corpus", "text", to="title"))


@trial(KIND, 0.4)
def edited_max_tokens_and_new(scene: Scene) -> None:
    """With --new another run is begun beside; its parts are its own."""
    with scene.working() as command:
        command.kill()
        scene.profile["model"]["max_tokens"] = 5
        scene.save_profile()
    done = scene.runbook("run", "profile.yaml", "--new")
    scene.hold(len(scene.runs) == 2, "no new run was begun")
    scene.repaired(done)


@trial(KIND, 0.4)
def edited_documents(scene: Scene) -> None:
    """A text of the corpus is edited in the middle of a run: refused; put back, it goes on."""
    with scene.working() as command:
        command.kill()
    before = scene.texts[40]
    scene.texts[40] = "another text"
    scene.write_corpus()
    scene.refused(scene.runbook("run", "profile.yaml"), "corpus", "--amend|--new")
    scene.hold(len(scene.runs) == 1, "a second run was begun in silence")
    scene.texts[40] = before
    scene.write_corpus()
    scene.repaired(scene.run(rounds=1))


@trial(KIND, 0.4)
def edited_document_amended(scene: Scene) -> None:
    """The same, and --amend: that row alone is done again, and the report says so."""
    with scene.working() as command:
        command.kill()
    scene.texts[40] = "another text"
    scene.write_corpus()
    scene.repaired(scene.run("--amend", rounds=2))
    scene.hold(len(scene.runs) == 1, "a second run was begun")
    if "amend" not in (scene.here / "report" / "report.html").read_text().lower():
        scene.blame("the report does not say that the corpus was amended")


@trial(KIND)
def amend_after_the_end(scene: Scene) -> None:
    """A finished run, three texts mended: only they are computed."""
    scene.finished()
    before = scene.computed()
    for row in (3, 40, 95):
        scene.texts[row] = f"mended {row}"
    scene.write_corpus()
    scene.repaired(scene.run("--amend", "--run", scene.here.name, rounds=2))
    scene.hold(len(scene.runs) == 1, "a second run was begun")
    if scene.computed() - before > 3 * 8:
        scene.blame(f"{scene.computed() - before} rows were computed for three")


@trial(KIND, 0.4)
def amend_without_a_change(scene: Scene) -> None:
    """Nothing was changed: said so, and nothing is lost."""
    with scene.working() as command:
        command.kill()
    scene.runbook("run", "profile.yaml", "--amend")
    scene.repaired(scene.run(rounds=1))
    scene.hold(len(scene.runs) == 1, "a second run was begun")


@trial(KIND, 0.4)
def amend_with_a_document_less(scene: Scene) -> None:
    """Other rows: no amendment."""
    with scene.working() as command:
        command.kill()
    whole = scene.texts
    scene.texts = whole[:-1]
    scene.write_corpus()
    scene.refused(scene.runbook("run", "profile.yaml", "--amend"), "95|96|documents|rows")
    scene.texts = whole
    scene.write_corpus()
    scene.repaired(scene.run(rounds=1))


# ------------------------------------------------------------------------------------------------- which run is meant


@trial(KIND, 0.4)
def two_profiles_of_one_name(scene: Scene) -> None:
    """Another profile with the same `run:` makes a run in between: the first goes on where it was."""
    with scene.working() as command:
        command.kill()
    first = scene.here.name
    (scene.project / "b.jsonl").write_text('{"id": "x", "title": "X", "text": "one text of another corpus"}\n')
    mine, scene.profile = scene.profile, {**scene.profile, "corpus": {"path": "b.jsonl"}, "questions": None,
                                          "output": {"folder": "b-embeddings"}}  # fmt: skip
    scene.profile.pop("questions")
    scene.save_profile("b.yaml")
    other = scene.run("--new", profile="b.yaml", rounds=1)
    scene.hold(other.well, f"the other profile's run failed: {other.out[-300:]}")
    scene.profile = mine
    done = scene.run(rounds=1)
    scene.hold(len(scene.runs) == 2 and first in done.out, f"the first run was not continued: {done.out[:200]}")
    scene.hold(done.well and scene.runbook("verify", first).well, "the first run does not verify")


@trial(KIND, 0.05)
def the_clock_steps_back(scene: Scene) -> None:
    """A run that ended tomorrow; the one of today goes on."""
    scene.finished()
    tomorrow = time.time() + 86400
    for path in (scene.here, *scene.here.rglob("*")):
        os.utime(path, (tomorrow, tomorrow))
    command = scene.start("run", "profile.yaml")
    scene.wait(lambda: command.over() or len(scene.runs) == 2, "the second run")
    scene.wait(lambda: command.over() or list((scene.here / "parts").glob("*.json")), "its parts")
    command.kill()
    second = scene.here.name
    scene.repaired(scene.run(rounds=1))
    scene.hold(len(scene.runs) == 2 and scene.here.name == second, "a third run was begun")


@trial(KIND, 0.4)
def the_profile_is_renamed(scene: Scene) -> None:
    """What counts is what a profile says, not what it is called."""
    with scene.working() as command:
        command.kill()
    (scene.project / "profile.yaml").rename(scene.project / "mine.yaml")
    scene.repaired(scene.run(profile="mine.yaml", rounds=1))
    scene.hold(len(scene.runs) == 1, "a second run was begun")


@trial(KIND, 0.4)
def the_corpus_is_moved(scene: Scene) -> None:
    """The same bytes under another name."""
    with scene.working() as command:
        command.kill()
        (scene.project / "data").mkdir()
        (scene.project / "corpus.jsonl").rename(scene.project / "data" / "articles.jsonl")
        scene.profile["corpus"]["path"] = "data/articles.jsonl"
        scene.save_profile()
    done = scene.run(rounds=1)
    if done.well:
        scene.right()
        scene.hold(len(scene.runs) == 1, "a second run was begun in silence")
    else:
        scene.refused(done, "corpus.path", "--new")


# ---------------------------------------------------------------------------------------- disks and folders of this


def _full_disk(size: int) -> None:
    @trial(KIND, 0.02, name=f"disk_full_here_at_{size}")
    def full(scene: Scene) -> None:
        """No file of this machine may grow beyond a size: words; with room again the same command goes on."""

        def little_room() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        scene.save_profile()
        done = scene.runbook("run", "profile.yaml", before=little_room)
        for process in scene.processes():
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if done.well:
            scene.blame("nothing happened: the size is too large to try anything")
        scene.repaired(scene.run())


for _size in (300, 3_000, 9_000, 14_000):
    _full_disk(_size)


def _odd(name: str, make: Change, undo: Change | None = None) -> None:
    """Something else stands where a folder or file of ours is to be: words, nothing of it touched."""

    @trial(KIND, 0.02, name=f"in_the_place_of_{name}")
    def odd(scene: Scene) -> None:
        make(scene)
        scene.save_profile()
        done = scene.runbook("run", "profile.yaml")
        if not done.well:
            for path in [path for path in scene.sums if "in the place" in path.read_text()]:
                del scene.sums[path]
                path.unlink()
            done = scene.run()
        scene.repaired(done)


def _file_at(path: str) -> Change:
    return lambda scene: scene.precious(scene.project / path, "in the place of something")


_odd("runs", _file_at("runs"))
_odd("output", _file_at("embeddings"))
_odd("backups", _file_at("embeddings/backups"))
_odd("the_hosts_models", lambda scene: scene.precious(scene.workdir("one") / "models", "in the place of something"))


def _odd_in_a_run(name: str, make: Callable[[Path], None], undo: Callable[[Path], None]) -> None:
    @trial(KIND, 0.05, name=f"a_run_whose_{name}")
    def odd(scene: Scene) -> None:
        with scene.working() as command:
            command.kill()
        make(scene.here)
        done = scene.runbook("run", "profile.yaml")
        if not done.well:
            undo(scene.here)
            done = scene.run()
        scene.repaired(done)


def _replace(name: str) -> Callable[[Path], None]:
    def put(run: Path) -> None:
        (run / name).exists() and (run / name).rename(run / f"{name}.kept")
        (run / name).write_text("a file")

    return put


def _back(name: str) -> Callable[[Path], None]:
    def back(run: Path) -> None:
        (run / name).unlink()
        (run / f"{name}.kept").exists() and (run / f"{name}.kept").rename(run / name)

    return back


for _name in ("notes", "report", "merged", "parts", "incoming"):
    _odd_in_a_run(f"{_name}_is_a_file", _replace(_name), _back(_name))
_odd_in_a_run("lock_is_a_folder", lambda run: _lock(run), lambda run: (run / "driver.lock").rmdir())


def _lock(run: Path) -> None:
    (run / "driver.lock").unlink()
    (run / "driver.lock").mkdir()


@trial(KIND)
def a_bomb_for_a_corpus(scene: Scene) -> None:
    """300 kB of gzip that are 300 MB of one text."""
    path = scene.project / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id":1,"title":"t","text":"' + b"x" * (300 * 2**20), 1))
    scene.profile["corpus"]["path"] = path.name
    scene.save_profile()
    scene.refused(scene.runbook("run", "profile.yaml", within_s=60), "corpus.jsonl.gz")
