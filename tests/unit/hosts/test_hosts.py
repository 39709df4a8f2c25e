"""A local host keeps the promises that every kind of host will have to keep."""

import shutil
import sys
import time

import pytest

from runbook_lib import cli
from runbook_lib.errors import CannotStart, HostError, LinkLost, ProfileError
from runbook_lib.hosts import bundle, hosts
from runbook_lib.hosts.bundle import BUNDLE, bundle_files
from runbook_lib.hosts.content import Content, file_content, json_content
from runbook_lib.profile import profile
from runbook_lib.run.run import Run
from worker.files import sha256_file

HOSTS = "hosts:\n  - {name: one, kind: local, slots: 1, device: cpu, workdir: a}\n"
HOSTS += "  - {name: two, kind: ssh, credentials: two.credentials}\n"


@pytest.fixture
def this(tmp_path):
    (tmp_path / "p.yaml").write_text(f"run: t\ncorpus: {{path: c.jsonl}}\nmodel: {{name: /nowhere}}\n{HOSTS}")
    return Run(tmp_path / "r", profile.load(tmp_path / "p.yaml"))


@pytest.fixture
def host(this):
    return hosts.connect(this.profile.hosts[0], "r")


def test_put_brings_a_file_whole_and_not_twice(host, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    moved = []
    target = host.folder.root / "deep" / "target"
    assert host.put(target, file_content(source), moved.append)
    assert target.read_bytes() == source.read_bytes()
    assert sum(moved) == 3_000_000
    assert not host.put(target, file_content(source))


def test_put_replaces_a_file_of_other_bytes(host, tmp_path):
    source, target = tmp_path / "source", host.folder.root / "target"
    source.write_bytes(b"new")
    host.put(target, json_content({"old": 1}))
    assert host.put(target, file_content(source))
    assert target.read_bytes() == b"new"


def test_content_that_is_not_what_its_sum_says_leaves_nothing_under_the_name(host):
    wrong = Content(3, "0" * 64, lambda: iter([b"abc"]))
    with pytest.raises(HostError, match="expected sha256 0000"):
        host.put(host.folder.root / "target", wrong)
    assert list(host.folder.root.iterdir()) == []


def test_get_of_a_file_that_changed_is_refused(host, tmp_path):
    source = tmp_path / "part"
    source.write_bytes(b"good")
    digest = sha256_file(source)
    source.write_bytes(b"evil")
    with pytest.raises(HostError, match="expected sha256"):
        host.get(source, tmp_path / "home", digest)
    assert not (tmp_path / "home").exists()


def test_get_of_a_missing_file_names_host_and_file(host, tmp_path):
    with pytest.raises(HostError, match=r"one: fetching .*nowhere"):
        host.get(tmp_path / "nowhere", tmp_path / "home", "0" * 64)


@pytest.mark.process
def test_run_gives_exit_code_and_both_streams(host):
    done = host.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], 30)
    assert (done.exit_code, done.out, done.err) == (3, "out\n", "err\n")


@pytest.mark.process
def test_a_command_that_does_not_end_is_ended(host):
    began = time.monotonic()
    with pytest.raises(HostError, match=r"did not end within 0\.3 s"):
        host.run(["sleep", "60"], 0.3)
    assert time.monotonic() - began < 30


@pytest.mark.process
def test_a_command_that_is_not_there_is_named(host):
    with pytest.raises(CannotStart, match="cannot start no-such-command"):
        host.run(["no-such-command"], 1)


@pytest.mark.process
def test_a_command_that_may_not_be_run_is_named(host, tmp_path):
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(CannotStart, match="cannot start /"):
        host.run([str(tmp_path / "script")], 1)


@pytest.mark.parametrize(
    "error", [LinkLost("one: Permission denied (publickey)"), HostError("one: No such file", errno=5)]
)
def test_what_a_failure_is_does_not_follow_from_its_words(this, error):
    """A login that is refused was told as a command that cannot be started."""
    way = Liar(None)
    way.call = lambda *words, **arguments: raise_(error)
    with pytest.raises(type(error)) as found:
        hosts.Host(this.profile.hosts[0], "r", way).run(["python"], 1)
    assert found.value is error


def raise_(error):
    raise error


