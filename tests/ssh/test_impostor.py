"""A server that is not the one: it hears no password, no key, no user's name; the refusal says what to do."""

import base64
import json

import pytest
import ssh_server

from runbook_lib import cli
from runbook_lib.errors import HostError
from runbook_lib.hosts.ssh import known_hosts, link, login
from runbook_lib.hosts.ssh.refused import HostKeyRefused
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile import profile

OTHER_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"
OTHER = login.fingerprint(base64.b64decode(OTHER_KEY))
PASSWORD = "a-secret-that-nobody-may-hear"


@pytest.fixture
def server(tmp_path):
    with ssh_server.start(tmp_path / "server") as started:
        yield started


def reach(server, tmp_path, **more):
    """The link that a profile with a password for that server gets."""
    file = tmp_path / "box.credentials"
    entries = {"address": server.address, "port": server.port, "username": server.username, "password": PASSWORD}
    file.write_text(json.dumps({**entries, **more}))
    file.chmod(0o600)
    spec = profile.HostSpec(name="box", kind="ssh", slots=1, device="cpu", credentials=file)
    return link.Link(login.of(spec), Patience())


def refusal(way):
    with pytest.raises(HostKeyRefused) as caught, way.session():
        pass
    way.close()
    return str(caught.value)


@pytest.fixture(autouse=True)
def nobody_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "trusted"))


def test_an_unknown_server_hears_nothing_and_the_refusal_spells_out_the_one_command(server, tmp_path):
    said = refusal(reach(server, tmp_path))
    name = f"[{server.address}]:{server.port}"
    assert f"runbook trust '{name}' {server.fingerprint}" in said
    assert (server.attempts, server.passwords_seen) == ([], [])
    assert PASSWORD not in said
    assert cli.main(["trust", name, server.fingerprint]) == 0
    # Trusted now, so the password is offered, once, and it is the wrong one.
    with pytest.raises(HostError, match="does not let"), reach(server, tmp_path).session():
        pass
    assert server.passwords_seen == [PASSWORD]


def test_another_server_in_its_place_hears_nothing(server, tmp_path):
    known_hosts.trust(f"[{server.address}]:{server.port}", OTHER)
    said = refusal(reach(server, tmp_path))
    assert "is not the one known" in said and server.fingerprint in said and OTHER in said
    assert (server.attempts, server.passwords_seen) == ([], [])


def test_a_key_that_is_not_the_credentials_own_is_refused(server, tmp_path):
    said = refusal(reach(server, tmp_path, host_key=OTHER))
    assert server.fingerprint in said and OTHER in said
    assert (server.attempts, server.passwords_seen) == ([], [])


def test_a_changed_known_host_names_file_and_line(server, tmp_path, monkeypatch):
    file = tmp_path / "known"
    file.write_text(f"# ours\n[{server.address}]:{server.port} ssh-ed25519 {OTHER_KEY}\n")
    (tmp_path / "config").write_text(f"UserKnownHostsFile {file}\n")
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "config"))
    said = refusal(reach(server, tmp_path))
    assert "changed" in said or "another type" in said
    assert f"{file}:2" in said
    assert (server.attempts, server.passwords_seen) == ([], [])
