"""Whom we trust: as OpenSSH reads known_hosts, and nobody else."""

import base64
import itertools
import os
import random
import re
import shlex
import stat
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runbook_lib.errors import HostError, ProfileError
from runbook_lib.hosts.ssh import known_hosts
from runbook_lib.hosts.ssh.known_hosts import fingerprint, trust
from runbook_lib.hosts.ssh.login import Login
from runbook_lib.hosts.ssh.refused import HostKeyRefused

pytestmark = pytest.mark.process  # its keys are made by ssh-keygen


@dataclass(frozen=True)
class Key:
    """A host's key as ssh-keygen made it."""

    kind: str
    text: str
    print: str

    @property
    def line(self):
        return f"{self.kind} {self.text}"

    @property
    def blob(self):
        return base64.b64decode(self.text)


def keygen(*argv):
    done = subprocess.run(["ssh-keygen", *map(str, argv)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Real keys: two of type ed25519, one ECDSA, one RSA."""
    folder = tmp_path_factory.mktemp("host_keys")
    made = {}
    for name, kind in (("ed", "ed25519"), ("other", "ed25519"), ("ec", "ecdsa"), ("rsa", "rsa")):
        assert keygen("-q", "-t", kind, "-N", "", "-C", "", "-f", folder / name)[0] == 0
        kind, text = (folder / f"{name}.pub").read_text().split()
        made[name] = Key(kind, text, keygen("-lf", folder / f"{name}.pub")[1].split()[1])
    return made


@pytest.fixture(autouse=True)
def pins(tmp_path, monkeypatch):
    """Our own pins, in a place of this test's own."""
    monkeypatch.delenv("RUNBOOK_ALLOW_OPEN_SECRETS", raising=False)
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "pins" / "trusted"))
    return tmp_path / "pins" / "trusted"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "known_hosts"


def a_login(*files, known_as="box", host_key=None):
    address = known_as.strip("[]").partition("]")[0]
    return Login("tensor01", address, 22, "me", None, None, None, host_key, tuple(files), known_as, None)


def check(login, key):
    known_hosts.of(login).check(key.kind, key.blob)


def refused(login, key):
    with pytest.raises(HostKeyRefused) as caught:
        check(login, key)
    message = str(caught.value)
    assert message.startswith("tensor01: ")
    assert "nothing was sent" in message
    assert key.print in message
    return message


# ------------------------------------------------------------------------------------------------- known, not known


def test_a_fingerprint_is_the_one_ssh_keygen_gives(keys):
    for key in keys.values():
        assert fingerprint(key.blob) == key.print


def test_the_key_that_is_known_is_trusted(keys, file):
    for key in keys.values():
        file.write_text(f"# a comment\n\nelse {keys['other'].line}\nbox,10.0.0.5 {key.line} a comment\n")
        check(a_login(file), key)
        check(a_login(file, known_as="10.0.0.5"), key)


def test_an_unknown_host_is_refused_with_the_one_command_that_trusts_it(keys, file, pins):
    file.write_text(f"else {keys['ed'].line}\n")
    login = a_login(file, known_as="[box]:2222")
    message = refused(login, keys["ed"])
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in message
    commands = [line.strip() for line in message.splitlines() if line.strip().startswith("runbook")]
    assert commands == [f"runbook trust '[box]:2222' {keys['ed'].print}"]
    # The command's own words, as a shell takes them, make the next look succeed.
    assert trust(*shlex.split(commands[0])[2:]) == pins
    check(login, keys["ed"])
    refused(login, keys["other"])
    refused(a_login(file, known_as="box"), keys["ed"])


def test_the_owner_is_asked_for_the_file_of_that_key_type(keys, file):
    for name, kind in (("rsa", "rsa"), ("ec", "ecdsa"), ("ed", "ed25519")):
        assert f"ssh_host_{kind}_key.pub" in refused(a_login(file), keys[name])


def test_no_known_hosts_file_at_all_is_no_fault_and_no_trust(keys, tmp_path):
    assert "is not known" in refused(a_login(tmp_path / "nowhere", tmp_path / "no" / "where"), keys["ed"])
    assert "is not known" in refused(a_login(), keys["ed"])


def test_a_changed_key_names_file_line_and_both_fingerprints(keys, file):
    file.write_text(f"# one\n# two\nbox {keys['ed'].line}\n")
    message = refused(a_login(file), keys["other"])
    assert "is not the one known" in message
    assert f"{file}:3" in message
    assert keys["ed"].print in message and keys["other"].print in message
    assert "runbook trust" not in message


