"""A test says what it starts: one that starts a process and does not say so fails."""

import os
import subprocess
import sys

import pytest
import tiers
from box import HELPERS

TESTS = """
import subprocess, sys, os
import pytest

def start():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.fixture
def started():
    start()

def test_of_files(tmp_path):
    (tmp_path / "file").touch()

def test_silent():
    start()

def test_asks(started):
    pass

def test_forks():
    if not os.fork():
        os._exit(0)
    os.wait()

@pytest.mark.process
def test_marked(started):
    start()

@pytest.mark.kernel
def test_marked_by_another():
    start()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on a Mac the library itself starts `ps`")
def test_a_test_that_starts_a_process_and_is_not_marked_fails(tmp_path):
    (tmp_path / "test_made_up.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "tiers", "-p", "no:cacheprovider", "test_made_up.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HELPERS)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    ends = {}
    for line in done.stdout.splitlines():
        if "::" in line and line.split()[0] in ("PASSED", "FAILED", "ERROR"):
            ends[line.split("::")[1].split()[0]] = line.split()[0]
    assert ends == {
        "test_of_files": "PASSED", "test_silent": "FAILED", "test_asks": "ERROR", "test_forks": "FAILED",
        "test_marked": "PASSED", "test_marked_by_another": "PASSED",
    }, done.stdout  # fmt: skip
    assert "it starts a process and is not marked" in done.stdout


def test_the_files_that_come_first_are_there():
    there = {path.stem for path in HELPERS.parent.rglob("test_*.py")}
    assert set(tiers.LONGEST) <= there and len(set(tiers.LONGEST)) == len(tiers.LONGEST)


SKIPPED = """
import pytest

@pytest.fixture(scope="session")
def fleet():
    pytest.skip("no SSH hosts: no sshd")

def test_with_a_fixture(fleet):
    pass

@pytest.mark.skipif(True, reason="needs OpenSSH's server")
def test_by_its_mark():
    pass

def test_of_a_shell():
    pytest.skip("no OpenSSH's tcsh on this machine")

def test_of_something_else():
    pytest.skip("no torch")
"""


@pytest.mark.parametrize("asked", [False, True])
def test_where_ssh_is_asked_for_a_test_that_is_skipped_for_want_of_it_fails(tmp_path, asked):
    """Wherever it stands: those of the chaos suite are in no folder of that name."""
    (tmp_path / "test_made_up.py").write_text(SKIPPED)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RUNBOOK_REQUIRE")}
    environment |= {"PYTHONPATH": str(HELPERS), **({"RUNBOOK_REQUIRE_SSH": "1"} if asked else {})}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tiers", "-p", "no:cacheprovider", "-rN", "test_made_up.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counts = done.stdout.splitlines()[-1]
    assert ("2 skipped, 2 errors" if asked else "4 skipped") in counts, done.stdout
    assert done.stdout.count("skipped, though tests of SSH are asked for") == 2 * asked
