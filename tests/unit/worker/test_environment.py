"""The Python environment of a host is made once from pinned requirements, used again, never changed while it is in use.

The venvs, pip and the wheels are real; nothing is fetched. conda was not to be had where this was written: a script of
the same name and arguments stands in for it, and makes a copy of a venv. What real conda prints is not tested here.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from worker import environment, making, process
from worker.making import EXIT_BUSY, EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED

ROOT = Path(__file__).parents[3]
CREATE = "import sys, pathlib; from worker.making import create; sys.exit(create(pathlib.Path(sys.argv[1])))"
SLEEP = ["-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]


def wheel(folder: Path, name: str, *requires: str) -> None:
    """A whole wheel of a package with one empty module."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {item}\n" for item in requires)
    files = {
        f"{name}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


@dataclass
class Job:
    """One environment to be made below `top`, which is the home folder too."""

    top: Path
    requirements: str = "tiny_thing==1.0\n"
    kind: str = "venv"
    imports: list[str] = field(default_factory=lambda: ["tiny_thing"])
    offline: bool = True
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def wheels(self) -> Path:
        return self.top / "wheels"

    @property
    def workdir(self) -> Path:
        return self.top / "work"

    @property
    def digest(self) -> str:
        return environment.digest(self.requirements, environment.wheels_in(self.wheels) if self.offline else [])

    def file(self, suffix: str) -> Path:
        stem = self.kind.replace(":", "_") if ":" in self.kind else self.digest[:32]
        return self.workdir / "environments" / f"{stem}{suffix}"

    def spec(self, **changes: Any) -> Path:
        """The file that `create` reads."""
        order = {
            "kind": self.kind,
            "workdir": str(self.workdir),
            "digest": self.digest,
            "requirements": self.requirements,
            "wheels": str(self.wheels) if self.offline else None,
            "imports": self.imports,
        }
        path = self.top / "spec.json"
        path.write_text(json.dumps({**order, **changes}))
        return path

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        """Start `create` as a process of its own."""
        home = {"HOME": str(self.top), "PIP_CONFIG_FILE": os.devnull, "PATH": "/usr/bin:/bin"}
        return subprocess.Popen(
            [sys.executable, "-c", CREATE, str(self.spec(**changes))],
            cwd=ROOT,
            env={**os.environ, **home, **self.variables},
            stderr=subprocess.PIPE,
            text=True,
        )

    def make(self, **changes: Any) -> tuple[int, str]:
        """Run `create` to its end; its exit code and what it said."""
        child = self.start(**changes)
        said = child.communicate(timeout=120)[1]
        return child.returncode, said

    def find(self) -> dict[str, Any]:
        return environment.find(self.kind, str(self.workdir), self.digest)

    def failure(self) -> dict[str, Any]:
        return json.loads(self.file(".failed.json").read_text())

    def log(self) -> str:
        return self.file(".log").read_text()


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder with the time of its last change."""
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """An environment that two processes wanted to make at the same time; tests look at it and leave it as it is."""
    job = Job(tmp_path_factory.mktemp("made"))
    wheel(job.wheels, "tiny_thing")
    both = [job.start(), job.start()]
    said = [child.communicate(timeout=120)[1] for child in both]
    codes = sorted(child.returncode for child in both)
    # The second one leaves; or, where a venv takes no second, finds it ready.
    assert codes in ([EXIT_DONE, EXIT_BUSY], [EXIT_DONE, EXIT_DONE]), (said, job.log())
    assert job.log().count(" -m pip install ") == 1
    return job


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder in which nothing of this machine's conda is seen."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(environment, "BASES", tuple(base for base in environment.BASES if base.startswith("~")))
    monkeypatch.setattr(environment, "TOOL_FOLDERS", tuple(p for p in environment.TOOL_FOLDERS if p.startswith("~")))
    return tmp_path


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path


def stand_in(home: Path, make: str) -> Path:
    """A conda in a usual place, outside PATH: `make` is shell text that fills the folder $envs/$name."""
    return executable(
        home / "miniconda3" / "bin" / "conda",
        f'envs="{home}/miniconda3/envs"; mkdir -p "$envs"; echo "$*" >> "{home}/conda_calls"\n'
        'case "$1 $2 $3" in\n'
        '"env list --json") printf \'{"envs": ["%s"]}\' "$(dirname "$envs")";;\n'
        f'"create -y -n") name=$4\n{make};;\n'
        '*) echo "unknown: $*"; exit 64;;\nesac\n',
    )


@pytest.fixture
def conda(made: Job, home: Path) -> Job:
    """A host with a conda, and an environment of it that is to be made."""
    stand_in(home, f'cp -R "{made.file("")}" "$envs/$name"')
    wheel(home / "wheels", "other_thing")
    return Job(home, "other_thing==1.0\n", "conda:runbook_test", ["other_thing"])


def prefix(job: Job) -> Path:
    return job.top / "miniconda3" / "envs" / "runbook_test"


@pytest.fixture
def sleeper() -> Iterator[Any]:
    """Starts a Python by a path, and ends it after the test."""
    children = []

    def start(python: Path) -> subprocess.Popen[str]:
        child = subprocess.Popen([str(python), *SLEEP], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout and child.stdout.readline() == "up\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


# --- a venv -----------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_venv_is_made_offline_and_its_record_tells_what_is_in_it(made: Job) -> None:
    found = made.find()
    assert (found["state"], found["python"]) == ("ready", str(made.file("") / "bin" / "python"))
    assert found["record"]["digest"] == made.digest
    assert "tiny_thing==1.0" in found["record"]["packages"]
    assert subprocess.run([found["python"], "-c", "import tiny_thing"], check=False).returncode == 0
    assert f"$ {found['python']} -m pip install" in made.log() and "Successfully installed tiny" in made.log()


@pytest.mark.process
def test_a_second_create_changes_nothing(made: Job) -> None:
    before = tree(made.workdir)
    assert made.make() == (EXIT_DONE, "")
    assert tree(made.workdir) == before


@pytest.mark.process
def test_a_killed_making_is_taken_up_again_beside_an_older_environment(made: Job, tmp_path: Path) -> None:
    job = Job(tmp_path, "tiny_thing==1.0  # another text is another environment\n")
    shutil.copytree(made.wheels, job.wheels)
    old = job.workdir / "environments" / made.digest[:32]
    shutil.copytree(made.file(""), old, symlinks=True)
    before = tree(old)

    child = job.start()
    wait_for((job.file("") / "pyvenv.cfg").exists, "the venv is begun")
    child.kill()
    child.communicate()
    found = job.find()  # what it had started goes on, and nobody may begin anew below it
    assert found["state"] == "creating" and "its maker ended" in found["why"]
    assert job.make()[0] == EXIT_BUSY
    found = wait_for(lambda: (now := job.find())["state"] != "creating" and now, "the command has ended")
    assert (found["state"], found["python"]) == ("absent", "")

    assert job.make() == (EXIT_DONE, "")
    assert job.find()["state"] == "ready"
    assert tree(old) == before


@pytest.mark.process
def test_a_half_made_venv_is_not_removed_under_a_process(made: Job, tmp_path: Path, sleeper: Any) -> None:
    job = Job(tmp_path)
    shutil.copytree(made.wheels, job.wheels)
    python = job.file("") / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    child = sleeper(python)
    assert making.running_from(job.file("")) == [child.pid]
    assert job.make()[0] == EXIT_FAILED
    assert python.exists() and child.poll() is None
    found = job.find()
    assert found["state"] == "failed" and f"in use by process {child.pid}" in found["why"]


@pytest.mark.process
def test_a_lock_that_is_held_means_creating_and_a_second_one_leaves(made: Job, tmp_path: Path) -> None:
    job = Job(tmp_path)
    shutil.copytree(made.wheels, job.wheels)
    job.file(".lock").parent.mkdir(parents=True)
    with job.file(".lock").open("w") as lock:
        assert job.find()["state"] == "absent"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert job.find()["state"] == "creating"
        code, said = job.make()
    assert code == EXIT_BUSY and str(job.file(".lock")) in said
    assert not job.file("").exists()


@pytest.mark.process
@pytest.mark.parametrize("damage", ["other digest", "not JSON", "no python"])
def test_a_venv_with_a_record_is_never_touched(made: Job, tmp_path: Path, damage: str) -> None:
    job = Job(tmp_path)
    shutil.copytree(made.wheels, job.wheels)
    (job.file("") / "bin").mkdir(parents=True)
    python = executable(job.file("") / "bin" / "python", "")
    job.file(".json").write_text("{" if damage == "not JSON" else json.dumps({"digest": job.digest}))
    if damage == "no python":
        python.unlink()
    elif damage == "other digest":
        job.file(".json").write_text(json.dumps({"digest": "0" * 64}))
    before = tree(job.file(""))
    found = job.find()
    assert found["state"] == "unusable" and found["python"] == ""
    assert str(job.file("")) in found["why"]
    code, said = job.make()
    assert (code, tree(job.file(""))) == (EXIT_REFUSED, before)
    assert found["why"] in said


@pytest.mark.process
def test_without_ensurepip_it_says_what_to_install(
    home: Path, made: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Job(home)
    shutil.copytree(made.wheels, job.wheels)
    words = "The virtual environment was not created successfully because ensurepip is not\navailable."
    monkeypatch.setattr(sys, "executable", str(executable(home / "python3", f'echo "{words}"; exit 1')))
    assert making.create(job.spec()) == EXIT_FAILED
    found = job.find()
    assert found["state"] == "failed" and "apt-get install python3-venv" in found["why"]
    assert (job.failure()["step"], job.failure()["exit_code"]) == ("venv", 1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- conda ------------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_conda_environment_is_made_outside_the_users_own_settings_for_python_and_pip(conda: Job) -> None:
    trap = conda.top / "trap"
    trap.mkdir()
    (trap / "pip.py").write_text("raise SystemExit('this pip is another one')\n")
    conda.variables = {"PYTHONPATH": str(trap), "PIP_REQUIRE_VIRTUALENV": "1", "PIP_USER": "1"}
    assert conda.find()["state"] == "absent"
    assert conda.make() == (EXIT_DONE, ""), conda.log()
    found = conda.find()
    assert (found["state"], found["python"]) == ("ready", str(prefix(conda) / "bin" / "python"))
    assert found["tool"] == str(conda.top / "miniconda3" / "bin" / "conda")
    assert "other_thing==1.0" in found["record"]["packages"]
    assert "create -y -n runbook_test python=3.11 pip" in conda.log()
    assert conda.make() == (EXIT_DONE, "")
    assert conda.log().count(" create -y ") == 1


@pytest.mark.process
def test_one_made_from_other_requirements_is_left_alone_and_the_way_out_is_named(conda: Job) -> None:
    assert conda.make() == (EXIT_DONE, "")
    before = tree(prefix(conda))
    conda.requirements += "# changed\n"
    found = conda.find()
    assert found["state"] == "unusable"
    assert "another name" in found["why"] and found["why"].endswith("conda env remove -n runbook_test")
    assert conda.make()[0] == EXIT_REFUSED
    assert tree(prefix(conda)) == before


@pytest.mark.process
def test_an_environment_that_somebody_else_made_is_used_as_it_is(conda: Job) -> None:
    python = executable(prefix(conda) / "bin" / "python", "")
    before = tree(prefix(conda))
    found = conda.find()
    assert (found["state"], found["python"], found["record"]) == ("foreign", str(python), None)
    assert conda.make() == (EXIT_DONE, "")
    assert tree(prefix(conda)) == before


@pytest.mark.process
def test_conda_is_asked_for_an_environment_in_an_unusual_place(conda: Job) -> None:
    elsewhere = conda.top / "scratch" / "runbook_test"
    executable(elsewhere / "bin" / "python", "")
    tool = conda.top / "miniconda3" / "bin" / "conda"
    tool.write_text(tool.read_text().replace('"$(dirname "$envs")"', f'"{elsewhere}"'))
    found = conda.find()
    assert (found["state"], found["python"]) == ("foreign", str(elsewhere / "bin" / "python"))


@pytest.mark.process
def test_a_conda_that_does_not_answer_is_not_told_to_create(conda: Job) -> None:
    """`conda create -y` replaces an environment of that name: not knowing is no reason to run it."""
    executable(conda.top / "miniconda3" / "bin" / "conda", f'echo "$*" >> "{conda.top}/conda_calls"; echo no; exit 1')
    found = conda.find()
    assert found["state"] == "unusable" and "env list --json" in found["why"]
    assert conda.make()[0] == EXIT_REFUSED
    assert set((conda.top / "conda_calls").read_text().splitlines()) == {"env list --json"}


def test_homebrews_folders_are_looked_into_too() -> None:
    """A Mac's usual places; a session without a terminal has none of them in its PATH."""
    from runbook_lib.hosts.ssh import far_end

    assert "/opt/homebrew/Caskroom/miniforge/base" in environment.BASES
    assert "/opt/homebrew/bin" in environment.TOOL_FOLDERS and "/opt/homebrew/bin/python3" in far_end.PLACES


def test_a_conda_outside_path_is_found_where_it_can_be_run_and_path_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "TOOL_FOLDERS", tuple(p for p in environment.TOOL_FOLDERS if p.startswith("~")))
    assert environment._tool() == ""
    found = {}
    for path, mode in (
        ("miniforge3/bin/mamba", 0o644),  # there, but it cannot be run
        (".local/bin/micromamba", 0o755),
        ("miniforge3/condabin/conda", 0o755),
        ("conda", 0o755),
    ):
        executable(tmp_path / path, "exit 0")
        (tmp_path / path).chmod(mode)
        found[path] = environment._tool().removeprefix(f"{tmp_path}/")
    assert list(found.values()) == ["", ".local/bin/micromamba", "miniforge3/condabin/conda", "conda"]


