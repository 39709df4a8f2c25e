"""Notebooks that a person executed: kept when they end with this run's result, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import made_up
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from runbook_lib.errors import DataError
from runbook_lib.report import by_hand, ending, gate, report, verification
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker.files import sha256_file


def executed(path: Path, shown: Checks) -> Path:
    """A notebook as it is saved after its gate."""
    outputs = [new_output("execute_result", data={"text/plain": repr(shown), "text/html": shown._repr_html_()})]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell("gate.gate(...)", outputs=outputs)]), path)
    return path


@pytest.fixture
def this(tmp_path: Path) -> Run:
    """A finished run of which no notebook is kept; those that a person saved lie in `hand`."""
    made = made_up.run_folder(tmp_path, count=12)
    made.commit_all()
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        executed(tmp_path / "hand" / f"{phase}.ipynb", gate.gate(made.run, phase, checks))
    made.run.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(made.run)
    shown = gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    executed(tmp_path / "hand" / "my copy.ipynb", shown)
    return made.run


def kept(run: Run) -> set[str]:
    return {path.stem for path in run.report.glob("*.ipynb")}


def test_each_says_itself_which_phase_it_is_and_the_archive_holds_them(this: Run, tmp_path: Path) -> None:
    for name, phase in (("02_launch.ipynb", PHASES[1]), ("my copy.ipynb", PHASES[3])):
        assert by_hand.add_notebook(this, tmp_path / "hand" / name) == phase
    assert kept(this) == {PHASES[1], PHASES[3]}
    report.seal(this)
    checks = verification.verify(this)
    assert checks.ok, checks
    assert any(check.name == verification.NOTEBOOKS and "2 notebooks" in check.seen for check in checks)
    assert f"notebook-{PHASES[3]}" in (this.report / "report.html").read_text()


def test_one_that_takes_the_place_of_an_earlier_execution_is_vouched_for(this: Run, tmp_path: Path) -> None:
    """The journal says which sum the file had before."""
    before = executed(this.report / f"{PHASES[1]}.ipynb", Checks("an earlier execution"))
    wrote = {f"{this.report.name}/{before.name}": sha256_file(before)}
    this.journal.write("phase ended", phase=PHASES[1], attempt=1, seconds=1.0, reason="", wrote=wrote)
    by_hand.add_notebook(this, tmp_path / "hand" / "02_launch.ipynb")
    report.seal(this)
    assert verification.verify(this).ok, verification.verify(this)


def test_those_that_lie_in_a_folder_are_found_and_one_that_is_kept_stays(this: Run, tmp_path: Path) -> None:
    mine = executed(this.report / f"{PHASES[0]}.ipynb", Checks("another execution"))
    before = mine.read_bytes()
    (tmp_path / "hand" / "notes.ipynb").write_text("no notebook")
    os.mkfifo(tmp_path / "hand" / "a pipe.ipynb")
    added = by_hand.add_beside(this, [tmp_path / "nowhere", tmp_path / "hand"])
    assert sorted(added) == list(PHASES[1:])
    assert mine.read_bytes() == before
    assert by_hand.add_beside(this, [tmp_path / "hand"]) == []


def test_one_of_another_run_or_of_an_earlier_execution_is_refused(this: Run, tmp_path: Path) -> None:
    checks = Checks("a fact")
    checks.add("a fact", True, "seen later")
    gate.gate(this, PHASES[1], checks)  # the phase was executed again since
    with pytest.raises(DataError, match=r"ended with the result .* expected that of a phase of run made-up"):
        by_hand.add_notebook(this, tmp_path / "hand" / "02_launch.ipynb")
    assert PHASES[1] not in by_hand.add_beside(this, [tmp_path / "hand"])


@pytest.mark.parametrize("content", ["", "{}", '{"cells": [1]}', "[[]]", '{"cells": [{"outputs": [{"data": 3}]}]}'])
def test_what_is_no_executed_notebook_is_refused(this: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(DataError, match="no gate has printed a result"):
        by_hand.add_notebook(this, path)
    with pytest.raises(DataError, match="expected an executed notebook"):
        by_hand.add_notebook(this, tmp_path)


def test_a_gate_says_what_comes_next(this: Run, tmp_path: Path) -> None:
    assert "next: open 02_launch.ipynb" in by_hand.shown(tmp_path / "hand" / "01_preflight.ipynb")
    assert "next: open 03_monitor.ipynb" in by_hand.shown(tmp_path / "hand" / "02_launch.ipynb")
    assert "next: the report and the seal, below" in by_hand.shown(tmp_path / "hand" / "my copy.ipynb")


def test_the_last_cell_seals_and_says_where_all_is(this: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "hand")
    (tmp_path / "hand" / "my copy.ipynb").rename(tmp_path / "not yet saved")
    shown = ending.seal(this)
    assert kept(this) == set(PHASES[:3]) and this.sums.exists()
    words, html = repr(shown), shown._repr_html_()
    assert str(this.report / "report.html") in words and str(this.merged / "embeddings.npy") in words
    assert f"not in the report: {PHASES[3]}." in words
    assert f'href="{os.path.relpath(this.report)}/report.html"' in html
    example = shown.example.splitlines()
    exec("\n".join(example[:2]), space := {})  # its third line needs the model
    assert space["result"].manifest.documents == 12
    (tmp_path / "not yet saved").rename(tmp_path / "hand" / "my copy.ipynb")
    assert "not in the report" not in repr(ending.seal(this))
