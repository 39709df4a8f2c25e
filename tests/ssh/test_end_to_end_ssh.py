"""The whole way over SSH with real parts: four notebooks, password and key logins, the real model, planted secrets."""

import json
import secrets
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import forking
import pytest
from hosts_by_ssh import write_alias
from small_run import PROFILE, digest, make_profile, runbook, undisturbed
from waiting import wait_for

from runbook_lib.run import opening

HOSTS = """hosts:
  - {{name: tensor01, kind: ssh, slots: 1, device: cpu, threads: 1, credentials: {0}, environment: {1}}}
  - {{name: tensor02, kind: ssh, slots: 1, device: cpu, threads: 1, credentials: {2}, environment: {1}}}
"""
PLANTED = 20


def plant(ssh_fleet, folder, monkeypatch):
    """Twenty secrets: a login's password, a key's passphrase, a hub token, and what else lies in the same files."""
    one, two = ssh_fleet.hosts.values()
    found = [secrets.token_urlsafe(18) for _ in range(PLANTED - 2)]
    passphrase, token = secrets.token_urlsafe(18), f"hf_{secrets.token_hex(16)}"
    key = folder / "key"
    key.write_bytes(two.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(key)], check=True)
    monkeypatch.setenv("KEY_PASSPHRASE", passphrase)
    with_password = one.password is not None
    one.write_credentials(folder / "one.credentials", password=with_password)
    two.write_credentials(folder / "two.credentials", key_filename=str(key), passphrase_env="KEY_PASSPHRASE")
    (folder / "hf.token").write_text(token)
    (folder / "hf.token").chmod(0o600)
    # More of them where a careless program would pick them up: comments of a key, other credentials beside ours.
    for number, value in enumerate(found):
        other = folder / f"other{number}.credentials"
        other.write_text(json.dumps({"address": "10.255.255.1", "username": "me", "password": value}))
        other.chmod(0o600)
    return [*found, passphrase, token, *([one.password] if with_password else [])]


def places(ssh_fleet, folder, this):
    """Every file in which a secret has no business: the run, its outputs, all that is on the hosts."""
    own = [this.folder, folder / "embeddings", *(far.home for far in ssh_fleet.hosts.values())]
    own += [far.log for far in ssh_fleet.hosts.values()]
    return [path for top in own for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]


def listed():
    """The command lines of every process, and the environments of those that are not ours to give one to."""
    said = b""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            said += command
            if b"worker" in command or b"serve(nonce" in command:  # on a host
                said += (process / "environ").read_bytes()
        except OSError:
            continue
    return said


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """The digest of the vectors that the same profile gives on two folders of this machine."""
    return undisturbed(tmp_path_factory).digest


def test_a_host_that_dies_for_good_is_done_by_the_other_and_the_bytes_are_the_same(
    ssh_fleet, near, tmp_path, monkeypatch
):
    """One command, nobody there: the power of tensor02, an alias, goes at a third of its rows, and never comes back."""
    path = make_profile(tmp_path)
    one, two = ssh_fleet.hosts.values()
    one.write_credentials(tmp_path / "one.credentials", key_filename=str(one.key))
    hosts = HOSTS.format(tmp_path / "one.credentials", sys.executable, "two.credentials")
    alias = write_alias(tmp_path, two, two.address, two.port)
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
    hosts = hosts.replace("credentials: two.credentials", f"ssh: {alias}")
    path.write_text(PROFILE.split("monitor:")[0] + "monitor: {interval_s: 0.5, unreachable_s: 3}\n" + hosts)
    parts = two.home / "mapper_embeddings"
    with subprocess.Popen(
        [forking.python(), "-m", "runbook_lib.cli", "run", str(path)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        try:
            wait_for(
                lambda: child.poll() is not None or list(parts.glob("small-*/parts/*.json")), "its first part", 300
            )
            two.crash()
            died = time.time()
            assert child.stdout
            printed = child.stdout.read()
        finally:
            two.boot()
    assert child.returncode == 0, printed.decode()
    (folder,) = (tmp_path / "runs").iterdir()
    this = opening.open_folder(folder)
    (moved,) = this.journal.events("rows moved")
    assert (moved["host"], moved["to"]) == ("tensor02", ["tensor01"]) and moved["rows"] >= 8
    assert digest(this) == near
    assert "FAILED" not in runbook("verify", this.folder, cwd=tmp_path)
    took = datetime.fromisoformat(moved["at"]).timestamp() - died
    done = (one.home / "mapper_embeddings").glob("small-*/parts/*.json")
    moves = this.plan().moves
    theirs = [p for p in done if any(move.start <= int(p.stem.split("_")[1]) < move.stop for move in moves)]
    first = min(path.stat().st_mtime for path in theirs) - died
    print(f"from death to the plan that moves its rows: {took:.1f} s, of which 3 s are the profile's patience;")
    print(f"to the first of these rows committed on the other host: {first:.1f} s")


def test_four_notebooks_over_two_ssh_hosts_give_the_local_bytes_and_show_no_secret(
    ssh_fleet, near, tmp_path, monkeypatch
):
    path = make_profile(tmp_path)
    planted = plant(ssh_fleet, tmp_path, monkeypatch)
    assert len(planted) >= PLANTED
    hosts = HOSTS.format(tmp_path / "one.credentials", sys.executable, tmp_path / "two.credentials")
    path.write_text(PROFILE.split("hosts:")[0] + "hf_token: hf.token\n" + hosts)
    said = b""
    with subprocess.Popen(
        [forking.python(), "-m", "runbook_lib.cli", "run", str(path)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        while child.poll() is None:
            said += listed()
            time.sleep(0.5)
        assert child.stdout
        printed = child.stdout.read()
    assert child.returncode == 0, printed.decode()
    (folder,) = (tmp_path / "runs").iterdir()
    this = opening.open_folder(folder)
    assert digest(this) == near
    checks = {each["name"]: each for each in json.loads((this.report / "validation.json").read_text())["checks"]}
    assert checks["batches done again on other slots"]["seen"].startswith("2 of 2 slots, ")
    assert "off what this machine gives" in checks["known texts alike on every slot"]["seen"]
    assert "FAILED" not in runbook("verify", this.folder, cwd=tmp_path)
    files = places(ssh_fleet, tmp_path, this)
    assert any(file.suffix == ".html" for file in files) and any(file.suffix == ".ipynb" for file in files)

    contents = {file: file.read_bytes() for file in files if file.suffix not in (".npy", ".safetensors")}
    for secret in planted:
        assert secret.encode() not in printed
        assert secret.encode() not in said
        assert [file for file, raw in contents.items() if secret.encode() in raw] == []
    assert b"-m\0worker\0supervise" in said  # it did look while they worked
    listing = runbook("clean", this.folder, cwd=tmp_path)
    assert "shards/rows_000000000_" in listing and "nothing was removed" in listing
    runbook("clean", this.folder, "--yes", cwd=tmp_path)
    assert [far for far in ssh_fleet.hosts.values() if (far.home / "mapper_embeddings" / this.name).exists()] == []
