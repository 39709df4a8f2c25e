"""Weights that the hosts fetch: what this machine learns of them, and what a host does, against a hub of our own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import fleet
import huggingface_hub
import made_up
import pytest
from box import needs_proc, script
from hosts_by_ssh import profile_text
from hub import Hub
from huggingface_hub import constants
from local_run import host, model_folder
from proxy import Proxy
from waiting import wait_for

from runbook_lib.errors import ProfileError
from runbook_lib.hosts import hosts
from runbook_lib.hosts.bundle import bring_bundle
from runbook_lib.hosts.ssh import link
from runbook_lib.phases import preflight, sent_model, staging
from runbook_lib.profile import profile
from runbook_lib.profile.profile import ModelSpec
from runbook_lib.profile.secret import Secret
from runbook_lib.run import model, opening, run
from worker import fetch

ROOT = Path(__file__).parents[2]
TOKEN = "hf_NotForYourEyes0123456789"
NAME = "owner/name"
SPEC = ModelSpec(NAME, download="hosts")
LARGE = bytes(range(256)) * 2**14  # 4 MiB


@contextlib.contextmanager
def made(folder: Path, address: str = "127.0.0.1") -> Iterator[Hub]:
    """A hub with one gated model, to which one token has access."""
    (model_folder(folder, dim=made_up.DIM) / "model.safetensors").write_bytes(LARGE)
    with Hub(address) as hub:
        hub.accounts |= {TOKEN, "hf_stranger"}
        hub.add(NAME, folder, gated=True).members.add(TOKEN)
        yield hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with made(tmp_path / "at the hub") as hub:
        yield hub


def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub in this process, which read its settings when it was imported, know this hub only."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    use(hub, tmp_path / "cache", monkeypatch)
    yield hub
    huggingface_hub.close_session()


def refusal(spec: ModelSpec = SPEC, token: str | None = TOKEN) -> str:
    with pytest.raises(ProfileError) as caught:
        model.resolve(spec, Secret(token) if token else None)
    assert not token or token not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- on this machine


def test_the_model_is_the_same_as_if_its_weights_were_here(here: Hub, tmp_path: Path) -> None:
    found = model.resolve(SPEC, Secret(TOKEN))
    whole = model.resolve(ModelSpec(str(here.repos[NAME].folder)))
    assert (found.files, found.digest, found.bytes) == (whole.files, whole.digest, whole.bytes)
    assert (found.weights_bytes, found.dim, found.revision) == (len(LARGE), whole.dim, here.repos[NAME].commit)
    assert (found.remote, whole.remote) == ({"model.safetensors"}, frozenset())
    assert not here.asked("store") and not list((tmp_path / "cache").rglob("*.safetensors"))
    assert TOKEN not in repr(found)
    sent = model.resolve(replace(SPEC, download="here"), Secret(TOKEN))
    assert (sent.files, sent.digest, sent.remote) == (whole.files, whole.digest, frozenset())
    # What came meanwhile for other reasons is still fetched by the hosts.
    assert model.resolve(SPEC, Secret(TOKEN)) == found


def test_weights_in_folders_are_found_and_those_of_other_frameworks_left(here: Hub) -> None:
    folder = here.repos[NAME].folder
    for name in ("2_Dense/model.safetensors", "onnx/model.safetensors"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(name.encode())
    found = model.resolve(SPEC, Secret(TOKEN))
    assert found.remote == {"2_Dense/model.safetensors", "model.safetensors"}
    assert found.digest == model.resolve(ModelSpec(str(folder))).digest


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_model_is_refused_here_with_what_to_do(here: Hub, token: str | None) -> None:
    assert "accept the model's licence on its page" in refusal(token=token)


def test_a_licence_taken_back_is_noticed_though_the_small_files_are_here(here: Hub) -> None:
    model.resolve(SPEC, Secret(TOKEN))
    here.repos[NAME].members.clear()
    assert "accept the model's licence" in refusal()


def test_the_login_of_this_machine_does_not_count(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert model.resolve(replace(SPEC, download="here"))  # there it does
    assert "accept the model's licence" in refusal(token=None)


def test_a_public_model_needs_no_token_on_either_side(here: Hub, tmp_path: Path) -> None:
    here.repos[NAME].gated = False
    found = model.resolve(SPEC)
    assert fetched(json.loads(model.fetch_order(found, tmp_path / "m", None)), tmp_path)["new"] == 1
    assert {seen.authorization for seen in here.seen} == {None}


def test_what_else_a_hub_refuses_is_told_apart(here: Hub) -> None:
    assert "the hub refuses the token (401); hf_token" in refusal(token="hf_expired0123")
    assert "model.revision v9: the hub has no such revision" in refusal(replace(SPEC, revision="v9"))
    assert "knows no such model" in refusal(replace(SPEC, name="owner/other"))
    here.repos[NAME].private = True
    assert "knows no such model (or it is private: hf_token)" in refusal(token=None)
    here.page = b"<html>Please log in to this network</html>"
    assert "what answers is not the hub" in refusal()


def test_a_hub_that_cannot_be_reached_is_said(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the hub cannot be reached (ConnectError); with download: hosts" in refusal()


def test_weights_without_a_sha256_are_refused(here: Hub) -> None:
    here.repos[NAME].large = ()
    assert "does not say the sha256 of model.safetensors" in (said := refusal()) and "use download: here" in said


def test_a_hub_that_names_a_place_outside_the_folder_is_refused(here: Hub) -> None:
    here.repos[NAME].renamed["model.safetensors"] = "../../model.safetensors"
    assert "outside the model's folder: ../../model.safetensors" in refusal()


def test_what_the_profile_says_of_the_model_is_held_against_the_hubs_word(here: Hub) -> None:
    right = hashlib.sha256(LARGE).hexdigest()
    assert model.resolve(replace(SPEC, sha256=right, dim=made_up.DIM), Secret(TOKEN))
    assert "these are not the weights the profile asks for" in refusal(replace(SPEC, sha256="0" * 64))
    assert "model.dim: expected 3" in refusal(replace(SPEC, dim=3))


def test_only_a_model_of_the_hub_can_be_fetched_by_hosts(tmp_path: Path) -> None:
    for name in (str(tmp_path), "package:json"):
        assert f"model.download hosts: {name} is on this machine only" in refusal(replace(SPEC, name=name), None)


# ---------------------------------------------------------------------------------------------- on a host


def order(hub: Hub, place: Path, /, **changes: Any) -> dict[str, Any]:
    """The order as the launch writes it, without asking the hub."""
    repo = hub.repos[NAME]
    found = model.resolve(ModelSpec(str(repo.folder)))
    found = replace(found, name=NAME, revision=repo.commit, remote=frozenset({"model.safetensors"}))
    return {**json.loads(model.fetch_order(found, place, Secret(TOKEN))), "endpoint": hub.url, **changes}


def begin(value: object, tmp_path: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the fetching as a host does."""
    env = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1", **options.pop("env", {})}
    argv = [sys.executable, "-m", "worker", "fetch"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(argv, cwd=ROOT, env=env, text=True, **pipes, **options)
    assert child.stdin is not None
    child.stdin.write(json.dumps(value))
    child.stdin.close()
    child.stdin = None
    return child


def end(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=60)
    assert TOKEN not in out + err
    return child.returncode, out, err


def fetched(value: object, tmp_path: Path, **options: Any) -> dict[str, Any]:
    code, out, err = end(begin(value, tmp_path, **options))
    assert (code, err) == (0, "")
    return json.loads(out)


def refused(value: object, tmp_path: Path, **options: Any) -> str:
    code, out, err = end(begin(value, tmp_path, **options))
    assert (code, out, err.count("\n")) == (1, "", 1)
    return err


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def holds_token(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_a_host_fetches_what_it_lacks_and_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "host" / "model"
    assert fetched(order(hub, folder), tmp_path) == {"new": 1, "bytes": len(LARGE)}
    assert weights(folder).read_bytes() == LARGE and weights(folder).stat().st_mode & 0o777 == 0o600
    assert [seen.authorization for seen in hub.asked("hub")] == [f"Bearer {TOKEN}"]
    assert [seen.authorization for seen in hub.asked("store")] == [None]
    asked = len(hub.seen)
    assert fetched(order(hub, folder), tmp_path) == {"new": 0, "bytes": 0}
    assert len(hub.seen) == asked
    assert sorted(path.name for path in folder.rglob("*")) == [".fetch", "lock", "model.safetensors"]
    assert not (tmp_path / "home").exists()


def test_a_cut_in_the_middle_costs_no_more_than_what_was_under_way(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at = [3 * 2**20 + 5]
    assert fetched(order(hub, tmp_path / "m"), tmp_path)["new"] == 1
    assert hub.sent <= len(LARGE) + 2**20
    assert [seen.range for seen in hub.asked("store")] == [None, f"bytes={3 * 2**20}-"]


def test_a_fetching_that_was_killed_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.held = 3 * 2**20 + 5
    hub.go.clear()
    part = tmp_path / "m" / ".fetch" / f"{hashlib.sha256(LARGE).hexdigest()[:32]}.part"
    child = begin(order(hub, tmp_path / "m"), tmp_path)
    wait_for(lambda: part.is_file() and part.stat().st_size >= 3 * 2**20, "the first 3 MiB")
    child.kill()
    child.communicate()
    hub.go.set()
    assert not weights(tmp_path / "m").exists()
    assert fetched(order(hub, tmp_path / "m"), tmp_path)["new"] == 1
    assert hub.asked("store")[-1].range == f"bytes={3 * 2**20}-"
    assert weights(tmp_path / "m").read_bytes() == LARGE


@needs_proc
def test_two_at_once_fetch_once(hub: Hub, tmp_path: Path) -> None:
    hub.go.clear()
    lock = tmp_path / "m" / ".fetch" / "lock"
    both = [begin(order(hub, tmp_path / "m"), tmp_path) for _ in range(2)]

    def at_the_lock(child: subprocess.Popen[str]) -> bool:
        return any(os.path.realpath(fd) == str(lock) for fd in Path(f"/proc/{child.pid}/fd").iterdir())

    wait_for(lambda: hub.asked("store") and all(map(at_the_lock, both)), "one that fetches and one that waits")
    hub.go.set()
    done = [end(child) for child in both]
    assert sorted(json.loads(out)["new"] for _, out, _ in done) == [0, 1]
    assert len(hub.asked("store")) == 1 and hub.sent == len(LARGE)


@needs_proc
def test_the_token_is_nowhere_but_in_memory(hub: Hub, tmp_path: Path) -> None:
    hub.go.clear()
    child = begin(order(hub, tmp_path / "m"), tmp_path)
    wait_for(lambda: hub.asked("store"), "the download")
    for name in ("cmdline", "environ"):
        assert TOKEN.encode() not in Path(f"/proc/{child.pid}/{name}").read_bytes()
    assert not holds_token(tmp_path)
    hub.go.set()
    assert end(child)[0] == 0
    assert not holds_token(tmp_path)


def test_a_hub_that_says_the_token_aloud_is_not_repeated(hub: Hub, tmp_path: Path) -> None:
    for hub.echo in (403, 400):
        assert f"{hub.echo}" in refused(order(hub, tmp_path / "m"), tmp_path, env={"HF_DEBUG": "1"})


def test_a_library_that_says_the_token_aloud_is_not_repeated(hub: Hub, tmp_path: Path) -> None:
    said = refused(order(hub, tmp_path / "m", endpoint=f"http://127.0.0.1:{TOKEN}"), tmp_path)
    assert "***" in said and "the hub cannot be reached" in said


def test_other_bytes_than_were_promised_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(LARGE).hexdigest()
    hub.instead[sha256] = b"!" * len(LARGE)
    assert f"expected sha256 {sha256}, the hub gave" in refused(order(hub, tmp_path / "m"), tmp_path)
    hub.instead[sha256] = LARGE + b"more"
    assert f"no file of {len(LARGE)} bytes" in refused(order(hub, tmp_path / "m"), tmp_path)
    assert sorted(path.name for path in (tmp_path / "m").rglob("*")) == [".fetch", "lock"]


def test_what_lay_there_from_before_may_be_wrong(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / "m" / ".fetch" / f"{hashlib.sha256(LARGE).hexdigest()[:32]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 1000)
    weights(tmp_path / "m").write_bytes(b"?" * len(LARGE))
    assert fetched(order(hub, tmp_path / "m"), tmp_path)["new"] == 1
    assert weights(tmp_path / "m").read_bytes() == LARGE
    assert [seen.range for seen in hub.asked("store")] == ["bytes=1000-", None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token": None}, "accept the model's licence"),
        ({"token": "hf_stranger"}, "accept the model's licence"),
        ({"token": "hf_expired0123"}, "the hub refuses the token (401)"),
        ({"name": "owner/other"}, "knows no such model"),
        ({"revision": "0" * 40}, f"no such file at {'0' * 40}"),
        ({"endpoint": "http://127.0.0.1:9"}, "the hub cannot be reached from this host (Connect"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_hub_refuses_is_said_on_the_host(hub: Hub, tmp_path: Path, changes: Any, said: str) -> None:
    assert said in refused(order(hub, tmp_path / "m", **changes), tmp_path)


@pytest.mark.parametrize("status", [400, 410, 451, 500, 503])
def test_an_answer_that_will_be_the_same_is_not_met_with_run_again(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.echo = status
    said = refused(order(hub, tmp_path / "m"), tmp_path)
    assert f"the hub answers {status}" in said
    assert ("run again" in said) == (status in (500, 503)), said
    assert ("look at model.name" in said) == (status in (400, 410, 451)), said


def test_a_full_disk_is_said_before_and_in_the_middle(hub: Hub, tmp_path: Path) -> None:
    huge = [{**file, "bytes": 2**60} for file in order(hub, tmp_path)["files"]]
    assert "the disk is too full" in refused(order(hub, tmp_path / "m", files=huge), tmp_path)
    assert not hub.seen

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    said = refused(order(hub, tmp_path / "m"), tmp_path, preexec_fn=small_files_only)
    assert f"{tmp_path / 'm'}: File too large" in said


def test_a_python_without_the_hubs_library_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('none here')")
    said = refused(order(hub, tmp_path / "m"), tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert f"{sys.executable} has no usable huggingface_hub (none here)" in said


NO_ORDERS: list[dict[str, Any]] = [
    {"token": f"{TOKEN}\n"},
    {"token": 5},
    {"name": 5},
    {"folder": "not/absolute"},
    {"revision": "main"},
    {"endpoint": 5},
    {"files": None},
    {"files": [{"path": "../up", "bytes": 1, "sha256": "0" * 64}]},
    {"files": [{"path": "/etc/up", "bytes": 1, "sha256": "0" * 64}]},
    {"files": [{"path": ".fetch/lock", "bytes": 1, "sha256": "0" * 64}]},
    {"files": [{"path": "a", "bytes": -1, "sha256": "0" * 64}]},
    {"files": [{"path": "a", "bytes": 1, "sha256": TOKEN}]},
]


@pytest.mark.parametrize("changes", NO_ORDERS, ids=lambda changes: next(iter(changes)))
def test_what_is_no_order_is_refused_and_not_shown(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    for raw in (json.dumps(order(hub, tmp_path / "m", **changes)), f'{{"token": "{TOKEN}"', f'["{TOKEN}"]', "[" * 9999):
        assert fetch.run(io.BytesIO(raw.encode())) == 1
        said = capsys.readouterr()
        assert "expected an order on standard input" in said.err and "NotForYourEyes" not in said.err + said.out
    assert not (tmp_path / "m").exists() and not hub.seen


# ---------------------------------------------------------------------------------------------- over SSH


@pytest.fixture
def near_hosts(ssh_fleet: fleet.Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the hosts of the fleet reach too."""
    first = next(iter(ssh_fleet.hosts.values())).address
    address = first if ssh_fleet.mode == "loopback" else f"{first.rpartition('.')[0]}.1"
    with made(tmp_path / "at the hub", address) as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        yield hub
    hosts._hosts.clear()
    link.close_all()
    huggingface_hub.close_session()


def planned(far: list[fleet.Host], folder: Path) -> run.Run:
    """A run over the fleet, with the token in a file of its own."""
    python = script(
        folder / "light", f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "helpers" / "poison.py"}" "$@"\n'
    )
    (folder / "corpus.json").write_text(json.dumps(made_up.documents(8)))
    (folder / "hf.token").touch(0o600)
    (folder / "hf.token").write_text(f"{TOKEN}\n")
    lines = {"run": f"fetch-{folder.name}"[:60], "model": f"{{name: {NAME}, download: hosts}}", "hf_token": "hf.token"}
    (folder / "p.yaml").write_text(profile_text(far, python, **lines))
    this = opening.create(profile.load(folder / "p.yaml"))
    _, found = preflight.the_model(this)
    _, corpus = preflight.the_corpus(this, found)
    facts = {spec.name: {"cores": 1, "gpus": []} for spec in this.hosts}
    checks, _ = preflight.the_plan(this, found, corpus, facts)
    assert checks.ok, checks
    return this


def test_each_host_gets_the_model_and_none_keeps_the_token(
    ssh_fleet: fleet.Fleet, near_hosts: Hub, tmp_path: Path
) -> None:
    far = list(ssh_fleet.hosts.values())
    this = planned(far, tmp_path)
    told: list[tuple[str, int, int]] = []
    checks = staging.stage(this, lambda *moved: told.append(moved))
    assert checks.ok, checks
    for each in far:
        _, moved, total = [report for report in told if report[0] == each.name][-1]
        assert moved == total > len(LARGE)
        folder = each.home / "mapper_embeddings" / "models" / this.plan().model.digest[:32]
        assert model.resolve(ModelSpec(str(folder))).digest == this.plan().model.digest
        assert not holds_token(each.home)
    assert len(near_hosts.asked("store")) == len(far)
    assert {seen.authorization for seen in near_hosts.asked("store")} == {None}
    assert holds_token(tmp_path) == [tmp_path / "hf.token"]
    again = staging.stage(this)
    assert again.ok and all(" 0 files new" in check.seen for check in again)
    assert len(near_hosts.asked("store")) == len(far)


def test_a_host_that_the_hub_refuses_says_so(ssh_fleet: fleet.Fleet, near_hosts: Hub, tmp_path: Path) -> None:
    near_hosts.repos[NAME].folder.joinpath("modules.json").touch()
    this = planned(list(ssh_fleet.hosts.values()), tmp_path)
    found = model.resolve(this.profile.model, model.read_token(this.profile.hf_token))
    first = host(this, next(iter(ssh_fleet.hosts)))
    bring_bundle(first)
    near_hosts.repos[NAME].members.clear()
    with pytest.raises(Exception, match=f"{first.name}: fetching the model there: .*accept the model's licence"):
        sent_model.fetch_on_host(this, first, found, first.workdir / "models" / "other")


def test_a_link_that_breaks_meanwhile_costs_nothing(ssh_fleet: fleet.Fleet, near_hosts: Hub, tmp_path: Path) -> None:
    far = next(iter(ssh_fleet.hosts.values()))
    with Proxy(far.address, far.port) as line:
        credentials = tmp_path / "through.credentials"
        far.write_credentials(credentials, address="127.0.0.1", port=line.port)
        # A model of its own, so that nothing is there yet.
        weights(near_hosts.repos[NAME].folder).write_bytes(LARGE[::-1])
        this = planned([replace(far, credentials=credentials)], tmp_path)
        near_hosts.go.clear()
        results = []
        thread = Thread(target=lambda: results.append(staging.stage(this)))
        thread.start()
        wait_for(lambda: near_hosts.asked("store"), "the download")
        made_before = line.connections
        line.cut()
        wait_for(lambda: line.connections > made_before, "the second try")
        near_hosts.go.set()
        thread.join(60)
    assert results and results[0].ok, results
    assert len(near_hosts.asked("store")) == 1 and near_hosts.sent == len(LARGE)
