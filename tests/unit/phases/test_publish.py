"""Publish: final names stand only for results whose checks held, and a crash between any two steps is repaired."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import made_up
import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.phases import fencing, merge, preflight
from runbook_lib.records import plain
from runbook_lib.result import parts, publication
from runbook_lib.result.merged import Merged
from runbook_lib.result.placed import Placed
from runbook_lib.run import opening
from worker.files import sha256_file, write_json

GOOD = made_up.vectors(4, seed=9)
BAD = np.full((4, made_up.DIM), np.nan, np.float32)


@pytest.fixture
def made(tmp_path):
    made = made_up.run_folder(tmp_path)
    made.commit_all()
    return made


@pytest.fixture(autouse=True)
def without_the_first_wall(monkeypatch):
    """A part whose vectors are none is refused when it comes home (test_parts); here it is to come as far as it can."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])


def outside(this):
    """Every file of the output folder and its backups, with its sum."""
    return {path: sha256_file(path) for path in this.profile.output.folder.rglob("*") if path.is_file()}


def inside(this):
    return {path.name: sha256_file(path) for path in this.merged.iterdir()}


def test_what_holds_gets_its_final_names_and_is_on_record(made):
    done = made_up.published(made.run)
    assert done.checks.ok, done.checks
    assert np.array_equal(np.load(made.run.merged / "embeddings.npy"), made.vectors[:20])
    record, stated = publication.published(made.run), Merged(made.run.merged).manifest().founding
    assert record.founding == Placed(stated.sha256, stated.bytes, str(made.run.founding_file))
    assert sha256_file(made.run.founding_file) == record.founding.sha256
    assert [item.path for item in record.backups] == [done.backup.path]
    assert record.files.keys() == {f"merged/{name}" for name in inside(made.run)}
    assert not made.run.candidate.exists() and not made.run.founding_candidate.exists()
    assert publication.losses(made.run) == []


def test_before_the_checks_hold_nothing_has_a_final_name(made):
    merge.merge(made.run)
    merge.write_founding(made.run)
    assert not made.run.merged.exists()
    assert not made.run.founding_file.exists()


def test_a_failed_check_leaves_the_good_result_and_its_backup_and_keeps_the_bad_one_aside(made, monkeypatch):
    monkeypatch.setattr(fencing, "fence", lambda run, found: [])  # else the slot's rows would have to be done again
    made_up.published(made.run)
    good, files = outside(made.run), inside(made.run)
    made.commit_part(2, 6, BAD)
    done = made_up.published(made.run)
    assert {check.name for check in done.checks.failed} >= {"6 no NaN or infinity", "final names"}
    assert (outside(made.run), inside(made.run)) == (good, files)
    reasons = json.loads((made.run.rejected / "reason.json").read_text())["reasons"]
    assert any("no NaN" in reason for reason in reasons)
    assert np.isnan(np.load(made.run.rejected / "embeddings.npy")).any()
    assert publication.losses(made.run) == []
    made.run.local.part(2, 6).with_suffix(".json").unlink()
    made.run.local.part(2, 6).unlink()
    assert made_up.published(made.run).checks.ok
    assert (outside(made.run), inside(made.run)) == (good, files)


def test_a_first_result_that_fails_has_no_final_name_at_all(tmp_path):
    made = made_up.with_vectors(made_up.run_folder(tmp_path), {3: BAD[0]})
    made.commit_all()
    assert not made_up.published(made.run).checks.ok
    assert not made.run.merged.exists() and outside(made.run) == {}


@pytest.mark.parametrize("name", ["embeddings.npy", "articles.jsonl", "questions.npy"])
def test_a_published_file_that_was_lost_is_made_again_with_the_same_bytes(made, name):
    made_up.published(made.run)
    good, files = outside(made.run), inside(made.run)
    (made.run.merged / name).unlink()
    assert publication.losses(made.run)
    assert made_up.published(made.run).checks.ok
    assert (outside(made.run), inside(made.run)) == (good, files)


def test_a_lost_founding_file_comes_again_and_a_lost_backup_too(made):
    done = made_up.published(made.run)
    good = sha256_file(made.run.founding_file)
    made.run.founding_file.unlink()
    Path(done.backup.path).write_bytes(b"x")
    assert len(publication.losses(made.run)) == len(publication.losses(made.run, quick=True)) == 2
    again = made_up.published(made.run)
    assert again.checks.ok and again.backup.path != done.backup.path
    assert sha256_file(made.run.founding_file) == good
    assert publication.losses(made.run) == []


def test_a_file_that_no_run_wrote_is_never_replaced(made):
    made.run.founding_file.parent.mkdir()
    made.run.founding_file.write_text("a thesis")
    with pytest.raises(DataError, match=r"no run wrote it as it is; nothing was replaced.*output\.merged"):
        made_up.published(made.run)
    assert made.run.founding_file.read_text() == "a thesis"
    assert not made.run.merged.exists()


