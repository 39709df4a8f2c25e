"""Which keys of a profile may change in a run, which may not, and which run a profile goes on with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from local_run import model_folder, new_run, planned

from runbook_lib import cli
from runbook_lib.errors import DataError, ProfileError
from runbook_lib.phases import preflight, staging
from runbook_lib.profile import profile
from runbook_lib.report import archive
from runbook_lib.run import opening, run, run_mark
from worker.files import write_json


def edited(this: run.Run, **keys: object) -> profile.Profile:
    """The profile's file with dotted keys set (`__` for a dot) or, for None, taken out; written and loaded."""
    file = this.folder.parents[1] / "profile.yaml"
    value = yaml.safe_load(file.read_text())
    for key, new in keys.items():
        *above, last = key.split("__")
        section = value
        for step in above:
            section = section[int(step)] if step.isdigit() else section.setdefault(step, {})
        if new is None:
            section.pop(last)
        else:
            section[last] = new
    file.write_text(yaml.safe_dump(value))
    return profile.load(file)


def folders(this: run.Run) -> list[str]:
    return [folder.name for folder in run_mark.oldest_first(this.folder.parent)]


def finish(this: run.Run) -> None:
    this.save_result(run.PHASES[-1], ok=True)


@pytest.fixture
def this(tmp_path: Path) -> run.Run:
    """A run with a corpus and a plan, that was staged on both of its hosts."""
    made = new_run(tmp_path)
    planned(made)
    assert staging.stage(made).ok
    return made


HARMLESS = {
    "model.too_long": {"model__too_long": "refuse"},
    "monitor.deadline_s": {"monitor__deadline_s": 90000},
    "recovery": {"recovery": "ask"},
    "policy.dead": {"policy__dead": "off"},
    "output.folder": {"output__folder": "elsewhere"},
    "output.merged": {"output__merged": "other.pkl"},
    "run": {"run": "another"},
    "hf_token": {"hf_token": "hf.token"},
    "part_rows": {"part_rows": "auto"},
    "corpus.documents": {"corpus__documents": 18},
    "model.download": {"model__download": "hosts"},
    "model.dim": {"model__dim": 4},
    "hosts.one.environment": {"hosts__0__environment": sys.executable},
    "hosts.one.wheels": {"hosts__0__wheels": "wheels"},
    "hosts.two.slots": {"hosts__1__slots": "auto"},
    "hosts.two.threads": {"hosts__1__threads": 1},
}


@pytest.mark.parametrize("key", HARMLESS)
def test_a_key_that_can_change_no_vector_changes_in_the_run_and_the_journal_tells_it(this, key):
    first = this.profile_file.read_text()
    changed = edited(this, **HARMLESS[key])
    found = opening.current(changed, new=True)
    assert found.folder == this.folder and folders(this) == [this.name]
    told = {event["key"]: (event["before"], event["after"]) for event in this.journal.events("profile changed")}
    assert key in told and told[key][0] != told[key][1]
    assert found.profile == opening.open_folder(this.folder).profile
    assert profile.as_yaml(found.profile) == profile.as_yaml(changed)
    assert this.first_profile_file.read_text() == first
    opening.current(changed, new=True)
    assert len(list(this.journal.events("profile changed"))) == len(told)  # told once
    assert found.id == this.id


FIXED = {
    "model.dtype": {"model__dtype": "bfloat16"},
    "model.max_tokens": {"model__max_tokens": 5},
    "model.prompt": {"model__prompt": "query: {text}"},
    "model.too_long": {"model__too_long": "chunk"},
    "model.question_prompt": {"model__question_prompt": "q: {text}"},
    "corpus.text": {"corpus__text": "body"},
    "corpus.title": {"corpus__title": "heading"},
    "corpus.id": {"corpus__id": "key"},
    "corpus.accept": {"corpus__accept": ["surrogates"]},
    "questions": {"questions": "questions.json"},
    "part_rows": {"part_rows": 2},
    "hosts.one.device": {"hosts__0__device": "cuda"},
    "hosts.one.threads": {"hosts__0__threads": 7},
    "hosts.one.workdir": {"hosts__0__workdir": "other"},
}


