"""A secret shows nowhere, and comes only from a file that nobody else can get at."""

import base64
import copy
import gc
import html
import json
import logging
import os
import pickle
import pprint
import random
import shlex
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from runbook_lib.errors import ProfileError
from runbook_lib.profile.secret import Secret, read_private, redact

PLANTED = "hunter2-7Kq%/+\"'\\<é>"


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.delenv("RUNBOOK_ALLOW_OPEN_SECRETS", raising=False)


@pytest.fixture
def private(tmp_path):
    path = tmp_path / "secret"
    path.write_text(PLANTED)
    path.chmod(0o600)
    return path


def refused(path, what="token"):
    """The message that refuses a file; it never has any of the content."""
    with pytest.raises(ProfileError) as caught:
        read_private(path, what)
    message = str(caught.value)
    assert "hunter2" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert message.startswith(what)
    return message


# ------------------------------------------------------------------------------------------------- showing nothing


def test_a_secret_shows_as_stars_however_it_is_asked(caplog):
    @dataclass
    class Holder:
        password: Secret

    secret = Secret(PLANTED)
    logging.getLogger("any").warning("%s %r", secret, [secret])
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>20}",
        f"{secret:>20}",
    ]
    shown += [pprint.pformat([secret]), repr(Holder(secret)), json.dumps(secret, default=str), caplog.text]
    assert all("***" in text and "hunter2" not in text for text in shown)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == PLANTED


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps({"password": Secret(PLANTED)}, protocol)


def test_a_secret_is_neither_copied_nor_written_as_json():
    for write in (copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as caught:
            write(Secret(PLANTED))
        assert "hunter2" not in str(caught.value)


def test_equal_secrets_are_equal():
    assert Secret("one") == Secret("one") != Secret("two")
    assert Secret("one") != "one"
    assert len({Secret("one"), Secret("one")}) == 1


# ------------------------------------------------------------------------------------------------- redaction


def forms(value):
    raw = value.encode()
    found = {
        "as it is": value,
        "JSON": json.dumps(value)[1:-1],
        "JSON with letters": json.dumps(value, ensure_ascii=False)[1:-1],
        "Python": repr(value)[1:-1],
        "URL": quote(value, safe=""),
        "URL path": quote(value),
        "form": quote_plus(value),
        "URL in small letters": "".join(
            f"%{b:02x}" if quote(bytes([b]), safe="").startswith("%") else chr(b) for b in raw
        ),
        "HTML": html.escape(value),
        "base64": base64.b64encode(raw).decode(),
        "base64 without padding": base64.b64encode(raw).decode().rstrip("="),
        "base64 of a URL": base64.urlsafe_b64encode(raw).decode(),
    }
    return found


def values(count):
    rng = random.Random(29)
    characters = "abcXYZ019 _-+/=%&?#\"'\\$`<>{}[]().*|^éß漢🙂"
    for _ in range(count):
        yield "".join(rng.choice(characters) for _ in range(rng.randint(4, 40)))


def test_a_known_secret_goes_from_a_text_in_every_form():
    for value in [PLANTED, "aaaa", "....", "a b+c", *values(300)]:
        secret = Secret(value)
        for name, form in forms(value).items():
            assert redact(f"before {form} after") == "before *** after", (name, value)
        del secret


def test_a_secret_inside_a_longer_base64_text_goes_too():
    for value in values(100):
        secret = Secret(value)
        for before in ("", "u", "us", "user:", "user: "):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                left = redact(encode(f"{before}{value};more".encode()).decode())
                head, stars, tail = left.partition("***")
                assert stars
                # Whole characters of the secret can no longer be had from what is left.
                assert len(head) <= 4 * (len(before) + 2) / 3 + 1
                assert len(tail) <= 12
        del secret


def test_the_longer_of_two_secrets_goes_whole():
    short, long = Secret("tree"), Secret("treehouse")
    assert redact("treehouse tree") == "*** ***"
    assert (short, long) == (Secret("tree"), Secret("treehouse"))


def test_a_very_short_secret_leaves_text_alone():
    secret = Secret("abc")
    assert redact("abc") == "abc"
    assert secret == Secret("abc")


@pytest.mark.parametrize("first_to_go", [0, 1])
def test_of_two_equal_secrets_one_may_go(first_to_go):
    pair = [Secret("twice-made"), Secret("twice-made")]
    pair.pop(first_to_go)
    gc.collect()
    assert redact("twice-made") == "***"
    pair.clear()
    gc.collect()
    assert redact("twice-made") == "twice-made"


def test_text_without_a_secret_stays_as_it_is():
    secret = Secret(PLANTED)
    assert redact("nothing here: *.+?") == "nothing here: *.+?"
    assert redact("") == ""
    assert secret.reveal() == PLANTED


# ------------------------------------------------------------------------------------------------- private files


def test_a_file_of_our_own_that_is_closed_is_read(private):
    assert read_private(private, "token") == PLANTED.encode()
    private.chmod(0o400)
    assert read_private(private, "token") == PLANTED.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o610, 0o601, 0o777])
