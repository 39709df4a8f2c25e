"""The archive as other people's tools read it: each file passes its own validator, and says what the files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_up
import pytest
import validators

from runbook_lib.report import descriptions, gate, made_with, report, verification
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run


@pytest.fixture(scope="module")
def this(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = made_up.run_folder(tmp_path_factory.mktemp("sealed"), count=12)
    made.commit_all()
    model = {"name": "owner/model", "licence": "apache-2.0", "files": {"model.safetensors": "ab" * 32}}
    made.run.save_json(made_with.MODEL, model)
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(made.run, phase, checks)
    made.run.save_json("hosts.json", {"hosts": {"here": {"system": "Linux"}}})
    done = made_up.published(made.run)
    gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(made.run)
    return made.run


def read(run: Run, name: str) -> Any:
    return json.loads((run.folder / name).read_text(encoding="utf-8"))


def sums(run: Run) -> dict[str, str]:
    outputs = read(run, "merged/manifest.json")["outputs"]
    return {f"merged/{name}": stated["sha256"] for name, stated in outputs.items()}


def test_all_three_name_the_merged_files_with_their_sums(this: Run) -> None:
    crate = {each["@id"]: each.get("sha256") for each in read(this, descriptions.RO_CRATE)["@graph"]}
    dataset = {each["@id"]: each["sha256"] for each in read(this, descriptions.CROISSANT)["distribution"]}
    subject = {each["name"]: each["digest"]["sha256"] for each in read(this, descriptions.PROVENANCE)["subject"]}
    assert sums(this) == dataset == subject == {name: crate[name] for name in sums(this)}


def test_the_provenance_names_corpus_weights_and_code(this: Run) -> None:
    predicate = read(this, descriptions.PROVENANCE)["predicate"]
    found = {each["name"]: each["digest"]["sha256"] for each in predicate["buildDefinition"]["resolvedDependencies"]}
    assert found["model/model.safetensors"] == "ab" * 32
    assert found["corpus"] == read(this, "corpus/corpus.json")["source"]["sha256"]
    assert found["embedding-runbook"] == gate.library_digest()


def test_a_sealed_run_with_them_verifies_and_seals_again(this: Run) -> None:
    assert verification.verify(this).ok
    report.seal(this)
    assert verification.verify(this).ok


@pytest.mark.process
@pytest.mark.parametrize("profile", ["ro-crate-1.2", "process-run-crate-0.5"])
def test_the_crate_has_all_that_its_profile_requires(this: Run, profile: str) -> None:
    assert validators.crate(this.folder, profile) == []


@pytest.mark.process
def test_croissant_gives_the_articles_as_records(this: Run) -> None:
    records = validators.records(this.folder / descriptions.CROISSANT, "articles")
    assert [each["articles/row"] for each in records] == list(range(12))
    assert records[1]["articles/title"] == "Title 1"


@pytest.mark.process
def test_the_statement_is_one_of_in_toto_with_slsa_provenance(this: Run) -> None:
    validators.statement(this.folder / descriptions.PROVENANCE)


def test_a_run_without_a_result_has_none(tmp_path: Path) -> None:
    made = made_up.run_folder(tmp_path, count=4)
    assert descriptions.write(made.run) == []
