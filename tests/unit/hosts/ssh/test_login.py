"""How we log in: what a credentials file or ssh's own configuration says, and nothing of it in a message."""

import dataclasses
import itertools
import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from runbook_lib.errors import HostError, ProfileError, RunbookError
from runbook_lib.hosts.ssh import login
from runbook_lib.profile.profile import HostSpec
from runbook_lib.profile.secret import Secret

PASSWORD = "hunter2-correct-horse"
GOOD = {"address": "10.9.8.7", "username": "operator", "password": PASSWORD}


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """An ssh configuration of this test's own; `config("Host ...")` writes it."""
    monkeypatch.delenv("RUNBOOK_ALLOW_OPEN_SECRETS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    path = tmp_path / "ssh config"
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(path))

    def write(text=""):
        path.write_text(text)
        return path

    write()
    return write


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


def by_alias(alias):
    return login.of(HostSpec("box", ssh=alias))


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
        keys=(),
        passphrase=None,
        use_agent=False,
        only_keys=True,
        agent_socket=None,
        host_key=None,
        known_hosts=(),
        known_as="10.9.8.7",
        proxy_command=None,
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
    assert (found.keys, found.use_agent, found.only_keys) == ((path,), False, True)
    assert found.passphrase == Secret("battery staple")
    assert found.host_key == print_
    assert (found.jump.address, found.jump.port, found.jump.username) == ("gate", 33, "me")
    assert found.jump.password is None
    assert "battery" not in repr(found)


@pytest.mark.process
def test_a_key_file_may_be_given_from_home_or_by_its_full_path(credentials, key, tmp_path):
    path = key("home/mine")
    alone = {name: value for name, value in GOOD.items() if name != "password"}
    for text in ("~/mine", str(path), "home/../home/mine"):
        found = by_file(credentials({**alone, "key_filename": text}))
        assert (found.keys, found.password, found.use_agent) == ((path,), None, False)


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


@pytest.mark.process
def test_without_password_and_key_file_the_agent_and_the_identity_files_are_asked(credentials, key, config):
    config(f"Host 10.9.8.7\n  IdentityFile {key()}\n  IdentitiesOnly yes\n  IdentityAgent /run/agent\n")
    found = by_file(credentials({"address": "10.9.8.7", "username": "operator"}))
    assert (found.keys, found.use_agent, found.only_keys) == ((key(),), True, True)
    assert found.agent_socket == "/run/agent"
    config()
    found = by_file(credentials({"address": "10.9.8.7", "username": "operator"}))
    assert (found.keys, found.use_agent, found.only_keys, found.agent_socket) == ((), True, False, None)


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
def test_without_an_ssh_client_a_credentials_file_will_do(credentials, no_client, tmp_path, key):
    found = by_file(credentials(GOOD))
    home = tmp_path / "home" / ".ssh"
    assert home / "known_hosts" in found.known_hosts
    assert Path("/etc/ssh/ssh_known_hosts") in found.known_hosts
    key("home/.ssh/id_ed25519")
    found = by_file(credentials({"address": "a", "username": "b"}))
    assert (found.keys, found.use_agent) == ((home / "id_ed25519",), True)
    message = refusal(lambda: by_file(credentials({**GOOD, "proxy_jump": "gate"})), HostError)
    assert "install one" in message


# ------------------------------------------------------------------------------------------------- ssh's configuration


@pytest.mark.process
def test_an_alias_is_what_ssh_says_it_is(config, key):
    first, second = key("first key"), key("second")
    config(
        f'Host tensor\n  HostName 10.0.0.5\n  Port 2222\n  User someone\n  IdentityFile "{first}"\n'
        f"  IdentityFile {second}\n  IdentityFile /nowhere/at/all\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        "  UserKnownHostsFile /a/b\n  GlobalKnownHostsFile none\n"
    )
    assert by_alias("tensor") == login.Login(
        name="box",
        address="10.0.0.5",
        port=2222,
        username="someone",
        password=None,
        keys=(first, second),
        passphrase=None,
        use_agent=False,
        only_keys=True,
        agent_socket=None,
        host_key=None,
        known_hosts=(Path("/a/b"),),
        known_as="[10.0.0.5]:2222",
        proxy_command=None,
        jump=None,
    )