def test_an_open_file_is_refused_with_the_line_that_closes_it(private, mode):
    private.chmod(mode)
    message = refused(private)
    assert f"chmod 600 {private}" in message
    assert "RUNBOOK_ALLOW_OPEN_SECRETS=1" in message


@pytest.mark.process
@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "it's",
        '"q"',
        "$(touch pwned)",
        "`touch pwned`",
        "-rf",
        "*",
        "new\nline",
        "ü漢🙂",
        "; touch pwned",
        "x" * 250,
    ],
)
def test_the_line_that_closes_it_works_for_any_name(tmp_path, name):
    path = tmp_path / name
    path.write_text("x")
    path.chmod(0o644)
    command = refused(path).partition("close it: ")[2].partition(" (if this")[0]
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path, timeout=30)
    assert read_private(path, "token") == b"x"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_relative_name_is_closed_by_its_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-R").touch(0o644)
    assert f"chmod 600 {tmp_path}/-R" in refused(Path("-R"))


def test_a_name_with_escapes_reaches_no_terminal(tmp_path):
    message = refused(tmp_path / "\x1b[31mred")
    assert "\x1b" not in message
    assert "\\x1b[31mred" in message


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert refused(tmp_path / "nowhere") == f"token {tmp_path}/nowhere: there is no such file"
    assert "a folder" in refused(tmp_path)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file" / "deeper") in refused(tmp_path / "file" / "deeper")


def test_a_link_is_refused_and_names_what_it_points_to(private, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(private)
    message = refused(link)
    assert "symbolic link" in message
    assert shlex.quote(str(private)) in message
    assert "RUNBOOK_ALLOW_OPEN_SECRETS=1" in message


def someone_elses(private):
    """A closed file of another user: ours given away where we may, else one of root's."""
    if os.geteuid() == 0:
        os.chown(private, 4321, 4321)
        return private
    return Path("/etc/hostname")


def test_a_file_of_another_user_is_refused(private):
    path = someone_elses(private)
    message = refused(path)
    assert "belongs to another user" in message
    assert f'sudo chown "$(id -un)" {path}' in message


def test_what_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "FIFO or device" in refused(tmp_path / "pipe")
    assert "device" in refused(Path("/dev/zero"))
    monkeypatch.chdir(tmp_path)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("door")
        assert "socket" in refused(Path("door"))


def test_a_large_file_is_no_secret(private):
    private.write_bytes(b"hunter2" * 1000)
    with pytest.raises(ProfileError, match="larger than 6999 bytes"):
        read_private(private, "token", 6999)
    assert len(read_private(private, "token", 7000)) == 7000


def test_the_override_lets_mode_owner_and_link_pass_and_nothing_else(private, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNBOOK_ALLOW_OPEN_SECRETS", "1")
    private.chmod(0o644)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(private)
    os.mkfifo(pipe, 0o600)
    assert read_private(link, "token") == PLANTED.encode()
    assert read_private(someone_elses(private), "token")
    for wrong in (pipe, tmp_path, tmp_path / "nowhere", Path("/dev/zero")):
        assert "RUNBOOK_ALLOW_OPEN_SECRETS" not in refused(wrong)
    monkeypatch.setenv("RUNBOOK_ALLOW_OPEN_SECRETS", "0")
    assert "symbolic link" in refused(link)


def test_nothing_stays_open_after_a_refusal(private, tmp_path):
    private.chmod(0o644)
    os.mkfifo(tmp_path / "pipe", 0o600)
    # The lowest free number is the next one to be given.
    before = os.open(os.devnull, os.O_RDONLY)
    os.close(before)
    for wrong in (private, tmp_path, tmp_path / "pipe", tmp_path / "nowhere"):
        refused(wrong)
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before


@pytest.mark.process
def test_a_variable_that_holds_a_secret_is_named_and_no_business_of_whom_we_start(monkeypatch):
    from runbook_lib.profile import secret
    from worker import verbs

    monkeypatch.setenv("KEY_PASSPHRASE", "horse-battery-staple")
    assert "KEY_PASSPHRASE" not in secret.variables()
    kept = secret.Secret("horse-battery-staple")
    assert secret.variables() == ["KEY_PASSPHRASE"]
    done = verbs.run(["env"], 20.0, without=secret.variables())
    assert done["exit"] == 0 and "PATH=" in done["out"] and kept.reveal() not in done["out"]
