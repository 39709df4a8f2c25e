"""A run with --since, on made-up vectors: what is taken, what is computed, and every reason not to take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import MadeUp, documents, published
from made_up import run_folder as fresh_run

from runbook_lib.corpus import corpus as corpora
from runbook_lib.corpus import inspection, numbering
from runbook_lib.errors import DataError, ProfileError
from runbook_lib.phases import amend, merge, reuse
from runbook_lib.report import gate, report, verify
from runbook_lib.result import earlier, whole
from runbook_lib.result.merged import Merged
from runbook_lib.run import model as models
from runbook_lib.run import opening
from runbook_lib.run.checks import Checks
from runbook_lib.run.reading import Reading
from runbook_lib.run.run import PHASES, Run
from worker.files import sha256_file

run_folder = partial(fresh_run, by_text=True)


def sealed(made: MadeUp) -> Run:
    """The run, its parts committed, merged, checked and sealed as by the last notebook."""
    made.commit_all()
    for phase in PHASES[:3]:
        checks = Checks(phase)
        checks.add("a fact", True, "seen")
        gate.gate(made.run, phase, checks)
    done = published(made.run)
    assert done.checks.ok, done.checks
    gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(made.run)
    return made.run


def texts(count: int = 40) -> list[dict[str, Any]]:
    return [{**each, "id": f"id-{i}"} for i, each in enumerate(documents(count))]


def next_month() -> list[dict[str, Any]]:
    """One text changed, two documents gone, four new of which two are alike, and the order is another."""
    now = texts()
    now[7] = {**now[7], "text": "this one says something else"}
    del now[20:22]
    new = [{"id": f"new-{i}", "title": "New", "url": "", "text": f"new {min(i, 2)}"} for i in range(4)]
    return [*new[:2], *reversed(now), *new[2:]]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sealed(run_folder(tmp_path_factory.mktemp("first"), texts=texts()))


@pytest.fixture
def first(once: Run, tmp_path: Path) -> Run:
    """A sealed run that a test may damage."""
    shutil.copytree(once.folder, tmp_path / "earlier" / once.name)
    return Run(tmp_path / "earlier" / once.name, once.profile)


def matrix(this: Run) -> np.ndarray:
    return np.load(this.merged / "embeddings.npy")


def articles(this: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (this.merged / "articles.jsonl").read_text().splitlines()]


def test_only_new_and_changed_texts_are_computed_each_once_and_the_others_are_taken_byte_by_byte(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    since = whole.load(made.run).since
    assert (since.added, since.changed, since.removed, since.reused) == (4, 1, 2, 37)
    assert since.computed == 4, "three different new texts, and the changed one"
    assert made.corpus.documents == since.computed + since.spot and since.spot == 37
    this = sealed(made)
    before, after, now = matrix(first), matrix(this), next_month()
    was = {each["id"]: row for row, each in enumerate(texts())}
    lines = articles(this)
    assert [line["id"] for line in lines] == [each["id"] for each in now]
    for row, each in enumerate(now):
        taken = each["id"] in was and each["id"] != "id-7"
        assert lines[row]["computed_by"] == (first.name if taken else this.name)
        if taken:
            assert after[row].tobytes() == before[was[each["id"]]].tobytes()
    alike = [row for row, each in enumerate(now) if each["text"] == "new 2"]
    assert len(alike) == 2 and after[alike[0]].tobytes() == after[alike[1]].tobytes()
    whole_run = run_folder(tmp_path / "c", texts=next_month())
    assert np.array_equal(after, whole_run.vectors[: len(now)]), "as a full run computes them"


def test_the_report_the_archive_and_the_questions_are_as_ever(first, tmp_path):
    this = sealed(run_folder(tmp_path / "b", texts=next_month(), since=first.folder))
    checks = report.verify(this)
    assert checks.ok, checks
    page = (this.report / "report.html").read_text()
    assert "37" in page and "4 added, 1 changed, 2 removed" in page and f"computed by {first.name}" in page
    notes = next(this.notes.glob("execution_report_*")).read_text()
    assert "Documents: 42" in notes and "Reused: 37" in notes
    assert np.load(this.merged / "questions.npy").shape == (1, 8)
    changes = [json.loads(line) for line in (this.whole / "changes.jsonl").read_text().splitlines()]
    assert sorted(c["id"] for c in changes if c["change"] == "removed") == ["id-20", "id-21"]
    assert [c["id"] for c in changes if c["change"] == "changed"] == ["id-7"]
    (this.whole / "take.npy").write_bytes((this.whole / "take.npy").read_bytes()[:-1] + b"\x01")
    damaged = report.verify(this)
    assert "whole/take.npy" in str([check.seen for check in damaged.failed])


def test_verifying_writes_nothing_into_an_archive_that_may_be_read_only(first, tmp_path):
    this = sealed(run_folder(tmp_path / "b", texts=next_month(), since=first.folder))

    def touched():
        return {path: path.stat().st_mtime_ns for path in (this.folder, *this.folder.rglob("*"))}

    before = touched()
    assert report.verify(this).ok
    assert touched() == before


def test_taken_rows_keep_in_how_many_chunks_they_were_read(tmp_path):
    first = sealed(run_folder(tmp_path / "a", texts=texts(), chunk_tokens=16))
    this = sealed(run_folder(tmp_path / "b", texts=next_month(), since=first.folder, chunk_tokens=16))
    before = {line["id"]: line["chunks"] for line in articles(first)}
    assert set(before.values()) == {1, 2}
    now = articles(this)
    taken = [line for line in now if line["id"] in before and line["id"] != "id-7"]  # that text changed
    assert len(taken) == 37 and all(line["chunks"] == before[line["id"]] for line in taken)
    chunked = Merged(this.merged).manifest().chunked
    assert chunked.chunks == sum(line["chunks"] for line in now) > len(now)
    checks = report.verify(this)
    assert checks.ok, checks


@pytest.mark.process
def test_verify_py_holds_chunks_against_tokens_plan_and_articles(tmp_path):
    this = sealed(run_folder(tmp_path / "a", texts=texts(), chunk_tokens=16))
    argv = [sys.executable, "-I", verify.__file__, str(this.folder)]
    assert not re.search("FAILED each part", subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    path = this.merged / "articles.jsonl"
    path.write_text(path.read_text().replace('"chunks": 2', '"chunks": 3', 1))
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert re.search("FAILED each part.*other tokens, cuts or chunks than the articles have", said)
    for part in this.local.parts.glob("*.json"):
        part.write_text(part.read_text().replace('"chunk_tokens": 16', '"chunk_tokens": 9'))
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert re.search("FAILED each part.*chunk_tokens", said)


def test_a_corpus_that_did_not_change_needs_only_the_check_of_taken_rows(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=texts(), since=first.folder)
    since = whole.load(made.run).since
    assert (since.reused, since.computed, since.added, since.changed, since.removed) == (40, 0, 0, 0, 0)
    this = sealed(made)
    assert (this.merged / "embeddings.npy").read_bytes() == (first.merged / "embeddings.npy").read_bytes()


def test_where_nothing_is_the_same_everything_is_computed(first, tmp_path):
    new = [{"id": i, "title": "T", "url": "", "text": f"other {i}"} for i in range(9)]
    made = run_folder(tmp_path / "b", texts=new, since=first.folder)
    since = whole.load(made.run).since
    assert (since.reused, since.computed, since.removed, since.spot) == (0, 9, 40, 0)
    sealed(made)


def test_a_chain_of_runs_keeps_who_computed_each_row(first, tmp_path):
    second = sealed(run_folder(tmp_path / "b", texts=next_month(), since=first.folder))
    later = [*next_month(), {"id": "last", "title": "L", "url": "", "text": "of the third run"}]
    third = sealed(run_folder(tmp_path / "c", texts=later, since=second.folder))
    by = {line["id"]: line["computed_by"] for line in articles(third)}
    assert (by["id-3"], by["id-7"], by["last"]) == (first.name, second.name, third.name)
    since = Merged(third.merged).manifest().since
    assert {each.run: each.rows for each in since.runs} == {first.name: 37, second.name: 5, third.name: 1}
    assert np.array_equal(matrix(third)[:42], matrix(second))


def test_the_same_text_under_another_id_is_taken_and_the_old_id_is_removed(first, tmp_path):
    moved = texts()
    moved[3] = {**moved[3], "id": "renamed"}
    since = whole.load(run_folder(tmp_path / "b", texts=moved, since=first.folder).run).since
    assert (since.reused, since.added, since.changed, since.removed) == (40, 0, 0, 1)


def test_a_number_and_its_digits_are_two_ids(first, tmp_path):
    assert reuse.id_key(7) != reuse.id_key("7")


def test_taken_rows_that_this_model_does_not_compute_are_refused(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    made.vectors[:] = np.roll(made.vectors, 1, axis=1)  # another device, other libraries: all computed otherwise
    made.commit_all()
    done = published(made.run)
    assert "taken rows as computed again" in [check.name for check in done.checks.failed]
    assert not (made.run.merged / "embeddings.npy").exists()


def test_a_row_of_the_wrong_text_is_found_by_the_earlier_runs_own_fingerprints(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    take = np.load(made.run.whole / "take.npy")
    rows = np.flatnonzero(take >= 0)
    spot = set(np.load(made.run.whole / "spot.npy")[:, 0].tolist())
    take[rows[:2]] = take[rows[:2][::-1]]
    np.save(made.run.whole / "take.npy", take)
    made.commit_all()
    done = published(made.run)
    assert "taken rows have the earlier run's texts" in [check.name for check in done.checks.failed], spot


# ------------------------------------------------------------------------------------------------------ what is refused


def model_of(this: Run, **changes: Any) -> models.Model:
    stated = Merged(this.merged).manifest()
    model = models.Model(
        Path(),
        stated.model.name,
        "r",
        (),
        stated.model.digest,
        8,
        True,
        512,
        stated.prompt,
        stated.question_prompt,
        "bert",
    )
    return replace(model, **changes)


@pytest.mark.parametrize(
    ("changes", "chosen", "said"),
    [
        ({"digest": "2" * 64}, {}, "model"),
        ({"template": "{text}"}, {}, "prompt"),
        ({}, {"dtype": "bfloat16"}, "dtype"),
        ({}, {"reading": Reading(12, None)}, "model.max_tokens"),
        ({}, {"reading": Reading(None, 16)}, "model.max_tokens: 16 .* tokens of a chunk .*: None there, 16"),
        ({"dim": 16}, {}, "numbers a vector"),
    ],
)
def test_an_earlier_run_of_another_model_or_other_choices_is_refused(first, changes, chosen, said):
    there = earlier.open_earlier(first.folder)
    choices = {"dtype": "float32", "reading": Reading(16, None), **chosen}
    with pytest.raises(DataError, match=rf"of other choices: {said}.*leave out --since"):
        earlier.check_same_model(there, model_of(first, **changes), **choices)
    earlier.check_same_model(there, model_of(first), "float32", Reading(16, None))


def _unsealed(this: Run) -> None:
    this.sums.unlink()


def _reopened(this: Run) -> None:
    this.journal.write("gate", ok=False, phase=PHASES[3])


def _cut(this: Run) -> None:
    path = this.merged / "embeddings.npy"
    path.write_bytes(path.read_bytes()[:-8])


def _without_manifest(this: Run) -> None:
    (this.merged / "manifest.json").unlink()


def _other_manifest(this: Run) -> None:
    merged = Merged(this.merged)
    merged.commit(replace(merged.manifest(), timestamp="2001-01-01T00:00:00+00:00"))


def _gone(this: Run) -> None:
    shutil.rmtree(this.folder)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_unsealed, "not finished and sealed"),
        (_reopened, "not finished and sealed"),
        (_cut, "damaged"),
        (_without_manifest, "not finished and sealed"),
        (_other_manifest, "damaged"),
        (_gone, "gone"),
    ],
)
def test_an_earlier_run_that_is_unsealed_damaged_or_gone_is_refused_in_words(first, harm, said):
    harm(first)
    with pytest.raises(DataError, match=rf"--since .*{said}.*Next: name another run, or leave out --since"):
        earlier.open_earlier(first.folder)


def test_a_changed_byte_in_the_earlier_matrix_is_found_before_anything_is_taken(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    made.commit_all()
    path = first.merged / "embeddings.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        earlier.check_bytes(earlier.open_earlier(first.folder))
    with pytest.raises(DataError, match=r"not there as they were.*sha256.*begin another run without --since"):
        merge.merge(made.run)
    assert not (made.run.merged / "manifest.json").exists()


def test_a_run_is_not_taken_from_itself_and_an_unknown_one_is_named(first, tmp_path):
    with pytest.raises(DataError, match="it is this run itself"):
        earlier.open_earlier(first.folder, first.folder)
    with pytest.raises(ProfileError, match="no such run"):
        opening.find_earlier("nobody", tmp_path)
    assert opening.find_earlier(first.name, first.folder.parent) == str(first.folder)


def test_a_notebook_names_the_earlier_run_too(first, tmp_path):
    plain = run_folder(tmp_path / "b", texts=next_month())
    file = plain.run.folder.parents[1] / "profile.yaml"
    shutil.rmtree(plain.run.folder)
    opened = opening.open_run(str(file), new=True, since=str(first.folder))
    assert opened.since == str(first.folder)
    assert opening.open_run(str(file), new=True).folder == opened.folder, "left out, the run goes on as it was begun"


def test_a_run_with_since_is_not_amended(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    with pytest.raises(DataError, match="--since"):
        amend.amend(made.run)


# ---------------------------------------------------------------------------------------- going on, and being killed


def test_an_unfinished_run_goes_on_only_with_the_same_earlier_run(first, tmp_path):
    made = run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    mine = made.run.profile
    assert opening.current(mine, new=True).folder == made.run.folder, "without --since it goes on too"
    assert opening.current(mine, new=True, since=str(first.folder)).folder == made.run.folder
    with pytest.raises(ProfileError, match=r"was made with --since .*--new --since"):
        opening.current(mine, new=True, since=str(tmp_path))
    plain = run_folder(tmp_path / "c", texts=next_month())
    with pytest.raises(ProfileError, match="was made without --since"):
        opening.current(plain.run.profile, new=True, since=str(first.folder))


@pytest.mark.parametrize("step", ["build", "tables", "subset", "commit", "rename"])
def test_numbering_that_was_killed_anywhere_begins_anew_and_comes_to_the_same(first, tmp_path, monkeypatch, step):
    class Killed(BaseException):
        pass

    def kill(*args: object, **keys: object) -> None:
        raise Killed

    places = {
        "build": (reuse, "_read_earlier"),
        "tables": (reuse, "_write_changes"),
        "subset": (reuse.subset, "_commit"),
        "commit": (reuse.wholes, "commit"),
        "rename": (Path, "replace"),
    }
    with monkeypatch.context() as patched:
        if step == "rename":
            own = Path.replace
            patched.setattr(Path, "replace", lambda a, b: kill() if a.name == "corpus" else own(a, b))
        else:
            patched.setattr(*places[step], kill)
        with pytest.raises(Killed):
            run_folder(tmp_path / "b", texts=next_month(), since=first.folder)
    (folder,) = (tmp_path / "b" / "runs").iterdir()
    assert not (folder / "corpus" / "corpus.json").exists(), "not numbered yet, so the preflight begins anew"
    this = opening.open_folder(folder)

    def build(to: Path) -> corpora.Corpus:
        source, asked = tmp_path / "b" / "corpus.json", tmp_path / "b" / "questions.json"
        return numbering.build(
            source, inspection.Fields(), None, asked, "title: {title} | text: {text}", "query: {text}", to
        )

    work = reuse.number(this, earlier.open_earlier(first.folder), build)
    other = run_folder(tmp_path / "c", texts=next_month(), since=first.folder)
    assert work.documents == other.corpus.documents and not (this.whole / "scratch").exists()
    assert np.array_equal(whole.load(this).take() >= 0, whole.load(other.run).take() >= 0)
    assert sha256_file(this.whole / "changes.jsonl") == sha256_file(other.run.whole / "changes.jsonl")
