"""What the journal says was written, and of which run: edits that the list of sums and the sealing agree to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import made_up
import pytest

from runbook_lib.report import anchors, archive, gate, report, verification
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker.files import read_json, write_json


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = made_up.run_folder(tmp_path_factory.mktemp("sealed"), count=12)
    made.commit_all()
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(made.run, phase, checks)
    made.run.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(made.run)
    gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(made.run)
    return made.run


@pytest.fixture
def this(sealed_once: Run, tmp_path: Path) -> Run:
    shutil.copytree(sealed_once.folder, tmp_path / "copy")
    return Run(tmp_path / "copy", sealed_once.profile)


def failed(run: Run) -> dict[str, str]:
    return {check.name: check.seen for check in verification.verify(run).failed}


EDITED = (
    "report/report.html",
    "report/hosts.json",
    "report/validation.json",
    f"report/{PHASES[1]}.result.json",
    "corpus/corpus.json",
    "merged/manifest.json",
    "published.json",
    "profile.yaml",
    "notes/execution_report_*.md",
)


@pytest.mark.parametrize("name", EDITED)
def test_an_edit_is_found_though_list_and_sealing_were_made_anew(this: Run, name: str) -> None:
    (path,) = this.folder.glob(name)
    path.write_bytes(path.read_bytes() + b"\n")  # the same to every reader of it
    archive.write_sums(this)
    assert path.relative_to(this.folder).as_posix() in failed(this)[anchors.WRITTEN]


def test_a_record_of_another_run_is_named(this: Run) -> None:
    path = this.folder / "run.json"
    write_json(path, {**json.loads(path.read_text()), "id": "0" * 32})
    archive.write_sums(this)
    assert failed(this)[anchors.ONE_RUN].startswith("run.json: run ")


def test_a_check_that_does_not_hold_in_a_result_that_does_is_named(this: Run) -> None:
    path = this.result_file(PHASES[0])
    result = read_json(path) or {}
    result["checks"][0]["ok"] = False
    write_json(path, result)
    archive.write_sums(this, wrote=[path])
    seen = failed(this)[anchors.ONE_RUN]
    assert "all checks hold, but one of them does not" in seen and "a fact: ok, but ok is False" in seen


def test_the_record_of_a_part_is_the_merged_one(this: Run) -> None:
    path = sorted(this.local.parts.glob("*.json"))[0]
    write_json(path, {**(read_json(path) or {}), "device": "another"})
    archive.write_sums(this)
    assert failed(this)["parts"] == f"{path.name}: not the record that was merged"


@pytest.mark.parametrize("name", ["report/extra.html", "parts/rows_000000000_000000002.npy", "later.txt"])
def test_a_file_that_only_the_list_names_is_told(this: Run, name: str) -> None:
    (this.folder / name).write_text("all is well")
    archive.write_sums(this)
    (told,) = [check for check in verification.verify(this) if check.name == anchors.VOUCHED]
    assert told.ok and told.warn and told.seen == name


def test_of_a_run_s_own_files_none_is_told(this: Run) -> None:
    assert anchors.VOUCHED not in {check.name for check in verification.verify(this)}


def test_a_corpus_of_other_prompts_is_named(this: Run) -> None:
    path = this.corpus / "corpus.json"
    write_json(path, {**json.loads(path.read_text()), "template": "another {text}"})
    archive.write_sums(this, wrote=[path])
    assert failed(this)["corpus"] == "the plan was made for other prompts"
