"""Whole runs over two real OpenSSH hosts that lose their network, their operator, their files; the light encoder."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import forking
import made_up
import pytest
from box import script
from hosts_by_ssh import profile_text
from local_run import folder as local_folder
from local_run import host, model_folder
from waiting import wait_for

from runbook_lib.hosts import hosts
from runbook_lib.hosts.content import file_content, json_content
from runbook_lib.hosts.ssh import link
from runbook_lib.phases import download, launch, merge, monitor, preflight, probing, staging, tend, workers
from runbook_lib.profile import profile
from runbook_lib.report import clean
from runbook_lib.run import opening, run
from runbook_lib.run.phase_result import PhaseResult
from runbook_lib.slots.watcher import Watcher
from worker.layout import committed

COUNT = 40


class Quiet:
    def show(self, state):
        """Nobody looks."""


@pytest.fixture(autouse=True)
def own_connections(monkeypatch):
    """And where the preflight tries the model on this machine too, for a run without a host of it, that is forked."""
    monkeypatch.setattr(probing, "sys", types.SimpleNamespace(executable=forking.python()))
    yield
    hosts._hosts.clear()
    link.close_all()


def light(folder):
    return script(folder / "light", f'#!/bin/sh\nexec "{sys.executable}" "{made_up.__file__[:-10]}poison.py" "$@"\n')


def prepared(ssh_fleet, folder, texts=None, local=False, **lines):
    """A run over the fleet (or over two local folders) whose plan is made."""
    folder.mkdir(parents=True, exist_ok=True)
    model_folder(folder / "model", dim=made_up.DIM)
    documents = made_up.documents(COUNT)
    for row, text in (texts or {}).items():
        documents[row]["text"] += f" {text}"
    (folder / "corpus.json").write_text(json.dumps(documents))
    far = list(ssh_fleet.hosts.values())
    lines = {"part_rows": "4", "run": folder.name, "monitor": "{interval_s: 0.3}", **lines}
    (folder / "p.yaml").write_text(profile_text(far, light(folder), local, **lines))
    this = opening.create(profile.load(folder / "p.yaml"))
    _, model = preflight.the_model(this)
    _, corpus = preflight.the_corpus(this, model)
    if local:
        facts = {spec.name: {"cores": 1, "gpus": []} for spec in this.hosts}
    else:
        checks, facts = preflight.the_hosts(this, model)
        assert checks.ok, checks
    checks, plan = preflight.the_plan(this, model, corpus, facts)
    assert checks.ok and plan, checks
    return this


def launched(this):
    for checks in (staging.prepare(this), staging.stage(this), launch.start(this)):
        assert checks.ok, checks
    return this


def look(this):
    return Watcher(this, this.plan()).poll()


def finish(this):
    """Watch to the end and bring everything home; gives the events of restarts meanwhile."""
    state = asyncio.run(monitor.watch(this, Quiet(), act=tend.tend))
    assert state.done, state
    got = download.collect(this)
    assert (got.rows, got.refused, got.failures) == (COUNT, (), ())
    merge.merge(this)
    return (this.candidate / "embeddings.npy").read_bytes()


def supervisors(this):
    return {spec.name: host(this, spec.name).poll().supervisor.process["pid"] for spec in this.hosts}


def let_go(this):
    for spec in this.hosts:
        root = host(this, spec.name).folder.root
        host(this, spec.name).put(root / "go", json_content({}))


@pytest.mark.usefixtures("either_client")
def test_two_hosts_give_the_bytes_that_two_local_folders_give(ssh_fleet, tmp_path):
    far = finish(launched(prepared(ssh_fleet, tmp_path / "far")))
    near = finish(launched(prepared(ssh_fleet, tmp_path / "near", local=True)))
    assert far == near


def test_launching_twice_starts_and_sends_nothing_twice(ssh_fleet, tmp_path):
    this = launched(prepared(ssh_fleet, tmp_path / "twice", {0: "WAIT", 20: "WAIT"}))
    wait_for(lambda: all(slot.state == "running" for slot in look(this).slots), "both run")
    before = supervisors(this)
    assert [check.seen.rpartition(" ")[0].split(": ")[-1] for check in staging.stage(this)]
    assert all(check.seen.startswith("runs already") for check in launch.start(this))
    assert all("0 files new" in check.seen for check in staging.stage(this))
    assert supervisors(this) == before
    let_go(this)
    finish(this)


@pytest.mark.usefixtures("either_client")
def test_a_host_whose_network_goes_keeps_its_workers_and_is_taken_up_again(ssh_fleet, tmp_path):
    """Row 18: unreachable is not dead. Nothing is launched a second time."""
    this = launched(prepared(ssh_fleet, tmp_path / "cut", {0: "WAIT", 20: "WAIT"}))
    wait_for(lambda: all(slot.state == "running" for slot in look(this).slots), "both run")
    before = {slot.slot: host(this, slot.host).poll().slots[slot.slot].report.process for slot in this.plan().slots}
    supervised = supervisors(this)
    watcher = Watcher(this, this.plan())
    watcher.poll()
    far = ssh_fleet.hosts["tensor01"]
    far.cut()
    try:
        began = time.monotonic()
        state = watcher.poll()
        assert time.monotonic() - began < 20
        assert {slot.host: slot.state for slot in state.slots} == {"tensor01": "unreachable", "tensor02": "running"}
        assert any(alert.startswith("tensor01: the connection") for alert in state.alerts)
        assert tend.tend(this, state) == []
        time.sleep(2)
        assert "tensor01: reaching" in " ".join(watcher.poll().alerts)
    finally:
        far.restore()
    state = wait_for(lambda: (s := watcher.poll()) and all(x.state == "running" for x in s.slots) and s, "back", 30)
    after = {slot.slot: host(this, slot.host).poll().slots[slot.slot].report.process for slot in this.plan().slots}
    assert (after, supervisors(this)) == (before, supervised)
    assert tend.tend(this, state) == []
    let_go(this)
    finish(this)
    assert list(this.journal.events("revived")) == []
    started = [event["host"] for event in this.journal.events("supervisor started")]
    moved = {host for event in this.journal.events("rows moved") for host in event["to"]}  # one that was done gets some
    assert sorted(started[:2]) == ["tensor01", "tensor02"] and {*started[2:]} <= moved


@pytest.mark.usefixtures("either_client")
def test_a_host_that_crashed_and_came_back_goes_on_from_its_parts(ssh_fleet, tmp_path):
    if ssh_fleet.mode != "netns":
        pytest.skip("a crash of a whole host needs namespaces")
    this = launched(prepared(ssh_fleet, tmp_path / "crash", {12: "WAIT", 32: "WAIT"}))
    wait_for(lambda: look(this).committed >= 20, "first parts")
    far = ssh_fleet.hosts["tensor02"]
    far.crash()
    state = look(this)
    assert {slot.host: slot.state for slot in state.slots}["tensor02"] == "unreachable"
    far.boot()
    wait_for(lambda: {s.host: s.state for s in look(this).slots}["tensor02"] == "dead", "seen as dead", 30)
    let_go(this)
    undisturbed = finish(launched(prepared(ssh_fleet, tmp_path / "calm", local=True)))
    assert finish(this) != undisturbed  # its texts say WAIT: other bytes
    assert len(list(this.journal.events("revived"))) == 1
    assert list(this.journal.events("part refused")) == []


LAUNCH = """
import sys
sys.path[:0] = [{tests!r}]
import os
from runbook_lib.phases import launch, staging, workers
from runbook_lib.run import opening
this = opening.open_folder(__import__("pathlib").Path({folder!r}))
assert staging.stage(this).ok and launch.start(this).ok
print("launched", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("either_client")
def test_workers_finish_alone_when_everything_here_is_killed_right_after_the_launch(ssh_fleet, tmp_path):
    this = prepared(ssh_fleet, tmp_path / "alone")
    code = LAUNCH.format(tests=str(made_up.__file__.rpartition("/")[0]), folder=str(this.folder))
    hosts._hosts.clear()
    link.close_all()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout and child.stdout.readline() == b"launched\n"
        os.killpg(child.pid, signal.SIGKILL)
    homes = [far.home / "mapper_embeddings" / this.name / "parts" for far in ssh_fleet.hosts.values()]
    wait_for(lambda: sum(stop - start for home in homes for start, stop in committed(home)) == COUNT, "all committed")
    assert committed(this.local.parts) == []
    assert all(check.seen == "no rows left for this host" for check in launch.start(this))
    finish(this)


def test_only_the_hosts_that_are_named_are_touched(ssh_fleet, tmp_path):
    this = launched(prepared(ssh_fleet, tmp_path / "subset", {0: "WAIT", 20: "WAIT"}))
    wait_for(lambda: all(slot.state == "running" for slot in look(this).slots), "both run")
    before = supervisors(this)
    some = opening.limited(this, "tensor01")
    assert [check.where for check in workers.stop(some)] == ["tensor01"]
    assert {slot.host: slot.state for slot in look(this).slots} == {"tensor01": "stopped", "tensor02": "running"}
    assert [slot.host for slot in look(some).slots] == ["tensor01"]
    assert workers.restart(some).ok
    after = supervisors(this)
    assert after["tensor02"] == before["tensor02"] and after["tensor01"] != before["tensor01"]
    let_go(this)
    finish(this)


def decoys(ssh_fleet, this):
    """Two look-alike processes and files per host, which are none of ours: (popen, files)."""
    children, files = [], []
    for far in ssh_fleet.hosts.values():
        for name in (f"{this.name}-2", f"{this.name}x"):
            root = far.home / "mapper_embeddings" / name
            (root / "parts").mkdir(parents=True)
            (root / "parts" / "rows_000000000_000000004.npy").write_bytes(b"not ours")
            (root / "worker").mkdir()
            (root / "worker" / "__init__.py").touch()
            (root / "worker" / "__main__.py").write_text("import time\ntime.sleep(600)\n")
            files += [path for path in root.rglob("*") if path.is_file()]
            far_root = f"mapper_embeddings/{name}"
            # By the host's own login, so that they stand beside our workers in its process list.
            words = f"cd {far_root} && exec {sys.executable} -m worker supervise --root ~/{far_root} --host {far.name}"
            children.append(subprocess.Popen(ssh(ssh_fleet, far, words), stdin=subprocess.DEVNULL))
    return children, files


def ssh(ssh_fleet, far, words):
    return ["ssh", "-F", str(ssh_fleet.ssh_config), "-T", far.name, words]


def test_processes_and_files_that_only_look_like_ours_survive_stop_restart_and_clean(ssh_fleet, tmp_path, monkeypatch):
    this = launched(prepared(ssh_fleet, tmp_path / "decoy", {0: "WAIT", 20: "WAIT"}))
    wait_for(lambda: all(slot.state == "running" for slot in look(this).slots), "both run")
    children, files = decoys(ssh_fleet, this)
    try:
        before = {path: path.read_bytes() for path in files}
        time.sleep(1)
        assert workers.stop(this).ok
        assert workers.restart(this).ok
        let_go(this)
        finish(this)
        # Clean asks for a finished run with a verified backup; that is another test's matter.
        monkeypatch.setattr(run.Run, "finished", True)
        monkeypatch.setattr(clean.report, "verify", lambda this: clean_checks())
        backup = tmp_path / "backup"
        backup.write_bytes(b"kept")
        stated = {"path": str(backup), "sha256": file_content(backup).sha256}
        result = PhaseResult(figures={"backup": stated})
        monkeypatch.setattr(run.Run, "result", lambda self, phase: result)
        monkeypatch.setattr(clean.report, "seal", lambda this, as_pdf=False: None)
        assert len(clean.clean(this)) == 2
        for far in ssh_fleet.hosts.values():
            left = (far.home / "mapper_embeddings" / this.name).iterdir()
            assert {path.name for path in left} == {"go", "run.json"}  # what this test put there stays, with the mark
        assert {path: path.read_bytes() for path in files} == before
        assert [child.poll() for child in children] == [None] * len(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for far in ssh_fleet.hosts.values():
            for pid in far.processes():
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    if f"mapper_embeddings/{this.name}" in Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGKILL)


def clean_checks():
    from runbook_lib.run.checks import Checks

    return Checks("the archive")


def test_a_host_that_gets_a_part_wrong_has_it_done_again(ssh_fleet, tmp_path):
    this = launched(prepared(ssh_fleet, tmp_path / "flip"))
    wait_for(lambda: look(this).done, "all committed")
    wait_for(lambda: not look(this).busy, "its supervisors end")  # one that ends just then would be left alone
    far = ssh_fleet.hosts["tensor01"].home / "mapper_embeddings" / this.name / "parts"
    part = sorted(far.glob("*.npy"))[0]
    raw = bytearray(part.read_bytes())
    raw[-1] ^= 1
    part.write_bytes(raw)
    got = download.collect(this)
    assert len(got.refused) == 1 and "tensor01" in got.refused[0]
    assert launch.start(this).ok
    finish(this)


def test_the_shards_of_a_host_go_to_that_host_only(ssh_fleet, tmp_path):
    this = launched(prepared(ssh_fleet, tmp_path / "shards"))
    found = {
        name: sorted(p.name for p in (far.home / "mapper_embeddings" / this.name / "shards").iterdir())
        for name, far in ssh_fleet.hosts.items()
    }
    assert found == {"tensor01": ["rows_000000000_000000020.jsonl"], "tensor02": ["rows_000000020_000000040.jsonl"]}
    assert local_folder(this, "tensor01").root.is_absolute()
    finish(this)
