"""Merge: every row at its place, or a refusal that names what is wrong."""

import json
import pickle
import tracemalloc

import made_up
import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.phases import merge
from runbook_lib.result.manifest import Tally
from runbook_lib.result.merged import Merged
from runbook_lib.result.placed import Placed
from worker.files import sha256_file, write_json


@pytest.fixture
def made(tmp_path):
    made = made_up.run_folder(tmp_path)
    made.commit_all()
    return made


def test_row_i_of_the_matrix_is_document_i(made):
    manifest = merge.merge(made.run)
    merged = Merged(made.run.candidate)
    matrix = np.load(merged.embeddings)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, made.vectors[:20])
    articles = [json.loads(line) for line in merged.articles.read_text().splitlines()]
    assert [article["row"] for article in articles] == list(range(20))
    wanted = made_up.documents(20)
    for key in ("id", "title", "url"):
        assert [article[key] for article in articles] == [document[key] for document in wanted]
    assert articles[17]["tokens"] == 17
    assert [article["row"] for article in articles if article["truncated"]] == [7, 8, 9, 17, 18, 19]
    assert bytes.fromhex(articles[3]["fingerprint"]) == made.corpus.fingerprints()[3].tobytes()
    assert manifest.documents == 20


def test_questions_leave_by_kind(made):
    merge.merge(made.run)
    assert np.array_equal(np.load(Merged(made.run.candidate).questions), made.vectors[20:])


def test_without_questions_there_is_no_file_of_them(tmp_path):
    made = made_up.run_folder(tmp_path, questions=[])
    made.commit_all()
    manifest = merge.merge(made.run)
    assert not Merged(made.run.candidate).questions.exists()
    assert sorted(manifest.outputs) == ["articles.jsonl", "embeddings.npy"]


def test_a_corpus_of_one_document_is_merged(tmp_path):
    made = made_up.run_folder(tmp_path, count=1, questions=[])
    made.commit_all()
    merge.merge(made.run)
    assert np.load(Merged(made.run.candidate).embeddings).shape == (1, made_up.DIM)
    loaded = pickle.loads(made.run.founding_candidate.read_bytes())
    assert loaded["articles"] == [{"id": 0, "title": "Title 0: café 東京", "url": "https://example.org/0"}]


def test_parts_across_the_line_between_documents_and_questions_are_split(tmp_path):
    asked = [{"question": f"number {i}?"} for i in range(5)]
    made = made_up.run_folder(tmp_path, count=7, questions=asked, slots=1, part_rows=5)
    made.commit_all()  # rows 0-5, 5-10, 10-12
    merge.merge(made.run)
    merged = Merged(made.run.candidate)
    assert np.array_equal(np.load(merged.embeddings), made.vectors[:7])
    assert np.array_equal(np.load(merged.questions), made.vectors[7:])


def test_the_manifest_says_what_went_in_and_what_came_out(made):
    manifest = merge.merge(made.run)
    assert [part.rows for part in manifest.parts] == [(0, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 21)]
    assert sum(share.rows for share in manifest.slots.values()) == 21
    assert manifest.lengths.documents == Tally(
        tokens=sum(10 + row % 10 for row in range(20)),
        truncated_rows=6,
        tokens_cut=2 * (1 + 2 + 3),
        share_cut=round(12 / 290, 6),
    )
    assert manifest.lengths.questions.tokens == 10
    assert manifest.seen["device"] == {"cpu (made up)": len(manifest.parts)}
    assert manifest.seconds == 0.5 * len(manifest.parts)
    for name, stated in manifest.outputs.items():
        path = made.run.candidate / name
        assert (sha256_file(path), path.stat().st_size) == (stated.sha256, stated.bytes)
    assert manifest.plan == made.plan.sha256
    assert Merged(made.run.candidate).manifest() == manifest


def test_merging_again_changes_nothing(made):
    first = merge.merge(made.run)
    before = {path: path.stat().st_mtime_ns for path in made.run.candidate.iterdir()}
    assert merge.merge(made.run) == first
    assert {path: path.stat().st_mtime_ns for path in made.run.candidate.iterdir()} == before


@pytest.mark.parametrize("name", ["embeddings.npy", "articles.jsonl", "questions.npy", "manifest.json"])
def test_a_merged_file_that_was_changed_or_lost_is_made_again(made, name):
    first = merge.merge(made.run)
    path = made.run.candidate / name
    path.write_bytes(path.read_bytes()[:-2])
    again = merge.merge(made.run)
    assert again.outputs == first.outputs
    path.unlink()
    assert merge.merge(made.run).outputs == first.outputs


def test_a_new_part_makes_a_new_merge_and_overlaps_give_each_row_once(made):
    merge.merge(made.run)
    moved = made_up.vectors(4, seed=9)
    path = made.commit_part(2, 6, moved)  # the same rows done again by another slot after a recovery
    manifest = merge.merge(made.run)
    assert manifest.rows_done_twice == 4
    taken = {part.name: part.rows for part in manifest.parts}
    assert (taken["rows_000000000_000000004.npy"], taken[path.name]) == ((0, 4), (4, 6))
    wanted = made.vectors[:20].copy()
    wanted[4:6] = moved[2:]
    assert np.array_equal(np.load(Merged(made.run.candidate).embeddings), wanted)