def test_without_conda_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(home, kind="conda:runbook_test", offline=False)
    found = job.find()
    assert (found["state"], found["tool"]) == ("absent", "") and "no conda, mamba, micromamba" in found["why"]
    assert making.create(job.spec()) == EXIT_FAILED
    assert "Install Miniforge" in job.find()["why"]


@pytest.mark.process
def test_an_environment_that_conda_was_killed_over_is_named_and_not_removed(conda: Job) -> None:
    stand_in(
        conda.top, 'mkdir -p "$envs/$name/bin"; cp /bin/true "$envs/$name/bin/python"; echo $$ > "$HOME/pid"; sleep 600'
    )
    child = conda.start()
    pid = int(wait_for(lambda: (conda.top / "pid").exists() and (conda.top / "pid").read_text(), "conda makes it"))
    child.kill()
    child.communicate()
    assert conda.find()["state"] == "creating"
    os.killpg(pid, signal.SIGKILL)  # a session of its own, started for this test
    found = wait_for(lambda: (now := conda.find())["state"] != "creating" and now, "the stand-in has ended")
    assert found["state"] == "unusable" and "conda env remove -n runbook_test" in found["why"]
    before = tree(prefix(conda))
    assert conda.make()[0] == EXIT_REFUSED
    assert tree(prefix(conda)) == before


