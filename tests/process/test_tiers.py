"""A test says what it starts: one that starts a process and does not say so fails."""

import os
import subprocess
import sys

import pytest
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