def test_the_way_to_remove_an_old_key_works(keys, tmp_path):
    file = tmp_path / "it's here"
    file.write_text(f"[box]:2222 {keys['ed'].line}\nelse {keys['ed'].line}\n")
    login = a_login(file, known_as="[box]:2222")
    command = re.search(r"ssh-keygen -R .* -f .*?(?= \(or)", refused(login, keys["other"]))[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)
    assert "is not known" in refused(login, keys["other"])
    check(a_login(file, known_as="else"), keys["ed"])


def test_a_key_of_another_type_is_a_changed_key(keys, file):
    file.write_text(f"box {keys['rsa'].line}\n")
    message = refused(a_login(file), keys["ed"])
    assert "is not the one known" in message and "of a type not known for it" in message
    assert f"{file}:1" in message


def test_one_of_several_known_keys_is_enough(keys, file, tmp_path):
    second = tmp_path / "second"
    file.write_text(f"box {keys['ed'].line}\n")
    second.write_text(f"box {keys['other'].line}\nbox {keys['rsa'].line}\n")
    for name in ("ed", "other", "rsa"):
        check(a_login(file, second), keys[name])
    message = refused(a_login(file, second), keys["ec"])
    assert all(place in message for place in (f"{file}:1", f"{second}:1", f"{second}:2"))


# ------------------------------------------------------------------------------------------------- odd lines


def test_a_revoked_key_is_refused_whatever_else_trusts_it(keys, file):
    file.write_text(f"box {keys['ed'].line}\n@revoked * {keys['ed'].line}\n")
    trust("box", keys["ed"].print)
    for login in (a_login(file), a_login(file, host_key=keys["ed"].print)):
        message = refused(login, keys["ed"])
        assert "is revoked" in message and f"{file}:2" in message
        assert "runbook trust" not in message
    check_file = f"box {keys['ed'].line}\n@revoked else {keys['ed'].line}\n@revoked box {keys['other'].line}\n"
    file.write_text(check_file)
    check(a_login(file), keys["ed"])
    assert "is revoked" in refused(a_login(file), keys["other"])


def test_a_certificate_authority_is_no_host_key_and_said_to_be_unsupported(keys, file):
    file.write_text(f"@cert-authority *.lab {keys['ed'].line}\n")
    message = refused(a_login(file, known_as="box.lab"), keys["ed"])
    assert f"{file}:1: @cert-authority is not supported" in message
    assert "@cert" not in refused(a_login(file), keys["ed"])


def garbage(keys):
    ed = keys["ed"]
    return [
        "box",
        "box ssh-ed25519",
        "box ssh-ed25519 !!!!",
        f"box ssh-rsa {ed.text}",  # one type outside, another inside
        f"box {ed.kind} {ed.text[:-8]}=",
        f"@unheard box {ed.line}",
        f"@revoked{ed.line}",
        f"{ed.line}",
        "box 1024 35 123456789",
        "\x00\x01\x02",
        "<<<<<<< HEAD",
        "x" * 100_000,
    ]


def test_a_line_of_garbage_does_not_hide_the_others(keys, file):
    for bad in garbage(keys):
        file.write_text(f"{bad}\nbox {keys['ed'].line}\n{bad}\n")
        check(a_login(file), keys["ed"])


def test_a_line_of_garbage_is_named_where_nothing_else_matches_and_never_shown(keys, file):
    for bad in garbage(keys):
        file.write_text(f"else {keys['ed'].line}\n{bad}\n")
        message = refused(a_login(file), keys["ed"])
        assert f"{file}:2" in message and f"{file}:1" not in message
        assert len(message) < 2000
    file.write_bytes(b"\xff\xfe\n" * 50)
    message = refused(a_login(file), keys["ed"])
    assert f"{file}:3" in message and f"{file}:4" not in message and "47 more" in message


def test_what_is_no_file_is_left_out_without_waiting(keys, tmp_path, file):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file.write_text(f"box {keys['ed'].line}\n")
    check(a_login(pipe, tmp_path, Path("/dev/zero"), file), keys["ed"])
    message = refused(a_login(pipe, tmp_path, Path("/dev/zero")), keys["ed"])
    assert all(f"{path}: left out" in message for path in (pipe, tmp_path, "/dev/zero"))


