"""Preflight: what can be known to be wrong before any machine works, and the plan that follows from the rest."""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wired
from local_run import executable, folder, new_run, nobody_there, numbered, planned
from local_run import host as connected

from runbook_lib.hosts import inventory
from runbook_lib.phases import preflight, probe_answer, probing, staging
from runbook_lib.profile.profile import HostSpec
from runbook_lib.run import model, opening, plan, planning, run
from runbook_lib.run.checks import Checks
from worker import probe, process
from worker.files import write_json

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


@pytest.mark.process
def test_good_credentials_are_taken_and_never_shown(tmp_path):
    checks = machine(tmp_path, GOOD.encode())
    assert checks.ok, checks
    assert (named(checks, "credentials").where, named(checks, "credentials").seen) == (
        "far",
        "me@10.0.0.1 by a password",
    )
    assert PASSWORD not in repr(checks) + checks._repr_html_() + json.dumps(checks.as_dicts())


@pytest.mark.parametrize(
    ("content", "mode", "seen"),
    [
        (GOOD.encode(), 0o644, "chmod 600"),
        (json.dumps({"address": 7, "username": None, "password": PASSWORD}).encode(), 0o600, "`address`: expected"),
        (f"password: {PASSWORD}".encode(), 0o600, "JSON"),
    ],
)
def test_unusable_credentials_are_named_without_their_content(tmp_path, content, mode, seen):
    checks = machine(tmp_path, content, mode)
    assert [(check.name, check.where) for check in checks.failed] == [("credentials", "far")]
    assert seen in checks.failed[0].seen
    assert str(tmp_path / "one.credentials") in checks.failed[0].seen
    assert PASSWORD not in repr(checks) + checks._repr_html_()


@pytest.mark.process
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


def test_the_sums_of_the_models_files_are_kept_once(tmp_path):
    this = new_run(tmp_path)
    _, found = preflight.the_model(this)
    preflight.the_model(this)
    kept = this.load_json("model.json")
    assert kept["files"] == {file.path: file.sha256 for file in found.files} and kept["digest"] == found.digest
    written = [event["wrote"] for event in this.journal.events("record written")]
    assert [list(each) for each in written] == [["report/model.json"], ["report/model_card.json"]]


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


