"""Preflight: what can be known to be wrong before any machine works, and the plan that follows from the rest."""

import json
from dataclasses import replace

import pytest
from local_run import executable, new_run, numbered, planned

from runbook_lib import model, plan, preflight, run
from worker.layout import write_json

PASSWORD = "tell-nobody"
GOOD = json.dumps({"address": "10.0.0.1", "username": "me", "password": PASSWORD})


def named(checks, name):
    return next(check for check in checks if check.name == name)


# ------------------------------------------------------------------------------------------------------ this machine


def machine(tmp_path, content, mode=0o600, **keys):
    if content is not None:
        (tmp_path / "one.credentials").write_bytes(content)
        (tmp_path / "one.credentials").chmod(mode)
    hosts = "[{name: far, kind: ssh, credentials: one.credentials}]"
    return preflight.this_machine(new_run(tmp_path, hosts=hosts, **keys))


@pytest.mark.parametrize("content", [GOOD.encode(), f"\ufeff{GOOD}".encode()])
def test_good_credentials_are_taken_and_never_shown(tmp_path, content):
    checks = machine(tmp_path, content)
    assert checks.ok, checks
    assert named(checks, "credentials").where == "far"
    assert PASSWORD not in repr(checks) + checks._repr_html_() + json.dumps(checks.as_dicts())


@pytest.mark.parametrize(
    ("content", "mode", "seen"),
    [
        (None, 0o600, "no such file"),
        (GOOD.encode(), 0o644, "others can read it"),
        (GOOD.encode(), 0o660, "others can read it"),
        (f"password: {PASSWORD}".encode(), 0o600, "not a JSON object"),
        (f'["{PASSWORD}"]'.encode(), 0o600, "not a JSON object"),
        (GOOD.encode("utf-16"), 0o600, "not a JSON object"),
        (b"[" * 100_000, 0o600, "not a JSON object"),
        (b"", 0o600, "not a JSON object"),
        (b"null", 0o600, "not a JSON object"),
        (json.dumps({"address": "a", "password": PASSWORD}).encode(), 0o600, "without username"),
        (json.dumps({"address": 7, "username": None, "p": PASSWORD}).encode(), 0o600, "without address, username"),
    ],
)
def test_unusable_credentials_are_named_without_their_content(tmp_path, content, mode, seen):
    checks = machine(tmp_path, content, mode)
    assert [(check.name, check.seen) for check in checks.failed] == [("credentials", seen)]
    assert PASSWORD not in repr(checks) + checks._repr_html_()
    assert str(tmp_path / "one.credentials") in checks.failed[0].remedy


def test_an_open_token_file_fails_with_what_closes_it(tmp_path):
    (tmp_path / "hf.token").write_text(PASSWORD)
    (tmp_path / "hf.token").chmod(0o644)
    checks = machine(tmp_path, GOOD.encode(), hf_token="hf.token")
    assert [check.name for check in checks.failed] == ["hub token"]
    assert "chmod 600" in checks.failed[0].seen
    assert PASSWORD not in repr(checks)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file stands where the folder should be")
    checks = preflight.this_machine(new_run(tmp_path, output="{folder: taken, backups: taken/deep}"))
    assert [check.name for check in checks.failed] == ["output folder", "backups folder"]
    assert str(tmp_path / "taken") in checks.failed[0].remedy


def test_this_machine_has_what_the_library_needs(tmp_path):
    checks = preflight.this_machine(new_run(tmp_path))
    assert checks.ok, checks
    assert {f"package {name}" for name in preflight.PACKAGES} <= {check.name for check in checks}


# ------------------------------------------------------------------------------------------------- model and corpus


def test_a_model_that_cannot_be_used_leaves_what_follows_unmade_and_says_so(tmp_path):
    this = new_run(tmp_path, model="{name: ./model, dim: 768}")
    checks, found = preflight.the_model(this)
    assert found is None and not checks.ok
    for later, _ in (preflight.the_corpus(this, None), preflight.the_plan(this, None, None, {})):
        assert not later.ok
    assert not preflight.the_disks(this, None, None).ok
    assert not this.plan_file.exists()


def test_the_corpus_is_numbered_once(tmp_path):
    this = new_run(tmp_path)
    _, texts = numbered(this)
    before = (this.corpus / "corpus.json").stat().st_ino
    _, again = numbered(this)
    assert (again.documents, again.fingerprint) == (18, texts.fingerprint)
    assert (this.corpus / "corpus.json").stat().st_ino == before


def test_a_numbering_that_was_cut_short_is_done_again(tmp_path):
    this = new_run(tmp_path)
    _, texts = numbered(this)
    (this.corpus / "corpus.json").unlink()
    assert numbered(this)[1].fingerprint == texts.fingerprint


