"""What ssh is asked, and that our configuration over theirs only ever adds: read back by ssh itself."""

import subprocess
import time

import pytest

from runbook_lib.errors import LinkLost
from runbook_lib.hosts.ssh import alias
from runbook_lib.hosts.ssh.alias import Alias
from runbook_lib.hosts.ssh.refused import Refused

pytestmark = pytest.mark.usefixtures("config")


def refusal(do, kind=Refused):
    with pytest.raises(kind) as caught:
        do()
    assert str(caught.value).startswith("box: ")
    return str(caught.value)


def asked(host):
    return alias.asked(Alias("box", host))


def read_back(tmp_path, host, pins=None):
    """What ssh makes of our configuration over theirs."""
    (tmp_path / "ours").write_text(alias.config(asked(host)[0], 7.4, 15.0, pins))
    argv = ["ssh", "-G", "-F", str(tmp_path / "ours"), "--", host]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    found = {}
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, value)
    return found


@pytest.mark.process
def test_where_ssh_would_go_is_told(config, tmp_path):
    (tmp_path / "more").write_text("Host tensor\n  Port 2201\n")
    config(
        f'Include "{tmp_path}/more"\nMatch originalhost tensor exec "true"\n  User matched\n  HostName 10.0.0.5\n'
        'Match originalhost tensor exec "false"\n  HostName wrong\n'
    )
    assert alias.where(Alias("box", "tensor")) == "matched@10.0.0.5:2201"
    assert alias.where(Alias("box", "someone@no.such.alias")) == "someone@no.such.alias"
    assert alias.where(Alias("box", "tensor", "me", 22)) == "me@10.0.0.5"


@pytest.mark.process
def test_theirs_counts_and_ours_stands_in_front_of_it(config, tmp_path):
    config(
        "Host tensor\n  HostName 10.0.0.5\n  User me\n  Compression yes\n  StrictHostKeyChecking no\n  BatchMode no\n"
        "  UserKnownHostsFile /mine\n  LogLevel QUIET\n  ServerAliveInterval 0\n  RemoteCommand top\n"
        "  RequestTTY force\n  ControlMaster auto\n  ControlPath /x/%C\n"
        "  ForwardAgent yes\n  PermitLocalCommand yes\n  ProxyCommand nc %h %p\n  UpdateHostKeys yes\n"
        + ("  ForkAfterAuthentication yes\n" if alias.version() >= (8, 7) else "")
    )
    found = read_back(tmp_path, "tensor")
    theirs = {
        "hostname": "10.0.0.5", "user": "me", "compression": "yes", "userknownhostsfile": "/mine",
        "proxycommand": "nc %h %p",
    }  # fmt: skip
    ours = {
        "stricthostkeychecking": "true", "batchmode": "yes", "loglevel": "DEBUG", "serveraliveinterval": "5",
        "connecttimeout": "7", "requesttty": "false", "controlmaster": "false", "forwardagent": "no",
        "permitlocalcommand": "no", "updatehostkeys": "false", "clearallforwardings": "yes",
    }  # fmt: skip
    assert {key: found[key] for key in {**theirs, **ours}} == {**theirs, **ours}
    assert found.get("remotecommand", "none") == "none"
    assert found.get("forkafterauthentication", "no") == "no"


@pytest.mark.process
def test_keys_that_were_pinned_are_known_by_a_program_unless_theirs_is_one(config, tmp_path):
    if alias.version() < alias.PINS_SINCE:
        pytest.skip("no KnownHostsCommand in the OpenSSH on this machine")
    assert str(tmp_path / "pins") in read_back(tmp_path, "tensor", tmp_path / "pins")["knownhostscommand"]
    config("KnownHostsCommand /bin/echo %H\n")
    assert read_back(tmp_path, "tensor", tmp_path / "pins")["knownhostscommand"] == "/bin/echo %H"


