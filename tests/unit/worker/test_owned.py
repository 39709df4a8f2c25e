"""Ownership on a host: what another account owns or may change is not used, and ours is closed to others."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from local_run import folder, host, new_run, planned

from runbook_lib.errors import HostError, ProfileError, RunbookError
from runbook_lib.hosts import environments, hosts, inventory
from runbook_lib.hosts.local import LocalTransport
from runbook_lib.phases import launch, staging, workers
from runbook_lib.run import driver
from runbook_lib.run.opening import create, current, open_folder, open_or_create
from worker import owned
from worker.files import write_json
from worker.layout import run_name_problem

STRANGER = 54_321  # the number of an account that is not ours
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another account, which only root may")
ID = "ab" * 16


@pytest.fixture
def work(tmp_path):
    """A working folder of ours."""
    path = tmp_path / "work"
    path.mkdir(0o700)
    return path


def opened(path, mode):
    path.chmod(mode)
    return path


# ------------------------------------------------------------------------------------------------------- what is ours


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o711, 0o500, 0o2755])
def test_what_only_we_can_change_is_ours(work, mode):
    assert owned.why_not(opened(work, mode)) == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777, 0o2775, 0o720, 0o702, 0o3777])
def test_what_others_can_change_is_told_with_the_way_to_close_it(work, mode):
    assert owned.why_not(opened(work, mode)).endswith(f"Close it: chmod go-w {work}")


def test_a_link_below_the_working_folder_is_not_followed_and_one_to_it_is(work, tmp_path):
    (tmp_path / "link").symlink_to(work)
    assert owned.problem(tmp_path / "link", tmp_path / "link" / "models") == ""
    (work / "models").symlink_to(tmp_path)
    assert "is a link" in owned.problem(tmp_path / "link", tmp_path / "link" / "models" / "x")


@AS_ROOT
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_what_another_account_owns_is_not_ours_however_it_is_closed(work, mode):
    os.chown(opened(work, mode), STRANGER, STRANGER)
    assert "belongs to the account number 54321" in owned.why_not(work)


def test_a_working_folder_in_one_that_is_open_to_all_is_fine(work):
    opened(work, 0o1777)
    mine = work / "mine"
    owned.claim(str(mine), "run1", ID)
    assert owned.unclaimed(str(mine), "run1", ID) == ""
    assert [stat.S_IMODE(path.stat().st_mode) for path in (mine, mine / "run1")] == [0o700, 0o700]


# ------------------------------------------------------------------------------------------------- what is planted


def plant(path, text="", owner=STRANGER):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    for at in (path, path.parent):
        os.chown(at, owner, owner)
    return path


def environment(this):
    spec = replace(this.profile.hosts[0], environment="venv", workdir=str(Path(this.profile.hosts[0].workdir)))
    return hosts.Host(spec, this.name, LocalTransport(spec.name)), environments.recipe(spec).digest


HOW = ["open folder", "open environment", "open site", *(["strangers'"] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("how", HOW)
def test_a_planted_environment_is_not_run(tmp_path, how):
    this = new_run(tmp_path)
    there, digest = environment(this)
    stem = there.workdir / "environments" / digest[:32]
    python = plant(stem / "bin" / "python", f"#!/bin/sh\ntouch {tmp_path}/PWNED\n", os.geteuid())
    (stem / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    write_json(stem.with_name(f"{stem.name}.json"), {"digest": digest})
    assert there.environment()["state"] == "ready"
    there._python = ""
    if how == "open folder":
        opened(stem.parent, 0o1777)
    elif how == "open environment":
        opened(stem, 0o775)
    elif how == "open site":
        opened(stem / "lib" / "python3.11" / "site-packages", 0o777)
    else:
        os.chown(stem, STRANGER, STRANGER)
    found = there.environment()
    assert found["state"] == "unusable" and found["python"] == ""
    with pytest.raises(HostError, match=r"chmod go-w|belongs to the account"):
        there.python  # noqa: B018
    assert python.exists() and not (tmp_path / "PWNED").exists()


def staged(tmp_path):
    this = new_run(tmp_path)
    plan = planned(this)
    assert staging.stage(this).ok
    return this, plan


@pytest.mark.process
@pytest.mark.parametrize("what", ["open run", "open worker", "open file", "open workdir", "link"])
def test_code_that_others_could_change_is_not_started(tmp_path, what):
    this, _ = staged(tmp_path)
    there = folder(this)
    code = there.root / "worker"
    targets = {"open run": there.root, "open worker": code, "open workdir": there.root.parent}
    target = {**targets, "open file": code / "__main__.py", "link": code / "numpy.py"}[what]
    target.symlink_to(tmp_path) if what == "link" else opened(target, 0o777 if target.is_dir() else 0o666)
    checks = launch.start(this)
    refused = [check for check in checks if check.where == "one"]
    assert not all(check.ok for check in refused)
    assert "chmod go-w" in str(refused[0].seen) or "is a link" in str(refused[0].seen)
    assert not there.log("host_one").exists()
    with pytest.raises(HostError):
        host(this).run([sys.executable, "-c", "pass"], 10, cwd=there.root)
    workers.stop(this)


@pytest.mark.process
def test_a_supervisor_starts_no_worker_of_code_that_was_opened_since(make_box):
    box = make_box(["a text"] * 4, light=True)
    opened(box.root / "worker" / "encode.py", 0o666)
    assert box.end(box.supervisor()) == 2
    assert "can be changed by other accounts" in box.logs()


@pytest.mark.process
def test_a_supervisor_of_another_run_leaves_the_folder_alone(make_box):
    box = make_box(["a text"] * 4, light=True)
    write_json(box.folder.mark, {"id": "0" * 32})
    assert box.end(box.supervisor()) == 2
    assert f"is marked by the run with id {'0' * 32}" in box.logs()
    assert box.parts() == []


@pytest.mark.process
@pytest.mark.parametrize("kind", ["open", "link", *(["strangers'"] * (os.geteuid() == 0))])
def test_a_model_that_others_could_change_is_not_loaded(make_box, kind):
    box = make_box(["a text"] * 4, light=True)
    model = box.root.parent / "models" / "abc"
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights").write_text("w")
    box.save(model={**box.assignment["model"], "folder": str(model)})
    if kind == "open":
        opened(model / "deep" / "weights", 0o664)
    elif kind == "link":
        (model / "modeling.py").symlink_to("/tmp")
    else:
        os.chown(model / "deep" / "weights", STRANGER, STRANGER)
    assert box.end(box.worker()) == 2
    assert box.parts() == []


@pytest.mark.process
def test_a_working_folder_that_others_can_change_is_refused_by_preflight_before_anything_is_put_there(tmp_path):
    this = new_run(tmp_path)
    opened(tmp_path / "one", 0o1777) if (tmp_path / "one").exists() else (tmp_path / "one").mkdir()
    opened(tmp_path / "one", 0o1777)
    checks, _ = inventory.take(this)
    (check,) = [found for found in checks if found.name == "working folder" and found.where == "one"]
    assert not check.ok and f"chmod go-w {tmp_path / 'one'}" in str(check.seen)
    assert list((tmp_path / "one").iterdir()) == []
    assert next(found for found in checks if found.name == "working folder" and found.where == "two").ok


# ------------------------------------------------------------------------------------------------------ the mark


def test_a_folder_is_made_marked_and_found_again(work):
    owned.claim(str(work), "run1", ID)
    assert json.loads((work / "run1" / "run.json").read_text())["id"] == ID
    (work / "run1" / "parts").mkdir()
    owned.claim(str(work), "run1", ID)
    assert owned.unclaimed(str(work), "run1", ID) == ""


@pytest.mark.parametrize("left", [[], [".run.json.1a2b3c4d.part"]])
def test_a_crash_between_the_folder_and_its_mark_is_no_matter(work, left):
    (work / "run1").mkdir(0o700)
    for name in left:
        (work / "run1" / name).write_text("{")
    assert owned.unclaimed(str(work), "run1", ID) == ""
    owned.claim(str(work), "run1", ID)
    assert owned.mismatch(work / "run1", ID) == ""


UNMARKED = {
    "a file": lambda root: (root / "thesis.txt").write_text("mine"),
    "a folder": lambda root: (root / "parts").mkdir(),
    "an earlier version": lambda root: write_json(root / "hosts" / "here.json", {"slots": []}),
    "another run": lambda root: write_json(root / "run.json", {"id": "0" * 32, "run": "run1"}),
    "another kind of file": lambda root: (root / "run.json").write_text("my notes on a run"),
    "a mark without an id": lambda root: write_json(root / "run.json", {"run": "run1"}),
    "a list": lambda root: (root / "run.json").write_text("[]"),
    "a link": lambda root: (root / "run.json").symlink_to("/dev/null"),
    "open to all": lambda root: root.chmod(0o777),
}


@pytest.mark.parametrize("case", UNMARKED)
def test_a_folder_that_this_run_did_not_mark_is_refused_and_stays_as_it_is(work, case):
    root = work / "run1"
    root.mkdir(0o700)
    UNMARKED[case](root)
    before = {path: os.lstat(path).st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(ValueError, match=r"Nothing was touched|chmod go-w"):
        owned.claim(str(work), "run1", ID)
    assert {path: os.lstat(path).st_mtime_ns for path in root.rglob("*")} == before


def test_a_name_that_is_a_file_is_refused(work):
    (work / "run1").write_text("mine")
    with pytest.raises((ValueError, OSError)):
        owned.claim(str(work), "run1", ID)
    assert (work / "run1").read_text() == "mine"


def test_two_runs_of_one_name_on_one_host_do_not_meet(tmp_path):
    this, _ = staged(tmp_path)
    other = create(replace(this.profile, runs=tmp_path / "other"), this.name)
    assert other.id != this.id
    assert "belongs to another run" in host(this).unclaimed(other.id)
    with pytest.raises(HostError, match="belongs to another run"):
        host(this).claim(other.id)


RESERVED = [
    "models", "Models", "MODELS", "models.", "models..", "environments", "Environments", "ENVIRONMENTS.", "con", "NUL",
    "nul.txt", "com1", "LPT9.x", "aux", "prn.", "a.",
]  # fmt: skip


@pytest.mark.parametrize("name", [*RESERVED, "", "-a", ".a", "a/b", "..", "a b", "a\n", "é", "x" * 101])
def test_a_name_that_means_something_else_on_some_disk_is_refused(tmp_path, work, name):
    assert run_name_problem(name)
    with pytest.raises(ValueError):
        owned.claim(str(work), name, ID)
    assert list(work.iterdir()) == []
    if name:
        with pytest.raises(ProfileError):
            create(new_run(tmp_path).profile, name)


@pytest.mark.parametrize("name", ["a", "models-2026", "my.models", "environments2", "console", "com10x", "A1_b-c.d"])
def test_other_names_are_fine(name):
    assert run_name_problem(name) == ""


def test_a_run_is_not_made_in_a_folder_that_holds_something_else(tmp_path):
    this = new_run(tmp_path)
    there = this.profile.runs / "thesis"
    there.mkdir()
    (there / "chapter.tex").write_text("mine")
    with pytest.raises(ProfileError, match=r"is there and is no run \(it holds chapter.tex\)"):
        create(this.profile, "thesis")
    assert [path.name for path in there.iterdir()] == ["chapter.tex"]
    (there / "chapter.tex").rename(there / "run.json")  # what a crash leaves is taken
    assert create(this.profile, "thesis").name == "thesis"


@AS_ROOT
def test_a_run_that_another_account_planted_among_ours_is_not_worked_on(tmp_path):
    this = new_run(tmp_path)
    planted_run = create(this.profile, f"{this.profile.run}-planted")
    assert current(this.profile).name == planted_run.name
    os.chown(planted_run.folder, STRANGER, STRANGER)
    assert current(this.profile).name == this.name
    with pytest.raises(ProfileError, match="belongs to another account"):
        open_or_create(this.profile, planted_run.name)
    with pytest.raises(RunbookError, match="belongs to another account"), driver.hold(planted_run):
        pass
    assert open_folder(planted_run.folder).name == planted_run.name  # to read and to verify it is another matter


# --------------------------------------------------------------------------------------------------- closed to others


def modes(top):
    return {str(path.relative_to(top)): stat.S_IMODE(os.lstat(path).st_mode) for path in [top, *top.rglob("*")]}


def wrong(top):
    found = {name: mode for name, mode in modes(top).items() if mode & 0o077 and not name.startswith("light")}
    return {name: oct(mode) for name, mode in found.items()}


@pytest.mark.process
def test_whatever_the_umask_nobody_else_reads_or_changes_what_lies_on_a_host(tmp_path):
    before = os.umask(0)
    try:
        this, _ = staged(tmp_path)
        assert launch.start(this).ok
    finally:
        os.umask(before)
        workers.stop(this)
    there = folder(this).root
    assert {"logs/host_one.log", "progress/host_one.json", "run.json"} <= modes(there).keys()
    assert wrong(there) == {}
    assert wrong(there.parent / "models") == {}


@pytest.mark.process
def test_a_worker_closes_what_it_writes_whatever_the_umask(make_box):
    box = make_box(["a text"] * 8, light=True)
    ours = ("logs", "progress", "parts", "quarantine")
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", "worker", "supervise", "--root", str(box.root), "--host", "here"],
        cwd=box.root, umask=0, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert child.wait(90) == 0
    assert box.parts()
    assert {name: wrong(box.root / name) for name in ours if (box.root / name).exists()} == {
        name: {} for name in ours if (box.root / name).exists()
    }