@pytest.mark.parametrize("key", FIXED)
def test_a_key_that_can_change_a_vector_is_refused_by_name_with_both_ways_out(this, key):
    before = this.profile_file.read_bytes(), this.journal.path.read_bytes()
    for new in (True, False):
        with pytest.raises(ProfileError) as refused:
            opening.current(edited(this, **FIXED[key]), new=new)
        assert f"\n  {key}: " in str(refused.value)
        assert "undo" in str(refused.value) and "--new" in str(refused.value) and this.name in str(refused.value)
    assert folders(this) == [this.name]
    assert (this.profile_file.read_bytes(), this.journal.path.read_bytes()) == before


def test_undoing_the_edit_goes_on_with_the_run_also_beside_a_newer_one(this):
    other = opening.create(edited(this, model__dtype="bfloat16"))
    assert opening.current(edited(this, model__dtype="bfloat16"), new=True).folder == other.folder
    assert opening.current(edited(this, model__dtype="float32"), new=True).folder == this.folder
    assert folders(this) == [this.name, other.name]


def test_after_a_finished_run_other_choices_begin_a_new_one(this):
    finish(this)
    second = opening.current(edited(this, model__dtype="bfloat16"), new=True)
    assert second.folder != this.folder and second.id != this.id
    with pytest.raises(ProfileError, match=r"model\.dtype"):  # the second is unfinished
        opening.current(edited(this, model__dtype="float32"), new=True)


def test_a_clock_that_steps_back_hides_no_run(this):
    finish(this)
    for file in (this.profile_file, this.folder, this.local.mark):
        os.utime(file, (4e9, 4e9))
    second = opening.current(edited(this), new=True)
    assert second.folder != this.folder
    os.utime(second.profile_file, (1e9, 1e9))
    assert opening.current(edited(this), new=True).folder == second.folder
    assert folders(this) == [this.name, second.name]


def test_two_profiles_with_one_prefix_each_find_their_own_run(this):
    first = edited(this)
    other = this.folder.parents[1] / "b.yaml"
    other.write_text(first.path.read_text().replace("part_rows: 3", "part_rows: 2"))
    second = opening.current(profile.load(other), new=True)
    assert second.folder != this.folder
    for new in (True, False):
        assert opening.current(first, new=new).folder == this.folder
        assert opening.current(profile.load(other), new=new).folder == second.folder


def test_a_profile_beside_it_with_other_thresholds_has_a_run_of_its_own(this):
    first = edited(this)
    other = this.folder.parents[1] / "b.yaml"
    other.write_text(first.path.read_text() + "recovery: ask\n")
    assert opening.current(profile.load(other), new=True).folder != this.folder
    assert opening.current(first, new=True).folder == this.folder
    assert not list(this.journal.events("profile changed"))


def test_a_profile_that_was_renamed_or_copied_goes_on_with_its_run(this):
    first = edited(this)
    other = this.folder.parents[1] / "b.yaml"
    shutil.copy(first.path, other)
    assert opening.current(profile.load(other), new=True).folder == this.folder
    first.path.unlink()
    other.write_text(other.read_text() + "recovery: ask\n")
    assert opening.current(profile.load(other), new=True).folder == this.folder


def test_a_corpus_that_was_moved_is_the_same_corpus_and_another_is_not(this, tmp_path):
    moved = tmp_path / "data" / "corpus.json"
    moved.parent.mkdir()
    this.profile.corpus.path.rename(moved)
    changed = edited(this, corpus__path="data/corpus.json")
    assert opening.current(changed, new=True).folder == this.folder
    moved.write_text(moved.read_text().replace("lake", "LAKE"))
    other = edited(this, corpus__path="./data/../data/corpus2.json")
    moved.rename(other.corpus.path)
    with pytest.raises(ProfileError, match=r"corpus\.path: .*another content"):
        opening.current(other, new=True)