@pytest.mark.parametrize("order", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_part_is_as_large_as_the_slowest_kind_of_device_takes_whatever_host_comes_first(tmp_path, order):
    hosts = ", ".join(
        f"{{name: {name}, kind: local, slots: 1, device: {device}, workdir: {name}}}"
        for name, device in zip(("one", "two"), order, strict=True)
    )
    this = new_run(tmp_path, hosts=f"[{hosts}]", part_rows="", count=9000)
    found, texts = numbered(this)
    facts = {"one": {"cores": 2, "gpus": [{"uuid": uuid(0)}]}, "two": {"cores": 2, "gpus": [{"uuid": uuid(1)}]}}
    made = planning.make_plan(this, found, texts, facts, "two computes on a GPU")
    tokens = plan.row_tokens(texts.text_bytes, texts.rows, found.max_tokens)
    assert made.part_rows == plan.part_rows_for("cpu", 4500, found.weights_bytes, tokens)
    assert made.part_rows < plan.part_rows_for("cuda", 4500, found.weights_bytes, tokens)


def test_no_plan_is_made_while_a_host_is_not_known(tmp_path):
    this = new_run(tmp_path)
    checks, made = preflight.the_plan(this, *numbered(this), {"one": {"cores": 2, "gpus": []}})
    assert made is None and not checks.ok


# ---------------------------------------------------------------------------------------------------------------- GPUs


def uuid(index):
    return f"GPU-5d5ba0d6-d33d-2b2c-524d-{index:012x}"


def row(index, used=4, **changes):
    """A line of nvidia-smi's table of GPUs."""
    values = {"name": "NVIDIA H100", "total": "81559", "used": used, "driver": "550.1", "load": "3", **changes}
    return f"{index}, {uuid(index)}, " + ", ".join(map(str, [*values.values(), 41, 95.2, "Disabled", 0, "Default"]))


RESET = row(2, used="[GPU requires reset]", total="[GPU requires reset]")


@pytest.fixture
def cuda(tmp_path, monkeypatch):
    """Makes a run on a host whose nvidia-smi says what it is told; gives the checks of hosts and of the plan."""

    def make(*rows, apps="", slots="auto", code=0, before=lambda this: None):
        said = "\n".join(rows)
        answers = [("compute-apps", apps, 0), ("query-gpu", said, code), ("-L", "", 0)]
        cases = "".join(f"*{word}*) cat <<'END'\n{text}\nEND\nexit {end} ;;\n" for word, text, end in answers)
        executable(tmp_path / "tools" / "nvidia-smi", f'#!/bin/sh\ncase "$*" in\n{cases}esac\n')
        monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
        hosts = f"[{{name: one, kind: local, slots: {slots}, device: cuda, workdir: one}}]"
        this = new_run(tmp_path, hosts=hosts)
        before(this)
        checks, facts = preflight.the_hosts(this, None)
        return checks, *preflight.the_plan(this, *numbered(this), facts)

    return make


UNTRIED = "model loads"  # fails in all of these: there was no model to try


@pytest.mark.process
def test_every_gpu_that_works_is_a_slot_known_by_its_uuid_and_a_broken_one_is_left_out(cuda):
    checks, _, drawn = cuda(row(0), row(1), RESET)
    assert [(slot.slot, slot.gpu, slot.device) for slot in drawn.slots] == [
        ("cluster0_gpu0", uuid(0), "cuda"),
        ("cluster0_gpu1", uuid(1), "cuda"),
    ]
    assert [check.name for check in checks.failed] == [UNTRIED]
    assert named(checks, "GPUs").seen == "2 x NVIDIA H100 of 80 GiB (index 0, 1)"
    broken = named(checks, "GPU 2")
    assert (broken.verdict, broken.seen) == ("warning", "left out: [GPU requires reset]")


@pytest.mark.process
def test_fewer_slots_than_gpus_may_be_asked_for(cuda):
    checks, _, drawn = cuda(row(0), row(1), slots=1)
    assert [slot.gpu for slot in drawn.slots] == [uuid(0)]
    assert [check.name for check in checks.failed] == [UNTRIED]


@pytest.mark.process
@pytest.mark.parametrize("rows", [(row(0), row(1), RESET), (row(0), row(1))])
def test_more_slots_than_gpus_that_work_are_a_failing_check_and_no_plan(cuda, rows):
    hosts, plans, drawn = cuda(*rows, slots=3)
    assert [check.name for check in hosts.failed] == ["GPUs", UNTRIED]
    assert (named(hosts, "GPUs").seen, named(hosts, "GPUs").expected) == (
        "2 x NVIDIA H100 of 80 GiB (index 0, 1)",
        "3 that work",
    )
    assert drawn is None
    assert "too few GPUs on one" in plans.failed[0].seen


USER = f"{uuid(0)}, 4711, python3, 70000"


@pytest.mark.process
def test_a_gpu_that_others_use_is_the_last_to_be_taken(cuda):
    checks, _, drawn = cuda(row(0, used=70000), row(1), apps=USER, slots=1)
    assert [slot.gpu for slot in drawn.slots] == [uuid(1)]
    assert [check.name for check in checks.failed] == [UNTRIED]


@pytest.mark.process
def test_left_to_choose_only_free_gpus_are_taken_and_the_others_named(cuda):
    checks, _, drawn = cuda(row(0, used=70000), row(1), apps=USER)
    assert [slot.gpu for slot in drawn.slots] == [uuid(1)]
    assert named(checks, "GPU 0").seen == "left out: taken by python3 (pid 4711, 70000 MiB)"
    assert named(checks, "GPU 0").warn


@pytest.mark.process
def test_gpus_that_are_all_taken_are_a_failing_check(cuda):
    checks, _, _ = cuda(row(0, used=70000), apps=USER)
    assert [check.name for check in checks.failed] == ["GPUs free", UNTRIED]


@pytest.mark.process
def test_a_gpu_that_others_use_and_that_is_needed_is_a_failing_check_that_names_them(cuda):
    checks, _, _ = cuda(row(0, used=70000), row(1), apps=USER, slots=2)
    assert [check.name for check in checks.failed] == ["GPUs free", UNTRIED]
    assert "GPU 0: python3 (pid 4711, 70000 MiB)" in named(checks, "GPUs free").seen
    assert "lower `slots`" in named(checks, "GPUs free").remedy


@pytest.mark.process
def test_a_gpu_that_this_runs_own_worker_uses_is_not_taken(cuda):
    def at_work(this):
        there = folder(this)
        connected(this).claim(this.id)
        write_json(there.assignment("one"), wired.assignment([wired.slot("cluster0_gpu0", (0, 18))]))
        write_json(there.progress("cluster0_gpu0"), {"process": process.identify(os.getpid()), "state": "running"})

    apps = f"{uuid(0)}, {os.getpid()}, python3, 70000"
    checks, _, drawn = cuda(row(0, used=70000), row(1), apps=apps, before=at_work)
    assert [check.name for check in checks.failed] == [UNTRIED]
    assert [slot.gpu for slot in drawn.slots] == [uuid(0), uuid(1)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "code"),
    [("No devices were found", 6), ("Failed to initialize NVML: Driver/library version mismatch", 18), ("", 9)],
)
def test_a_driver_that_does_not_answer_is_quoted_and_gives_no_plan(cuda, said, code):
    hosts, plans, drawn = cuda(said, code=code)
    assert [check.name for check in hosts.failed] == ["GPUs", UNTRIED]
    assert (said or "ended with exit code 9") in named(hosts, "GPUs").seen
    assert named(hosts, "GPUs").remedy
    assert drawn is None and not plans.ok