@pytest.mark.process
def test_a_request_to_stop_ends_the_command_too_and_leaves_a_record(conda: Job) -> None:
    stand_in(conda.top, 'echo $$ > "$HOME/pid"; sleep 600')
    child = conda.start()
    pid = int(wait_for(lambda: (conda.top / "pid").exists() and (conda.top / "pid").read_text(), "conda runs"))
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode == EXIT_STOPPED
    wait_for(lambda: process.start_time(pid) is None, "the stand-in has ended")
    found = conda.find()
    assert found["state"] == "failed" and "stopped by the operator" in found["why"]
    executable(prefix(conda) / "bin" / "python", "")  # made by hand since then: conda had left nothing half made
    assert conda.find()["state"] == "foreign"


@pytest.mark.process
def test_a_failure_is_forgotten_at_the_next_try_which_goes_on_where_the_last_one_stopped(conda: Job) -> None:
    assert conda.make(imports=["other_thing", "no_such_module"])[0] == EXIT_FAILED
    found = conda.find()
    assert found["state"] == "failed"
    assert "import failed (exit code 1): ModuleNotFoundError: No module named 'no_such_module'" in found["why"]
    assert conda.failure()["requirement_line"] is None
    assert conda.make() == (EXIT_DONE, "")
    assert conda.find()["state"] == "ready" and not conda.file(".failed.json").exists()
    assert conda.log().count(" create -y ") == 1