@pytest.mark.process
def test_without_credentials_and_ssh_the_name_is_the_alias(config):
    config("Host box\n  HostName Ten.Example\n")
    found = login.of(HostSpec("box"))
    assert (found.address, found.known_as) == ("ten.example", "ten.example")


@pytest.mark.process
def test_an_alias_that_ssh_does_not_know_is_a_host_name(config):
    found = by_alias("someone@no.such.alias")
    assert (found.address, found.port, found.username) == ("no.such.alias", 22, "someone")
    assert (found.use_agent, found.only_keys, found.agent_socket) == (True, False, None)


@pytest.mark.process
def test_include_and_match_count(config, tmp_path):
    (tmp_path / "more").write_text("Host tensor\n  Port 2201\n")
    config(
        f'Include "{tmp_path}/more"\nMatch originalhost tensor exec "true"\n  User matched\n'
        'Match originalhost tensor exec "false"\n  HostName wrong\n'
    )
    found = by_alias("tensor")
    assert (found.address, found.port, found.username) == ("tensor", 2201, "matched")


@pytest.mark.process
def test_a_setting_for_the_account_on_the_command_line_wins(config):
    config("Host tensor\n  User other\n")
    assert by_alias("me@tensor").username == "me"


@pytest.mark.process
@pytest.mark.parametrize(
    ("agent", "variable", "expected"),
    [
        ("none", None, (False, None)),
        ("SSH_AUTH_SOCK", None, (True, None)),
        ("/run/agent", None, (True, "/run/agent")),
        ("$MY_AGENT", "/run/mine", (True, "/run/mine")),
        ("$MY_AGENT", None, (False, None)),
    ],
)
def test_the_agent_is_the_one_of_the_configuration(config, monkeypatch, agent, variable, expected):
    if variable:
        monkeypatch.setenv("MY_AGENT", variable)
    config(f"Host tensor\n  IdentityAgent {agent}\n")
    found = by_alias("tensor")
    assert (found.use_agent, found.agent_socket) == expected


