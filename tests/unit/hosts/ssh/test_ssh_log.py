"""What ssh's log says of a login, version by version, and that no server can write it: lines as OpenSSH prints them."""

import pytest

from runbook_lib.errors import LinkLost
from runbook_lib.hosts.ssh import refusal
from runbook_lib.hosts.ssh.alias import Alias
from runbook_lib.hosts.ssh.refused import HostKeyRefused, LoginRefused, TurnedAway
from runbook_lib.hosts.ssh.ssh_log import KEPT, LINE_LIMIT, Account, Lines

PRINT = "SHA256:6fANVS1xQYbbun1vecbLoW83LZk84CVT7JHe3AHKbxU"
BEGIN = f"""\
debug1: Connecting to 10.0.0.7 [10.0.0.7] port 22.
debug1: Authenticating to 10.0.0.7:22 as 'me'
debug1: SSH2_MSG_KEXINIT sent
debug1: Server host key: ssh-ed25519 {PRINT}
"""
TRUSTED = BEGIN + "debug1: SSH2_MSG_NEWKEYS sent\ndebug1: SSH2_MSG_NEWKEYS received\n"
OFFER = TRUSTED + "debug1: Offering public key: /k ED25519 SHA256:x explicit\n"
STRICT = "and you have requested strict checking.\nHost key verification failed.\n"
FRAME = "@@@@@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@@@@@\n"


def account(text):
    found = Account()
    for line in text.splitlines():
        found.take(f"{line}\r")
    return found


def why(own, aside="", found=None, host_key=None):
    said = refusal.why(Alias("box", "box", host_key=host_key), found or {}, account(own), account(aside))
    assert str(said).startswith("box: ")
    return said


@pytest.fixture(autouse=True)
def no_pins(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "trusted"))
    monkeypatch.setattr(refusal, "version", lambda: (9, 2))


UNKNOWN = f"No ED25519 host key is known for [10.0.0.7]:2222 {STRICT}"
CHANGED = f"{FRAME}Offending ED25519 key in /home/me/.ssh/known hosts:7\nHost key for 10.0.0.7 has changed {STRICT}"
OLD_CHANGED = f"{FRAME}Offending RSA key in /h:7\nRSA host key for 10.0.0.7 has changed {STRICT}"  # 7.4
OTHER_IP = (
    "Warning: the ED25519 host key for 'gpu' differs from the key for the IP address '10.0.0.7'\n"
    "Offending key for IP in /h:7\nExiting, you have requested strict checking.\nHost key verification failed.\n"
)
REVOKED = f"@       WARNING: REVOKED HOST KEY DETECTED!               @\n{UNKNOWN}"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (UNKNOWN, ["is not known here", "runbook trust '[10.0.0.7]:2222' " + PRINT]),
        (
            CHANGED,
            ["expected that of /home/me/.ssh/known hosts:7", "ssh-keygen -R 10.0.0.7 -f '/home/me/.ssh/known hosts'"],
        ),
        (OLD_CHANGED, ["expected that of /h:7"]),
        (OTHER_IP, ["expected that of /h:7"]),
        (REVOKED, ["is revoked"]),
        (f"Host key ED25519 {PRINT} revoked by file /r\nHost key verification failed.\n", ["is revoked"]),
    ],
)
def test_a_host_key_that_is_not_taken(said, words):
    refused = why(BEGIN + said)
    assert isinstance(refused, HostKeyRefused)
    assert all(word in str(refused) for word in [*words, PRINT, "nothing was sent"])
    behind = why("", BEGIN + said)  # of a hop
    assert isinstance(behind, HostKeyRefused) and all(word in str(behind) for word in words)


def test_an_ssh_that_cannot_be_told_of_our_pins_is_the_one_to_be_told(monkeypatch):
    monkeypatch.setattr(refusal, "version", lambda: (8, 4))
    said = str(why(BEGIN + UNKNOWN))
    assert "say yes once to: ssh" in said and "runbook trust" not in said


def test_the_fingerprint_of_a_credentials_file_is_named():
    assert "expected SHA256:mine" in str(why(BEGIN + UNKNOWN, host_key="SHA256:mine"))


