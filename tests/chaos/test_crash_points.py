"""Ended by SIGKILL at a call that changes a file, each operation goes on when started again; broken ones are found.

A fifth of the points here; `python tests/chaos/crash_points.py` tries them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "crash_points.py"


def command(*more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)


def crashed(*more: str) -> dict[str, Any]:
    done = command("--json", *more)
    found: dict[str, Any] = json.loads(done.stdout or "null") or pytest.fail(done.stderr)
    assert done.returncode == (1 if found["bad"] else 0), done.stderr
    return found


def traced(*more: str) -> subprocess.CompletedProcess[str]:
    """Skips where strace cannot be used; where all that needs an installation is asked for, that is a failure."""
    done = command(*more)
    if done.returncode == 2:
        (pytest.fail if os.environ.get("RUNBOOK_REQUIRE_SSH") else pytest.skip)(done.stderr.strip())
    return done


def test_every_operation_recovers_from_a_kill_at_any_call() -> None:
    found = crashed("--every", "5")
    assert [result["scene"] for result in found["results"]] == ["part", "journal", "new-run", "landing", "plan"]
    assert found["bad"] == 0, [entry for result in found["results"] for entry in result["bad"]]
    assert found["points"] > 40
    kinds = set().union(*(result["calls"] for result in found["results"]))
    assert {"create", "write", "sync", "rename", "sync_folder", "unlink", "mkdir", "cut"} <= kinds


@pytest.mark.parametrize(("control", "scene"), [("direct", "plan"), ("record-first", "part"), ("torn-line", "journal")])
def test_a_broken_product_is_found(control: str, scene: str) -> None:
    """Bytes written to the final name, the record before its array, a journal that goes on behind half a line."""
    assert crashed("--control", control, "--scene", scene, "--every", "3")["bad"] > 0


def test_the_recorder_sees_every_call_that_the_kernel_sees() -> None:
    """Of a worker as launch starts it, with Python's own file objects: so no crash point is left out."""
    done = traced("--compare")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_ended_from_outside_recovers() -> None:
    """By strace, at a few of its calls: the first array's commit is among them."""
    done = traced("--strace", "--first", "30", "--every", "24")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 recovered" in done.stdout