@pytest.mark.process
def test_tokens_and_variables_in_identity_files_are_filled_in(config, key, tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", str(tmp_path))
    one, two, three = key("home/10.0.0.5_me_2222"), key("two%"), key("home/.ssh/three")
    config(
        "Host tensor\n  HostName 10.0.0.5\n  User me\n  Port 2222\n  IdentityFile %d/%h_%r_%p\n"
        "  IdentityFile ${WHERE}/two%%\n  IdentityFile ~/.ssh/three\n"
    )
    assert by_alias("tensor").keys == (one, two, three)
    for odd in ("${NOT_SET_ANYWHERE}/x", "%C/x"):
        config(f"Host tensor\n  IdentityFile {odd}\n")
        message = refusal(lambda: by_alias("tensor"), HostError)
        assert odd[: -len("/x")] in message


@pytest.mark.process
def test_identity_files_that_are_not_there_are_passed_over(config, key):
    config(f"Host tensor\n  IdentityFile ~nobody-here/x\n  IdentityFile /nowhere/x\n  IdentityFile {key()}\n")
    assert by_alias("tensor").keys == (key(),)
    config("Host tensor\n  IdentityFile none\n")
    assert by_alias("tensor").keys == ()


@pytest.mark.process
def test_an_identity_file_that_others_can_read_is_refused(config, key):
    path = key("wide open", 0o644)
    config(f'Host tensor\n  IdentityFile "{path}"\n')
    assert f"chmod 600 '{path}'" in refusal(lambda: by_alias("tensor"), ProfileError)


@pytest.mark.process
def test_a_public_identity_file_names_a_key_of_the_agent(config, key):
    public, other = key("agents.pub", 0o644), key("only.pub", 0o644)
    config(f"Host tensor\n  IdentitiesOnly yes\n  IdentityFile {public}\n  IdentityFile {other.with_suffix('')}\n")
    assert by_alias("tensor").keys == (public, other)


@pytest.mark.process
def test_a_proxy_command_is_ready_for_a_shell(config, tmp_path):
    config(
        "Host tensor\n  HostName 10.0.0.5\n  User me\n  Port 2222\n"
        f'  ProxyCommand printf "%%s " %h %p "%r" %n ${{HOME}} > {tmp_path}/said\n'
    )
    found = by_alias("tensor")
    subprocess.run(["sh", "-c", found.proxy_command], check=True, timeout=30)
    assert (tmp_path / "said").read_text() == f"10.0.0.5 2222 me tensor {tmp_path}/home "
    assert found.jump is None
    config("Host tensor\n  ProxyCommand none\n  ProxyJump none\n")
    assert by_alias("tensor").proxy_command is None


@pytest.mark.process
def test_what_a_shell_would_take_apart_does_not_reach_a_proxy_command(config):
    config('Host tensor\n  User "x;touch pwned"\n  ProxyCommand nc %h %p -u %r\n')
    assert "%r" in refusal(lambda: by_alias("tensor"), HostError)


@pytest.mark.process
def test_known_hosts_files_with_blanks_in_their_names_are_told_apart(config, tmp_path):
    config(f'Host tensor\n  UserKnownHostsFile "{tmp_path}/one two" /three\n  GlobalKnownHostsFile /dev/null\n')
    assert by_alias("tensor").known_hosts == (tmp_path / "one two", Path("/three"))
    config("Host tensor\n  UserKnownHostsFile none\n  GlobalKnownHostsFile /four\n")
    assert by_alias("tensor").known_hosts == (Path("/four"),)


@pytest.mark.process
def test_a_host_key_alias_has_no_port(config):
    config("Host tensor\n  Port 2222\n  HostKeyAlias Farm\n")
    assert by_alias("tensor").known_as == "farm"


# ------------------------------------------------------------------------------------------------- hops


def path_of(found):
    """The machines from the first hop to the host, as account@address:port."""
    hops = []
    while found:
        hops.append(f"{found.username}@{found.address}:{found.port}")
        found = found.jump
    return hops[::-1]


@pytest.mark.process
def test_a_list_of_hops_is_gone_through_in_its_order(config, key):
    config(
        "Host *\n  User me\nHost tensor\n  ProxyJump first,other@second:33,[fe80::3]:44\n"
        f"Host second\n  HostName 10.0.0.2\n  ProxyJump not-this-one\n  IdentityFile {key()}\n"
        "Host first\n  ProxyJump zero\n"
    )
    found = by_alias("tensor")
    # As in ssh: the list is the way, and only its first hop has hops of its own.
    assert path_of(found) == ["me@zero:22", "me@first:22", "other@10.0.0.2:33", "me@fe80::3:44", "me@tensor:22"]
    assert found.jump.jump.keys == (key(),)
    assert [found.jump.name, found.jump.jump.name] == ["box, jump host fe80::3", "box, jump host second"]


@pytest.mark.process
def test_hops_of_a_credentials_file_are_aliases(credentials, config):
    config("Host gate\n  HostName 10.0.0.1\n  Port 2200\n  User keeper\n  ProxyJump outer\nHost outer\n  User o\n")
    found = by_file(credentials({**GOOD, "proxy_jump": "gate,inner@10.0.0.2"}))
    assert path_of(found) == ["o@outer:22", "keeper@10.0.0.1:2200", "inner@10.0.0.2:22", "operator@10.9.8.7:22"]
    assert path_of(by_file(credentials({**GOOD, "proxy_jump": "none"}))) == ["operator@10.9.8.7:22"]


@pytest.mark.process
def test_hops_that_go_in_a_circle_are_refused(config, credentials):
    config("Host a\n  ProxyJump b\nHost b\n  ProxyJump c\nHost c\n  ProxyJump a\n")
    assert "a -> b -> c -> a" in refusal(lambda: by_alias("a"), HostError)
    config("Host gate\n  ProxyJump 10.9.8.7\nHost 10.9.8.7\n  User operator\n  ProxyJump gate\n")
    assert "circle" in refusal(lambda: by_file(credentials({**GOOD, "proxy_jump": "gate"})), HostError)


@pytest.mark.process
def test_more_than_eight_hops_are_refused(config, credentials):
    chain = itertools.pairwise(f"h{i}" for i in range(12))
    config("".join(f"Host {near}\n  ProxyJump {far}\n" for near, far in chain))
    assert len(path_of(by_alias("h3"))) == 9
    assert "more than 8" in refusal(lambda: by_alias("h2"), HostError)
    assert "more than 8" in refusal(lambda: by_file(credentials({**GOOD, "proxy_jump": "h3"})), HostError)
    nine = ",".join(f"x{i}" for i in range(9))
    assert "more than 8" in refusal(lambda: by_file(credentials({**GOOD, "proxy_jump": nine})), HostError)


@pytest.mark.process
def test_an_open_key_of_a_hop_is_refused_too(config, key):
    path = key("gates", 0o640)
    config(f"Host tensor\n  ProxyJump gate\nHost gate\n  IdentityFile {path}\n")
    message = refusal(lambda: by_alias("tensor"), ProfileError)
    assert "jump host gate" in message and f"chmod 600 {path}" in message


# ------------------------------------------------------------------------------------------------- ssh itself


@pytest.mark.process
def test_without_an_ssh_client_an_alias_says_what_to_do(no_client):
    message = refusal(lambda: by_alias("tensor"), HostError)
    assert "install one" in message and "`credentials`" in message


@pytest.mark.process
def test_a_configuration_that_ssh_refuses_is_shown_in_its_own_words(config, monkeypatch, tmp_path):
    path = config("Host tensor\n  NoSuchOption yes\n")
    message = refusal(lambda: by_alias("tensor"), HostError)
    assert f"{path}: line 2: Bad configuration option: nosuchoption" in message
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "nowhere"))
    assert "nowhere" in refusal(lambda: by_alias("tensor"), HostError)


