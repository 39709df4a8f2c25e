"""A run that fails, and what is said of it. A finished run that is harmed: process/test_end_to_end.py."""

import shutil
from pathlib import Path

import pytest
from small_run import make_profile, runbook, runbook_here

from runbook_lib.chain import attempts, endings
from runbook_lib.chain.endings import ProcessEnd
from runbook_lib.run import opening, run


@pytest.mark.process
def test_a_run_that_fails_at_its_first_phase_has_its_notes_and_its_verdict(tmp_path):
    path = make_profile(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("{half\n")
    runbook("run", path, "--run", "failed", cwd=tmp_path, code=1)
    this = opening.open_folder(tmp_path / "runs" / "failed")
    assert "phase failed" in (this.notes / "failures.log").read_text()
    (form,) = this.notes.glob("execution_report_*.md")
    assert "NOT SUCCEEDED" in form.read_text() and "UMAP" not in form.read_text()
    status = runbook_here("status", this.folder, cwd=tmp_path, code=1)
    assert "✗ 01_preflight: failed" in status and "02_launch: not yet" in status
    shutil.rmtree(tmp_path / "runs")


KILLED = "killed (SIGKILL): the system's memory killer, or a person"
NOISE = "  warnings.warn(\nKernel is running over TCP without encryption\n"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (ProcessEnd(1, "kernel ended: -9\n"), f"the kernel died: {KILLED}"),
        (ProcessEnd(1, "kernel ended: -9\n", 1), "the kernel died: killed (SIGKILL) by the system's memory killer"),
        (ProcessEnd(1, "kernel ended: -11\n"), "the kernel died: ended by SIGSEGV"),
        (ProcessEnd(1, "kernel ended: 3\n"), "the kernel died: it ended by itself with exit code 3"),
        (ProcessEnd(1, "kernel ended: unknown\n"), "the kernel died: how it ended is not known"),
        (
            ProcessEnd(-9, "  warnings.warn(\nKernel is running over TCP without encryption\n"),
            "executes the notebook died: killed",
        ),
        (
            ProcessEnd(1, "ValueError: no room\n  warnings.warn(\nKernel is running over TCP\n"),
            "exit code 1: ValueError: no room",
        ),
        (ProcessEnd(1, "\n"), "exit code 1: it printed nothing"),
    ],
)
def test_the_cause_of_an_end_is_told_by_exit_codes_and_never_by_a_warning(ended, said):
    words = endings.words(ended)
    assert said in words and "TCP" not in words and "()" not in words


def test_an_attempt_is_numbered_even_where_the_one_before_left_no_notebook(tmp_path):
    path = make_profile(tmp_path)
    this = opening.create(run.profiles.load(path), "numbered")
    this.journal.write("phase started", phase=run.PHASES[0], attempt=1)
    assert attempts._attempts(this, run.PHASES[0]) == 1
    assert Path(this.report / "attempts").exists() is False