def test_a_source_that_changed_is_refused(tmp_path):
    this = new_run(tmp_path)
    found, _ = numbered(this)
    this.profile.corpus.path.write_text(this.profile.corpus.path.read_text().replace("lake", "LAKE"))
    checks, texts = preflight.the_corpus(this, found)
    assert texts is None
    assert "changed since this run numbered it" in checks.failed[0].seen


def test_another_prompt_is_refused_for_a_numbered_corpus(tmp_path):
    this = new_run(tmp_path)
    found, _ = numbered(this)
    checks, texts = preflight.the_corpus(this, replace(found, template="passage: {text}"))
    assert texts is None
    assert "prompts changed" in checks.failed[0].seen


def test_a_corpus_of_another_count_than_the_profile_asserts_is_refused(tmp_path):
    this = new_run(tmp_path, corpus="{path: corpus.json, documents: 17}")
    checks, texts = preflight.the_corpus(this, preflight.the_model(this)[1])
    assert texts is None and "17" in checks.failed[0].seen


# --------------------------------------------------------------------------------------------------------------- disks


def test_folders_of_one_disk_are_added_up(tmp_path):
    this = new_run(tmp_path)
    found, texts = numbered(this)
    assert preflight.the_disks(this, found, texts).ok
    huge = replace(found, files=(model.ModelFile("model.safetensors", 4 * 10**15, "0" * 64),))
    (check,) = preflight.the_disks(this, huge, texts)  # run, output, backups and two hosts lie under one folder
    assert not check.ok
    assert check.expected.startswith("8000000.2 GB")


def test_a_disk_that_cannot_be_written_is_named(tmp_path):
    this = new_run(tmp_path)
    (tmp_path / "two").write_text("a file stands where the folder should be")
    checks = preflight.the_disks(this, *numbered(this))
    assert [check.seen for check in checks.failed] == [f"{tmp_path / 'two'} cannot be written"]


# --------------------------------------------------------------------------------------------------------------- plan

HOSTS = "[{name: one, kind: local, device: cpu, workdir: one}, {name: two, kind: local, slots: 2, device: cpu}]"


@pytest.mark.parametrize(
    ("cores", "counts", "threads"), [(1, [1, 2], 1), (3, [1, 2], 1), (6, [1, 2], 2), (16, [4, 2], 2), (64, [16, 2], 3)]
)
def test_slots_follow_from_the_cores_and_threads_are_shared_out(tmp_path, cores, counts, threads):
    drawn = planned(new_run(tmp_path, hosts=HOSTS), cores)
    assert [sum(slot.host == name for slot in drawn.slots) for name in ("one", "two")] == counts
    assert {slot.threads for slot in drawn.slots} == {threads}
    assert len({slot.slot for slot in drawn.slots}) == sum(counts)
    assert plan.problems([(slot.start, slot.stop) for slot in drawn.slots], drawn.rows) == []


def test_the_profiles_own_threads_are_kept(tmp_path):
    hosts = "[{name: one, kind: local, slots: 3, threads: 7, device: cpu, workdir: one}]"
    assert {slot.threads for slot in planned(new_run(tmp_path, hosts=hosts)).slots} == {7}


def test_more_slots_than_rows_leave_some_without_any(tmp_path):
    hosts = "[{name: one, kind: local, slots: 5, device: cpu, workdir: one}]"
    drawn = planned(new_run(tmp_path, count=3, hosts=hosts))
    assert sorted(slot.rows for slot in drawn.slots) == [0, 0, 1, 1, 1]
    assert len(drawn.of_host("one")) == 3


def test_the_same_choices_give_the_same_plan(tmp_path):
    this = new_run(tmp_path)
    first = planned(this)
    raw = this.plan_file.read_bytes()
    assert planned(this) == first
    assert this.plan_file.read_bytes() == raw


def test_changed_choices_redraw_the_plan_until_a_part_is_home(tmp_path):
    this = new_run(tmp_path)
    before = planned(this)
    found, texts = numbered(this)
    facts = {host.name: {"cores": 2, "gpus": []} for host in this.profile.hosts}
    changed = run.Run(this.folder, replace(this.profile, part_rows=2))
    assert preflight.the_plan(changed, found, texts, facts)[1].part_rows == 2
    before.save(this.plan_file)
    write_json(this.local.part(0, 3).with_suffix(".json"), {})
    checks, made = preflight.the_plan(changed, found, texts, facts)
    assert made is None
    assert "start a new run" in checks.failed[0].remedy
    assert this.plan() == before
    assert preflight.the_plan(this, found, texts, facts)[1] == before