@pytest.mark.process
def test_a_word_of_apples_ssh_does_not_end_another_ssh(config):
    """Homebrew's ssh first in PATH, and UseKeychain in the configuration, as Apple's manual has it."""
    config("Host *\n  UseKeychain yes\n  AddKeysToAgent yes\nHost tensor\n  HostName 10.0.0.7\n  User me\n")
    found = by_alias("tensor")
    assert (found.address, found.username) == ("10.0.0.7", "me")
    path = config("Host tensor\n  UseKeychain yes\n  NoSuchOption yes\n")  # what else is wrong is still told
    assert f"{path}: line 3: Bad configuration option: nosuchoption" in refusal(lambda: by_alias("tensor"), HostError)


@pytest.mark.process
def test_an_ssh_that_does_not_answer_is_given_up(config, monkeypatch):
    monkeypatch.setattr(login, "SSH_TIMEOUT_S", 0.5)
    config('Match exec "sleep 20"\n  User me\n')
    began = time.monotonic()
    assert "did not answer within 0.5 s" in refusal(lambda: by_alias("tensor"), HostError)
    assert time.monotonic() - began < 15


@pytest.mark.process
def test_an_alias_never_becomes_an_option():
    for alias in ("-oProxyCommand=touch pwned", "-F/dev/null"):
        message = refusal(lambda alias=alias: by_alias(alias), HostError)
        assert "usage" not in message  # what ssh says to a command line without a host
