"""Trials of what is ours: no command removes, replaces or believes a file that no run of ours made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..chaos import checker, processes
from .scene import Scene, flip
from .table import trial

KIND = "ours"


def _refused(scene: Scene, *words: str, then: str = "") -> None:
    """The command is refused before anybody works."""
    scene.save_profile()
    before = scene.computed()
    done = scene.runbook("run", "profile.yaml", *words)
    scene.refused(done, *filter(None, [then]))
    if scene.computed() != before:
        scene.blame("rows were computed though it was refused")


# ---------------------------------------------------------------------------------------------------- names of a run


@trial(KIND)
def run_named_as_the_project(scene: Scene) -> None:
    """`workdir: ..` and a run named as the project's folder: the run's folder on the host would be the project."""
    scene.profile["hosts"] = [{**scene.profile["hosts"][0], "workdir": ".."}]
    for name in ("corpus.jsonl", "questions.json", "model/model.safetensors"):
        scene.precious(scene.project / name)
    _refused(scene, "--run", "project", then="project")
    scene.runbook("clean", "project", "--yes")


def _reserved(name: str) -> None:
    @trial(KIND, name=f"run_named_{name}")
    def named(scene: Scene) -> None:
        scene.finished()
        for path in (scene.workdir("one") / "models").rglob("*"):
            if path.is_file():
                scene.precious(path)
        _refused(scene, "--run", name)
        scene.runbook("clean", name, "--yes")


for reserved in ("models", "environments", "Models", "ENVIRONMENTS"):
    _reserved(reserved)


@trial(KIND)
def run_named_as_somebodys_folder(scene: Scene) -> None:
    """A host has a folder of that name already, and no run of ours made it."""
    _refused(scene, "--run", "somebody", then="somebody")
    scene.runbook("clean", "somebody", "--yes")


@trial(KIND)
def run_of_the_same_name_with_other_settings(scene: Scene) -> None:
    """The folder here was deleted, that on the hosts was not: its parts must not be taken for this run's."""
    scene.finished("--run", "tok")
    shutil.rmtree(scene.project / "runs" / "tok")
    scene.profile["model"]["max_tokens"] = 5
    scene.save_profile()
    done = scene.runbook("run", "profile.yaml", "--run", "tok")
    if done.well and any(b'"max_tokens": 64' in path.read_bytes() for path in (scene.here / "parts").glob("*.json")):
        scene.blame("parts cut at 64 tokens became the result of a run that says 5")


# -------------------------------------------------------------------------------------------------- files we write


def _target(name: str, output: dict[str, str], precious: str) -> None:
    @trial(KIND, name=f"merged_is_{name}")
    def overwrite(scene: Scene) -> None:
        scene.profile["output"] = output
        scene.precious(scene.project / precious)
        scene.save_profile()
        scene.refused(scene.runbook("run", "profile.yaml"))


_target("the_corpus", {"folder": ".", "merged": "corpus.jsonl"}, "corpus.jsonl")
_target("the_corpus_by_another_way", {"folder": "letters/..", "merged": "corpus.jsonl"}, "corpus.jsonl")
_target("the_questions", {"folder": ".", "merged": "questions.json"}, "questions.json")
_target("the_weights", {"folder": "model", "merged": "model.safetensors"}, "model/model.safetensors")
_target("a_thesis", {"folder": ".", "merged": "thesis.txt"}, "thesis.txt")


@trial(KIND)
def merged_is_the_profile(scene: Scene) -> None:
    """The result would replace the profile."""
    scene.profile["output"] = {"folder": ".", "merged": "profile.yaml"}
    scene.save_profile()
    scene.precious(scene.project / "profile.yaml")
    scene.refused(scene.runbook("run", "profile.yaml"))


def _linked(name: str, link: Callable[[Path, Path], None]) -> None:
    @trial(KIND, name=f"merged_is_{name}")
    def linked(scene: Scene) -> None:
        corpus = scene.precious(scene.project / "corpus.jsonl")
        scene.pickle.parent.mkdir()
        link(corpus, scene.pickle)
        scene.save_profile()
        done = scene.runbook("run", "profile.yaml")
        scene.refused(done)
        if not scene.pickle.exists() or not scene.pickle.samefile(corpus):
            scene.blame("the link that somebody made is gone")


_linked("a_link_to_the_corpus", lambda corpus, path: path.symlink_to(corpus))
_linked("a_hard_link_to_the_corpus", lambda corpus, path: os.link(corpus, path))


@trial(KIND)
def somebodys_file_where_the_result_goes(scene: Scene) -> None:
    """A file that no run wrote has the result's name."""
    scene.precious(scene.pickle, "five years of work")
    _refused(scene, then="trial_merged")


@trial(KIND)
def somebodys_file_comes_while_it_runs(scene: Scene) -> None:
    """The same, but it comes after preflight."""
    with scene.working(1) as command:
        scene.precious(scene.pickle, "five years of work")
        scene.refused(command.wait())
    scene.refused(scene.runbook("run", "profile.yaml"), "trial_merged")


