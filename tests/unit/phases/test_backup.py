"""Backup: a copy counts only when it was read back."""

from datetime import datetime
from pathlib import Path

import made_up
import pytest

from runbook_lib.errors import DataError
from runbook_lib.phases import backup, merge
from runbook_lib.result.large_files import Written
from worker.files import sha256_file

NOW = datetime(2025, 11, 14, 15, 52, 34)


@pytest.fixture
def made(tmp_path):
    made = made_up.run_folder(tmp_path)
    made.commit_all()
    merge.merge(made.run)
    merge.write_founding(made.run)
    return made


def test_a_backup_has_the_plans_name_equals_the_original_and_carries_its_manifest(made):
    found = backup.backup(made.run, NOW)
    path = Path(found.path)
    assert path == made.run.profile.output.backups / "made-up_merged_20251114_155234.pkl"
    assert sha256_file(path) == found.sha256 == sha256_file(made.run.founding_candidate)
    assert found.bytes == path.stat().st_size
    assert found.read_back and not found.found
    assert Path(found.manifest).read_bytes() == (made.run.candidate / "manifest.json").read_bytes()


def test_a_backup_on_the_same_disk_says_what_it_does_not_protect_from(made):
    found = backup.backup(made.run, NOW)
    assert found.same_disk
    assert "not from the loss of the disk" in found.warning


def test_backing_up_again_reads_back_the_one_that_is_there(made):
    first = backup.backup(made.run, NOW)
    again = backup.backup(made.run)
    assert again.found and again.path == first.path
    assert len(list(made.run.profile.output.backups.glob("*.pkl"))) == 1


def test_a_backup_that_decayed_does_not_count(made):
    path = Path(backup.backup(made.run, NOW).path)
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    again = backup.backup(made.run, NOW)
    assert Path(again.path).name == "made-up_merged_20251114_155235.pkl"  # an earlier one is never written over
    assert path.read_bytes() == raw


def test_a_lost_manifest_is_put_beside_the_backup_again(made):
    found = backup.backup(made.run, NOW)
    Path(found.manifest).unlink()
    assert Path(backup.backup(made.run).manifest).exists()


@pytest.mark.parametrize("name", ["made-up_merged_20251114_155234.pkl", "made-up_merged_20251114_155234.manifest.json"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_name_that_is_taken_stays_what_it_is(made, name, kind):
    taken = made.run.profile.output.backups / name
    taken.parent.mkdir(parents=True)
    taken.write_text("mine") if kind == "file" else taken.symlink_to("nowhere")
    found = backup.backup(made.run, NOW)
    assert Path(found.path).name == "made-up_merged_20251114_155235.pkl"
    assert taken.read_text() == "mine" if kind == "file" else taken.is_symlink()


def test_a_copy_with_another_manifest_beside_it_is_somebody_elses(made):
    first = backup.backup(made.run, NOW)
    Path(first.manifest).write_text("mine")
    again = backup.backup(made.run)
    assert not again.found and again.path != first.path
    assert Path(first.manifest).read_text() == "mine"


def test_nothing_is_kept_of_a_file_that_is_not_the_merged_one(made):
    raw = bytearray(made.run.founding_candidate.read_bytes())
    raw[-3] ^= 1
    made.run.founding_candidate.write_bytes(raw)
    with pytest.raises(DataError, match="what was to be written changed"):
        backup.backup(made.run, NOW)
    made.run.founding_candidate.write_bytes(raw[:-1])
    with pytest.raises(DataError, match=r"expected \d+ bytes, \d+ found"):
        backup.backup(made.run, NOW)
    made.run.founding_candidate.unlink()
    with pytest.raises(DataError, match="is missing"):
        backup.backup(made.run, NOW)
    assert list(made.run.profile.output.backups.iterdir()) == []


def test_a_disk_that_does_not_keep_what_is_written_is_refused(made, monkeypatch):
    monkeypatch.setattr(backup, "read_back", lambda path: Written("0" * 64, path.stat().st_size))
    with pytest.raises(DataError, match="does not keep what is written to it"):
        backup.backup(made.run, NOW)
    assert list(made.run.profile.output.backups.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_says_the_remedy(made, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.files.os.fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*set output\.backups"):
        backup.backup(made.run, NOW)
    assert list(made.run.profile.output.backups.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_the_remedy(made):
    made.run.profile.output.backups.write_text("a file in its place")
    with pytest.raises(DataError, match=r"set output\.backups"):
        backup.backup(made.run, NOW)


def test_before_a_merge_there_is_nothing_to_back_up(tmp_path):
    with pytest.raises(DataError, match="nothing merged yet"):
        backup.backup(made_up.run_folder(tmp_path).run)