def test_a_corpus_that_was_edited_under_its_name_is_not_gone_on_with_in_silence(this):
    path = this.profile.corpus.path
    before = path.read_text()
    path.write_text(before.replace("lake", "LAKE"))
    with pytest.raises(ProfileError, match=r"corpus\.path: .*edited since(.|\n)*--new(.|\n)*--amend"):
        opening.current(edited(this), new=True)
    assert opening.current(edited(this), new=True, amend=True).folder == this.folder
    path.write_text(before)
    assert opening.current(edited(this), new=True).folder == this.folder


def test_a_corpus_that_is_gone_stops_no_run_that_has_its_copy(this):
    this.profile.corpus.path.unlink()
    found, model = preflight.the_model(this)
    checks, texts = preflight.the_corpus(this, model)
    assert found.ok and checks.ok and texts is not None
    assert any("goes by its own copy" in check.seen for check in checks if check.warn)


def test_questions_that_changed_are_named(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps(["Where is the lake?"]))
    this = new_run(tmp_path, questions="q.json")
    planned(this)
    (tmp_path / "q.json").write_text(json.dumps(["Where is the sea?"]))
    checks, texts = preflight.the_corpus(this, preflight.the_model(this)[1])
    assert texts is None and "q.json: changed since this run numbered them" in checks.failed[0].seen


def test_a_model_named_otherwise_is_the_same_model_and_another_is_not(this, tmp_path):
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    found = opening.current(edited(this, model__name="./copy"), new=True)
    assert found.folder == this.folder
    assert planned(found) == this.plan()  # parts go on saying the name of the plan
    assert staging.stage(found).ok
    model_folder(tmp_path / "other", hidden_size=9)
    with pytest.raises(ProfileError, match=r"model\.name"):
        opening.current(edited(this, model__name="./other"), new=True)


def test_a_host_that_is_taken_out_leaves_the_run_and_how_it_was_reached_is_kept(this):
    file = edited(this).path
    value = yaml.safe_load(file.read_text())
    value["hosts"].pop()
    file.write_text(yaml.safe_dump(value))
    said: list[str] = []
    found = opening.current(profile.load(file), new=True, say=said.append)
    assert found.folder == this.folder and [host.name for host in found.hosts] == ["one"]
    assert said == ["  two leaves the run: what it committed counts, its other rows go to the others"]
    assert [host.name for host in found.left] == ["two"] and found.left[0].workdir == this.profile.hosts[1].workdir
    assert [host.name for host in found.everywhere.hosts] == ["one", "two"]


def test_a_host_of_another_name_is_one_that_leaves_and_one_that_joins(this):
    said: list[str] = []
    found = opening.current(edited(this, hosts__0__name="renamed"), new=True, say=said.append)
    assert [host.name for host in found.hosts] == ["renamed", "two"] and [host.name for host in found.left] == ["one"]
    assert "one leaves the run" in said[0] and "renamed joins the run" in said[1]


def test_a_working_folder_that_was_moved_with_all_that_is_in_it_is_the_same(this, tmp_path):
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    write_json(tmp_path / "one" / this.name / "run.json", json.loads(this.local.mark.read_text()))
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    assert opening.current(edited(this, hosts__0__workdir="elsewhere"), new=True).folder == this.folder


def test_hosts_in_another_order_are_no_difference(this):
    file = edited(this).path
    value = yaml.safe_load(file.read_text())
    value["hosts"].reverse()
    file.write_text(yaml.safe_dump(value))
    assert opening.current(profile.load(file), new=True).folder == this.folder
    assert not list(this.journal.events("profile changed"))


