"""How we log in: what a credentials file says, and nothing of it in a message; the rest is left to ssh."""

import dataclasses
import json
import random
import subprocess
from pathlib import Path

import pytest

from runbook_lib.errors import ProfileError, RunbookError
from runbook_lib.hosts.ssh import login
from runbook_lib.hosts.ssh.alias import Alias
from runbook_lib.profile.profile import HostSpec
from runbook_lib.profile.secret import Secret

PASSWORD = "hunter2-correct-horse"
GOOD = {"address": "10.9.8.7", "username": "operator", "password": PASSWORD}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, config):
    """A home folder of this test's own, in which secrets must be closed to others."""
    monkeypatch.delenv("RUNBOOK_ALLOW_OPEN_SECRETS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)


@pytest.fixture
def credentials(tmp_path):
    """Writes a credentials file, closed to others, and gives its path."""

    def write(content):
        path = tmp_path / "credentials.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def key(tmp_path):
    """Makes a private key file that only we can read."""

    def make(name="key", mode=0o600):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a private key, hunter2\n")
        path.chmod(mode)
        return path

    return make


@pytest.fixture
def no_client(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def by_file(path):
    return login.of(HostSpec("box", credentials=path))


def refusal(do, kind=RunbookError):
    with pytest.raises(kind) as caught:
        do()
    message = str(caught.value)
    for secret in ("hunter2", "horse", "battery"):
        assert secret not in message
    # A traceback must not bring back the words of an error that quotes the file.
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


# ------------------------------------------------------------------------------------------------- credentials files


@pytest.mark.process
def test_the_founding_form_is_one_password_and_nothing_to_guess(credentials, key, config):
    config(f"Host *\n  IdentityFile {key()}\n  ProxyCommand nothing\n")
    found = by_file(credentials(GOOD))
    assert dataclasses.replace(found, known_hosts=()) == login.Login(
        name="box",
        address="10.9.8.7",
        port=22,
        username="operator",
        password=Secret(PASSWORD),
        key=None,
        passphrase=None,
        host_key=None,
        known_hosts=(),
        known_as="10.9.8.7",
        jump=None,
    )
    assert PASSWORD not in repr(found)


@pytest.mark.process
def test_a_byte_order_mark_is_no_fault(credentials):
    assert by_file(credentials(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())).username == "operator"


@pytest.mark.process
def test_everything_at_once(credentials, key, monkeypatch):
    monkeypatch.setenv("BOX_PASSPHRASE", "battery staple")
    path = key("keys/id")
    print_ = "SHA256:" + "A" * 43
    more = {"port": 2222, "key_filename": "keys/id", "passphrase_env": "BOX_PASSPHRASE", "host_key": print_}
    found = by_file(credentials({**GOOD, "address": "Box.Example", **more, "proxy_jump": "me@gate:33"}))
    assert (found.address, found.port, found.known_as) == ("Box.Example", 2222, "[box.example]:2222")
    assert found.key == path
    assert found.passphrase == Secret("battery staple")
    assert found.host_key == print_
    assert found.jump == Alias("box, jump host gate", "gate", "me", 33)
    assert "battery" not in repr(found)


@pytest.mark.process
def test_a_key_file_may_be_given_from_home_or_by_its_full_path(credentials, key, tmp_path):
    path = key("home/mine")
    alone = {name: value for name, value in GOOD.items() if name != "password"}
    for text in ("~/mine", str(path), "home/../home/mine"):
        found = by_file(credentials({**alone, "key_filename": text}))
        assert (found.key, found.password) == (path, None)


@pytest.mark.process
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_an_open_file_is_refused_with_the_line_that_closes_it(credentials, key, mode):
    path = credentials(GOOD)
    path.chmod(mode)
    message = refusal(lambda: by_file(path), ProfileError)
    assert message.startswith(f"box: credentials file {path}: ")
    assert f"chmod 600 {path}" in message
    closed = key("open key", mode)
    message = refusal(lambda: by_file(credentials({**GOOD, "key_filename": "open key"})), ProfileError)
    assert f"chmod 600 '{closed}'" in message


def test_a_file_without_password_and_key_leaves_the_login_to_the_persons_own_ssh(credentials):
    pin = "SHA256:" + "A" * 43
    given = {"address": "10.9.8.7", "username": "operator", "port": 23, "host_key": pin, "proxy_jump": "a,me@b:33"}
    assert by_file(credentials(given)) == Alias("box", "10.9.8.7", "operator", 23, ("a", "me@b:33"), pin)
    assert by_file(credentials({"address": "a", "username": "b"})) == Alias("box", "a", "b", 22)


def test_a_passphrase_without_its_key_is_refused(credentials):
    given = {"address": "10.9.8.7", "username": "operator", "passphrase_env": "BOX_PASSPHRASE"}
    assert "name the key it belongs to" in refusal(lambda: by_file(credentials(given)), ProfileError)


@pytest.mark.process
def test_hops_of_a_credentials_file_are_the_persons_own_aliases(credentials):
    found = by_file(credentials({**GOOD, "proxy_jump": "gate,inner@10.0.0.2"}))
    assert found.jump == Alias("box, jump host 10.0.0.2", "10.0.0.2", "inner", None, ("gate",))
    assert by_file(credentials({**GOOD, "proxy_jump": "none"})).jump is None


def test_an_alias_and_a_name_alone_are_left_to_ssh():
    assert login.of(HostSpec("box", ssh="me@tensor")) == Alias("box", "me@tensor")
    assert login.of(HostSpec("box")) == Alias("box", "box")


@pytest.mark.process
def test_a_public_key_line_becomes_its_fingerprint(credentials, tmp_path):
    for kind in ("ed25519", "ecdsa"):
        made = tmp_path / f"host_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", made], check=True, timeout=60)
        said = subprocess.run(
            ["ssh-keygen", "-lf", f"{made}.pub"], check=True, capture_output=True, text=True, timeout=60
        )
        line = Path(f"{made}.pub").read_text().strip()
        for text in (line, " ".join(line.split()[:2])):
            assert by_file(credentials({**GOOD, "host_key": text})).host_key == said.stdout.split()[1]