@pytest.mark.process
def test_a_started_command_appends_to_its_log_and_is_known_by_more_than_its_pid(host, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import time; print('hello', flush=True); time.sleep(60)"
    identity = host.start([sys.executable, "-c", code], log, tmp_path)
    deadline = time.monotonic() + 30
    while "hello" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert log.read_text() == "before\nhello\n"
    assert host.alive(identity)
    assert not host.alive({**identity, "start": "1"})
    assert not host.stop({**identity, "start": "1"}) or host.alive(identity)
    assert host.stop(identity)
    assert not host.alive(identity)


def test_nothing_outside_the_runs_folder_is_removed(host, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with pytest.raises(HostError, match="refused to remove"):
        host.remove(precious)
    with pytest.raises(HostError, match="refused to remove"):
        host.remove(host.folder.root / ".." / ".." / "precious")
    assert precious.read_text() == "mine"


def test_a_link_is_removed_and_not_what_it_points_to(host, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    host.folder.root.mkdir(parents=True)
    (host.folder.root / "link").symlink_to(precious)
    host.remove(host.folder.root / "link")
    host.remove(host.folder.root)
    assert (precious / "file").read_text() == "mine"


def test_the_bundle_is_the_worker_and_not_what_another_disk_adds_to_it(tmp_path, monkeypatch):
    shutil.copytree(BUNDLE, tmp_path / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    before = [relative for relative, _ in bundle_files()]
    (tmp_path / "worker" / "._encode.py").write_bytes(b"resource fork")
    monkeypatch.setattr(bundle, "BUNDLE", tmp_path / "worker")
    assert [relative for relative, _ in bundle_files()] == before and "worker/encode.py" in before


def test_one_host_that_fails_hides_no_other(this):
    found = hosts.side_by_side(this, lambda host: host.name)
    assert found["one"] == "one"
    assert isinstance(found["two"], ProfileError)  # there is no such credentials file
    assert found.ok == {"one": "one"} and found.failures == {"two": found["two"]}


def test_what_this_machine_fails_at_is_told_with_the_name_of_the_host(this):
    def full(host):
        raise OSError("No space left on device")

    found = hosts.side_by_side(Run(this.folder, this.profile, frozenset({"one"})), full)
    assert list(found) == ["one"]
    assert isinstance(found["one"], HostError)
    assert str(found["one"]) == "one: No space left on device"


def test_the_files_of_a_run_are_listed_by_their_path_below_its_folder(host, tmp_path):
    assert host.files() == []
    host.put(host.folder.root / "deep" / "a", json_content({}))
    host.put(host.workdir / "another-run" / "b", json_content({}))
    (host.folder.root / "link").symlink_to(tmp_path / "p.yaml")
    assert [path for path, _ in host.files()] == ["deep/a", "link"]
    assert dict(host.files())["deep/a"] == (host.folder.root / "deep" / "a").stat().st_size


class Liar:
    """A way to a host that answers every question with the same."""

    kind = "ssh"
    home = "/home/me"

    def __init__(self, answer):
        self.answer = answer

    def call(self, verb, timeout_s, **arguments):
        return self.answer


@pytest.mark.parametrize("name", ["/etc/passwd", "../other-run/a", "a/../../b", "", "x" * 5000, 7])
def test_a_host_that_names_files_outside_the_runs_folder_is_not_believed(this, name):
    with pytest.raises(HostError, match="one: lists a file that cannot be below the folder"):
        hosts.Host(this.profile.hosts[0], "r", Liar({"files": [["a/b", 1], [name, 1]]})).files()


@pytest.mark.parametrize("answer", [None, [], {}, {"now": float("nan")}, {"now": 1.0, "assigned": "yes"}])
def test_a_reading_that_cannot_be_true_is_refused(this, answer):
    with pytest.raises(HostError, match="one: its reading is invalid"):
        hosts.Host(this.profile.hosts[0], "r", Liar(answer)).poll()


def test_a_log_is_shown_without_its_control_characters(host, tmp_path):
    (tmp_path / "log").write_bytes(b"\x1b[31mred\x07\n\xff last")
    assert host.tail(tmp_path / "log") == "\\x1b[31mred\\x07\n\ufffd last"
    assert host.tail(tmp_path / "none") == ""


def test_a_log_is_followed_from_where_the_last_look_ended(host, tmp_path):
    log = tmp_path / "log"
    assert host.follow(log, -100) == ("", 0)  # not there yet
    log.write_text("first\nsecond\n")
    assert host.follow(log, -7) == ("second\n", 13)
    assert host.follow(log, 13) == ("", 13)
    with log.open("a") as file:
        file.write("\x1b[31mthird\n")
    assert host.follow(log, 13) == ("\\x1b[31mthird\n", 24)


# -------------------------------------------------------------------------------------------------------------- trust

KEYS = ["SHA256:" + "A" * 43, "SHA256:" + "B" * 42 + "E"]


@pytest.fixture
def pins(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNBOOK_TRUSTED_HOSTS", str(tmp_path / "deep" / "trusted"))
    return tmp_path / "deep" / "trusted"


def test_a_host_key_is_trusted_by_one_command_and_a_later_one_takes_its_place(pins, capsys):
    assert cli.main(["trust", "[gpu.lab]:2222", KEYS[0]]) == 0
    assert cli.main(["trust", "10.0.0.7", KEYS[0]]) == 0
    assert str(pins) in capsys.readouterr().out
    assert cli.main(["trust", "[gpu.lab]:2222", KEYS[1]]) == 0
    assert sorted(pins.read_text().splitlines()) == [f"10.0.0.7 {KEYS[0]}", f"[gpu.lab]:2222 {KEYS[1]}"]
    assert pins.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "words", [["10.0.0.7", "MD5:00"], ["10.0.0.7", KEYS[0][:-1]], ["*", KEYS[0]], ["a b", KEYS[0]]]
)
def test_what_is_no_host_or_no_fingerprint_is_not_trusted(pins, capsys, words):
    assert cli.main(["trust", *words]) == 1
    assert "runbook trust: trusting" in capsys.readouterr().err
    assert not pins.exists()