@pytest.mark.process
def test_a_machine_without_nvidia_smi_is_a_failing_check_and_gives_no_plan(cuda, tmp_path, monkeypatch):
    cuda(row(0))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("worker.machine.NVIDIA_PLACES", ())
    this = opening.open_folder(next((tmp_path / "runs").iterdir()))
    checks, facts = preflight.the_hosts(this, None)
    assert [check.name for check in checks.failed] == ["GPUs", UNTRIED]
    assert named(checks, "GPUs").seen == "nvidia-smi: not found"
    assert "install the NVIDIA driver" in named(checks, "GPUs").remedy
    assert preflight.the_plan(this, *numbered(this), facts)[1] is None


# --------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.process
def test_one_host_that_cannot_be_reached_hides_no_other(tmp_path):
    far = f"{{name: far, kind: ssh, device: cpu, slots: 1, credentials: {nobody_there(tmp_path)}}}"
    hosts = f"[{{name: one, kind: local, slots: 1, device: cpu, workdir: one}}, {far}]"
    this = new_run(tmp_path, hosts=hosts)
    checks, facts = preflight.the_hosts(this, None)
    assert list(facts) == ["one"]
    (check,) = (check for check in checks if check.where == "far")
    assert (check.name, check.ok) == ("reachable", False)
    assert "127.0.0.1" in check.seen
    assert all(check.ok for check in checks if check.where == "one" and check.name != UNTRIED)
    assert preflight.the_plan(this, *numbered(this), facts)[1] is None


@pytest.mark.process
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_working_folder_that_cannot_be_made_is_named_with_its_host(tmp_path, device):
    hosts = f"[{{name: one, kind: local, slots: 1, device: {device}, workdir: one}}, "
    hosts += "{name: two, kind: local, slots: 1, device: cpu, workdir: two}]"
    this = new_run(tmp_path, hosts=hosts)
    (tmp_path / "one").write_text("a file stands where the folder should be")
    checks, _ = preflight.the_hosts(this, None)
    check = next(check for check in checks.failed if check.name == "working folder")
    assert check.where == "one"
    assert str(tmp_path / "one") in check.seen
    assert all(check.ok for check in checks if check.where == "two" and check.name != UNTRIED)


@pytest.mark.process
def test_hosts_that_share_a_folder_are_told_of_each_other_and_nothing_of_that_stays_there(tmp_path):
    hosts = ", ".join(
        f"{{name: {name}, kind: local, slots: 1, device: cpu, workdir: {folder}}}"
        for name, folder in (("a", "same"), ("b", "same"), ("c", "other"))
    )
    checks, facts = preflight.the_hosts(new_run(tmp_path, hosts=f"[{hosts}]"), None)
    shared = {check.where: check.seen for check in checks if check.name == "folder"}
    assert shared == {"a": "shared with b", "b": "shared with a"}
    assert all(check.verdict == "warning" for check in checks if check.name == "folder")
    assert (facts["a"]["shared"], facts["b"]["shared"], "shared" in facts["c"]) == (["b"], ["a"], False)
    assert [list((tmp_path / folder).iterdir()) for folder in ("same", "other")] == [[], []]


