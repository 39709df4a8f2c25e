"""What a Mac does otherwise, on a machine that plays one: see `tests.helpers.pseudo_mac`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pseudo_mac
import pytest

ROOT = Path(__file__).parents[2]
# Which process is which, stopping, taking over, environments, the archive: what a Mac's operator stands on.
TRIED = [
    "tests/unit/worker/test_process.py",
    "tests/helpers/mac/test_on_a_mac.py",
    "tests/unit/worker/test_environment.py::test_a_killed_making_is_taken_up_again_beside_an_older_environment",
    "tests/unit/worker/test_environment.py::test_a_half_made_venv_is_not_removed_under_a_process",
    "tests/unit/worker/test_supervise.py::test_its_workers_outlive_it_and_the_next_one_takes_them_over",
    "tests/unit/worker/test_supervise.py::test_stopping_ends_all_workers_and_keeps_what_is_committed",
]


@pytest.fixture(autouse=True)
def there_is_one() -> None:
    if why := pseudo_mac.unavailable():
        pytest.skip(f"no pseudo-Mac: {why}")


def on_a_mac(*tests: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return pseudo_mac.run(argv, cwd=root, capture_output=True)


def test_what_a_macs_operator_stands_on_holds_there() -> None:
    done = on_a_mac(*TRIED)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "mend", "without"),
    [
        ("worker/process.py", "kern.bootsessionuuid", "kern.boottime"),
        ("worker/process.py", '"TZ": "UTC0"', '"TZ": __import__("os").environ.get("TZ", "")'),
        ("worker/process.py", "note.verb in VERBS]", "False]"),
        ("worker/making.py", "lines = process.command_lines()", "lines = None"),
    ],
    ids=["boot session", "time of the world", "signed locks", "ps"],
)
def test_with_a_mend_taken_out_it_goes_red(tmp_path: Path, file: str, mend: str, without: str) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("worker", "tests", "demo"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = (tmp_path / file).read_text()
    assert text.count(mend) == 1
    (tmp_path / file).write_text(text.replace(mend, without))
    done = on_a_mac("tests/helpers/mac/test_on_a_mac.py", root=tmp_path)
    assert done.returncode == 1 and " failed" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
