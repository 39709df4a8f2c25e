"""A local host keeps the promises that every kind of host will have to keep."""

import sys
import time

import pytest

from runbook_lib import hosts, profile
from runbook_lib.errors import HostError
from worker.layout import sha256_file

HOSTS = "hosts:\n  - {name: one, kind: local, slots: 1, device: cpu, workdir: a}\n  - {name: two, kind: ssh}\n"


@pytest.fixture
def chosen(tmp_path):
    (tmp_path / "p.yaml").write_text(f"run: t\ncorpus: {{path: c.jsonl}}\nmodel: {{name: /nowhere}}\n{HOSTS}")
    return profile.load(tmp_path / "p.yaml")


@pytest.fixture
def host(chosen):
    return hosts.connect(chosen.hosts[0], "r")


def test_put_brings_a_file_whole_and_not_twice(host, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    moved = []
    target = host.folder.root / "deep" / "target"
    assert host.put(target, hosts.file_content(source), moved.append)
    assert target.read_bytes() == source.read_bytes()
    assert sum(moved) == 3_000_000
    assert not host.put(target, hosts.file_content(source))


def test_put_replaces_a_file_of_other_bytes(host, tmp_path):
    source, target = tmp_path / "source", host.folder.root / "target"
    source.write_bytes(b"new")
    host.put(target, hosts.json_content({"old": 1}))
    assert host.put(target, hosts.file_content(source))
    assert target.read_bytes() == b"new"


def test_content_that_is_not_what_its_sum_says_leaves_nothing_under_the_name(host):
    wrong = hosts.Content(3, "0" * 64, lambda: iter([b"abc"]))
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


def test_run_gives_exit_code_and_both_streams(host):
    done = host.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], 30)
    assert (done.exit_code, done.out, done.err) == (3, "out\n", "err\n")


def test_a_command_that_does_not_end_is_ended(host):
    began = time.monotonic()
    with pytest.raises(HostError, match=r"did not end within 0\.3 s"):
        host.run(["sleep", "60"], 0.3)
    assert time.monotonic() - began < 30


def test_a_command_that_is_not_there_is_named(host):
    with pytest.raises(HostError, match="cannot start no-such-command"):
        host.run(["no-such-command"], 1)


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


def test_one_host_that_fails_hides_no_other(chosen):
    found = hosts.side_by_side(chosen, "r", lambda host: host.name)
    assert found["one"] == "one"
    assert isinstance(found["two"], HostError)


def test_a_log_is_shown_without_its_control_characters(host, tmp_path):
    (tmp_path / "log").write_bytes(b"\x1b[31mred\x07\n\xff last")
    assert host.tail(tmp_path / "log") == "\\x1b[31mred\\x07\n\ufffd last"
    assert host.tail(tmp_path / "none") == ""