def test_no_plan_is_made_while_a_host_is_not_known(tmp_path):
    this = new_run(tmp_path)
    checks, made = preflight.the_plan(this, *numbered(this), {"one": {"cores": 2, "gpus": []}})
    assert made is None and not checks.ok


# ---------------------------------------------------------------------------------------------------------------- GPUs

ROWS = "0, GPU-aa, NVIDIA H100, 81559, 4, 550.1\\n1, GPU-bb, NVIDIA H100, 81559, 4, 550.1\\n"
RESET = "2, GPU-cc, NVIDIA H100, [GPU requires reset], [GPU requires reset], 550.1\\n"


@pytest.fixture
def cuda(tmp_path, monkeypatch):
    """Makes a run on a host whose nvidia-smi says what it is told; gives the checks of hosts and of the plan."""

    def make(said, slots="auto", code=0):
        executable(tmp_path / "tools" / "nvidia-smi", f"#!/bin/sh\nprintf '{said}'\nexit {code}\n")
        monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
        hosts = f"[{{name: one, kind: local, slots: {slots}, device: cuda, workdir: one}}]"
        this = new_run(tmp_path, hosts=hosts)
        checks, facts = preflight.the_hosts(this, None)
        return checks, *preflight.the_plan(this, *numbered(this), facts)

    return make


def test_every_gpu_that_works_is_a_slot_known_by_its_uuid(cuda):
    checks, _, drawn = cuda(ROWS + RESET)
    assert [(slot.slot, slot.gpu, slot.device) for slot in drawn.slots] == [
        ("cluster0_gpu0", "GPU-aa", "cuda"),
        ("cluster0_gpu1", "GPU-bb", "cuda"),
    ]
    assert [check.name for check in checks.failed] == ["model loads"]  # not tried: there was no model
    assert "2 GPUs: NVIDIA H100" in named(checks, "GPUs").seen


def test_fewer_slots_than_gpus_may_be_asked_for(cuda):
    assert [slot.gpu for slot in cuda(ROWS, slots=1)[2].slots] == ["GPU-aa"]


@pytest.mark.parametrize("said", [ROWS + RESET, ROWS])
def test_more_slots_than_gpus_that_work_are_a_failing_check_and_no_plan(cuda, said):
    hosts, plans, drawn = cuda(said, slots=3)
    assert "slots" in [check.name for check in hosts.failed]
    assert drawn is None
    assert "too few GPUs on one" in plans.failed[0].seen


@pytest.mark.parametrize(
    ("said", "code"),
    [("No devices were found\\n", 6), ("Failed to initialize NVML: Driver/library version mismatch\\n", 18), ("", 9)],
)
def test_a_driver_that_does_not_answer_is_quoted_and_gives_no_plan(cuda, said, code):
    hosts, plans, drawn = cuda(said, code=code)
    assert {"GPUs", "slots"} <= {check.name for check in hosts.failed}
    assert said.removesuffix("\\n") in named(hosts, "GPUs").seen
    assert drawn is None and not plans.ok


def test_a_machine_without_nvidia_smi_is_a_failing_check(cuda, tmp_path, monkeypatch):
    cuda(ROWS)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    checks, _ = preflight.the_hosts(run.open_folder(next((tmp_path / "runs").iterdir())), None)
    assert "cannot start nvidia-smi" in named(checks, "reachable").seen


def test_one_host_that_cannot_be_reached_hides_no_other(tmp_path):
    this = new_run(tmp_path)
    (tmp_path / "two").write_text("a file stands where the folder should be")
    checks, facts = preflight.the_hosts(this, None)
    assert list(facts) == ["one"]
    assert "cannot be written" in next(check for check in checks.failed if check.where == "two").seen


def test_a_python_that_cannot_be_started_is_a_failing_check(tmp_path):
    this = new_run(tmp_path, names=("one",))
    (tmp_path / "bin" / "python").chmod(0o600)
    checks, _ = preflight.the_hosts(this, preflight.the_model(this)[1])
    assert "cannot start" in named(checks, "model loads").seen


def test_what_the_probe_finds_is_held_against_what_the_model_says(tmp_path):
    this = new_run(tmp_path, names=("one",))
    probe = {"dim": 5, "norm": 1.0, "bad": "", "normalises": True, "loaded_s": 0.1, "device": "cpu", "torch": "none"}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\necho loading\necho '{json.dumps(probe)}'\n")
    checks, _ = preflight.the_hosts(this, preflight.the_model(this)[1])
    assert [(check.name, check.seen) for check in checks.failed] == [("first vector", "5 numbers, norm 1.000000")]