@pytest.mark.parametrize(
    ("jumps", "hop"),
    [
        ("gate", Alias("box, jump host gate", "gate")),
        ("me@gate:33", Alias("box, jump host gate", "gate", "me", 33)),
        ("a,b@c,[fe80::3]:44", Alias("box, jump host fe80::3", "fe80::3", "", 44, ("a", "b@c"))),
        ("ssh://me@gate:33/", Alias("box, jump host gate", "gate", "me", 33)),
    ],
)
def test_the_last_of_a_list_of_hops_goes_through_those_before_it(jumps, hop):
    assert alias.hop_of("box", jumps) == hop


@pytest.mark.parametrize("jumps", ["-oProxyCommand=x", "a b", "a:0", ""])
def test_what_is_no_hop_is_refused(jumps):
    assert "expected [user@]host[:port]" in refusal(lambda: alias.hop_of("box", jumps))


@pytest.mark.process
def test_hops_that_go_in_a_circle_are_refused_before_ssh_starts_itself_without_end(config):
    config("Host a\n  ProxyJump b\nHost b\n  ProxyJump c\nHost c\n  ProxyJump a\n")
    assert "a -> b -> c -> a" in refusal(lambda: asked("a"))


@pytest.mark.process
def test_more_than_eight_hops_are_refused(config):
    config("".join(f"Host h{i}\n  ProxyJump h{i + 1}\n" for i in range(11)))
    assert asked("h3")
    assert "more than 8" in refusal(lambda: asked("h2"))


@pytest.mark.process
def test_without_an_ssh_client_an_alias_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refusal(lambda: asked("tensor"))
    assert "install one" in message and "`credentials`" in message


@pytest.mark.process
def test_a_configuration_that_ssh_refuses_is_shown_in_its_own_words(config, monkeypatch, tmp_path):
    path = config("Host tensor\n  NoSuchOption yes\n")
    assert f"{path}: line 2: Bad configuration option: nosuchoption" in refusal(lambda: asked("tensor"))
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(tmp_path / "nowhere"))
    assert "nowhere" in refusal(lambda: asked("tensor"))


@pytest.mark.process
def test_a_word_of_apples_ssh_does_not_end_another_ssh(config, tmp_path):
    """Homebrew's ssh first in PATH, and UseKeychain in the configuration, as Apple's manual has it."""
    config("Host *\n  UseKeychain yes\n  AddKeysToAgent yes\nHost tensor\n  HostName 10.0.0.7\n  User me\n")
    assert alias.where(Alias("box", "tensor")) == "me@10.0.0.7"
    assert read_back(tmp_path, "tensor")["hostname"] == "10.0.0.7"
    path = config("Host tensor\n  UseKeychain yes\n  NoSuchOption yes\n")  # what else is wrong is still told
    assert f"{path}: line 3: Bad configuration option: nosuchoption" in refusal(lambda: asked("tensor"))


@pytest.mark.process
def test_an_ssh_that_does_not_answer_is_given_up(config, monkeypatch):
    monkeypatch.setattr(alias, "ASK_S", 0.5)
    config('Match exec "sleep 20"\n  User me\n')
    began = time.monotonic()
    assert "did not answer within 0.5 s" in refusal(lambda: asked("tensor"), LinkLost)
    assert time.monotonic() - began < 15


@pytest.mark.process
def test_an_alias_never_becomes_an_option():
    for host in ("-oProxyCommand=touch pwned", "-F/dev/null"):
        argv = Alias("box", host, "me", 23, ("gate",)).argv()
        assert argv[argv.index("--") + 1 :] == [host]
        if alias.version() >= (9, 2):  # older ones take any name
            assert "usage" not in refusal(lambda host=host: asked(host))  # as ssh says to a command line without a host


@pytest.mark.process
def test_a_network_that_is_away_is_no_fault_of_the_configuration(config):
    config("CanonicalizeHostname always\nCanonicalizeFallbackLocal no\nCanonicalDomains no.such.domain.invalid\n")
    assert "resolve host" in refusal(lambda: asked("tensor"), LinkLost)