# --- failures of pip --------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    ("lines", "number", "hint"),
    [
        (["other_thing==1.0", "no_such_thing==1"], 2, "lacks it"),
        (["# a comment", "", "other_thing=1.0"], 3, ""),
        (["other_thing==1.0", "Needs.It==1.0"], 2, "lacks it"),  # what it needs is missing
        (["no_such_thing==1 ; python_version < '3'", "no_such_thing==2 ; python_version > '3'"], 2, "lacks it"),
        (["other_thing==1.0 --hash=sha256:" + "0" * 64], 1, "not the one that was pinned"),
        (["other_thing==1.0", "contradicts==1.0"], 2, "fit each other"),
        (["other_thing==1.0", "--no-such-option"], 2, ""),
    ],
    ids=["missing", "invalid", "needed", "marker", "hash", "conflict", "option"],
)
def test_a_failure_names_the_line_of_the_requirements(conda: Job, lines: list[str], number: int, hint: str) -> None:
    wheel(conda.wheels, "needs_it", "never_made>=2")
    wheel(conda.wheels, "contradicts", "other_thing==2.0")
    conda.requirements = "\n".join(lines) + "\n"
    assert conda.make()[0] == EXIT_FAILED
    failure = conda.failure()
    assert failure["requirement_line"] == {"number": number, "text": lines[number - 1]}, failure
    assert hint in failure["hint"]
    assert failure["step"] == "pip install" and 0 < len(failure["tail"]) <= 20
    found = conda.find()
    assert found["state"] == "failed" and f"line {number} of the requirements" in found["why"]
    assert found["log"] == str(conda.file(".log")) and failure["error"] in conda.log()


