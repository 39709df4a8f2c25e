"""The notebooks as they are committed, in order, with their default parameters: the demo, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.kernel
def test_every_cell_runs_with_the_default_parameters():
    """By nbval, in which no papermill gives parameters: the one whole run of the demo in all tests."""
    options = ["--nbval-lax", "--nbval-cell-timeout=900", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "notebooks"],
        cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