@pytest.mark.parametrize("last", ["me@10.0.0.7: Permission denied (publickey).", "Permission denied (publickey)."])
def test_a_login_that_is_refused(last):
    said = why(f"{OFFER}debug1: Authentications that can continue: publickey\n{last}\n")
    assert isinstance(said, LoginRefused) and "offered: /k ED25519" in str(said) and "runbook login" not in str(said)


@pytest.mark.parametrize(
    "more",
    [
        'Authenticated using "publickey" with partial success.\nme@10.0.0.7: Permission denied (password).\n',
        "Authenticated with partial success.\nPermission denied (password).\n",  # 7.4
        "debug1: Authentications that can continue: publickey,keyboard-interactive\nPermission denied (publickey).\n",
    ],
)
def test_a_login_that_asks_names_the_command(more):
    said = why(OFFER + more)
    assert isinstance(said, LoginRefused) and "answer once: `runbook login box`" in str(said)


def test_a_farewell_is_told_and_is_the_last_that_counts():
    many = "Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures\n"
    assert isinstance(why(OFFER + many), LoginRefused)
    shown = why(BEGIN + "Received disconnect from 10.0.0.7 port 22:11: bye\nHost key verification failed.\n")
    assert isinstance(shown, LinkLost) and "bye" in str(shown)


def test_a_remark_before_the_key_exchange_is_over_makes_no_refused_login():
    """It may hold line breaks, and so whole lines of ssh's."""
    denied = "me@box: Permission denied (publickey).\n"
    forged = account(f"{BEGIN}debug1: Remote: hello\n{TRUSTED}{denied}")
    assert not forged.connected and not forged.denied
    honest = account(f"{OFFER}debug1: Remote: Ignored authorized keys: bad ownership\n{denied}")
    assert honest.denied and honest.remarks == ["Ignored authorized keys: bad ownership"]


def test_a_banner_and_lines_before_the_key_exchange_decide_nothing():
    lies = f"{UNKNOWN}root@box: Permission denied (publickey).\n"
    assert isinstance(why(f"{OFFER}Connection reset by 10.0.0.7 port 22\n", lies), LinkLost)  # aside: the host's banner
    early = "".join(f"debug1: kex_exchange_identification: banner line 0: {line}\n" for line in lies.splitlines())
    assert isinstance(why(f"{early}Connection reset by 10.0.0.7 port 22\n"), LinkLost)


def test_a_hop_counts_until_the_next_and_by_its_own_key_exchange():
    """The banner of a hop that let us through says nothing of its key, and the hop after it has a key of its own."""
    banner = account(f"{TRUSTED}Host key verification failed.\n")
    assert not banner.key_refused
    second = BEGIN.replace("10.0.0.7", "10.0.0.8")
    chain = account(f"{TRUSTED}Authenticated to 10.0.0.7.\n{second}{UNKNOWN}")
    assert chain.key_refused and chain.machine == "10.0.0.8:22"
    denied = why(
        "kex_exchange_identification: Connection closed by remote host\n",
        f"{OFFER}me@h: Permission denied (publickey).\n",
    )
    assert isinstance(denied, LoginRefused) and "10.0.0.7:22 does not let you in" in str(denied)


def test_who_is_turned_away_at_the_door_comes_again_but_not_by_a_proxy():
    door = "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.7 port 22\n"
    old = "ssh_exchange_identification: Connection closed by remote host\n"  # 7.4
    assert isinstance(why(door), TurnedAway) and isinstance(why(old), TurnedAway)
    behind = why(door, "nc: no route\n", {"proxycommand": ["nc %h %p"], "hostname": ["gpu"], "port": ["22"]})
    assert (
        type(behind) is LinkLost
        and str(behind) == "box: reaching gpu port 22 by its ProxyCommand: its proxy said: nc: no route"
    )


def test_what_is_kept_is_bounded_and_safe_to_print():
    lines = Lines()
    assert lines.take(b"x" * 100_000) == [] and lines.take(b"y\nz\n") == ["x" * LINE_LIMIT + "y", "z"]
    found = Account()
    for number in range(10_000):
        found.take(f"\x1b[31m line {number}")
        found.take(f"debug1: Offering public key: /k{number}")
        found.take(f"debug1: Remote: {'r' * 5000}{number}")
    assert len(found.words) == len(found.offered) == len(found.remarks) == KEPT
    assert "\x1b" not in "".join(found.words) and max(map(len, [*found.words, *found.remarks])) < 400
