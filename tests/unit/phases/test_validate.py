"""Validate: ten checks in their right readings, and the rows that they leave out, by name."""

import json
from dataclasses import replace

import made_up
import numpy as np
import pytest

from runbook_lib.phases import backup, founding_checks, merge, validate
from runbook_lib.result import articles, figures, neighbours, parts
from runbook_lib.result import survey as surveys
from runbook_lib.result.figures import Figures
from runbook_lib.result.merged import Merged
from runbook_lib.result.publication import current_result


@pytest.fixture(autouse=True)
def without_the_first_wall(monkeypatch):
    """A part whose vectors are none is refused when it comes home (test_parts); here it is to come as far as it can."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])


def merged(made):
    made.commit_all()
    merge.merge(made.run)
    merge.write_founding(made.run)
    return made


def check(checks, name):
    (found,) = [item for item in checks if name in item.name]
    return found


def overwrite(made, changed):
    """Change rows of the merged matrix, behind the manifest's back."""
    path = Merged(made.run.candidate).embeddings
    matrix = np.load(path)
    for row, value in changed.items():
        matrix[row] = value
    np.save(path, matrix)


def validated(tmp_path, changed, **how):
    """Checks of a run whose parts hold `changed` rows, as if a worker had sent them."""
    made = merged(made_up.with_vectors(made_up.run_folder(tmp_path, **how), changed))
    return validate.validate(made.run, backup.backup(made.run))[0]


def test_a_sound_result_passes_all_ten_and_everything_beyond(tmp_path):
    made = merged(made_up.run_folder(tmp_path, count=200, part_rows=50))
    checks, figures = validate.validate(made.run, backup.backup(made.run))
    assert checks.ok, checks
    assert [item.name.split()[0] for item in checks][:10] == [str(number) for number in range(1, 11)]
    saved = json.loads((made.run.report / "validation.json").read_text())
    assert (saved["run"], saved["ok"], saved["figures"]) == (made.run.name, True, figures.as_json())
    assert len(saved["checks"]) == len(checks)


def test_the_backup_is_filled_in_later(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    checks, figures = validate.validate(made.run)
    assert [item.name for item in checks.failed] == [founding_checks.BACKUP]
    filled = validate.with_backup(made.run, checks, figures, backup.backup(made.run))
    assert filled.ok
    assert json.loads((made.run.report / "validation.json").read_text())["ok"] is True


def test_a_backup_of_something_else_or_gone_does_not_count(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    copy = backup.backup(made.run)
    for wrong in ({"sha256": "0" * 64}, {"read_back": False}, {"path": str(tmp_path / "gone.pkl")}):
        assert not check(validate.validate(made.run, replace(copy, **wrong))[0], "9 backup").ok


def test_without_merged_files_the_first_check_says_so(tmp_path):
    checks, figures = validate.validate(made_up.run_folder(tmp_path).run)
    assert not checks.ok and figures == Figures()
    assert "embeddings.npy" in check(checks, "1 merged").seen


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.full(made_up.DIM, np.nan), "6 no NaN"),
        (np.full(made_up.DIM, np.inf), "6 no NaN"),
        (np.zeros(made_up.DIM), "no vector of zeros"),
        (np.zeros(made_up.DIM), "8 norms"),
        (np.full(made_up.DIM, 0.5), "8 norms"),
        (np.full(made_up.DIM, made_up.DIM**-0.5), "no vector of one value"),
    ],
)
def test_a_bad_row_that_a_worker_sent_is_named_with_its_part(tmp_path, value, name):
    found = check(validated(tmp_path, {13: value}), name)
    assert not found.ok
    assert found.seen == "1 row: 13"
    assert "rows_000000010_000000014.npy of cluster0_gpu1 on here" in found.remedy


def test_a_bad_vector_of_a_question_is_named(tmp_path):
    assert check(validated(tmp_path, {20: np.zeros(made_up.DIM)}), "every question").seen == "1 row: 20"