def test_every_part_that_must_not_be_merged_is_named_with_the_remedy(made):
    first, second = made.run.local.part(0, 4), made.run.local.part(4, 8)
    made.change_record(first, run="another-run")
    second.write_bytes(second.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError) as caught:
        merge.merge(made.run)
    text = str(caught.value)
    assert f"{first.name}: run: expected '{made.run.name}', found 'another-run' (from here)" in text
    assert f"{second.name}: sha256: expected" in text
    assert "put aside" in text and "run again" in text
    assert not first.exists() and not second.with_suffix(".json").exists()
    assert (made.run.refused / first.name).exists() and (made.run.refused / second.with_suffix(".json").name).exists()
    with pytest.raises(DataError, match="8 of 21 rows have no vector yet"):  # as if they had never come
        merge.merge(made.run)
    assert not Merged(made.run.candidate).manifest_file.exists()


def test_a_part_made_from_an_older_text_is_refused(made):
    texts = list(made.record(0, 4)["fingerprints"])
    made.change_record(made.run.local.part(0, 4), fingerprints=[texts[1], texts[0], *texts[2:]])
    with pytest.raises(DataError, match="the text of 2 rows is not the corpus's: rows 0, 1"):
        merge.merge(made.run)


def test_missing_rows_are_named(made):
    for path in (made.run.local.part(4, 8), made.run.local.part(4, 8).with_suffix(".json")):
        path.unlink()
    with pytest.raises(DataError, match=r"4 of 21 rows have no vector yet: rows 4-8; run again"):
        merge.merge(made.run)


def test_a_row_that_was_given_up_is_named_with_its_reason(made):
    for suffix in (".npy", ".json"):
        made.run.local.part(4, 8).with_suffix(suffix).unlink()
    for start, stop in ((4, 5), (6, 8)):
        made.commit_part(start, stop)
    write_json(made.run.local.quarantined(5), {"row": 5, "reason": "ended 3 workers\x1b[31m"})
    with pytest.raises(DataError) as caught:
        merge.merge(made.run)
    assert "row 5 (title 'Title 5', id 'id-5'): ended 3 workers\\x1b[31m" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_row_that_was_given_up_and_then_done_is_merged(made):
    write_json(made.run.local.quarantined(5), {"row": 5, "reason": "out of memory"})
    assert merge.merge(made.run).documents == 20


def test_a_corpus_that_changed_since_the_plan_is_refused(made, tmp_path):
    (tmp_path / "other").mkdir()
    other = made_up.run_folder(tmp_path / "other", count=21)
    other.commit_all()
    made.plan.save(other.run.plan_file)
    with pytest.raises(DataError, match="the corpus changed since the plan was made: fingerprint expected"):
        merge.merge(other.run)


def test_progress_is_told_in_bytes(made):
    seen = {}
    merge.merge(made.run, lambda what, done, of: seen.update({what: (done, of)}))
    assert set(seen) == {"verifying parts", "writing vectors"}
    assert all(done == of > 0 for done, of in seen.values())


def test_the_founding_file_is_what_the_manifest_says_and_is_written_once(made):
    manifest = merge.merge(made.run)
    made_file = merge.write_founding(made.run)
    assert made_file == Placed(manifest.founding.sha256, manifest.founding.bytes, str(made.run.founding_file))
    assert sha256_file(made.run.founding_candidate) == made_file.sha256
    before = made.run.founding_candidate.stat().st_mtime_ns
    merge.write_founding(made.run)
    assert made.run.founding_candidate.stat().st_mtime_ns == before
    made.run.founding_candidate.write_bytes(b"someone else's")
    assert merge.write_founding(made.run) == made_file
    assert sha256_file(made.run.founding_candidate) == made_file.sha256


def test_no_founding_file_is_made_from_merged_files_that_changed(made):
    merge.merge(made.run)
    made.run.founding_candidate.unlink()
    path = Merged(made.run.candidate).embeddings
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError, match="what was to be written changed"):
        merge.write_founding(made.run)
    assert not made.run.founding_candidate.exists()


def test_a_full_disk_leaves_no_half_file_and_says_what_is_needed(made, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.files.os.fsync", full)
    with pytest.raises(DataError, match=r"No space left on device: expected room for [\d,]+ bytes, [\d,]+ "):
        merge.merge(made.run)
    assert list(made.run.candidate.iterdir()) == []


def test_the_memory_of_a_merge_does_not_grow_with_the_corpus(tmp_path):
    """The plan's merge held the vectors several times over. One part and one record at a time are enough."""

    def peak(folder, count):
        folder.mkdir()
        made = made_up.run_folder(folder, count=count, dim=256, part_rows=50)
        made.commit_all()
        tracemalloc.start()
        merge.merge(made.run)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(tmp_path / "small", 200), peak(tmp_path / "large", 4000)
    assert large - small < 4000 * 256 * 4 / 2  # half of the vectors alone; they are twenty times as many