@pytest.mark.process
def test_a_host_without_a_network_is_told_of_wheels(conda: Job) -> None:
    conda.requirements = "--index-url http://127.0.0.1:9/simple\nother_thing==1.0\n"
    conda.offline = False
    conda.variables = {"PIP_RETRIES": "1"}  # the user's own settings for pip stay in force
    assert conda.make()[0] == EXIT_FAILED
    failure = conda.failure()
    assert failure["requirement_line"] == {"number": 2, "text": "other_thing==1.0"}
    assert "folder of wheels" in failure["hint"]


@pytest.mark.process
def test_a_password_in_the_requirements_is_refused_before_pip_can_print_it(conda: Job) -> None:
    conda.requirements = "# one\n--index-url https://somebody:geheim@127.0.0.1/simple\nother_thing==1.0\n"
    assert conda.make()[0] == EXIT_FAILED
    found = conda.find()
    assert "line 2 of the requirements carries" in found["why"] and "pip.conf" in found["why"]
    written = [path for path in conda.workdir.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
    assert written == [] and not prefix(conda).exists()


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("a @ https://token@host/a.whl", True),
        ("a @ https://user:word@host/a.whl", True),
        ("a @ https://user:${TOKEN}@host/a.whl", False),
        ("a @ git+ssh://git@host/a.git@v1", False),
        ("a @ https://host/a@1.whl", False),
        ("a==1", False),
    ],
)
def test_what_counts_as_a_secret(line: str, secret: bool) -> None:
    assert environment.line_with_secret(f"first\n{line}\n") == (2 if secret else None)


@pytest.mark.process
def test_pip_runs_with_the_users_settings_except_those_that_keep_it_from_working(conda: Job) -> None:
    """A script stands in for pip, prints its variables, and an address from the user's settings."""
    script = "env; echo 'Looking in indexes: https://somebody:geheim@127.0.0.1/'; exit 1"
    python = executable(conda.top / "python", script)
    stand_in(conda.top, f'mkdir -p "$envs/$name/bin"; cp "{python}" "$envs/$name/bin/python"')
    mine = {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_USER": "1", "PYTHONPATH": "/nowhere", "PIP_PROXY": "http://proxy"}
    conda.variables = mine
    assert conda.make()[0] == EXIT_FAILED
    lines = set(conda.log().splitlines())
    assert {"PIP_REQUIRE_VIRTUALENV=0", "PIP_USER=0", "PYTHONNOUSERSITE=1", "PIP_PROXY=http://proxy"} <= lines
    assert "PYTHONPATH=/nowhere" not in lines
    assert "geheim" not in conda.file(".failed.json").read_text() + conda.find()["why"]
    assert conda.file(".log").stat().st_mode & 0o077 == 0


METADATA = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder, "unbuilt-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: unbuilt\\nVersion: 1.0\\n")
    return info.name
