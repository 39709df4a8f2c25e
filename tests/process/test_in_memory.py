"""Files of tests lie in memory where there is room, and are gone when all tests passed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import in_memory
import pytest
from box import HELPERS

TESTS = """
import os
from pathlib import Path

def test_made_up(tmp_path):
    Path(os.environ["TELL"]).write_text(str(tmp_path))
    assert "FAIL" not in os.environ
"""


def where_it_was(folder: Path, **variables: str) -> Path:
    """The folder that a test had, in a session of its own."""
    (folder / "test_made_up.py").write_text(TESTS)
    own = {name: value for name, value in os.environ.items() if name != "TMPDIR" and "XDIST" not in name}
    own |= {"PYTHONPATH": str(HELPERS), "TELL": str(folder / "told"), **variables}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "in_memory", "-p", "no:cacheprovider", "test_made_up.py"]
    done = subprocess.run(argv, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == ("FAIL" in variables), done.stdout
    return Path((folder / "told").read_text())


@pytest.mark.skipif(not in_memory.has_room(in_memory.MEMORY), reason="no room in memory on this machine")
@pytest.mark.parametrize("more", [{}, {"FAIL": "yes"}], ids=["all passed", "one failed"])
def test_they_are_in_memory_and_stay_when_one_failed(tmp_path: Path, more: dict[str, str]) -> None:
    found = where_it_was(tmp_path, **more)
    assert found.is_relative_to(in_memory.MEMORY) and found.exists() is bool(more)
    shutil.rmtree(found.parent, ignore_errors=True)


def test_a_folder_that_a_person_chose_is_taken_and_kept(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    found = where_it_was(tmp_path, TMPDIR=str(chosen))
    assert found.is_relative_to(chosen.resolve()) and found.exists()


def test_memory_that_is_small_or_runs_no_programs_or_is_not_there_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory, "ROOM", 0)
    assert in_memory.has_room(tmp_path) and not in_memory.has_room(tmp_path / "nowhere")
    monkeypatch.setattr(os, "ST_NOEXEC", os.statvfs(tmp_path).f_flag | 1)
    assert not in_memory.has_room(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(in_memory, "ROOM", 2**80)
    assert not in_memory.has_room(tmp_path)
