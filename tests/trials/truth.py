"""Trials of what is said of a result: a verdict follows from the files as they are now."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .scene import Scene, flip
from .table import trial

KIND = "truth"
Harm = Callable[[Scene], None]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _mended(name: str, harm: Harm) -> None:
    @trial(KIND, name=f"mended_{name}")
    def mended(scene: Scene) -> None:
        scene.finished()
        run = scene.here.name
        harm(scene)
        scene.refused(scene.runbook("verify", run))
        scene.repaired(scene.run("--run", run))
        scene.hold(len(scene.runs) == 1, "another run was begun")


def _merged(name: str) -> Callable[[Scene], Path]:
    return lambda scene: scene.here / "merged" / name


PLACES: dict[str, Callable[[Scene], Path]] = {
    "embeddings": _merged("embeddings.npy"),
    "articles": _merged("articles.jsonl"),
    "questions": _merged("questions.npy"),
    "manifest": _merged("manifest.json"),
    "pickle": lambda scene: scene.pickle,
    "backup": lambda scene: scene.backups[-1],
    "part_at_home": lambda scene: scene.home_parts()[3],
    "record_at_home": lambda scene: scene.home_parts()[3].with_suffix(".json"),
    "report": lambda scene: scene.here / "report" / "report.html",
}
WAYS: dict[str, Callable[[Path], None]] = {"gone": lambda path: path.unlink(), "flipped": flip, "cut": _cut}
for _place, _path in PLACES.items():
    for _way, _harm in WAYS.items():
        if (_place, _way) not in (("report", "cut"), ("manifest", "cut"), ("questions", "cut")):
            _mended(f"{_place}_{_way}", lambda scene, path=_path, harm=_harm: harm(path(scene)))

_mended("sums_gone", lambda scene: (scene.here / "SHA256SUMS").unlink())
_mended("all_results_gone", lambda scene: shutil.rmtree(scene.here / "merged"))
_mended("output_folder_gone", lambda scene: shutil.rmtree(scene.project / "embeddings"))
_mended("parts_at_home_gone", lambda scene: shutil.rmtree(scene.here / "parts"))


def _everything_gone(scene: Scene) -> None:
    shutil.rmtree(scene.here / "parts")
    for name in ("one", "two"):
        shutil.rmtree(scene.root(name))


_mended("parts_gone_everywhere", _everything_gone)


def _part_flipped_everywhere(scene: Scene) -> None:
    part = scene.home_parts()[0]
    for path in (part, scene.root("one") / "parts" / part.name):
        flip(path)


_mended("part_flipped_everywhere", _part_flipped_everywhere)


def _true(name: str, harm: Harm) -> None:
    """What may or may not be mended: whatever the same command says must be true, and verify must have seen it."""

    @trial(KIND, name=f"true_after_{name}")
    def true(scene: Scene) -> None:
        scene.finished()
        run = scene.here.name
        harm(scene)
        scene.refused(scene.runbook("verify", run))
        scene.well_or_refused(scene.run("--run", run))


def _edited(name: str, old: str, new: str) -> Harm:
    def edit(scene: Scene) -> None:
        path = scene.here / name
        text = path.read_text()
        assert re.search(old, text), f"{name} has no {old}"
        path.write_text(re.sub(old, new, text, count=1))

    return edit


_true("a_plan_that_is_gone", lambda scene: (scene.here / "plan.json").unlink())
_true("a_plan_that_was_edited", _edited("plan.json", r'"documents": 96', '"documents": 95'))
_true("a_corpus_that_is_damaged", lambda scene: flip(max((scene.here / "corpus").iterdir(), key=_size)))
_true("a_corpus_that_is_gone", lambda scene: shutil.rmtree(scene.here / "corpus"))
_true("a_result_that_was_edited", _edited("report/04_merge_validate.result.json", r'"at": "20', '"at": "21'))
_true("a_result_that_is_gone", lambda scene: (scene.here / "report" / "03_monitor.result.json").unlink())
_true("a_figure_that_was_edited", _edited("report/report.html", r"\b96\b", "97"))
_true("a_list_that_was_edited", _edited("SHA256SUMS", r"^[0-9a-f]{8}", "00000000"))


def _size(path: Path) -> int:
    return path.stat().st_size


def _never_well_again(name: str, harm: Harm) -> None:
    """A loss that nothing can bring back: it may be sealed over by nobody."""

    @trial(KIND, name=f"lost_{name}")
    def lost(scene: Scene) -> None:
        scene.finished()
        run = scene.here.name
        harm(scene)
        scene.refused(scene.runbook("verify", run))
        for words in (("run", "profile.yaml", "--run", run), ("report", run), ("verify", run)):
            done = scene.runbook(*words)
        if done.well:
            scene.blame("the loss was sealed over")


def _journal(change: Callable[[list[bytes]], list[bytes]]) -> Harm:
    def edit(scene: Scene) -> None:
        path = scene.here / "journal.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return edit


_never_well_again("journal_line_edited", _journal(lambda lines: [lines[0].replace(b"run", b"RUN", 1), *lines[1:]]))
_never_well_again("journal_line_left_out", _journal(lambda lines: [*lines[:3], *lines[4:]]))
_never_well_again("journal_cut", _journal(lambda lines: lines[:-2]))
_never_well_again("journal_gone", lambda scene: (scene.here / "journal.jsonl").unlink())
_never_well_again("journal_with_a_foreign_line", _journal(lambda lines: [*lines, b'{"event": "note", "text": "x"}\n']))


# ---------------------------------------------------------------------------------------------------- harmless acts


def _harmless(name: str, *words: str, again: int = 1) -> None:
    @trial(KIND, name=f"harmless_{name}")
    def harmless(scene: Scene) -> None:
        scene.finished()
        run = scene.here.name
        for _ in range(again):
            scene.runbook(*[run if word == "RUN" else word for word in words])
        scene.right()


_harmless("note", "note", "RUN", "looks fine", again=2)
_harmless("stop", "stop", "RUN")
_harmless("fetch", "fetch", "RUN")
_harmless("report", "report", "RUN")
_harmless("status", "status", "RUN")
_harmless("watch", "watch", "RUN", "--every", "0.2")
_harmless("restart", "restart", "RUN", "all")
_harmless("restart_slot", "restart", "RUN", "cluster0_gpu0")
_harmless("move", "move", "RUN", "one")
_harmless("run", "run", "profile.yaml", "--run", "RUN", again=2)
_harmless("check", "check", "profile.yaml", "--run", "RUN")
_harmless("clean", "clean", "RUN")
_harmless("clean_yes", "clean", "RUN", "--yes")


# ---------------------------------------------------------------------------------------------------- a failed gate


def _plant(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other vectors in a part, its record made to agree."""
    record = json.loads(path.with_suffix(".json").read_text())
    vectors = change(np.load(path))
    np.save(path, vectors)
    raw = path.read_bytes()
    record |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    path.with_suffix(".json").write_text(json.dumps(record, sort_keys=True) + "\n")


