"""What a test starts, as a marker: by its folder, or by its own word in tests/unit; a test that starts more fails.

A pytest plugin. `MARKS` is what `make test-quick` leaves out.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

MARKS = ("process", "kernel", "ssh", "browser", "slurm", "chaos")
# Folder of tests/ -> what all of its tests start.
FOLDERS = {
    "helpers": "process",
    "process": "process",
    "ssh": "ssh",
    "browser": "browser",
    "slurm": "slurm",
    "chaos": "chaos",
    "trials": "chaos",
}
# Files that take a minute or more. One that makes the run that others compare with comes before those that wait for it.
LONGEST = (
    "test_interrupted", "test_chaos", "test_lowest", "test_end_to_end_ssh", "test_second_run", "test_slurm_faults",
    "test_wrong_slots", "test_link", "test_end_to_end", "test_lab", "test_the_version_before", "test_notebooks",
    "test_known_texts_there", "test_third_machine", "test_benchmarks", "test_odd_models", "test_ssh_run", "test_real",
    "test_slurm_run", "test_passages_again", "test_pseudo_mac", "test_cluster", "test_doubled", "test_trials",
    "test_warm", "test_encoder", "test_supervise",
)  # fmt: skip
# Switch -> by what a test is known that may not be skipped then: a folder, a file, a word of its reason; and its kind.
REQUIRED = {
    "RUNBOOK_REQUIRE_SSH": ("ssh", "SSH", "tests of SSH"),
    "RUNBOOK_REQUIRE_SLURM": ("slurm", "Slurm", "tests on a Slurm"),
    "RUNBOOK_REQUIRE_BROWSER": ("browser", "Chromium", "tests in a browser"),
    "RUNBOOK_REQUIRE_MAC": ("test_pseudo_mac", "pseudo-Mac", "tests on a machine that plays a Mac"),
    "RUNBOOK_REQUIRE_REGISTRY": ("test_lowest", "registry", "tests that ask the package registry"),
}
# Events of `sys.addaudithook` by which a process begins.
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}

_pid = os.getpid()
_started: list[str] = []  # what this process has started since the last report


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and os.getpid() == _pid:
        _started.append(f"{event} {arguments[1] if event == 'subprocess.Popen' else ''}"[:200])


if sys.platform == "linux":  # on a Mac the library asks `ps` where Linux has files, so there a start tells nothing
    platform.processor()  # asks `uname` once a process, whoever wants to know it first
    sys.addaudithook(_listen)  # it cannot be taken away again, so it only takes notes


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder of tests/ in which it stands, before any is chosen by its marks.

    The longest files come first, then the others with marks: of those that take files turn by turn, none is left with
    a long one at the end.
    """
    tests = Path(__file__).parents[1]
    for item in items:
        if item.path.is_relative_to(tests) and (mark := FOLDERS.get(item.path.relative_to(tests).parts[0])):
            item.add_marker(mark)
    starting = {item.path for item in items if marked(item)}
    turn = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: (turn.get(item.path.stem, len(turn)), item.path not in starting))


def marked(item: pytest.Item) -> bool:
    """Whether a test says that it starts something."""
    return any(item.get_closest_marker(mark) for mark in MARKS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget what was started before this test."""
    _started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test without a mark fails when it, or a fixture that it was the first to ask for, started a process.

    Its end is not looked at: what a fixture of many tests does when it is over falls to whichever test is the last. And
    where tests of a kind are asked for, one that is skipped fails.
    """
    report = yield
    if report.skipped and (kind := _asked_for(item, report)):
        report.outcome, report.longrepr = "failed", f"skipped, though {kind} are asked for: {report.longrepr}"
    if _started and not marked(item) and report.passed and report.when != "teardown":
        report.outcome = "failed"
        report.longrepr = f"it starts a process and is not marked as one that does, {MARKS}: {_started[0]}"
    _started.clear()
    return report


def _asked_for(item: pytest.Item, report: pytest.TestReport) -> str:
    """Of which kind a skipped test is that may not be skipped now; empty where it may. A login shell may be missing."""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    tests = Path(__file__).parents[1]
    path = item.path.relative_to(tests) if item.path.is_relative_to(tests) else item.path
    for switch, (place, word, kind) in REQUIRED.items():
        if os.environ.get(switch) and (place in (*path.parts, path.stem) or word in reason):
            return "" if place == "ssh" and reason.endswith("on this machine") else kind
    return ""