@pytest.mark.process
def test_a_python_that_cannot_be_started_is_a_failing_check(tmp_path):
    this = new_run(tmp_path, names=("one",))
    (tmp_path / "bin" / "python").chmod(0o600)
    checks, _ = preflight.the_hosts(this, preflight.the_model(this)[1])
    assert "cannot start" in named(checks, "model loads").seen


def test_a_probe_loads_no_model_that_another_account_may_change(tmp_path):
    folder = tmp_path / "work" / "models" / "abc"
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "modules.json").chmod(0o666)
    with pytest.raises(PermissionError, match=r"modules\.json"):
        probe.probe(folder, "cpu", "float32")


LONG = {"claimed": 64, "tokens": 64, "error": "", "works": None, "cosine": 1.0}
PROBE = {
    "dim": 4,
    "norm": 1.0,
    "bad": "",
    "normalises": True,
    "why_padded": "",
    "loaded_s": 0.1,
    "device": "cpu",
    "torch": "none",
    "cosine": {"document": 1.0, "query": 1.0},
    "long": {"document": LONG},
    "again": {"rows": 32, "tokens": 64, "cosine": {"in one batch": 1.0}},
}


def vectors(dim, first=1.0):
    values = np.ones((4, dim), "<f4")
    values[:, 0] = first
    return dict.fromkeys(("document", "query"), base64.b64encode(values.tobytes()).decode())


def probed(tmp_path, **changes):
    """The checks and the facts of a run whose host's Python answers a probe so."""
    this = new_run(tmp_path, names=("one",))
    answer = {"vectors": vectors(5 if changes.get("dim") == 5 else 4), **PROBE, **changes}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\necho loading\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    return this, *preflight.the_hosts(this, preflight.the_model(this)[1])


CLAIM = "the model claims 64"
OUT_OF_RANGE = {**LONG, "error": "IndexError: index out of range in self", "works": 30}


@pytest.mark.process
@pytest.mark.parametrize(
    ("changes", "name", "seen", "remedy"),
    [
        ({"dim": 5}, "first vector", "5 numbers, norm 1.000000", "not what they say"),
        ({"bad": "a vector of zeros"}, "first vector", "a vector of zeros", ""),
        ({"normalises": False}, "first vector", "4 numbers, norm 1.000000", ""),
        ({"cosine": {"document": 1.0, "query": 0.2}}, "as the library", "lowest cosine 0.2000000", "another model"),
        ({"long": {"query": {**LONG, "cosine": 0.9}}}, "as the library", "lowest cosine 0.9000000", "side of padding"),
        ({"long": {"query": OUT_OF_RANGE}}, "longest text", OUT_OF_RANGE["error"], f"{CLAIM}, and keeps 30: set model"),
        (
            {"again": {"rows": 32, "tokens": 64, "cosine": {"alone": 1.0, "in one batch": 0.5}}},
            "as the processor",
            "lowest cosine 0.5000000 in one batch, of 32 texts of up to 64 tokens",
            "`device: cpu` for this host",
        ),
        (
            {"long": {"document": {**OUT_OF_RANGE, "works": None}}},
            "longest text",
            OUT_OF_RANGE["error"],
            f"{CLAIM}: lower model.max_tokens",
        ),
        ({"error": "ModuleNotFoundError: No module named 'torch'", "missing": True}, "model loads", "No m", "pip inst"),
        ({"error": "ValueError: Please pass trust_remote_code=True"}, "model loads", "Please", "code of its own"),
        ({"error": "ValueError: no padding token"}, "model loads", "ValueError: no padding token", "cannot be used"),
    ],
)
def test_what_the_probe_finds_is_held_against_what_the_model_says(tmp_path, changes, name, seen, remedy):
    _, checks, _ = probed(tmp_path, **changes)
    assert [check.name for check in checks.failed] == [name]
    assert checks.failed[0].seen.startswith(seen) or seen in checks.failed[0].seen
    assert remedy in checks.failed[0].remedy