@pytest.mark.process
@pytest.mark.parametrize(
    ("change", "key_named"),
    [
        ({"password": ""}, "password"),
        ({"password": None}, "password"),
        ({"password": 12345678}, "password"),
        ({"password": ["hunter2"]}, "password"),
        ({"password": {"hunter2": 1}}, "password"),
        ({"password": True}, "password"),
        ({"password": "hunter2\n"}, "password"),
        ({"password": "hunter2\x00"}, "password"),
        ({"password": "hunter2\ud800"}, "password"),
        ({"address": ""}, "address"),
        ({"address": "-oProxyCommand=hunter2"}, "address"),
        ({"address": "hunter2 horse"}, "address"),
        ({"address": "operator@hunter2"}, "address"),
        ({"address": "hunter2\nhorse"}, "address"),
        ({"address": "hunter2;reboot"}, "address"),
        ({"address": "hunter2,b"}, "address"),
        ({"address": "h*"}, "address"),
        ({"address": "[::1]"}, "address"),
        ({"address": "a" * 256}, "address"),
        ({"username": "-lhunter2"}, "username"),
        ({"username": "hunter2\x1b[2J"}, "username"),
        ({"username": "hunter2\u2028"}, "username"),
        ({"username": ""}, "username"),
        ({"username": 7}, "username"),
        ({"port": True}, "port"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"port": 22.0}, "port"),
        ({"port": "22"}, "port"),
        ({"port": None}, "port"),
        ({"port": float("nan")}, "port"),
        ({"key_filename": ""}, "key_filename"),
        ({"key_filename": ["hunter2"]}, "key_filename"),
        ({"key_filename": "~nobody-here/horse"}, "key_filename"),
        ({"passphrase_env": "hunter2 horse"}, "passphrase_env"),
        ({"passphrase_env": "hunter2"}, "passphrase_env"),
        ({"passphrase_env": "NAME"}, "key_filename"),
        ({"host_key": "hunter2"}, "host_key"),
        ({"host_key": "SHA256:hunter2"}, "host_key"),
        ({"host_key": "SHA256:" + "A" * 42 + "B"}, "host_key"),  # no 256 bits end like this
        ({"host_key": "ssh-ed25519 hunter2"}, "host_key"),
        ({"host_key": "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIHVudGVyMg=="}, "host_key"),
        ({"proxy_jump": "-oProxyCommand=hunter2"}, "proxy_jump"),
        ({"proxy_jump": "a,,hunter2"}, "proxy_jump"),
        ({"proxy_jump": "hunter2 b"}, "proxy_jump"),
        ({"proxy_jump": "operator:hunter2@gate"}, "proxy_jump"),
        ({"proxy_jump": "gate:0"}, "proxy_jump"),
        ({"proxy_jump": "$(hunter2)"}, "proxy_jump"),
        ({"proxy_jump": ["gate"]}, "proxy_jump"),
        ({"pasword": "hunter2"}, "pasword"),
        ({"hunter2 horse": "x"}, "a key that is no plain word"),
        ({"": "hunter2"}, "a key that is no plain word"),
    ],
    ids=repr,
)
def test_a_wrong_value_is_named_by_file_and_key_and_never_shown(credentials, change, key_named):
    path = credentials({**GOOD, **change})
    message = refusal(lambda: by_file(path), ProfileError)
    assert message.startswith(f"box: credentials file {path}: ")
    assert key_named in message