def test_an_edit_that_answers_a_failed_preflight_is_taken_into_the_run(tmp_path):
    this = new_run(tmp_path, corpus="{path: corpus.json, text: body}")
    assert not preflight.the_corpus(this, preflight.the_model(this)[1])[0].ok
    this.journal.write("checked", ok=False)
    found = opening.current(edited(this, corpus__text="text"), new=True)
    assert found.folder == this.folder
    planned(found)
    this.journal.write("checked", ok=True)  # from here on its plan is what others may go by
    with pytest.raises(ProfileError, match=r"corpus\.text"):
        opening.current(edited(this, corpus__text="body"), new=True)


def test_a_run_of_a_given_name_follows_the_same_rule(this, capsys, monkeypatch):
    monkeypatch.chdir(this.folder.parents[1])
    monkeypatch.setattr(preflight, "everything", lambda found: [])
    edited(this, monitor__deadline_s=90000)
    assert cli.main(["check", "profile.yaml", "--run", this.name]) == 0
    assert "monitor.deadline_s: 90000.0 from now on (was 1200.0)" in capsys.readouterr().out
    edited(this, model__dtype="bfloat16")
    assert cli.main(["check", "profile.yaml", "--run", this.name]) == 1
    assert "model.dtype: float32 in the run, bfloat16 in the profile" in capsys.readouterr().err


def test_a_run_without_an_id_is_not_gone_on_with(this):
    this.local.mark.unlink()
    with pytest.raises(ProfileError, match="earlier version"):
        opening.current(edited(this), new=True)
    finish(this)
    assert opening.current(edited(this), new=False).folder == this.folder
    assert opening.current(edited(this), new=True).folder != this.folder


def test_a_run_that_cannot_be_read_hides_no_other(this):
    broken = opening.create(edited(this), "broken")
    broken.profile_file.write_text("{half")
    assert opening.current(edited(this), new=True).folder == this.folder


def test_no_run_yet_is_told_as_such(tmp_path):
    this = new_run(tmp_path)
    shutil.rmtree(this.folder)
    with pytest.raises(DataError, match="01_preflight"):
        opening.current(edited(this))


@pytest.mark.process
def test_two_commands_given_at_once_make_one_run(tmp_path):
    file = edited(new_run(tmp_path)).path
    shutil.rmtree(tmp_path / "runs")
    code = "from runbook_lib.profile import profile; from runbook_lib.run import opening; "
    code += f"print(opening.current(profile.load({str(file)!r}), new=True).name)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=120)[0] for process in both}) == 1
    assert [process.returncode for process in both] == [0, 0, 0]


def test_a_sealed_run_whose_profile_changes_is_open_again_and_not_damaged(this):
    finish(this)
    this.sums.write_text("sealed\n")
    this.journal.write("sealed")
    assert archive.was_sealed(this)
    again = opening.open_or_create(edited(this, output__folder="elsewhere"), this.name)
    assert again.folder == this.folder and not archive.was_sealed(again)


def test_a_host_added_to_the_profile_gets_slots_and_rows_that_nobody_has(tmp_path):
    this = new_run(tmp_path, count=40)
    before = planned(this)
    assert staging.stage(this).ok
    file = edited(this).path
    value = yaml.safe_load(file.read_text())
    value["hosts"].insert(0, {**value["hosts"][0], "name": "three", "workdir": "three", "slots": 2})
    file.write_text(yaml.safe_dump(value))
    found = opening.current(profile.load(file), new=True)
    assert found.folder == this.folder
    now = planned(found)
    assert now.epoch == before.epoch + 1 and now.slots[: len(before.slots)] == before.slots
    added = [slot for slot in now.slots if slot.host == "three"]
    assert [slot.slot for slot in added] == ["cluster2_gpu0", "cluster2_gpu1"]
    assert all(now.ranges(slot) for slot in added)
    assert this.revision_file(before.epoch).exists()
    assert planned(found) == now  # once
    assert staging.stage(found).ok and (tmp_path / "three" / this.name / "hosts" / "three.json").exists()