@pytest.mark.parametrize(("dtype", "off"), [("float32", 1e-3), ("bfloat16", 3e-2), ("float16", 1e-2)])
def test_the_bound_of_a_norm_is_that_of_the_dtype(tmp_path, dtype, off):
    rows = made_up.vectors(21)
    assert not check(validated(tmp_path, {3: rows[3] * (1 + off)}, dtype=dtype), "8 norms").ok
    (tmp_path / "within").mkdir()
    assert check(validated(tmp_path / "within", {3: rows[3] * (1 + off / 20)}, dtype=dtype), "8 norms").ok


def test_a_model_that_does_not_normalise_is_held_to_its_own_spread(tmp_path):
    rows = made_up.vectors(21) * np.linspace(9, 11, 21, dtype=np.float32)[:, None]
    checks = validated(tmp_path, {**dict(enumerate(rows)), 5: rows[5] * 40}, normalises=False)
    found = check(checks, "8 norms")
    assert (found.ok, found.warn, found.seen) == (True, True, "1 row: 5")
    (tmp_path / "zero").mkdir()
    checks = validated(tmp_path / "zero", {**dict(enumerate(rows)), 5: rows[5] * 0}, normalises=False)
    assert not check(checks, "8 norms").ok


def test_swapped_rows_are_caught_by_name(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    overwrite(made, {4: made.vectors[11], 11: made.vectors[4]})
    checks, _ = validate.validate(made.run, backup.backup(made.run))
    assert check(checks, "as in its part").seen == "2 rows: 4, 11"
    failed = {item.name for item in checks.failed}
    assert {"3 structure valid", "files unchanged since the merge"} <= failed


def test_a_copied_vector_is_named_unless_the_texts_explain_it(tmp_path):
    rows = made_up.vectors(21)
    found = check(validated(tmp_path, {6: rows[2]}), "equal vectors")
    assert (found.ok, found.warn) == (True, True)
    assert "rows 2, 6" in found.seen


def test_equal_texts_explain_equal_vectors(tmp_path):
    texts = made_up.documents(20)
    texts[6] = {**texts[6], "text": texts[2]["text"], "title": texts[2]["title"]}
    made = made_up.run_folder(tmp_path, texts=texts)
    made = merged(made_up.with_vectors(made, {6: made.vectors[2]}))
    checks, figures = validate.validate(made.run)
    assert not check(checks, "equal vectors").warn
    assert figures.duplicates.explained_by_text == 1


def test_what_was_cut_is_said_with_its_share(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    checks, figures = validate.validate(made.run)
    found = check(checks, "read to its end")
    assert (found.ok, found.warn) == (True, True)
    assert found.seen.startswith("6 of 20 documents (30.0%)") and "12 of 290 tokens (4.1%)" in found.seen
    assert (figures.lengths.truncated_rows, figures.lengths.tokens_cut) == (6, 12)


def test_vectors_in_one_direction_are_warned_of(tmp_path):
    rows = made_up.vectors(21, seed=3) * 0.05 + 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = check(validated(tmp_path, dict(enumerate(rows))), "spread out")
    assert (found.ok, found.warn) == (True, True)
    assert "rules of thumb" in found.expected


def test_geometry_is_that_of_a_direct_computation(tmp_path):
    made = merged(made_up.run_folder(tmp_path, count=60))
    _, figures = validate.validate(made.run)
    rows = made.vectors[:60].astype(np.float64)
    cosines = rows @ rows.T
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    shares = values / values.sum()
    assert figures.geometry.mean_cosine == pytest.approx((cosines.sum() - 60) / (60 * 59), abs=1e-5)
    assert figures.geometry.top_share == pytest.approx(shares.max(), rel=1e-4)
    assert figures.geometry.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)


def test_each_question_has_its_nearest_documents_and_the_rank_of_its_answer(tmp_path):
    asked = [
        {"question": "by title?", "title": "Title 7"},
        {"question": "by row?", "passage_index": 3},
        {"question": "of nothing known?", "title": "No such title"},
    ]
    made = made_up.run_folder(tmp_path, questions=asked)
    made = merged(made_up.with_vectors(made, {20: made.vectors[7], 21: -made.vectors[3]}))
    checks, figures = validate.validate(made.run)
    retrieval = figures.retrieval
    cosines = made.vectors[:20] @ made.vectors[20:].T
    for place, entry in enumerate(retrieval.questions):
        assert [each.row for each in entry.nearest] == np.argsort(-cosines[:, place])[:5].tolist()
    first, second, third = retrieval.questions
    assert (first.rank, first.nearest[0].title) == (1, "Title 7")
    assert (second.rank, third.rank) == (20, None)
    assert [retrieval.asked, retrieval.with_answer, retrieval.top1, retrieval.top10] == [3, 2, 1, 1]
    assert check(checks, "questions find").seen == "first for 1, among the first 10 for 1, of 2 questions"


def test_a_few_documents_that_the_plan_chooses_are_shown_with_their_nearest(tmp_path):
    made = made_up.run_folder(tmp_path)
    made = merged(made_up.with_vectors(made, {1: made.vectors[0]}))
    found = validate.validate(made.run)[1].neighbours
    assert [each.row for each in found] == neighbours.chosen(made.plan.sha256, made.plan.documents)
    assert len({each.row for each in found}) == neighbours.CHOSEN < made.plan.documents
    cosines = made.vectors[: made.plan.documents] @ made.vectors[: made.plan.documents].T
    np.fill_diagonal(cosines, -2)
    for each in found:
        best = np.sort(cosines[each.row])[::-1][: neighbours.SHOWN]
        assert [near.cosine for near in each.nearest] == pytest.approx(best.tolist(), abs=1e-5)
        assert [cosines[each.row, near.row] for near in each.nearest] == pytest.approx(best.tolist(), abs=1e-5)
        assert all(near.title.startswith(f"Title {near.row}") for near in (each, *each.nearest))


def test_the_projection_shows_documents_and_questions(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    projection = validate.validate(made.run)[1].projection
    assert [point[2] for point in projection.documents] == list(range(20))
    assert projection.documents[4][3] == "Title 4"
    assert all(isinstance(point[4], int) and point[4] > 0 for point in projection.documents)
    assert projection.questions[0][2] == "Which one is about a lake?"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:3] + lines[4:], "19 records for 20 documents"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "2 not at their place: rows 3, 4"),
        (lambda lines: [*lines[:3], lines[3].replace("Title 3", "Title X"), *lines[4:]], "1 with an id, title or url"),
        (lambda lines: [*lines[:3], "{", *lines[4:]], "1 not at their place: rows 3"),
    ],
    ids=["lost", "swapped", "renamed", "broken"],
)
def test_every_record_is_looked_at(tmp_path, change, said):
    made = merged(made_up.run_folder(tmp_path))
    path = Merged(made.run.candidate).articles
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    checks, _ = validate.validate(made.run)
    assert said in check(checks, "7 a record").seen
    assert not checks.ok