def test_a_file_that_is_too_large_is_left_out(keys, file, monkeypatch):
    monkeypatch.setattr(known_hosts, "LARGEST_FILE", 50)
    file.write_text(f"box {keys['ed'].line}\n")
    assert "larger than 50 bytes" in refused(a_login(file), keys["ed"])


def test_ends_of_lines_and_blanks_are_as_openssh_takes_them(keys, file):
    file.write_bytes(f" \t box \t {keys['ed'].line.replace(' ', '  ')}\r\n\tother {keys['other'].line}".encode())
    check(a_login(file), keys["ed"])
    check(a_login(file, known_as="other"), keys["other"])


# ------------------------------------------------------------------------------------------------- names


def test_names_hashed_by_ssh_keygen_are_found(keys, file):
    names = ["box", "[box]:2222", "10.0.0.5", "fe80::1%eth0", "[fe80::1]:23", "box.example"]
    file.write_text("".join(f"{name} {keys['ed'].line}\n" for name in names))
    assert keygen("-H", "-f", file)[0] == 0
    assert "box" not in file.read_text() and file.read_text().startswith("|1|")
    for name in names:
        check(a_login(file, known_as=name), keys["ed"])
        assert f"{file}:{names.index(name) + 1}" in refused(a_login(file, known_as=name), keys["other"])
    for name in ("bo", "box:2222", "[box]:2223", "10.0.0.50"):
        assert "is not known" in refused(a_login(file, known_as=name), keys["ed"])


def test_damaged_hashes_match_nothing(keys, file):
    for hashed in ("|", "|1|", "|1||", "|1|!!|!!", "|2|AAAA|AAAA", "|1|AAAA|AAAA|", "|1|AAAA"):
        file.write_text(f"{hashed} {keys['ed'].line}\n")
        assert "is not known" in refused(a_login(file), keys["ed"])


PATTERNS = [
    "box", "BOX", "b?x", "*", "!box", "*,!box", "!box,*", "box*", "*.example", "*.example,!a.example", "!*.example,*",
    "[box]:2222", "[*]:2222", "[*.example]:22?2", "[box]:*", "box,else", "else,box,", ",box", ",", "b[ox]", "b*o*x",
    "?", "???", "****", "10.0.0.*", "fe80::1", "*::*", "!", "!!box", "b.x", "b+x", "(box)", "box|else", "*x*x*x*",
]  # fmt: skip
NAMES = [
    "box", "else", "bxx", "a.example", "b.example", "example", "[box]:2222", "[a.example]:2222", "[box]:22",
    "10.0.0.7", "fe80::1", "b.x", "b+x", "x",
]  # fmt: skip


def found_by_ssh_keygen(name, file):
    """The numbers of the lines that OpenSSH takes for a name."""
    return {int(line) for line in re.findall(r"found: line (\d+)", keygen("-F", name, "-f", file)[1])}


def found_by_us(name, file):
    keys = known_hosts.of(a_login(file, known_as=name))
    return {key.line for key in (*keys.trusted, *keys.revoked)}


def test_wildcards_and_negations_match_as_in_openssh(keys, file):
    rng = random.Random(31)
    alphabet = ["b", "o", "x", "*", "?", "!", ",", ".", "[", "]", ":", "2"]
    made = ["".join(rng.choices(alphabet, k=rng.randint(1, 8))) for _ in range(400)]
    patterns = PATTERNS + made
    lines = [f"{pattern} {keys['ed'].line}" for pattern in patterns]
    file.write_text("".join(f"{line}\n" for line in lines))
    some = 0
    for name in [*NAMES, "bo", "xx", "ob2", "[b]:2", "b:2", ".x", "o.b"]:
        expected = found_by_ssh_keygen(name, file)
        ours = found_by_us(name, file)
        assert ours == expected, (name, [patterns[line - 1] for line in ours ^ expected])
        some += len(ours)
    assert some > 400


def test_a_pattern_that_could_take_for_ever_does_not(keys, file):
    file.write_text(f"{'*a' * 60}b {keys['ed'].line}\n{'*' * 5000}z {keys['ed'].line}\n")
    assert "is not known" in refused(a_login(file, known_as="a" * 200), keys["ed"])


def test_case_does_not_matter(keys, file):
    file.write_text(f"Box.Example {keys['ed'].line}\n")
    check(a_login(file, known_as="box.example"), keys["ed"])
    check(a_login(file, known_as="BOX.example"), keys["ed"])


