"""The same command on a finished run: what was lost is made anew, and what cannot be is named.

A run of the real model by the command line; each test harms it and gives the command again.
"""

import json
import shutil
from pathlib import Path

import pytest
from small_run import make_profile, runbook, runbook_here

from runbook_lib.chain import attempts, endings
from runbook_lib.chain.endings import ProcessEnd
from runbook_lib.report import report
from runbook_lib.run import run
from worker.files import sha256_file

NAME = "repaired"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    path = make_profile(tmp_path_factory.mktemp("repair"))
    runbook("run", path, "--run", NAME, cwd=path.parent)
    return path


@pytest.fixture
def this(there):
    return run.open_folder(there.parent / "runs" / NAME)


def again(path, code=0, *more):
    return runbook("run", path, "--run", NAME, *more, cwd=path.parent, code=code)


def results(this):
    files = [*this.merged.iterdir(), this.founding_file]
    return {path.name: sha256_file(path) for path in files}


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


@pytest.mark.process
def test_a_sound_run_is_looked_at_and_nothing_of_it_runs_again(there, this):
    before = this.sums.read_bytes()
    assert "looked at now, every byte" in again(there)
    assert "looked at now, sizes of large files" in again(there, 0, "--quick")
    assert this.sums.read_bytes() == before


@pytest.mark.process
def test_the_executed_notebooks_name_the_profile_that_was_used(there, this):
    for phase in run.PHASES:
        cells = json.loads((this.report / f"{phase}.ipynb").read_text())["cells"]
        sources = ["".join(cell["source"]) for cell in cells]
        assert any(f'profile = "{there}"' in source for source in sources), phase
        assert not any("demo.yaml" in source for source in sources), phase


@pytest.mark.process
def test_a_lost_result_is_merged_again_byte_for_byte(there, this):
    good = results(this)
    (this.merged / "embeddings.npy").unlink()
    this.founding_file.unlink()
    status = runbook_here("status", this.folder, cwd=there.parent, code=1)
    assert "verdict: damaged: " in status and "embeddings.npy: no such file" in status
    assert "was not sealed again" in runbook_here("report", this.folder, cwd=there.parent, code=1)
    assert "not as sealed: every file as listed: merged/embeddings.npy" in again(there)
    assert results(this) == good
    assert report.verify(this).ok
    assert "damage found: " in (this.notes / "failures.log").read_text()


@pytest.mark.process
def test_a_part_that_decayed_at_home_comes_anew_from_its_host(there, this):
    part = sorted(this.local.parts.glob("*.npy"))[1]
    good = sha256_file(part)
    flip(part)
    again(there)
    assert sha256_file(part) == good
    assert report.verify(this).ok
    assert next(this.journal.events("part put aside"))["part"] == part.name


@pytest.mark.process
def test_lost_records_of_phases_are_restored_from_their_second_copies(there, this):
    (this.report / "02_launch.result.json").unlink()
    (this.report / "03_monitor.ipynb").unlink()
    flip(this.report / "01_preflight.result.json")
    said = again(there)
    assert "done in" not in said
    assert report.verify(this).ok


@pytest.mark.process
def test_a_lost_backup_is_made_anew(there, this):
    for copy in this.profile.output.backups.glob("*.pkl"):
        copy.unlink()
    again(there, 0, "--quick")
    assert report.verify(this).ok


@pytest.mark.process
def test_fetch_looks_at_what_it_counts(there, this):
    part = sorted(this.local.parts.glob("*.npy"))[2]
    part.write_bytes(part.read_bytes()[:-4])
    said = runbook_here("fetch", this.folder, cwd=there.parent)
    assert f"put aside: {part.name}: expected" in said and "1 parts fetched; 70 of 70 rows" in said
    assert report.verify(this).ok


@pytest.mark.process
def test_what_nobody_can_make_anew_is_named_and_no_seal_is_put_on_it(there, this):
    journal = this.journal.path
    whole, sums = journal.read_bytes(), this.sums.read_bytes()
    try:
        journal.write_bytes(whole.replace(b'"run created"', b'"run CREATED"', 1))
        assert "was not sealed again" in again(there, 1)
        assert this.sums.read_bytes() == sums
        assert "damage found" in (this.notes / "failures.log").read_text()
    finally:
        journal.write_bytes(whole)
    report.seal(this)
    assert report.verify(this).ok


# ----------------------------------------------------------------------------- a run that fails, and what is said of it


@pytest.mark.process
def test_a_run_that_fails_at_its_first_phase_has_its_notes_and_its_verdict(tmp_path):
    path = make_profile(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("{half\n")
    runbook("run", path, "--run", "failed", cwd=tmp_path, code=1)
    this = run.open_folder(tmp_path / "runs" / "failed")
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
    this = run.create(run.profiles.load(path), "numbered")
    this.journal.write("phase started", phase=run.PHASES[0], attempt=1)
    assert attempts._attempts(this, run.PHASES[0]) == 1
    assert Path(this.report / "attempts").exists() is False
