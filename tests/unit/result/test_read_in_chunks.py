"""A run whose long documents are read in chunks: what is kept of it, and that it mixes with no other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import made_up
import pytest
from made_up import MadeUp

from runbook_lib.errors import DataError
from runbook_lib.phases import merge, validate
from runbook_lib.report import gate, report, verify
from runbook_lib.result import parts
from runbook_lib.result.claims import RECORDS
from runbook_lib.result.merged import Merged
from runbook_lib.run import plan as plans
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES

SIZE = 16


def chunked(tmp_path: Path) -> MadeUp:
    return made_up.run_folder(tmp_path, count=20, chunk_tokens=SIZE)


def failed(checks: Checks) -> dict[str, str]:
    return {check.name: str(check.seen) for check in checks.failed}


def test_each_document_the_manifest_and_the_report_say_how_many_chunks(tmp_path: Path) -> None:
    made = chunked(tmp_path)
    made.commit_all()
    for phase in PHASES[:3]:
        held = Checks(phase)
        held.add("a fact", True, "seen")
        gate.gate(made.run, phase, held)
    done = made_up.published(made.run)
    assert done.checks.ok, failed(done.checks)
    told = {check.name: str(check.seen) for check in done.checks}
    assert "6 documents in several chunks of at most 16" in told["every document read to its end"]
    lines = [json.loads(line) for line in (made.run.merged / "articles.jsonl").read_text().splitlines()]
    assert [line["chunks"] for line in lines] == [1 + (10 + row % 10 > SIZE) for row in range(20)]
    manifest = Merged(made.run.merged).manifest()
    assert manifest is not None and manifest.chunked is not None and manifest.lengths.documents.truncated_rows == 0
    assert (manifest.chunked.tokens, manifest.chunked.documents, manifest.chunked.chunks) == (SIZE, 6, 26)
    gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(made.run)
    page = (made.run.report / "report.html").read_text()
    assert "6 documents were longer than 16 tokens" in page and "in chunks of at most 16 tokens" in page
    checks = report.verify(made.run)
    assert checks.ok, failed(checks)


def test_the_verifier_of_one_file_holds_such_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = chunked(tmp_path)
    made.commit_all()
    made_up.published(made.run)
    archive = verify.Archive(made.run.folder)
    checks = verify.Checks()
    verify.check_records(archive, checks)
    verify.check_rows(archive, checks)
    said = capsys.readouterr().out
    assert "plan, corpus, manifest and merged files have their sums" in said
    assert checks.failed == ["every phase has a result whose checks hold"], said  # no phase was held here


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chunks": [1, 1, 1, 1]}, "other chunks than the articles have: rows 7"),
        ({"chunks": [1, 1, 1, 3]}, "other chunks than the articles have: rows 7"),
        ({"chunks": [2, 1, 1, 2]}, "chunks that do not follow from tokens: rows 4"),
        ({"chunks": None}, "chunks: expected them of every row"),
    ],
)
def test_chunks_that_cannot_be_or_that_the_articles_have_otherwise_are_found(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    made = chunked(tmp_path)
    made.commit_all()
    assert made_up.published(made.run).checks.ok
    made.change_record(made.run.local.part(4, 8), **changes)
    assert said in failed(validate.validate(made.run)[0])[RECORDS]


def test_a_part_of_another_way_of_reading_does_not_mix(tmp_path: Path) -> None:
    made = chunked(tmp_path)
    made.commit_all()
    made.change_record(made.run.local.part(0, 4), chunk_tokens=32)
    with pytest.raises(DataError, match="tokens of a chunk: expected 16, found 32"):
        merge.merge(made.run)
    made.change_record(made.run.local.part(4, 8), chunk_tokens=None, chunks=None)
    with pytest.raises(DataError, match="tokens of a chunk: expected 16, found None"):
        merge.merge(made.run)


def test_a_record_has_the_chunks_of_each_row_or_is_refused(tmp_path: Path) -> None:
    made = chunked(tmp_path)
    path = made.commit_part(0, 4)
    assert parts.read(path).record.chunks == (1, 1, 1, 1)
    made.change_record(path, chunks=[1, 1])
    with pytest.raises(DataError, match="chunks: a tuple of 2, expected one of each of 4 rows"):
        parts.read(path)


def test_a_plan_without_chunks_has_the_digest_that_it_always_had(tmp_path: Path) -> None:
    cut, in_chunks = made_up.run_folder(tmp_path / "cut"), chunked(tmp_path / "chunks")
    assert "chunk_tokens" not in json.loads(cut.run.plan_file.read_text())
    saved = json.loads(in_chunks.run.plan_file.read_text())
    assert saved["chunk_tokens"] == SIZE and saved["max_tokens"] is None
    assert plans.load(in_chunks.run.plan_file) == in_chunks.plan
    assert in_chunks.plan.sha256 != replace(in_chunks.plan, chunk_tokens=SIZE + 1).sha256
    before = {key: value for key, value in asdict(cut.plan).items() if key != "chunk_tokens"}
    before = {key: value for key, value in before.items() if value or key not in ("amendments", "fences", "why_padded")}
    del before["batching"]
    assert cut.plan.sha256 == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