# ------------------------------------------------------------------------------------------------- types


def test_a_host_known_by_one_type_is_asked_for_that_type(keys, file):
    for name, expected in (
        ("rsa", ("rsa-sha2-512", "rsa-sha2-256")),
        ("ec", ("ecdsa-sha2-nistp256",)),
        ("ed", ("ssh-ed25519",)),
    ):
        file.write_text(f"else {keys['other'].line}\nbox {keys[name].line}\n")
        assert known_hosts.of(a_login(file)).types() == expected


def test_the_best_type_comes_first_and_what_is_not_trusted_not_at_all(keys, file):
    lines = [f"box {keys['rsa'].line}", f"box {keys['ec'].line}", f"box {keys['ed'].line}", f"box {keys['other'].line}"]
    file.write_text("\n".join([*lines, f"@revoked box {keys['ec'].line}", f"@cert-authority box {keys['other'].line}"]))
    assert known_hosts.of(a_login(file)).types() == ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
    assert known_hosts.of(a_login()).types() == ()


# ------------------------------------------------------------------------------------------------- fingerprints given


def test_a_fingerprint_in_the_credentials_decides_alone(keys, file):
    file.write_text(f"box {keys['rsa'].line}\nbox {keys['ed'].line}\n")
    trust("box", keys["ec"].print)
    login = a_login(file, host_key=keys["other"].print)
    check(login, keys["other"])
    for name in ("rsa", "ed", "ec"):
        message = refused(login, keys[name])
        assert "is not the one known" in message and keys["other"].print in message
        assert "`host_key` in its credentials file" in message
    assert known_hosts.of(replace(login, host_key=keys["rsa"].print)).types() == ("rsa-sha2-512", "rsa-sha2-256")
    assert known_hosts.of(login).types() == ()


def test_a_pin_trusts_beside_what_is_known(keys, file, pins):
    file.write_text(f"box {keys['ed'].line}\n")
    trust("box", keys["other"].print)
    check(a_login(file), keys["other"])
    check(a_login(file), keys["ed"])
    message = refused(a_login(file), keys["rsa"])
    assert f"{file}:1" in message and f"{pins}:1" in message
    assert "ssh-keygen -R box" in message and f"runbook trust box {keys['rsa'].print}" in message


def test_trust_writes_a_file_that_only_we_can_read_and_says_a_thing_once(keys, pins):
    assert not pins.parent.exists()
    for _ in range(2):
        assert trust("Box", keys["ed"].print) == pins
        assert pins.read_text() == f"box {keys['ed'].print}\n"
    assert stat.S_IMODE(pins.stat().st_mode) == 0o600
    assert stat.S_IMODE(pins.parent.stat().st_mode) == 0o700
    check(a_login(known_as="box"), keys["ed"])


def test_trust_replaces_the_pin_of_that_name_and_keeps_the_rest(keys, pins):
    trust("box", keys["ed"].print)
    pins.write_text(f"# mine\n\nbox.example {keys['rsa'].print}\n{pins.read_text()}[box]:22 {keys['ec'].print}\n")
    trust("box", keys["other"].print)
    assert pins.read_text() == (
        f"# mine\n\nbox.example {keys['rsa'].print}\n[box]:22 {keys['ec'].print}\nbox {keys['other'].print}\n"
    )
    assert [path.name for path in pins.parent.iterdir()] == [pins.name]
    refused(a_login(known_as="box"), keys["ed"])


def test_the_pins_are_where_the_environment_says(keys, tmp_path, monkeypatch):
    monkeypatch.delenv("RUNBOOK_TRUSTED_HOSTS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert trust("box", keys["ed"].print) == tmp_path / "config" / "runbook" / "trusted_hosts"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert trust("box", keys["ed"].print) == tmp_path / "home" / ".config" / "runbook" / "trusted_hosts"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a\tb",
        "a\nb",
        "a,b",
        "*",
        "a?",
        "!a",
        "#a",
        "@revoked",
        "|1|a|b",
        "-a",
        "a\x1b",
        "a\u2028",
        "x" * 256,
    ],
)
def test_a_name_that_known_hosts_could_not_hold_is_not_trusted(keys, pins, name):
    with pytest.raises(ProfileError, match="expected one host") as caught:
        trust(name, keys["ed"].print)
    assert "\x1b" not in str(caught.value)
    assert not pins.exists()


