"""A run: a folder with a random id, which plan, assignments and parts carry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_run import folder, new_run, planned

from runbook_lib.errors import DataError
from runbook_lib.phases import staging
from runbook_lib.run import opening, plan, run_mark
from worker.files import read_json


def test_every_run_has_a_random_id_that_its_plan_and_its_hosts_carry(tmp_path):
    this = new_run(tmp_path)
    assert run_mark.RUN_ID.fullmatch(this.id)
    assert opening.open_folder(this.folder).id == this.id
    assert opening.create(this.profile, "another").id != this.id
    kept = json.loads((this.folder / "run.json").read_text())
    assert {"format", "run", "id", "created"} <= set(kept) and kept["run"] == this.name
    assert [event["id"] for event in this.journal.events("run created")] == [this.id]
    assert planned(this).run_id == this.plan().run_id == this.id
    assert staging.stage(this).ok
    assert read_json(folder(this).assignment("one"))["run_id"] == this.id


@pytest.mark.parametrize("text", ["{half", "[]", "{}", '{"id": "../../other"}', '{"id": 7}'])
def test_an_id_that_is_none_is_named(tmp_path, text):
    this = new_run(tmp_path)
    (this.folder / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json"):
        _ = this.id


def test_a_plan_of_a_version_without_ids_still_reads(tmp_path):
    this = new_run(tmp_path)
    made = planned(this)
    old = plan.Plan(**{**made.__dict__, "run_id": ""})
    old.save(tmp_path / "old.json")
    value = json.loads((tmp_path / "old.json").read_text())
    del value["run_id"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    assert plan.load(tmp_path / "old.json") == old
    assert old.sha256 != made.sha256


def test_a_notebook_that_is_given_nothing_opens_the_demo():
    assert opening.DEMO.samefile(Path(__file__).parents[3] / "profiles" / "demo.yaml")


def test_a_notebook_finds_a_run_by_its_name_in_the_profiles_own_folder_of_runs(tmp_path, monkeypatch):
    this = new_run(tmp_path, 8)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    profile = str(this.profile.path)
    assert opening.open_run(profile, this.name).folder == this.folder
    assert opening.open_run("", str(this.folder)).folder == this.folder
    with pytest.raises(DataError, match=rf"no run 'other'.*latest there: {this.name}"):
        opening.open_run(profile, "other")


def test_a_run_without_a_plan_says_which_notebook_makes_it(tmp_path):
    with pytest.raises(DataError, match="run 01_preflight first"):
        new_run(tmp_path, 8).plan()
