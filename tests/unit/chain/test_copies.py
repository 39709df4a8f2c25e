"""Copies of the notebooks for one profile, and the JupyterLab that opens them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from waiting import wait_for

from runbook_lib.chain import attempts, copies
from runbook_lib.errors import RunbookError
from runbook_lib.profile import profile
from runbook_lib.report import notebook_file
from runbook_lib.run.run import PHASES


@pytest.fixture
def mine(tmp_path: Path) -> profile.Profile:
    return made_up.run_folder(tmp_path).run.profile


def parameters(path: Path) -> str:
    (cell,) = [c for c in notebook_file.read(path).cells if "parameters" in c.metadata.get("tags", ())]
    return str(cell.source)


def test_the_copies_have_the_profile_and_those_of_the_project_stay_as_they_are(mine: profile.Profile) -> None:
    before = {path: path.read_bytes() for path in attempts.NOTEBOOKS.glob("*.ipynb")}
    folder = copies.of(mine)
    assert folder == mine.runs / "lab" / mine.path.stem
    for phase in PHASES:
        space: dict[str, object] = {}
        exec(parameters(folder / f"{phase}.ipynb"), space)
        assert profile.load(str(space["profile"])).path == mine.path.absolute() and space["run"] == ""
    assert {path: path.read_bytes() for path in attempts.NOTEBOOKS.glob("*.ipynb")} == before
    (folder / "02_launch.ipynb").write_text("what a person made of it")
    assert copies.of(mine) == folder
    assert (folder / "02_launch.ipynb").read_text() == "what a person made of it"


def test_two_profiles_of_one_name_have_copies_of_their_own(mine: profile.Profile, tmp_path: Path) -> None:
    other = tmp_path / "other" / mine.path.name
    other.parent.mkdir()
    other.write_text(mine.path.read_text())
    theirs = replace(mine, path=other)
    assert copies.of(mine) != copies.of(theirs) and copies.of(theirs) == copies.of(theirs)
    for each in (mine, theirs):
        assert repr(str(each.path.absolute())) in parameters(copies.of(each) / f"{PHASES[0]}.ipynb")


def test_a_run_that_is_called_lab_gets_no_copies_into_it(mine: profile.Profile) -> None:
    (mine.runs / "lab").mkdir(parents=True)
    (mine.runs / "lab" / "profile.yaml").write_text("run: lab")
    with pytest.raises(RunbookError, match="is a run"):
        copies.of(mine)


def test_its_root_holds_profile_and_runs_but_never_the_whole_disk(mine: profile.Profile, tmp_path: Path) -> None:
    folder = copies.of(mine)
    argv, environment = copies.command(mine, folder, ["--no-browser"])
    (root,) = [Path(word.partition("=")[2]) for word in argv if word.startswith("--ServerApp.root_dir=")]
    assert root in folder.parents and root in mine.path.absolute().parents and argv[-1] == "--no-browser"
    assert environment["JUPYTER_PATH"].split(os.pathsep)[0] == str(folder / copies.KERNELS)
    far = made_up.run_folder(tmp_path / "far").run.profile
    argv, _ = copies.command(far, Path("/elsewhere/lab"), [])
    assert "--ServerApp.root_dir=/elsewhere/lab" in argv


@pytest.mark.process
def test_jupyterlab_starts_there_with_the_python_of_the_command(
    mine: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = tmp_path / "share" / "kernels" / "python3"
    strange.mkdir(parents=True)
    (strange / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--allow-root"]
    argv, environment = copies.command(mine, copies.of(mine), options)
    address = f"http://127.0.0.1:{port}/api/kernelspecs"
    asked = urllib.request.Request(address, headers={"Authorization": "token of-the-test"})

    def specs() -> dict[str, Any]:
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)["kernelspecs"]
            return found
        return {}

    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(argv, env={**environment, "JUPYTER_TOKEN": "of-the-test"}, stderr=file, stdout=file) as server,
    ):
        try:
            wait_for(lambda: server.poll() is None and specs(), "its answer", 120)
            assert specs()["python3"]["spec"]["argv"][0] == sys.executable, log.read_text()
        finally:
            server.terminate()
            server.wait(30)
