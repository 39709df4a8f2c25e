"""The whole way with real parts: four notebooks, two local hosts, the real all-MiniLM-L6-v2; then harm to its result.

All tests share one run. Each that harms it leaves it whole, and the last takes its hosts' files away.
"""

import json
import pickle
import shutil

import numpy as np
import pytest
from small_run import DOCUMENTS, by_the_library, make_profile, runbook, runbook_here, undisturbed

import runbook_lib
from runbook_lib.corpus import corpus
from runbook_lib.report import report
from runbook_lib.run import model as models
from runbook_lib.run import opening, run
from worker.files import sha256_file
from worker.layout import HostFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One undisturbed run by the command line, and what it printed."""
    made = undisturbed(tmp_path_factory)
    return opening.open_folder(made.folder), made.said


def test_the_command_ends_with_the_paths_of_report_and_vectors(finished):
    this, said = finished
    assert "All checks hold" in said
    assert str(this.report / "report.html") in said
    assert str(this.merged / "embeddings.npy") in said
    assert "Traceback" not in said


def test_every_row_is_the_librarys_own_vector_of_that_document(finished):
    this, _ = finished
    expected = by_the_library(this.profile.corpus.path)
    found = np.load(this.merged / "embeddings.npy", allow_pickle=False)
    assert found.shape == expected.shape
    assert (found * expected).sum(axis=1).min() >= 1 - 1e-6


def test_the_founding_file_holds_the_same_vectors_and_the_articles_in_order(finished):
    this, _ = finished
    with this.founding_file.open("rb") as file:
        data = pickle.load(file)
    assert sorted(data) == ["articles", "embedding_dim", "embeddings", "model", "timestamp", "total_articles"]
    assert np.array_equal(data["embeddings"], np.load(this.merged / "embeddings.npy"))
    source = [json.loads(line) for line in this.profile.corpus.path.read_text().splitlines()]
    assert data["articles"] == [{key: item[key] for key in ("id", "title", "url")} for item in source]
    assert data["total_articles"] == len(source)


def test_questions_leave_by_kind(finished):
    this, _ = finished
    assert np.load(this.merged / "questions.npy").shape == (10, 384)
    assert np.load(this.merged / "embeddings.npy").shape == (DOCUMENTS, 384)


def test_the_archive_verifies_and_four_executed_notebooks_are_in_it(finished):
    this, _ = finished
    assert "FAILED" not in runbook_here("verify", this.folder, cwd=this.folder)
    for phase in run.PHASES:
        assert (this.report / f"{phase}.ipynb").stat().st_size > 1000
    page = (this.report / "report.html").read_text()
    assert "Succeeded" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_a_finished_run_is_searched_by_questions_with_its_own_model(finished):
    this, _ = finished
    result = runbook_lib.load(this.folder)
    asked = [record["question"] for record in corpus.load(this.corpus).questions_list()]
    found = result.embed(asked)
    assert (found * result.questions).sum(axis=1).min() >= 1 - 1e-6
    said = runbook_here("search", this.folder, asked[0], "-n", "2", "--texts", cwd=this.folder)
    best = result.nearest(found[0], 2)
    assert [f"(row {each.row}, " in said for each in best] == [True, True]
    assert said.index(f"(row {best[0].row}, ") < said.index(f"(row {best[1].row}, ")
    assert "question 2 is empty" in runbook_here("search", this.folder, asked[0], " ", cwd=this.folder, code=1)


def test_another_model_than_the_runs_own_is_refused_for_a_search(finished, tmp_path):
    this, _ = finished
    other = shutil.copytree(models.resolve(this.profile.model).folder, tmp_path / "other")
    (other / "config_sentence_transformers.json").write_text("{}")
    said = runbook_here("search", this.folder, "anything", "--model", other, cwd=this.folder, code=1)
    assert "files of the model: expected digest" in said


def test_a_changed_byte_in_the_matrix_is_named(finished, tmp_path):
    this, _ = finished
    path = this.merged / "embeddings.npy"
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert "embeddings.npy" in runbook_here("verify", this.folder, cwd=this.folder, code=1)
    finally:
        path.write_bytes(before)


def test_status_for_programs_has_the_founding_fields(finished):
    this, _ = finished
    found = json.loads(runbook_here("status", this.folder, "--json", cwd=this.folder))
    assert set(found) == {"cluster0_gpu0", "cluster1_gpu0", "_summary"}
    slot = found["cluster1_gpu0"]
    founding = {"start_index", "end_index", "items_processed", "processing_time", "rate", "completed_at", "output_file"}
    assert founding <= set(slot)
    assert (slot["start_index"], slot["end_index"], slot["items_processed"]) == (35, 70, 35)
    summary = found["_summary"]
    assert summary["total_workers_completed"] == 2
    assert summary["total_items_processed"] == summary["target_items"] == DOCUMENTS + 10
    assert summary["percent_complete"] == 100


def test_logs_fetch_and_stop_of_a_finished_run(finished):
    this, _ = finished
    assert "committed rows" in runbook_here("logs", this.folder, "cluster0_gpu0", cwd=this.folder)
    assert "supervisor" in runbook_here("logs", this.folder, "one", cwd=this.folder)
    assert "cluster9_gpu9" in runbook_here("logs", this.folder, "cluster9_gpu9", cwd=this.folder, code=1)
    assert "0 parts fetched; 70 of 70 rows" in runbook_here("fetch", this.folder, cwd=this.folder)


def test_two_hosts_sharing_one_folder_do_not_collide(finished):
    this, _ = finished
    there = HostFolder(this.profile.corpus.path.parent / "shared" / this.name)
    assert there.assignment("one").exists()
    assert there.assignment("two").exists()
    assert len(list(there.parts.glob("*.json"))) == 10


def test_the_padding_stays_within_two_percent(finished):
    this, _ = finished
    records = [json.loads(path.read_text()) for path in this.local.parts.glob("*.json")]
    assert sum(r["padded_tokens"] for r in records) <= 1.02 * sum(r["real_tokens"] for r in records)


# ------------------------------------------------- the same command on it: what was lost is made anew, or it is named


@pytest.fixture
def there(finished):
    return finished[0].profile.corpus.path.parent / "small.yaml"


@pytest.fixture
def this(finished):
    return finished[0]


def again(path, code=0, *more):
    (folder,) = (path.parent / "runs").iterdir()
    return runbook("run", path, "--run", folder.name, *more, cwd=path.parent, code=code)


def results(this):
    files = [*this.merged.iterdir(), this.founding_file]
    return {path.name: sha256_file(path) for path in files}


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def test_a_sound_run_is_looked_at_and_nothing_of_it_runs_again(there, this):
    before = this.sums.read_bytes()
    assert "looked at now, every byte" in again(there)
    assert "looked at now, sizes of large files" in again(there, 0, "--quick")
    assert this.sums.read_bytes() == before


def test_the_executed_notebooks_name_the_profile_that_was_used(there, this):
    for phase in run.PHASES:
        cells = json.loads((this.report / f"{phase}.ipynb").read_text())["cells"]
        sources = ["".join(cell["source"]) for cell in cells]
        assert any(f'profile = "{there}"' in source for source in sources), phase
        assert not any("demo.yaml" in source for source in sources), phase


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


def test_a_part_that_decayed_at_home_comes_anew_from_its_host(there, this):
    part = sorted(this.local.parts.glob("*.npy"))[1]
    good = sha256_file(part)
    flip(part)
    again(there)
    assert sha256_file(part) == good
    assert report.verify(this).ok
    assert next(this.journal.events("part put aside"))["part"] == part.name


def test_lost_records_of_phases_are_restored_from_their_second_copies(there, this):
    (this.report / "02_launch.result.json").unlink()
    (this.report / "03_monitor.ipynb").unlink()
    flip(this.report / "01_preflight.result.json")
    said = again(there)
    assert "done in" not in said
    assert report.verify(this).ok


def test_a_lost_backup_is_made_anew(there, this):
    for copy in this.profile.output.backups.glob("*.pkl"):
        copy.unlink()
    again(there, 0, "--quick")
    assert report.verify(this).ok


def test_fetch_looks_at_what_it_counts(there, this):
    part = sorted(this.local.parts.glob("*.npy"))[2]
    part.write_bytes(part.read_bytes()[:-4])
    said = runbook_here("fetch", this.folder, cwd=there.parent)
    assert f"put aside: {part.name}: expected" in said and "1 parts fetched; 70 of 70 rows" in said
    assert report.verify(this).ok


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


# ---------------------------------------------------------------------------------------------------- what is left


def test_clean_lists_and_removes_only_this_runs_files(finished):
    """The last test of this run: it takes the hosts' files away."""
    this, _ = finished
    there = this.profile.corpus.path.parent / "shared"
    other = there / "another-run" / "precious"
    other.parent.mkdir()
    other.write_text("mine")
    listed = runbook_here("clean", this.folder, cwd=this.folder)
    assert "nothing was removed" in listed
    assert (there / this.name).exists()
    runbook_here("clean", this.folder, "--yes", cwd=this.folder)
    assert not (there / this.name).exists()
    assert other.read_text() == "mine"
    runbook_here("verify", this.folder, cwd=this.folder)


def test_a_corpus_that_changed_since_it_was_numbered_is_refused(tmp_path):
    path = make_profile(tmp_path / "changed")
    runbook("check", path, cwd=path.parent)
    source = path.parent / "corpus.jsonl"
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([lines[1], lines[0], *lines[2:]]))
    said = runbook("check", path, cwd=path.parent, code=1)
    assert "corpus.path" in said and "edited since" in said and "--new" in said
    (folder,) = (path.parent / "runs").iterdir()
    assert corpus.load(folder / "corpus").documents == DOCUMENTS