@trial(KIND)
def somebodys_files_among_the_backups(scene: Scene) -> None:
    """Other files lie in the folder of backups: they stay, and hinder nobody."""
    for name in ("SHA256SUMS", "old.pkl", "trial_merged.pkl.bak"):
        scene.precious(scene.project / "embeddings" / "backups" / name, "an old backup")
    scene.finished()


@trial(KIND)
def result_of_an_earlier_run(scene: Scene) -> None:
    """What an earlier run of this profile wrote may be replaced by the next one's, once that is good."""
    scene.finished()
    scene.finished("--new")
    scene.hold(len(scene.runs) == 2, "no second run")


def _nested(name: str, change: Callable[[Scene], None]) -> None:
    @trial(KIND, name=f"nested_{name}")
    def nested(scene: Scene) -> None:
        change(scene)
        _refused(scene)


def _workdir(path: str) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.profile["hosts"][0]["workdir"] = path

    return change


_nested("output_is_runs", lambda scene: scene.profile.update(output={"folder": "runs"}))
_nested("output_in_runs", lambda scene: scene.profile.update(output={"folder": "runs/out"}))
_nested("backups_is_runs", lambda scene: scene.profile.update(output={"backups": "runs"}))
_nested("backups_in_a_workdir", lambda s: s.profile.update(output={"backups": str(s.workdir("one") / "b")}))
_nested("output_in_a_workdir", lambda s: s.profile.update(output={"folder": str(s.workdir("one") / "out")}))
_nested("runs_in_a_workdir", lambda s: s.profile.update(runs=str(s.workdir("two") / "runs")))
_nested("workdir_is_runs", _workdir("runs"))
_nested("workdir_in_the_backups", _workdir("embeddings/backups/host"))
_nested("workdir_is_the_project", _workdir("."))


# ---------------------------------------------------------------------------------------------------------- clean


@trial(KIND)
def clean_leaves_strangers(scene: Scene) -> None:
    """Files that somebody put into the run's folder on a host stay, and are named."""
    scene.finished()
    root = scene.root("one")
    for path in (root / "notes.txt", root / "parts" / "mine.npy", root / "private" / "diary.txt"):
        scene.precious(path, "mine")
    done = scene.runbook("clean", scene.here.name, "--yes")
    if "notes.txt" not in done.out:
        scene.blame(f"what stays is not named: {done.out[-300:]}")
    if list(root.glob("parts/rows_*")) or (root / "worker").exists():
        scene.blame("what is ours was left")


@trial(KIND)
def clean_goes_through_no_link(scene: Scene) -> None:
    """The run's folder on a host is a link to somebody's folder now."""
    scene.finished()
    root = scene.root("one")
    shutil.move(root, root.with_name("elsewhere"))
    for path in root.with_name("elsewhere").rglob("*.json"):
        scene.precious(path)
    root.symlink_to(root.with_name("elsewhere"))
    scene.runbook("clean", scene.here.name, "--yes")


@trial(KIND)
def clean_a_part_that_is_a_link(scene: Scene) -> None:
    """A file of ours was replaced by a link to somebody's."""
    scene.finished()
    thesis = scene.project / "thesis.txt"
    part = sorted(scene.root("one").glob("parts/*.npy"))[0]
    part.unlink()
    part.symlink_to(thesis)
    scene.runbook("clean", scene.here.name, "--yes")
    scene.hold(thesis.exists(), "somebody's file is gone")


def _no_backup(name: str, harm: Callable[[Path], None]) -> None:
    @trial(KIND, name=f"clean_when_the_backup_is_{name}")
    def clean(scene: Scene) -> None:
        scene.finished()
        for path in scene.backups:
            harm(path)
        before = sorted(path for path in scene.root("one").rglob("*") if path.is_file())
        scene.refused(scene.runbook("clean", scene.here.name, "--yes"), "backup")
        if sorted(path for path in scene.root("one").rglob("*") if path.is_file()) != before:
            scene.blame("files were removed though it was refused")


_no_backup("gone", lambda path: path.unlink())
_no_backup("damaged", flip)


@trial(KIND)
def clean_when_the_result_is_gone(scene: Scene) -> None:
    """The hosts' parts may be the only ones that are left."""
    scene.finished()
    (scene.here / "merged" / "embeddings.npy").unlink()
    scene.refused(scene.runbook("clean", scene.here.name, "--yes"))
    scene.hold(list(scene.root("one").glob("parts/*.npy")), "parts were removed")


@trial(KIND)
def clean_takes_one_run_only(scene: Scene) -> None:
    """Two runs on the same hosts: cleaning one leaves the other, and the model that both use."""
    scene.finished("--run", "a")
    scene.finished("--run", "b")
    for path in [*scene.workdir("one").glob("b/parts/*"), *(scene.workdir("one") / "models").rglob("*")]:
        if path.is_file():
            scene.precious(path)
    done = scene.runbook("clean", "a", "--yes")
    scene.hold(done.well, f"clean was refused: {done.out[-300:]}")
    if list(scene.workdir("one").glob("a/parts/*")):
        scene.blame("nothing was cleaned")