@pytest.mark.process
@pytest.mark.parametrize(
    "changes",
    [
        {"dim": -1},
        {"dim": True},
        {"dim": 10**9},
        {"norm": "much"},
        {"norm": float("inf")},
        {"long": {}},
        {"long": []},
        {"long": {"document": {}}},
        {"cosine": None},
        {"vectors": {"document": "!", "query": "!"}},
        {"vectors": dict.fromkeys(("document", "query"), "AAAAAAAA")},
        {"loaded_s": []},
        {"again": []},
        {"again": {"rows": 32, "tokens": 64, "cosine": {}}},
        {"again": {"rows": 32, "tokens": 64, "cosine": {"alone": "much"}}},
    ],
)
def test_a_probe_that_cannot_be_true_is_refused(tmp_path, changes):
    _, checks, _ = probed(tmp_path, **changes)
    assert [check.name for check in checks.failed] == ["model loads"]
    assert "answered what no probe answers" in checks.failed[0].seen


@pytest.mark.process
@pytest.mark.parametrize("again", [None, {"rows": 32, "tokens": 64, "cosine": {}, "error": "in one batch: no memory"}])
def test_a_device_that_was_not_held_against_the_processor_is_a_warning(tmp_path, again):
    _, checks, _ = probed(tmp_path, again=again)
    assert checks.ok and named(checks, "as the processor").verdict == "warning"
    said = again["error"] if again else "its worker does not say"
    assert named(checks, "as the processor").seen == f"not compared: {said}"


@pytest.mark.process
def test_a_limit_that_was_not_tried_to_its_end_is_told(tmp_path):
    _, checks, _ = probed(tmp_path, long={"document": {**LONG, "claimed": 32768}})
    assert checks.ok
    assert (named(checks, "longest text").verdict, named(checks, "longest text").seen) == (
        "warning",
        "64 tokens encode; the model claims 32,768",
    )


def without_a_width(tmp_path):
    """A model that says nothing of its width, as CLIP does."""
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    write_json(tmp_path / "model" / "modules.json", [modules[0], modules[2]])


@pytest.mark.process
def test_a_width_that_the_files_do_not_tell_is_measured_and_planned(tmp_path):
    this = new_run(tmp_path, names=("one",))
    without_a_width(tmp_path)
    answer = {"vectors": vectors(7), **PROBE, "dim": 7}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    found, texts = numbered(this)
    assert found.dim is None
    assert preflight.the_plan(this, found, texts, {"one": {"cores": 2, "gpus": []}})[1] is None
    assert "the width of a vector is not known" in preflight.the_plan(this, found, texts, {})[0].failed[0].seen
    checks, facts = preflight.the_hosts(this, found)
    assert checks.ok, checks
    assert preflight.the_disks(this, found, texts, facts).ok
    drawn = preflight.the_plan(this, found, texts, facts)[1]
    assert (drawn.model.dim, drawn.model.normalises) == (7, True)


@pytest.mark.process
def test_a_width_that_the_profile_asserts_is_held_against_the_measure(tmp_path):
    this = new_run(tmp_path, names=("one",), model="{name: ./model, dim: 8}")
    without_a_width(tmp_path)
    answer = {"vectors": vectors(7), **PROBE, "dim": 7}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    found, texts = numbered(this)
    assert preflight.the_plan(this, found, texts, {"one": {"cores": 2, "gpus": []}})[1].model.dim == 8
    checks, _ = preflight.the_hosts(this, found)
    assert [(check.name, check.expected) for check in checks.failed] == [("first vector", "8 numbers, norm 1")]


@pytest.mark.process
def test_only_the_listed_files_are_tried_where_they_were_sent(tmp_path):
    this = new_run(tmp_path, names=("one",))
    (tmp_path / "model" / "notes.md").write_text("not sent")
    told = tmp_path / "told"
    answer = {"vectors": vectors(4), **PROBE}
    text = f"#!/bin/sh\necho \"$@\" > {told}\ncat <<'END'\n{json.dumps(answer)}\nEND\n"
    executable(tmp_path / "bin" / "python", text)
    found = preflight.the_model(this)[1]
    assert preflight.the_hosts(this, found)[0].ok
    words = told.read_text().split()
    there = Path(words[words.index("--model") + 1])
    assert there == tmp_path / "one" / "models" / found.digest[:32]
    assert sorted(str(p.relative_to(there)) for p in there.rglob("*") if p.is_file()) == [f.path for f in found.files]