"""


@pytest.mark.process
@pytest.mark.parametrize("backend", ["", METADATA], ids=["metadata", "wheel"])
def test_a_package_that_cannot_be_built_here_is_named(conda: Job, backend: str) -> None:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend + "def build_wheel(*given, **named):\n    raise SystemExit('no compiler here')\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: unbuilt\nVersion: 1.0\n",
    }
    with tarfile.open(conda.wheels / "unbuilt-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"unbuilt-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    conda.requirements = "other_thing==1.0\nunbuilt==1.0\n"
    assert conda.make()[0] == EXIT_FAILED
    failure = conda.failure()
    assert failure["requirement_line"] == {"number": 2, "text": "unbuilt==1.0"}
    assert "no ready-made wheel" in failure["hint"] and any("no compiler here" in line for line in failure["tail"])


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "hint"),
    [
        ("echo 'ERROR: Could not install: [Errno 28] No space left on device: /tmp/x'; exit 1", "Free space"),
        ("kill -9 $$", "out of memory"),
    ],
    ids=["disk", "memory"],
)
def test_a_full_disk_and_a_killed_pip_are_told_apart(conda: Job, script: str, hint: str) -> None:
    """A script stands in for the Python that runs pip."""
    python = executable(conda.top / "python", script)
    stand_in(conda.top, f'mkdir -p "$envs/$name/bin"; cp "{python}" "$envs/$name/bin/python"')
    assert conda.make()[0] == EXIT_FAILED
    assert conda.failure()["requirement_line"] is None
    assert hint in conda.failure()["hint"]


@pytest.mark.process
@pytest.mark.parametrize("damage", ["changed", "missing", "too many"])
def test_wheels_that_are_not_those_of_the_digest_are_refused(conda: Job, damage: str) -> None:
    spec = json.loads(conda.spec().read_text())
    path = next(conda.wheels.iterdir())
    if damage == "changed":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "missing":
        path.unlink()
    else:
        wheel(conda.wheels, "one_more")
    assert conda.make(digest=spec["digest"])[0] == EXIT_FAILED
    found = environment.find(conda.kind, str(conda.workdir), spec["digest"])
    assert found["state"] == "failed" and "Send the wheels again" in found["why"]
    assert not prefix(conda).exists()


# --- paths and orders -------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_path_may_be_a_python_or_the_folder_of_an_environment(made: Job, home: Path) -> None:
    (home / "env").symlink_to(made.file(""))
    for kind in (sys.executable, str(made.file("")), "~/env", "~/env/bin/python"):
        found = environment.find(kind, "/nowhere", "")
        assert found["state"] == "ready", found
    assert found["python"] == str(home / "env" / "bin" / "python")  # not what the links lead to: that is another Python


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("~/nothing", "is not there"),
        ("~/empty", "bin/python is not there"),
        ("~/plain", "may not be executed"),
        ("bin/python", "expected an absolute path"),
        ("~nobody_of_that_name/python", "expected an absolute path|nobody_of_that_name"),
    ],
)
def test_a_path_without_a_python_is_unusable_and_says_why(home: Path, kind: str, words: str) -> None:
    (home / "empty").mkdir()
    (home / "plain").write_text("")
    found = environment.find(kind, "/nowhere", "")
    assert (found["state"], found["python"]) == ("unusable", "")
    assert any(word in found["why"] for word in words.split("|"))


@pytest.mark.parametrize(
    ("kind", "digest"), [("conda:", "0" * 64), ("conda:-n", "0" * 64), ("conda:../x", "0" * 64), ("venv", "../" * 21)]
)
def test_what_cannot_be_a_part_of_a_path_is_refused(tmp_path: Path, kind: str, digest: str) -> None:
    with pytest.raises(ValueError, match=r"environment: expected .*, found"):
        environment.find(kind, str(tmp_path), digest)


@pytest.mark.parametrize(
    "change",
    [{"kind": "/usr/bin/python3"}, {"python": "3.11; rm"}, {"imports": ["os; x"]}, {"requirements": None}],
    ids=str,
)
def test_a_wrong_order_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    job = Job(tmp_path, offline=False)
    assert making.create(job.spec(**change)) == EXIT_REFUSED
    assert "expected" in capfd.readouterr().err
    assert not job.workdir.exists()


def test_the_digest_depends_on_every_byte_and_not_on_the_order_of_the_wheels() -> None:
    wheels = [("a.whl", "1" * 64), ("b.whl", "2" * 64)]
    one = environment.digest("torch==1\n", wheels)
    assert one == environment.digest("torch==1\n", wheels[::-1])
    others = [("torch==1", wheels), ("torch==1\n", wheels[:1]), ("torch==1\n", [("a.whl", "2" * 64), wheels[1]])]
    assert len({one, *(environment.digest(*other) for other in others)}) == 4


def test_the_workers_requirements_are_the_projects_constraints() -> None:
    pins = [
        line for line in (ROOT / "worker" / "requirements.txt").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert set(pins) <= set((ROOT / "constraints.txt").read_text().splitlines())
    names = ["torch", "sentence-transformers", "transformers", "numpy", "huggingface-hub", "safetensors", "tokenizers"]
    constrained = (ROOT / "constraints.txt").read_text().splitlines()
    assert sorted(pins) == sorted(line for line in constrained if line.split("==")[0] in names)