def test_a_file_of_another_run_may_be_replaced_and_its_writer_is_known(made):
    made_up.published(made.run)
    assert publication.run_that_wrote(made.run, made.run.founding_file) == made.run.name
    later = opening.create(made.run.profile, "made-up-later")
    assert publication.run_that_wrote(later, made.run.founding_file) == made.run.name
    made.run.founding_file.write_bytes(b"edited")
    assert publication.run_that_wrote(later, made.run.founding_file) == ""


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder", "pipe"])
def test_what_no_run_wrote_stays_and_preflight_says_so_before_any_work(made, kind):
    path = made.run.founding_file
    path.parent.mkdir()
    thesis = path.with_name("thesis.txt")
    thesis.write_text("mine")
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(thesis if kind == "link" else "nowhere")
    before = os.lstat(path)
    (check,) = [found for found in preflight.this_machine(made.run) if found.name == "result file"]
    assert not check.ok and "no run wrote it" in str(check.seen)
    with pytest.raises(DataError, match="no run wrote it"):
        made_up.published(made.run)
    assert os.lstat(path).st_ino == before.st_ino and os.lstat(path).st_size == before.st_size
    assert thesis.read_text() == "mine"


def test_what_a_person_puts_there_between_a_crash_and_the_next_command_stays(made):
    made_up.published(made.run)
    record = publication.published(made.run)
    merge.write_founding(made.run)
    made.run.founding_file.rename(made.run.founding_candidate)
    write_json(made.run.publishing_file, plain(record))
    made.run.published_file.unlink()
    made.run.founding_file.write_text("mine")
    with pytest.raises(DataError, match="no run wrote it"):
        publication.finish_publication(made.run)
    assert made.run.founding_file.read_text() == "mine"
    made.run.founding_file.rename(made.run.founding_file.with_name("mine"))
    publication.finish_publication(made.run)
    assert publication.losses(made.run) == []


def test_a_result_that_was_changed_is_kept_beside_the_one_that_comes_anew(made):
    made_up.published(made.run)
    good = made.run.founding_file.read_bytes()
    made.run.founding_file.write_bytes(good[:-1] + b"x")
    assert made_up.published(made.run).checks.ok
    assert made.run.founding_file.read_bytes() == good
    (kept,) = made.run.founding_file.parent.glob("*.changed-*")
    assert kept.read_bytes() == good[:-1] + b"x"
    (event,) = made.run.journal.events("result changed")
    assert event["kept"] == str(kept) and event["kind"] == "fault"


def test_a_result_of_a_run_that_was_deleted_is_known_by_its_backup(made):
    made_up.published(made.run)
    later = opening.create(made.run.profile, "made-up-later")
    shutil.rmtree(made.run.folder)
    assert publication.run_that_wrote(later, later.founding_file) == made.run.name
    assert publication.founding_name_problem(later) == ""
    shutil.rmtree(later.profile.output.backups)
    assert "no run wrote it" in publication.founding_name_problem(later)


class Crash(BaseException):
    """The process ends here."""


def crashing(monkeypatch, step):
    """Let the `step`th change of a final name, or of a record, be the last thing this process does."""
    left = [step]

    def wrap(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (publication.Path, "rename"),
        (publication.Path, "replace"),
        (publication.Path, "unlink"),
        (publication.shutil, "rmtree"),
    ):
        wrap(owner, name)
    return left


def test_a_crash_between_any_two_steps_is_repaired_by_the_same_command(made, monkeypatch):
    made_up.published(made.run)
    made.commit_part(2, 6, GOOD)
    wanted = made.vectors[:20].copy()
    wanted[4:6] = GOOD[2:]
    step = 0
    while True:
        with monkeypatch.context() as patch:
            left = crashing(patch, step)
            with contextlib.suppress(Crash):
                made_up.published(made.run)
            if left[0] >= 0:
                break
        merged = Merged(made.run.merged)
        if merged.folder.exists():  # whatever stands there is one result, of before or of now
            assert merged.problems(merged.manifest()) == []
        assert made_up.published(made.run).checks.ok
        assert np.array_equal(np.load(merged.embeddings), wanted)
        assert publication.losses(made.run) == [] and not made.run.publishing_file.exists()
        assert not (made.run.folder / "replaced").exists()
        step += 1
        wanted[4:6] = rows = made_up.vectors(2, seed=100 + step)  # and once more, with other vectors
        for suffix in (".json", ".npy"):
            made.run.local.part(2, 6).with_suffix(suffix).unlink()
        made.commit_part(2, 6, np.concatenate([GOOD[:2], rows]))
    assert step > 8, "no step was tried"