@pytest.mark.process
def test_a_host_whose_vectors_are_others_is_named(tmp_path):
    this = new_run(tmp_path)
    for name, first in (("one", 1.0), ("two", -9.0)):
        answer = json.dumps({"vectors": vectors(4, first), **PROBE})
        executable(tmp_path / f"python_{name}", f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    spec = [replace(host, environment=str(tmp_path / f"python_{host.name}")) for host in this.profile.hosts]
    this = run.Run(this.folder, replace(this.profile, hosts=tuple(spec)))
    checks, _ = preflight.the_hosts(this, preflight.the_model(this)[1])
    assert [(check.name, check.where) for check in checks.failed] == [("same vectors", "two")]
    assert "to one" in checks.failed[0].seen


@pytest.mark.process
@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_device_that_nobody_here_ever_ran_is_said_to_be_one_and_has_one_slot(tmp_path, device):
    """The host's Python answers a probe as if it had such a device."""
    python = executable(tmp_path / "bin" / "python", "")
    hosts = f"[{{name: one, kind: local, device: {device}, workdir: one, environment: {python}}}]"
    this = new_run(tmp_path, hosts=hosts, model="{name: ./model, dtype: bfloat16}")
    answer = {"vectors": vectors(4), **PROBE, "device": f"{device} (a GPU)"}
    text = f'#!/bin/sh\necho "$@" > {tmp_path}/told\n'
    executable(tmp_path / "bin" / "python", f"{text}cat <<'END'\n{json.dumps(answer)}\nEND\n")
    found, texts = numbered(this)
    checks, facts = preflight.the_hosts(this, found)
    assert checks.ok, checks
    assert "never run on such hardware" in named(checks, "device").seen and named(checks, "device").verdict == "warning"
    assert named(checks, "dtype").verdict == "warning" and "float32" in named(checks, "dtype").remedy
    assert f"--device {device}" in (tmp_path / "told").read_text()
    made = preflight.the_plan(this, found, texts, facts)[1]
    assert [(slot.device, slot.gpu) for slot in made.slots] == [(device, None)]
    assert made.why_padded == "computed in bfloat16"


@pytest.mark.parametrize(
    ("answer", "ok", "seen"),
    [
        ({"product": ""}, True, "a matrix product came out right"),
        ({"product": "PyTorch is not linked with support for mps devices"}, False, "not linked with support"),
        ({}, False, "its worker does not say"),
    ],
)
def test_a_far_device_that_is_no_nvidia_gpu_must_multiply_right(answer, ok, seen):
    checks = Checks("hosts")
    spec = HostSpec(name="mac", device="mps")
    assert inventory.judge_libraries(checks, spec, {"gpus": []}, {"versions": {"torch": "2.13"}, **answer})
    assert named(checks, "GPU computes").ok == ok and seen in named(checks, "GPU computes").seen


def test_a_part_on_a_new_kind_of_device_is_between_those_of_a_cpu_and_of_a_gpu():
    sizes = [plan.part_rows_for(device, 10**6, 90_000_000, 250) for device in ("cpu", "mps", "xpu", "cuda")]
    assert sizes[0] < sizes[1] == sizes[2] <= sizes[3]


@pytest.mark.process
def test_a_device_that_this_runs_workers_use_is_not_tried_again(tmp_path):
    this, checks, _ = probed(tmp_path)
    assert checks.ok
    there = folder(this)
    write_json(there.assignment("one"), wired.assignment([wired.slot("cluster0_gpu0", (0, 18))]))
    write_json(there.progress("cluster0_gpu0"), {"process": process.identify(os.getpid()), "state": "running"})
    executable(tmp_path / "bin" / "python", "#!/bin/sh\nexit 9\n")
    found = preflight.the_model(this)[1]
    assert preflight.the_hosts(this, found)[0].ok
    there.progress("cluster0_gpu0").unlink()
    assert not preflight.the_hosts(this, found)[0].ok


@pytest.mark.process
@pytest.mark.parametrize(
    ("changes", "batching", "why"),
    [
        ({}, "packed", ""),
        ({"why_padded": "it has a module CNN"}, "padded", "one: it has a module CNN"),
        ({"why_padded": None}, "padded", "one: None"),
        ({"error": "OSError: no such file"}, "padded", "one was not tried before the plan was made"),
    ],
)
def test_batches_are_packed_only_where_every_host_says_that_it_can(tmp_path, changes, batching, why):
    this, _, facts = probed(tmp_path, **changes)
    checks, drawn = preflight.the_plan(this, *numbered(this), facts)
    assert (drawn.batching, drawn.why_padded) == (batching, why)
    assert named(checks, "batches").seen == (f"padded ({why})" if why else "packed")


def test_a_worker_that_does_not_say_whether_it_can_is_padded(tmp_path):
    """One of the version before, whose answer is kept."""
    said = {"vectors": vectors(4), **PROBE}
    assert probe_answer.parse_probe(said).why_padded == ""
    del said["why_padded"]
    assert probe_answer.parse_probe(said).why_padded == "its worker does not say"


@pytest.mark.parametrize("key", ["loaded_s", "norm"])
def test_a_number_that_is_too_large_is_an_answer_that_is_none(key):
    probe = probing.parse_probe({"vectors": vectors(4), **PROBE, key: 10**400})
    assert "answered what no probe answers (OverflowError" in probe.error


@pytest.mark.process
def test_a_run_goes_on_as_it_began(tmp_path):
    """One that was packed is refused where a host cannot any more; one that was padded stays so."""
    this, _, facts = probed(tmp_path)
    found, texts = numbered(this)
    assert preflight.the_plan(this, found, texts, facts)[1].batching == "packed"
    write_json(this.local.part(0, 3).with_suffix(".json"), {})
    assert preflight.the_plan(this, found, texts, facts)[1].batching == "packed"
    kept = this.load_json("probe_one.json")
    this.save_json("probe_one.json", {**kept, "answer": {**kept["answer"], "why_padded": "it is too old"}})
    checks, made = preflight.the_plan(this, found, texts, facts)
    assert made is None
    assert (checks.failed[0].name, checks.failed[0].seen) == ("batches", "one: it is too old")
    replace(this.plan(), batching="padded", why_padded="").save(this.plan_file)
    assert preflight.the_plan(this, found, texts, facts)[1].batching == "padded"
    this.save_json("probe_one.json", kept)
    assert preflight.the_plan(this, found, texts, facts)[1].batching == "padded"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"model": "{name: ./model, dtype: bfloat16}"}, "computed in bfloat16"),
        ({"hosts": "[{name: one, kind: local, device: cuda, workdir: one}]"}, "one computes on a GPU"),
    ],
)
def test_only_float32_on_processors_is_packed(tmp_path, keys, why):
    this = new_run(tmp_path, **keys)
    assert probing.why_padded(this, preflight.the_model(this)[1]) == why