@pytest.mark.parametrize("key_left_out", ["address", "username"])
def test_a_missing_key_is_named(credentials, key_left_out):
    rest = {name: value for name, value in GOOD.items() if name != key_left_out}
    assert f"without `{key_left_out}`" in refusal(lambda: by_file(credentials(rest)), ProfileError)


def test_an_unknown_key_is_named_with_the_known_ones(credentials):
    message = refusal(lambda: by_file(credentials({**GOOD, "user_name": "x"})), ProfileError)
    assert "unknown key `user_name`; did you mean `username`? Known are: address, username, password, port," in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hunter2",
        b'"hunter2"',
        b'["hunter2"]',
        b"null",
        b'{"password": "hunter2"',
        b'{"password": "hunter2",}',
        b"{'password': 'hunter2'}",
        b'{"password": "hunter2\\x"}',
        b'{"password": hunter2}',
        b'{"password": "hunter2\n"}',
        b'{"password": "hunter2"} {"password": "horse"}',
        b'{"password": "hunter2\xff"}',
        '{"password": "hunter2"}'.encode("utf-16"),
        b'{"password": "hunter2", "password": "horse"}',
        b'{"address": "a", "username": "b", "address": "hunter2"}',
        b"[" * 100_000,
        b'{"port": ' + b"9" * 5000 + b"}",
        b'{"password": "' + b"hunter2" * 200_000 + b'"}',
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_json_object_is_named_by_file_and_never_shown(credentials, content):
    path = credentials(content)
    assert refusal(lambda: by_file(path), ProfileError).startswith(f"box: credentials file {path}: ")


def test_a_fault_in_json_is_named_by_line_and_column(credentials):
    message = refusal(lambda: by_file(credentials(b'{"address": "a",\n "password": hunter2}')), ProfileError)
    assert "not JSON from line 2, column 14 on" in message


@pytest.mark.process
def test_no_damaged_file_shows_its_secrets(credentials):
    """A good file with a few bytes changed: it is taken or refused, and never shown."""
    rng = random.Random(47)
    whole = json.dumps({**GOOD, "port": 22, "host_key": "SHA256:" + "A" * 43}).encode()
    taken = 0
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.randint(0, 2)] = bytes(rng.choices(b'{}[]",:\\\x00\n\xffa1-', k=rng.randint(0, 2)))
        if b"horse" not in raw:
            continue
        try:
            by_file(credentials(bytes(raw)))
            taken += 1
        except RunbookError as error:
            assert "horse" not in str(error)
    assert 0 < taken < 100


@pytest.mark.process
def test_a_password_may_have_any_character_of_a_line(credentials):
    for password in ("-x", " ", "$(reboot)", "'\"\\", "é漢🙂", "a" * 5000):
        assert by_file(credentials({**GOOD, "password": password})).password.reveal() == password


@pytest.mark.process
def test_a_passphrase_that_is_not_in_the_environment_is_asked_for_by_name(credentials, key, monkeypatch):
    key()
    path = credentials({**GOOD, "key_filename": "key", "passphrase_env": "BOX_PASSPHRASE"})
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("BOX_PASSPHRASE", value)
        message = refusal(lambda: by_file(path), ProfileError)
        assert "passphrase_env" in message and "BOX_PASSPHRASE" in message


@pytest.mark.process
def test_a_missing_key_file_is_named(credentials, tmp_path):
    message = refusal(lambda: by_file(credentials({**GOOD, "key_filename": "nowhere"})), ProfileError)
    assert f"private key file {tmp_path}/nowhere: there is no such file" in message


@pytest.mark.process
def test_ipv6_addresses_are_written_as_known_hosts_has_them(credentials):
    assert by_file(credentials({**GOOD, "address": "fe80::1%eth0"})).known_as == "fe80::1%eth0"
    assert by_file(credentials({**GOOD, "address": "fe80::1", "port": 23})).known_as == "[fe80::1]:23"


@pytest.mark.process
def test_known_hosts_of_a_credentials_file_are_those_of_ssh(credentials, config):
    config("Host 10.9.8.7\n  UserKnownHostsFile /a/b /c\n  GlobalKnownHostsFile /d\n  HostKeyAlias Lab\n")
    found = by_file(credentials(GOOD))
    assert (found.known_hosts, found.known_as) == ((Path("/a/b"), Path("/c"), Path("/d")), "lab")


@pytest.mark.process
def test_without_an_ssh_client_a_credentials_file_will_do(credentials, no_client, tmp_path):
    found = by_file(credentials(GOOD))
    home = tmp_path / "home" / ".ssh"
    assert home / "known_hosts" in found.known_hosts
    assert Path("/etc/ssh/ssh_known_hosts") in found.known_hosts
