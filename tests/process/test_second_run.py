"""A second run by the command line with the real all-MiniLM-L6-v2: only what changed is computed, all else is taken."""

import json
import subprocess
from pathlib import Path

import forking
import numpy as np
import pytest
from small_run import by_the_library, digest, make_profile, runbook, runbook_here
from waiting import wait_for

from runbook_lib.report import report
from runbook_lib.run import opening, run

NEW = {"id": "new-1", "title": "Tides", "text": "The moon pulls the sea twice a day.", "url": ""}
CHANGED = (3, 17, 40)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, documents: list[dict]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))


def newest(folder: Path) -> run.Run:
    return opening.open_folder(run.run_mark.oldest_first(folder / "runs")[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The first run, then the second one: three texts changed, one document gone, two new ones that are alike."""
    here = tmp_path_factory.mktemp("months")
    profile = make_profile(here)
    runbook("run", profile, cwd=here)
    first, sum_before = newest(here), digest(newest(here))
    documents = read(here / "corpus.jsonl")
    for row in CHANGED:
        documents[row]["text"] += " And this was added since."
    del documents[50]
    write(here / "corpus.jsonl", [*documents, NEW, {**NEW, "id": "new-2"}])
    said = runbook("run", profile, "--since", first.name, cwd=here)
    return first, newest(here), said, sum_before


def test_the_second_run_computes_what_changed_once_and_the_check_of_what_it_took(runs):
    first, second, said, _ = runs
    assert "All checks hold" in said and second.folder != first.folder
    since = report.archive.Merged(second.merged).manifest().since
    assert (since.added, since.changed, since.removed, since.reused) == (2, 3, 1, 56)
    assert since.computed == 4, "the two new ones are alike"
    assert second.plan().documents == since.computed + since.spot


def test_taken_rows_have_the_bytes_of_the_first_run_and_all_are_as_a_full_run_computes_them(runs):
    first, second, _, _ = runs
    before, after = (np.load(this.merged / "embeddings.npy") for this in (first, second))
    was = {line["id"]: line for line in read(first.merged / "articles.jsonl")}
    lines = read(second.merged / "articles.jsonl")
    taken = [line for line in lines if line["computed_by"] == first.name]
    assert len(taken) == 56 and len(lines) == 61
    for line in taken:
        assert after[line["row"]].tobytes() == before[was[line["id"]]["row"]].tobytes()
        assert {**line, "row": 0} == {**was[line["id"]], "row": 0, "computed_by": first.name}
    assert {line["row"] for line in lines} - {line["row"] for line in taken} == {*CHANGED, 59, 60}
    expected = by_the_library(second.profile.corpus.path)
    assert (after * expected).sum(axis=1).min() >= 1 - 1e-6
    assert after[59].tobytes() == after[60].tobytes()


def test_the_second_run_is_sealed_and_verifies_and_the_first_is_as_it_was(runs):
    first, second, _, before = runs
    assert "FAILED" not in runbook_here("verify", second.folder, cwd=second.folder)
    assert "FAILED" not in runbook_here("verify", first.folder, cwd=first.folder)
    assert digest(first) == before
    page = (second.report / "report.html").read_text()
    assert "Succeeded" in page and f"rows computed by {first.name}" in page


def test_the_same_command_on_the_finished_second_run_looks_at_it_and_computes_nothing(runs):
    first, second, _, _ = runs
    here = second.folder.parents[1]
    said = runbook("run", here / "small.yaml", "--run", second.name, "--since", first.name, cwd=here)
    assert "sealed, and its files are as sealed" in said


def test_a_second_run_whose_result_was_lost_is_merged_anew_and_without_the_first_run_it_says_so(runs):
    first, second, _, _ = runs
    here = second.folder.parents[1]
    before = digest(second)
    (second.merged / "embeddings.npy").unlink()
    runbook("run", here / "small.yaml", "--run", second.name, cwd=here)
    assert digest(second) == before
    (second.merged / "embeddings.npy").unlink()
    first.folder.rename(here / "elsewhere")
    said = runbook("run", here / "small.yaml", "--run", second.name, cwd=here, code=1)
    assert "not there as they were" in said and "bring that run back" in said
    (here / "elsewhere").rename(first.folder)
    runbook("run", here / "small.yaml", "--run", second.name, cwd=here)
    assert digest(second) == before


def test_an_unchanged_corpus_needs_no_new_row_and_gives_the_same_bytes(runs):
    _, second, _, _ = runs
    here = second.folder.parents[1]
    runbook("run", here / "small.yaml", "--since", second.folder, cwd=here)
    third = newest(here)
    assert third.folder not in (second.folder,)
    since = report.archive.Merged(third.merged).manifest().since
    assert (since.computed, since.reused) == (0, 61)
    assert (third.merged / "embeddings.npy").read_bytes() == (second.merged / "embeddings.npy").read_bytes()


def test_a_second_run_that_is_killed_in_its_preflight_is_gone_on_with_by_the_same_command(runs):
    first, second, _, _ = runs
    here = second.folder.parents[1]
    there = set((here / "runs").iterdir())
    words = [forking.python(), "-m", "runbook_lib.cli", "run", here / "small.yaml", "--since", first.name]
    killed = subprocess.Popen(words, cwd=here, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (made,) = wait_for(
        lambda: [f for f in set((here / "runs").iterdir()) - there if (f / "whole").exists()], "it began", 240
    )
    killed.kill()
    killed.wait()
    said = runbook("run", here / "small.yaml", "--since", first.name, cwd=here)
    assert f"run {made.name} in" in said and set((here / "runs").iterdir()) - there == {made}
    assert np.array_equal(*(np.load(each.merged / "embeddings.npy") for each in (opening.open_folder(made), second)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "model.max_tokens=32"), "model.max_tokens"),
        (("--set", "model.prompt='query: {text}'"), "prompt"),
    ],
)
def test_other_choices_than_the_first_runs_are_refused_in_the_preflight(runs, words, said):
    first, second, _, _ = runs
    here = second.folder.parents[1]
    name = f"refused-{said.rpartition('.')[2]}"
    out = runbook("check", here / "small.yaml", "--run", name, "--since", first.name, *words, cwd=here, code=1)
    assert "its vectors are of other choices" in out and said in out and "leave out --since" in out


def test_an_unfinished_or_unknown_run_is_refused_before_a_folder_is_made(runs):
    _, second, _, _ = runs
    here = second.folder.parents[1]
    there = sorted((here / "runs").iterdir())
    assert "no such run" in runbook("run", here / "small.yaml", "--since", "nobody", cwd=here, code=1)
    assert sorted((here / "runs").iterdir()) == there