@pytest.mark.parametrize(
    "given",
    ["", "SHA256:", "SHA256:" + "A" * 42, "SHA256:" + "A" * 44, "sha256:" + "A" * 43, "MD5:00:11", "A" * 43,
     "SHA256:" + "A" * 43 + "=", "SHA256:" + "A" * 42 + "B", "SHA256:" + "A" * 43 + "\n", "SHA256:" + "-" * 43],
)  # fmt: skip
def test_what_is_no_fingerprint_is_not_trusted(pins, given):
    with pytest.raises(ProfileError, match="expected SHA256: and 43 characters"):
        trust("box", given)
    assert not pins.exists()


@pytest.mark.parametrize("name", ["a'b", "$(reboot)", "`x`", "[fe80::1%eth0]:2222", "ü", 'a"b', "a;b", "a\\b"])
def test_any_other_name_goes_through_a_shell_and_back(keys, name):
    message = refused(a_login(known_as=name), keys["ed"])
    command = next(line for line in message.splitlines() if "runbook trust" in line)
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command.partition('trust ')[2]}"], capture_output=True, text=True, timeout=30
    )
    assert said.stdout.splitlines() == [name, keys["ed"].print]
    trust(*said.stdout.splitlines())
    check(a_login(known_as=name), keys["ed"])


def test_a_file_of_pins_with_a_wrong_line_is_refused_by_its_number(keys, pins):
    good = f"box {keys['ed'].print}\n"
    bad_lines = ["box", "box nothing", f"a b {keys['ed'].print}", f"* {keys['ed'].print}", good.strip(), "\x1b[2J x"]
    for bad in bad_lines:
        pins.parent.mkdir(exist_ok=True)
        pins.write_text(f"# pins\n{good}{bad}\n")
        pins.chmod(0o600)
        for use in (lambda: known_hosts.of(a_login()), lambda: trust("new", keys["ed"].print)):
            with pytest.raises(ProfileError) as caught:
                use()
            assert f"{pins}:3" in str(caught.value)
            assert "\x1b" not in str(caught.value)
        assert pins.read_text() == f"# pins\n{good}{bad}\n"
    pins.write_bytes(b"# fine\nbox \xff\n")
    with pytest.raises(ProfileError, match=":2: expected"):
        known_hosts.of(a_login())


def test_a_file_of_pins_that_others_can_write_is_refused(keys, pins, tmp_path):
    trust("box", keys["ed"].print)
    pins.chmod(0o666)
    for use in (lambda: known_hosts.of(a_login()), lambda: trust("box", keys["ed"].print)):
        with pytest.raises(ProfileError, match=f"chmod 600 {pins}"):
            use()
    elsewhere = tmp_path / "elsewhere"
    pins.rename(elsewhere)
    elsewhere.chmod(0o600)
    pins.symlink_to(elsewhere)
    with pytest.raises(ProfileError, match="symbolic link"):
        trust("box", keys["other"].print)
    assert pins.is_symlink()


def test_a_refusal_is_a_fault_of_the_host(keys):
    with pytest.raises(HostError):
        check(a_login(), keys["ed"])


def test_no_two_of_the_keys_are_taken_for_each_other(keys, file):
    for known, offered in itertools.product(keys, keys):
        file.write_text(f"box {keys[known].line}\n")
        if known == offered:
            check(a_login(file), keys[offered])
        else:
            refused(a_login(file), keys[offered])


@pytest.mark.process
def test_the_program_for_ssh_knows_a_pinned_key_by_its_name_and_fingerprint_alone(tmp_path):
    print_, other = "SHA256:" + "A" * 43, "SHA256:" + "B" * 42 + "A"
    (tmp_path / "pins").write_text(known_hosts.program({"[10.0.0.7]:2222": print_}))
    (tmp_path / "pin").write_text(known_hosts.program({}, print_))

    def said(program, *given):
        argv = ["/bin/sh", str(tmp_path / program), *given, "ssh-ed25519", "AAAA"]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout

    assert said("pins", "[10.0.0.7]:2222", print_) == "[10.0.0.7]:2222 ssh-ed25519 AAAA\n"
    assert said("pins", "[10.0.0.7]:2222", other) == said("pins", "10.0.0.7", print_) == ""
    assert said("pin", "anything", print_) == "anything ssh-ed25519 AAAA\n"
    assert said("pin", "anything", other) == ""