# ------------------------------------------------------------------------------------------------- who else may write


def _open_to_others(name: str, where: Callable[[Scene], Path], user: int | None = None) -> None:
    @trial(KIND, name=f"others_can_write_{name}" if user is None else f"others_own_{name}")
    def opened(scene: Scene) -> None:
        scene.finished("--run", "first")
        path = where(scene)
        if user is None:
            path.chmod(0o777)
        else:
            os.chown(path, user, user)
        scene.save_profile()
        done = scene.runbook("run", "profile.yaml", "--run", "second")
        if (scene.workdir("one") / "second" / "encoded.log").exists():
            scene.blame("what others can change was used")
        if done.well:  # the other host did it all
            scene.right()
            scene.told("chmod" if user is None else r"belongs to")
        else:
            scene.refused(done, "chmod" if user is None else r"belongs to")


def _digest(scene: Scene) -> Path:
    return next(path for path in (scene.workdir("one") / "models").iterdir() if path.is_dir())


_open_to_others("workdir", lambda scene: scene.workdir("one"))
_open_to_others("models", lambda scene: scene.workdir("one") / "models")
_open_to_others("the_model", _digest)
if os.geteuid() == 0:
    _open_to_others("workdir", lambda scene: scene.workdir("one"), 65534)
    _open_to_others("the_model", _digest, 65534)


@trial(KIND, pace_s=0.6)
def others_can_write_the_worker(scene: Scene) -> None:
    """Somebody could have changed the code that a supervisor would start again."""
    with scene.working() as command:
        command.kill()
        for each in [each for each in scene.processes() if each.option("--host") == "one"]:
            processes.end(each)
        (scene.root("one") / "worker").chmod(0o777)
        before = checker.workers(scene.root("one") / "encoded.log")
        scene.runbook("run", "profile.yaml")
        if checker.workers(scene.root("one") / "encoded.log") != before:
            scene.blame("what others can change was started")
        scene.told("chmod")
        (scene.root("one") / "worker").chmod(0o700)
        scene.repaired(scene.run("--run", scene.here.name))


@trial(KIND)
def what_hosts_write_is_private(scene: Scene) -> None:
    """Logs and reports are readable for this account only."""
    scene.finished()
    for name in ("logs", "progress"):
        folder = scene.root("one") / name
        for path in (folder, *folder.rglob("*")):
            if path.stat().st_mode & 0o077:
                scene.blame(f"{path.name}: mode {path.stat().st_mode & 0o777:o}")


# ---------------------------------------------------------------------------------------------------------- secrets


TOKENS = {
    "hf": "hf_" + "aB3" * 11,
    "api_org": "api_org_" + "Zx9" * 11,
    "bearer": "Bearer " + "q7W" * 12,
    "github": "ghp_" + "k2J" * 12,
    "with_a_blank": "hf_" + "m4N" * 6 + " " + "m4N" * 5,
    "in_quotes": '"hf_' + "t6Y" * 11 + '"',
    "unknown_form": "X-" + "c0ffee" * 7,
}


def _no_trace(scene: Scene, token: str, profile: Path | None) -> None:
    secret = token.strip('"').removeprefix("Bearer ").split()[0].encode()[:24]
    for path in (*scene.project.rglob("*"), *scene.folder.glob("command-*.log"), *(scene.folder / "hosts").rglob("*")):
        if path.is_file() and path != profile and secret in path.read_bytes():
            scene.blame(f"the secret stands in {path.relative_to(scene.folder)}")


def _token(name: str, token: str) -> None:
    @trial(KIND, name=f"token_{name}")
    def pasted(scene: Scene) -> None:
        scene.profile["hf_token"] = token
        _refused(scene, then="hf_token")
        _no_trace(scene, token, scene.project / "profile.yaml")

    @trial(KIND, name=f"token_{name}_by_set")
    def given(scene: Scene) -> None:
        scene.save_profile()
        scene.refused(scene.runbook("run", "profile.yaml", "--set", f"hf_token={token}"))
        _no_trace(scene, token, None)


for form, value in TOKENS.items():
    _token(form, value)


@trial(KIND)
def password_in_an_address(scene: Scene) -> None:
    """`ssh: me:password@machine`."""
    scene.profile["hosts"] = [{"name": "far", "kind": "ssh", "ssh": "me:tr0ub4dor&3xyz@gpu.lab"}]
    _refused(scene)
    _no_trace(scene, "tr0ub4dor&3xyz", scene.project / "profile.yaml")


@trial(KIND)
def password_in_place_of_a_credentials_file(scene: Scene) -> None:
    """The password itself, where the name of its file is asked for."""
    secret = "correct-horse-Battery-staple-9471"
    scene.profile["hosts"] = [{"name": "far", "kind": "ssh", "credentials": secret}]
    _refused(scene)
    _no_trace(scene, secret, scene.project / "profile.yaml")