@trial(KIND)
def nan_in_a_part_after_a_good_result(scene: Scene) -> None:
    """A part with NaN, its sums computed anew, here and there: the good result of before stands."""
    scene.finished()
    run, good = scene.here.name, scene.pickle.read_bytes()
    name = scene.home_parts()[0].name
    for path in (scene.here / "parts" / name, scene.root("one") / "parts" / name):
        _plant(path, lambda found: np.where(found == found[1, 1], np.float32("nan"), found))
    done = scene.run("--run", run)
    if scene.pickle.read_bytes() != good:
        scene.blame("the good result of before is gone")
    if scene.wrong():
        scene.blame(f"what stands under the final names is wrong: {scene.wrong()}")
    if not done.well and scene.runbook("status", run).well:
        scene.blame("status says that all is well after the run failed")


@trial(KIND)
def nan_in_the_first_result(scene: Scene) -> None:
    """A document that gives NaN everywhere: no result under the final names, and every line says failed."""
    scene.texts[5] = "NOTANUMBER of a lake"
    scene.write_corpus()
    scene.save_profile()
    done = scene.run()
    scene.refused(done, r"row 5\b")
    if scene.pickle.exists() or (scene.here / "merged" / "embeddings.npy").exists():
        scene.blame("there is a result under the final names")
    scene.refused(scene.runbook("status", scene.here.name), "fail")
    scene.refused(scene.runbook("status", scene.here.name, "--json"), "fail")
    scene.refused(scene.runbook("verify", scene.here.name))
    scene.told(r"row 5\b", "T5")
    scene.innocent({5})


@trial(KIND)
def two_vectors_change_places(scene: Scene) -> None:
    """Nobody here can see that; so the report must say what is not proved."""
    scene.finished()
    if not re.search(r"not proved", (scene.here / "report" / "report.html").read_text(), re.IGNORECASE):
        scene.blame("the report does not say what is not proved")


@trial(KIND)
def fetch_counts_what_is_there(scene: Scene) -> None:
    """A part whose array is gone here does not count as home."""
    scene.finished()
    scene.home_parts()[2].unlink()
    done = scene.runbook("fetch", scene.here.name)
    if not scene.home_parts()[2].name.startswith("rows_") or len(scene.home_parts()) < 12:
        scene.refused(done)
    scene.well_or_refused(scene.run("--run", scene.here.name))


@trial(KIND)
def a_calm_run_has_no_faults(scene: Scene) -> None:
    """Nothing went wrong, and nothing is said to have gone wrong."""
    scene.finished()
    log = scene.here / "notes" / "failures.log"
    text = log.read_text() if log.exists() else ""
    if [line for line in text.splitlines() if line.strip() and not line.startswith("#")]:
        scene.blame(f"failures.log tells of faults that nobody made: {text[:500]}")