@pytest.mark.process
def test_a_host_that_came_later_and_cannot_pack_is_given_no_rows(tmp_path):
    this, _, facts = probed(tmp_path)
    found, texts = numbered(this)
    assert preflight.the_plan(this, found, texts, facts)[1].batching == "packed"
    (this.report / "probe_one.json").unlink()
    this.save_json("hosts.json", {"hosts": {"one": {**facts["one"], "made": False}}})
    answer = {"vectors": vectors(4), **PROBE, "why_padded": "its version of sentence-transformers is too old"}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    staged = staging.stage(this)
    assert "batches: its version of sentence-transformers is too old" in staged.failed[0].seen
    assert not folder(this).assignment("one").exists()
    executable(
        tmp_path / "bin" / "python", f"#!/bin/sh\ncat <<'END'\n{json.dumps({**answer, 'why_padded': ''})}\nEND\n"
    )
    assert staging.stage(this).ok
    assert json.loads(folder(this).assignment("one").read_text())["batching"] == "packed"


@pytest.mark.process
def test_a_host_whose_environment_was_made_later_tries_the_model_before_its_rows_are_given(tmp_path):
    this, checks, facts = probed(tmp_path)
    assert checks.ok
    found, texts = numbered(this)
    assert preflight.the_plan(this, found, texts, facts)[1] is not None
    (this.report / "probe_one.json").unlink()
    this.save_json("hosts.json", {"hosts": {"one": {**facts["one"], "made": False}}})
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\necho '{json.dumps({'error': 'OSError: no such file'})}'\n")
    staged = staging.stage(this)
    assert "model loads: OSError: no such file" in staged.failed[0].seen
    assert not folder(this).assignment("one").exists()
    answer = {"vectors": vectors(4), **PROBE}
    executable(tmp_path / "bin" / "python", f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    assert staging.stage(this).ok
    assert folder(this).assignment("one").exists()