def test_a_row_of_another_text_is_named(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    path = Merged(made.run.candidate).articles
    own = made.record(5, 6)["fingerprints"][0]
    path.write_text(path.read_text().replace(own, "0" * 32))
    assert check(validate.validate(made.run)[0], "corpus's text").seen == "1 row: 5"


def test_a_missing_title_counts_only_when_it_was_not_accepted(tmp_path):
    texts = made_up.documents(20)
    texts[4]["title"] = ""
    made = merged(made_up.run_folder(tmp_path, texts=texts, accept=("missing_title",)))
    found = check(validate.validate(made.run)[0], "7 a record")
    assert found.ok and "1 without a title, as accepted" in found.seen


@pytest.mark.parametrize("size", [-4, 4])
def test_a_matrix_of_another_size_is_refused_and_the_rest_is_still_said(tmp_path, size):
    made = merged(made_up.run_folder(tmp_path))
    path = Merged(made.run.candidate).embeddings
    raw = path.read_bytes()
    path.write_bytes(raw[:size] if size < 0 else raw + b"\0" * size)
    checks, figures = validate.validate(made.run, backup.backup(made.run))
    failed = {item.name[:2].strip() for item in checks.failed if item.name[0].isdigit()}
    assert {"2", "3", "4", "5", "6", "8"} <= failed
    assert len([item for item in checks if item.name[0].isdigit()]) == 10
    assert figures.norms is None


def test_a_founding_file_that_changed_is_found(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    raw = bytearray(made.run.founding_candidate.read_bytes())
    raw[50] ^= 1
    made.run.founding_candidate.write_bytes(raw)
    assert "differs from the merged matrix" in check(validate.validate(made.run)[0], "3 structure").seen


def test_a_manifest_that_was_edited_is_refused(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    path = Merged(made.run.candidate).manifest_file
    path.write_text(path.read_text().replace('"documents": 20', '"documents": 19'))
    assert "changed since it was written" in check(validate.validate(made.run)[0], "1 merged").seen


def test_a_result_of_another_plan_is_refused(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    other = made.plan.__class__(**{**made.plan.__dict__, "epoch": 2})
    other.save(made.run.plan_file)
    assert check(validate.validate(made.run)[0], "this plan and corpus").seen == "another plan"


@pytest.mark.parametrize("questions", [[], None], ids=["no questions", "a question"])
def test_a_corpus_of_one_document_is_validated(tmp_path, questions):
    made = merged(made_up.run_folder(tmp_path, count=1, questions=questions))
    checks, figures = validate.validate(made.run, backup.backup(made.run))
    assert checks.ok, checks
    assert figures.geometry.mean_cosine is None
    assert len(figures.projection.documents) == 1


def test_a_model_of_one_dimension_is_validated(tmp_path):
    made = merged(made_up.run_folder(tmp_path, dim=1))
    assert validate.validate(made.run, backup.backup(made.run))[0].ok


def test_parts_that_are_gone_are_said(tmp_path):
    made = merged(made_up.run_folder(tmp_path))
    made.run.local.part(0, 4).unlink()
    found = check(validate.validate(made.run)[0], "as in its part")
    assert found.ok and "1 parts are no longer here" in found.seen


def test_what_is_found_does_not_depend_on_how_many_rows_are_looked_at_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(8)
    values, hashes = rng.normal(size=1000), rng.integers(0, 300, 1000)
    values[[7, 500]] = np.nan
    groups, rows = surveys.equal_rows(hashes), surveys.rows_where(values, lambda block: block > 1)
    whole = figures.norms(values)
    assert groups == [list(g) for g in sorted(np.flatnonzero(hashes == h).tolist() for h in set(hashes.tolist()))
                      if len(g) > 1]  # fmt: skip
    assert rows == np.flatnonzero(values > 1).tolist()
    assert (whole.min, whole.max) == (float(f"{np.nanmin(values):.9g}"), float(f"{np.nanmax(values):.9g}"))
    for module in (surveys, figures):
        monkeypatch.setattr(module, "BLOCK_ROWS", 64)
    assert surveys.equal_rows(hashes, 64) == groups and surveys.equal_rows(hashes[:0], 64) == []
    assert surveys.rows_where(values, lambda block: block > 1) == rows
    cut = figures.norms(values)
    assert cut.histogram == whole.histogram and cut.mean == pytest.approx(whole.mean)
    assert cut.sd == pytest.approx(whole.sd) and sum(cut.histogram.counts) == 998


def test_an_article_is_found_though_only_some_lines_are_remembered(tmp_path):
    made = made_up.run_folder(tmp_path, count=200)
    made.commit_all()
    manifest = merge.merge(made.run)
    audited = articles.audit(current_result(made.run).merged.articles, made.corpus)
    assert manifest.documents == audited.lines == 200 and len(audited.offsets) == 4
    found = audited.articles([0, 63, 64, 127, 199, 200, 10**6])
    assert [each.get("row") for each in found.values()] == [0, 63, 64, 127, 199, None, None]


@pytest.mark.parametrize("mask", [0xFFFF0000, 0xFFFFE000], ids=["bfloat16", "float16"])
def test_rows_that_were_computed_in_16_bits_are_named(tmp_path, mask):
    made = made_up.run_folder(tmp_path, dim=64)
    cut = (made.vectors.view(np.uint32) & np.uint32(mask)).view(np.float32)
    checks, _ = validate.validate(merged(made_up.with_vectors(made, {row: cut[row] for row in range(4, 8)})).run)
    assert check(checks, "float32 in every digit").seen == "4 rows: 4, 5, 6, 7"
    assert not check(checks, "float32 in every digit").ok


def test_a_run_in_16_bits_may_have_such_rows(tmp_path):
    checks, _ = validate.validate(merged(made_up.run_folder(tmp_path, dim=64, dtype="bfloat16")).run)
    assert not [item for item in checks if "every digit" in item.name]
