"""The way to a real OpenSSH server, and everything that happens to it: nothing hangs, nothing is done twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleet as fleets
import pytest
import ssh_server
from far_end_code import hurry
from hosts_by_ssh import QUICK, agent, linked
from proxy import Proxy
from waiting import wait_for

from runbook_lib.errors import HostError, LinkLost
from runbook_lib.hosts.content import Content
from runbook_lib.hosts.hosts import Host
from runbook_lib.hosts.ssh import dial, link, login, refused, ssh
from runbook_lib.hosts.ssh.session import Patience
from runbook_lib.profile.profile import HostSpec
from runbook_lib.profile.secret import Secret

either_client = pytest.mark.usefixtures("either_client")
MARGIN_S = 6.0  # over a deadline, on a machine that is busy


@pytest.fixture(autouse=True)
def quick_signs(monkeypatch):
    """Signs of life as often as these tests' short patience asks for."""
    hurry(monkeypatch, SIGN_S=0.4)


@pytest.fixture
def box(ssh_fleet) -> fleets.Host:
    return ssh_fleet.hosts["tensor01"]


@pytest.fixture
def line(box) -> Iterator[Proxy]:
    with Proxy(box.address, box.port) as found:
        yield found


@contextlib.contextmanager
def through(line: Proxy, box: fleets.Host, patience: Patience = QUICK, **keys: object) -> Iterator[Host]:
    with linked(box, patience, address="127.0.0.1", port=line.port, **keys) as there:
        yield there


@contextlib.contextmanager
def own_host(folder: Path, **keys: Any) -> Iterator[fleets.Host]:
    """A host with settings of its own."""
    if why := fleets.available(keys.get("mode", "auto")):
        pytest.skip(why)
    with fleets.start(folder, names=["box"], **keys) as started:
        yield started.hosts["box"]


@contextlib.contextmanager
def reached(found: login.Login, patience: Patience = QUICK) -> Iterator[ssh.SshTransport]:
    own = link.Link(found, patience)
    try:
        yield ssh.SshTransport(found.name, own)
    finally:
        own.close()


def blob(size: int) -> Content:
    data = os.urandom(size)
    return Content(
        size, hashlib.sha256(data).hexdigest(), lambda: iter([data[at : at + 2**18] for at in range(0, size, 2**18)])
    )


@contextlib.contextmanager
def meanwhile(do: Callable[[], Any]) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(do)


def seconds(do: Callable[[], Any]) -> float:
    """How long it took to fail with LinkLost."""
    began = time.monotonic()
    with pytest.raises(LinkLost):
        do()
    return time.monotonic() - began


def far_end(there: Host, box: fleets.Host) -> int:
    """The pid of a far end that is free, as this machine counts."""
    with there.transport.link.session() as session:
        return box.outside(session.hello.pid)


def session_process(pid: int) -> int:
    """The sshd process that a far end hangs on."""
    while True:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        pid = int(fields[1])
        if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
            return pid


# ------------------------------------------------------------------------------------------------- lines that go dead


@either_client
def test_a_line_that_goes_dead_is_noticed_and_made_anew_when_it_is_back(box):
    with linked(box) as there:
        assert there.poll().supervisor is None
        with meanwhile(lambda: seconds(lambda: there.run(["sleep", "60"], 90))) as busy:
            wait_for(lambda: there.transport.link._open, "a command under way")
            box.cut()
            try:
                assert seconds(there.poll) < QUICK.silence_s + QUICK.connect_s + MARGIN_S
                assert busy.result() < QUICK.silence_s + MARGIN_S
                assert seconds(there.poll) < QUICK.connect_s + MARGIN_S  # nor is a new one waited for for long
            finally:
                box.restore()
        wait_for(lambda: reads(there), "a reading over a new connection", 20)
        assert there.transport.link.connections == 2


def reads(there: Host) -> bool:
    try:
        return there.poll().supervisor is None
    except LinkLost:
        return False


@either_client
def test_with_the_patience_that_operators_have_a_dead_line_is_told_within_twenty_seconds(box):
    with linked(box, Patience()) as busy, linked(box, Patience()) as idle:
        assert idle.poll() and busy.poll()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(seconds, lambda: busy.run(["sleep", "60"], 90))
            wait_for(lambda: busy.transport.link._open, "a command under way")
            box.cut()
            try:
                second = pool.submit(seconds, idle.poll)
                assert max(first.result(), second.result()) < 20
            finally:
                box.restore()


def test_a_server_that_accepts_and_never_speaks_is_given_up_after_one_try(box, line):
    line.blackhole()
    with through(line, box) as there:
        with pytest.raises(LinkLost, match="says nothing for 2 s"):
            there.poll()
        assert line.connections == 1
        line.resume()
        wait_for(lambda: reads(there), "a reading")


def test_a_server_that_brings_its_first_line_byte_by_byte_is_given_up(box, line):
    line.trickle()
    with through(line, box, replace(QUICK, banner_s=1.0, login_s=1.0)) as there:
        assert seconds(there.poll) < 2.0 + MARGIN_S


@pytest.mark.parametrize("at", ["key exchange", "login", "session", "start"])
def test_a_server_that_falls_silent_while_it_is_being_reached_is_given_up(at, box, line, monkeypatch):
    def then_dark(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def first_dark(*given: Any, **named: Any) -> Any:
            line.blackhole()
            return real(*given, **named)

        monkeypatch.setattr(owner, name, first_dark)

    where: tuple[object, str] = {
        "key exchange": (dial.Connection, "_send_kex_init"),
        "login": (dial.Connection, "auth_publickey"),
        "session": (dial.Connection, "open_session"),
        "start": (link, "Session"),
    }[at]
    patience = replace(QUICK, login_s=1.5)
    with through(line, box, patience) as there:
        then_dark(*where)
        assert seconds(there.poll) < 5.0 + MARGIN_S
        monkeypatch.undo()
        line.resume()
        wait_for(lambda: reads(there), "a reading", 20)


def test_a_login_that_is_not_answered_is_not_waited_for_with_the_password_too(box, line, monkeypatch):
    real = dial.Connection.auth_publickey
    monkeypatch.setattr(dial.Connection, "auth_publickey", lambda *given: (line.blackhole(), real(*given))[1])
    with linked(box) as there:
        found = replace(there.transport.link.login, address="127.0.0.1", port=line.port, password=Secret("s3cret"))
    with (
        reached(found, replace(QUICK, login_s=1.5)) as way,
        pytest.raises(LinkLost, match=r"not answered within 1\.5 s"),
    ):
        way.call("alive", 5.0, identity=None)


@pytest.mark.parametrize("hung", ["exec_command", "global_request"])
def test_what_paramiko_would_await_without_end_is_ended(hung, box, line, monkeypatch):
    owner = {"exec_command": dial.paramiko.Channel, "global_request": dial.Connection}[hung]
    real = getattr(owner, hung)
    monkeypatch.setattr(owner, hung, lambda *given, **named: (line.blackhole(), real(*given, **named))[1])
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with through(line, box, replace(QUICK, login_s=1.0, channel_s=1.0)) as there:
        assert seconds(there.poll) < 4.0 + MARGIN_S


# ---------------------------------------------------------------------------------------------------------- transfers


@either_client
def test_a_download_that_stalls_goes_on_where_it_was(box, line, tmp_path):
    content = blob(3_000_000)
    with through(line, box) as there:
        there.put(Path("/tmp") / f"{content.sha256}", content)
        line.rate(3e6)
        before, came = line.down, 0

        def stall(count: int) -> None:
            nonlocal came
            came += count
            if came > 1_000_000 and there.transport.link.connections == 1 and not timers:
                line.blackhole()
                timers.append(threading.Timer(QUICK.silence_s + 1.0, line.resume))
                timers[0].start()

        timers: list[threading.Timer] = []
        assert there.get(Path("/tmp") / content.sha256, tmp_path / "home", content.sha256, stall, outage_s=20.0)
        timers[0].join()
        there.run(["rm", f"/tmp/{content.sha256}"], 10)
        assert came == content.size
        assert there.transport.link.connections >= 2
        assert line.down - before < 1.3 * content.size
    assert hashlib.sha256((tmp_path / "home").read_bytes()).hexdigest() == content.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("kernel", ["knows of time-outs", "knows of none"])
def test_an_upload_that_is_taken_and_never_read_ends_and_goes_on_later(kernel, box, line, monkeypatch):
    if kernel == "knows of none":
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
        line._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # full before the conversation's window is
    content = blob(24_000_000)
    with through(line, box, replace(QUICK, floor_window_s=60.0)) as there:
        target = there.folder.root / "upload"
        there.poll()
        if kernel == "knows of none":
            there.transport.link._connection.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        line.rate(20e6)
        sent = 0

        def stall(count: int) -> None:
            nonlocal sent
            sent += count
            if sent > 10_000_000:
                line.blackhole()

        began = time.monotonic()
        with pytest.raises(LinkLost):
            there.transport.put(str(target), content, stall, 0.0)
        assert time.monotonic() - began < 2 * QUICK.silence_s + 2.0 + MARGIN_S
        line.resume()
        line.rate(None)
        before = line.up
        assert there.put(target, content)
        assert line.up - before < content.size - 1_000_000  # not all of it again
        assert there.sha256(target) == content.sha256
        there.remove(there.folder.root)


@either_client
def test_an_upload_over_a_line_that_was_cut_does_not_wait_for_the_far_end_that_was_left_behind(box, monkeypatch):
    hurry(monkeypatch, STALE_S=2.0)
    content = blob(8_000_000)
    with linked(box, replace(QUICK, outage_s=60.0)) as there:
        target = there.folder.root / "upload"
        timers: list[threading.Timer] = []

        def cut(count: int) -> None:
            if count and not timers:
                box.cut()
                timers.append(threading.Timer(3.5, box.restore))
                timers[0].start()

        began = time.monotonic()
        assert there.put(target, content, cut)
        assert time.monotonic() - began < 30
        assert there.sha256(target) == content.sha256
        there.remove(there.folder.root)


@either_client
def test_two_that_bring_the_same_file_at_once_do_not_cut_each_other_off(box, line):
    content = blob(3_000_000)
    with through(line, box) as there:
        target = there.folder.root / "file"
        there.poll()
        line.rate(2e6)
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(lambda _: there.put(target, content), range(2))) == [False, True]
        line.rate(None)
        assert there.transport.link.connections == 1
        assert there.sha256(target) == content.sha256
        there.remove(there.folder.root)


@either_client
def test_a_slow_and_distant_line_is_slow_and_not_dead(box, line, tmp_path):
    content = blob(100_000)
    line.rate(100_000)
    line.delay(0.15)
    with through(line, box) as there:
        there.put(there.folder.root / "file", content)
        with meanwhile(lambda: there.get(there.folder.root / "file", tmp_path / "home", content.sha256)) as getting:
            while not getting.done():
                there.poll()
                time.sleep(0.2)
            assert getting.result()
        assert there.transport.link.connections == 1
        line.rate(None)
        line.delay(0.0)
        there.remove(there.folder.root)


@either_client
@pytest.mark.parametrize("way", ["down", "up"])
def test_a_transfer_that_trickles_is_given_up(way, box, line, tmp_path):
    content = blob(6_000_000)
    with through(line, box, replace(QUICK, silence_s=6.0 if way == "down" else 3.0)) as there:
        target = there.folder.root / "file"
        there.put(target, content if way == "down" else blob(10))
        line.rate(12_000)
        began = time.monotonic()
        with pytest.raises(LinkLost, match=r"less than 16 kB/s|takes no byte"):
            if way == "down":
                there.get(target, tmp_path / "home", content.sha256, outage_s=0.0)
            else:
                there.transport.put(str(target), content, lambda count: None, 0.0)
        assert time.monotonic() - began < 12.0 + MARGIN_S
        line.rate(None)
    with linked(box) as there:
        wait_for(lambda: reads(there), "a reading")
        there.remove(there.folder.root)


@either_client
def test_one_byte_a_second_is_as_good_as_silence(box, line, tmp_path):
    content = blob(1_000_000)
    with through(line, box) as there:
        there.put(there.folder.root / "file", content)
        line.trickle()
        took = seconds(lambda: there.get(there.folder.root / "file", tmp_path / "home", content.sha256, outage_s=0.0))
        assert took < 2 * QUICK.silence_s + MARGIN_S
        line.rate(None)
        there.remove(there.folder.root)


# ------------------------------------------------------------------------------------------ what must not happen twice


@either_client
def test_a_command_whose_line_breaks_is_not_run_again_and_everything_else_is_asked_again(box):
    with linked(box) as there:
        there.poll()
        marks = Path(there.transport.home) / "ran"
        far = far_end(there, box)
        command = ["sh", "-c", f"echo x >> {marks}; exec sleep 3"]
        with meanwhile(lambda: seconds(lambda: there.run(command, 30))):
            wait_for((box.home / "ran").exists, "the command")
            os.kill(session_process(far), signal.SIGKILL)
        assert there.poll().supervisor is None
        assert there.transport.link.connections == 2
        time.sleep(0.3)
        assert (box.home / "ran").read_text() == "x\n"
        (box.home / "ran").unlink()


@either_client
@pytest.mark.parametrize("verb", ["start", "run", "tail"])
def test_a_request_that_was_sent_and_never_answered(verb, box):
    """The far end is stopped while it is asked and its server killed; then it goes on, with nobody there to hear."""
    with linked(box, replace(QUICK, silence_s=8.0)) as there:
        there.poll()
        far = far_end(there, box)
        home = Path(there.transport.home)
        ask: Callable[[], Any] = {
            "start": lambda: there.start(["sh", "-c", f"echo x >> {home}/ran"], home / "log", home),
            "run": lambda: there.run(["sh", "-c", f"echo x >> {home}/ran"], 5),
            "tail": lambda: there.tail(home / "nowhere"),
        }[verb]
        os.kill(far, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(ask)
                wait_for(lambda: there.transport.link._open, "the request")
                time.sleep(0.3)  # until it is in the far end's pipe
                os.kill(session_process(far), signal.SIGKILL)
                if verb == "tail":
                    assert asked.result() == ""
                else:
                    with pytest.raises(LinkLost):
                        asked.result()
        finally:
            os.kill(far, signal.SIGCONT)
        wait_for(lambda: not Path(f"/proc/{far}").exists(), "the end of the far end that was left behind")
        assert there.transport.link.connections == (2 if verb == "tail" else 1)
        if verb != "tail":
            assert (box.home / "ran").read_text() == "x\n"
            (box.home / "ran").unlink()


@either_client
def test_a_far_end_that_ended_for_want_of_questions_is_replaced_without_a_word(box, monkeypatch):
    hurry(monkeypatch, IDLE_S=0.5)
    with linked(box) as there:
        for verb in (there.poll, lambda: there.run(["true"], 5)):
            far = far_end(there, box)
            wait_for(lambda: not Path(f"/proc/{far}").exists(), "its end")  # noqa: B023
            time.sleep(0.1)
            verb()
        assert there.transport.link.connections == 1


# ------------------------------------------------------------------------------------------------- servers with limits


@either_client
@pytest.mark.parametrize("most", [1, 2])
def test_a_server_that_allows_few_sessions_is_used_within_them(most, tmp_path):
    with own_host(tmp_path / "fleet", sshd=[f"MaxSessions {most}"]) as host, linked(host) as there:
        contents = [blob(100_000 + n) for n in range(4)]

        def work(number: int) -> None:
            content = contents[number % 4]
            path = there.folder.root / f"file{number}"
            there.poll()
            assert there.put(path, content)
            assert there.get(path, tmp_path / f"home{number}", content.sha256)
            there.run(["true"], 10)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert there.transport.sessions() == most
        assert there.transport.link.connections == 1
        # A session that is closed in the middle counts there until its far end has ended.
        for _ in range(3):
            with pytest.raises(HostError, match="at most 5 were expected"):
                there.get(there.folder.root / "file0", tmp_path / "none", "0" * 64, limit=5)
            there.poll()


@either_client
def test_several_at_once_on_a_new_connection_make_one(box, line):
    with through(line, box) as there:
        with ThreadPoolExecutor(8) as pool:
            assert all(reading.supervisor is None for reading in pool.map(lambda _: there.poll(), range(8)))
        assert there.transport.link.connections == line.connections == 1
        assert there.transport.sessions() == link.SESSIONS
        assert there.transport.link.connections == 1


def test_a_server_that_turns_connections_away_is_asked_again_later_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(refused.random, "uniform", lambda low, high: low / 2)  # pauses of 0.15, 0.3 and 0.6 s
    with own_host(tmp_path, sshd=["MaxStartups 2:100:3"], mode="loopback") as host, contextlib.ExitStack() as waiting:  # noqa: SIM117
        with Proxy(host.address, host.port) as line:
            idle = [
                waiting.enter_context(socket.create_connection((host.address, host.port), timeout=5)) for _ in range(2)
            ]
            for each in idle:
                assert each.recv(100).startswith(b"SSH-")  # accepted, and now it waits for us
            with through(line, host) as there:
                with pytest.raises(LinkLost, match="closed before it said anything"):
                    there.poll()
                assert line.connections == refused.TRIES
                with pytest.raises(LinkLost, match="next try in"):
                    there.poll()
                assert line.connections == refused.TRIES
            with through(line, host) as there:
                soon = threading.Timer(0.3, waiting.close)
                soon.start()
                assert there.poll().supervisor is None
                soon.join()
                assert refused.TRIES < line.connections <= 2 * refused.TRIES


# -------------------------------------------------------------------------------------------------------------- logins


def refused_once(way: ssh.SshTransport, connections: Callable[[], int]) -> str:
    """The words of a refusal; a second call is refused without a connection."""
    with pytest.raises(refused.LoginRefused) as caught:
        way.call("alive", 5.0, identity=None)
    before = connections()
    with pytest.raises(refused.LoginRefused, match="not tried again"):
        way.call("alive", 5.0, identity=None)
    assert connections() == before == 1
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def clerk(tmp_path) -> Iterator[ssh_server.Server]:
    """A server that writes down who tried to log in and how."""
    with ssh_server.start(tmp_path / "clerk") as server:
        yield server


def login_to(server: Any, folder: Path, **entries: Any) -> login.Login:
    server.write_credentials(folder / "box.credentials", **entries)
    spec = HostSpec(name="box", kind="ssh", slots=1, device="cpu", credentials=folder / "box.credentials")
    return login.of(spec)


def test_a_wrong_password_is_tried_once(clerk, tmp_path):
    wrong = replace(login_to(clerk, tmp_path), key=None, password=Secret("wr0ng-secret"))
    with reached(wrong) as way:
        words = refused_once(way, lambda: clerk.connections)
    assert clerk.attempts == [("mapper", "password")]
    assert clerk.passwords_seen == ["wr0ng-secret"]
    assert words.startswith("box: 127.0.0.1 does not let mapper in; offered: the password. Each was tried once. ")
    assert f"ssh -p {clerk.port} mapper@127.0.0.1" in words
    assert "wr0ng" not in words


def test_a_wrong_key_is_tried_once(clerk, tmp_path):
    fleets._make_key(tmp_path / "other", "other")
    with reached(login_to(clerk, tmp_path, key_filename=str(tmp_path / "other"))) as way:
        words = refused_once(way, lambda: clerk.connections)
    assert clerk.attempts == [("mapper", "publickey")]
    assert f"offered: {tmp_path}/other" in words


def test_an_unknown_account_is_tried_once(clerk, tmp_path):
    with reached(login_to(clerk, tmp_path, password=True, username="nobody-here")) as way:
        words = refused_once(way, lambda: clerk.connections)
    assert clerk.attempts == [("nobody-here", "password")]
    assert "does not let nobody-here in" in words
    assert clerk.password not in words


def test_a_server_that_takes_no_passwords_says_so(box, tmp_path):
    with (
        own_host(tmp_path / "fleet", sshd=["PasswordAuthentication no"]) as host,
        Proxy(host.address, host.port) as line,
    ):
        found = replace(login_to(host, tmp_path), key=None, password=Secret("s3cret"))
        with reached(replace(found, address="127.0.0.1", port=line.port)) as way:
            words = refused_once(way, lambda: line.connections)
    assert "offered: the password (passwords are not accepted there)" in words


def test_a_real_server_counts_one_attempt(box, line, tmp_path):
    fleets._make_key(tmp_path / "other", "other")
    found = login_to(box, tmp_path, key_filename=str(tmp_path / "other"))
    before = box.log.read_text().count("Failed publickey for")
    with reached(replace(found, address="127.0.0.1", port=line.port)) as way:
        refused_once(way, lambda: line.connections)
    assert box.log.read_text().count("Failed publickey for") == before + 1


def test_a_server_that_hangs_up_on_too_many_attempts_has_refused(tmp_path):
    with ssh_server.start(tmp_path / "clerk", max_attempts=2) as clerk:
        fleets._make_key(tmp_path / "other", "other")
        found = login_to(clerk, tmp_path, key_filename=str(tmp_path / "other"))
        with reached(replace(found, password=Secret("wr0ng"))) as way:
            words = refused_once(way, lambda: clerk.connections)
        assert len(clerk.attempts) == 2
    assert "(Too many authentication failures)" in words


def test_a_line_that_breaks_during_the_login_is_no_refusal(box, line, monkeypatch):
    real = dial.Connection.auth_publickey
    monkeypatch.setattr(dial.Connection, "auth_publickey", lambda *given: (line.cut(reset=True), real(*given))[1])
    with through(line, box) as there:
        with pytest.raises(LinkLost, match="broke during the login"):
            there.poll()
        monkeypatch.setattr(dial.Connection, "auth_publickey", real)
        wait_for(lambda: reads(there), "a reading")


def test_with_a_password_given_the_agent_is_not_asked(clerk, tmp_path, monkeypatch):
    with agent(tmp_path, clerk.key) as sock:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        with reached(login_to(clerk, tmp_path, password=True)) as way:
            assert way.call("alive", 5.0, identity=None) is False
    assert clerk.attempts == [("mapper", "password")]


# -------------------------------------------------------------------------------------------------- shells and accounts


@either_client
@pytest.mark.parametrize("shell", ["dash", "zsh", "csh", "tcsh", "fish"])
def test_every_login_shell_is_good_enough_and_may_talk(shell, tmp_path):
    if not (found := shutil.which(shell)):
        pytest.skip(f"no {shell} on this machine")
    banner = tmp_path / "banner"
    banner.write_text("\x1b[31mAuthorised users only\x1b[0m\n" * 50)
    with own_host(tmp_path / "fleet", shell=found, sshd=["PrintMotd yes", f"Banner {banner}"]) as host:
        for name in (".cshrc", ".tcshrc", ".zshenv", ".config/fish/config.fish", ".ssh/rc"):
            (host.home / name).parent.mkdir(parents=True, exist_ok=True)
            (host.home / name).write_text("echo 'Welcome to the machine'\nprintf '\\033[2J 5 + no end of line'\n")
        with linked(host) as there:
            assert there.poll().supervisor is None
            assert there.run(["echo", "it's $HOME"], 5).out == "it's $HOME\n"


@either_client
def test_a_noisy_bash_is_passed_over_and_one_that_never_stops_is_refused(tmp_path):
    rc = tmp_path / "fleet" / "box" / "home" / ".bashrc"
    with own_host(tmp_path / "fleet", sshd=["PermitUserRC yes", f"SetEnv BASH_ENV={rc}"]) as host:
        noise = 'for i in $(seq 3000); do echo "$i \033[2J\033]0;title\a welcome"; echo oops >&2; done\n'
        (host.home / ".bashrc").write_text(noise)
        (host.home / ".profile").write_text(noise)
        (host.home / ".ssh").mkdir()
        (host.home / ".ssh" / "rc").write_text("echo from the rc file\n")
        with linked(host) as there:
            assert there.poll().supervisor is None
        for where in ("", " >&2"):
            (host.home / ".bashrc").write_text(f"head -c 2000000 /dev/zero | tr '\\0' x{where}\n")
            words = "the login prints more than 1048576 bytes; quiet its start-up files"
            with linked(host) as there, pytest.raises(HostError, match=words) as caught:
                there.poll()
            assert not isinstance(caught.value, LinkLost)


def wired(folder: Path, **keys: Any) -> contextlib.AbstractContextManager[fleets.Host]:
    """A host with an account database and mounts of its own."""
    return own_host(folder, mode="netns", **keys)


@either_client
def test_an_account_that_may_not_log_in_is_told_so(tmp_path):
    with wired(tmp_path, shell="/usr/sbin/nologin") as host:
        for _ in range(3):
            with linked(host) as there, pytest.raises(HostError) as caught:
                there.poll()
            assert "the login works but no command can be run (exit code 1); it said: This account" in str(caught.value)
            assert not isinstance(caught.value, LinkLost)


@either_client
def test_a_shell_that_is_not_there_is_told_so(tmp_path):
    with wired(tmp_path, shell="/bin/no-such-shell") as host, linked(host) as there, pytest.raises(HostError):
        there.poll()


@either_client
def test_a_host_without_a_python_or_with_an_old_one_is_told_so(tmp_path):
    stub = tmp_path / "stub"
    stub.mkdir()
    with wired(tmp_path / "fleet", sshd=[f"SetEnv PATH={stub}:/usr/bin:/bin"]) as host:
        with linked(host) as there:
            for place in ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/conda/bin/python3"):
                if Path(place).exists():
                    assert there.run(["mount", "--bind", "/dev/null", os.path.realpath(place)], 5).exit_code == 0
        with linked(host) as there, pytest.raises(HostError, match=r"no Python 3\.9 or newer there"):
            there.poll()
        (stub / "python3").write_text("#!/bin/sh\nexit 97\n")  # how an old one ends
        (stub / "python3").chmod(0o755)
        with linked(host) as there, pytest.raises(HostError, match=r"no Python 3\.9 or newer there"):
            there.poll()
        named = tmp_path / "named"
        (named / "bin").mkdir(parents=True)
        (named / "bin" / "python").symlink_to(sys.executable)
        with linked(host, environment=str(named)) as there:
            there.transport.link.python = str(named)
            assert there.poll().supervisor is None


# ---------------------------------------------------------------------------------------------------------- small print


@either_client
def test_a_hundred_megabytes_of_output_leave_a_tail(box):
    with linked(box, replace(QUICK, silence_s=5.0)) as there:
        done = there.run(["sh", "-c", "head -c 100000000 /dev/zero >&2; head -c 100000000 /dev/zero; echo end"], 60)
        assert done.exit_code == 0
        assert done.out.endswith("end\n")
        peak = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{far_end(there, box)}/status").read_text())
        assert int(peak[0]) < 100_000  # kB


def last_pid(there: Host) -> int:
    """The number of processes that the host has started so far."""
    return int(there.read(Path("/proc/loadavg")).split()[-1])


@either_client
def test_polls_start_no_process_and_open_no_connection(line, box, ssh_fleet):
    with through(line, box) as there:
        there.poll()
        far = far_end(there, box)
        before, processes, pid = threading.active_count(), sorted(box.processes()), last_pid(there)
        for _ in range(200):
            there.poll()
        assert sorted(box.processes()) == processes
        assert threading.active_count() <= before
        assert line.connections == line.active == 1
        if ssh_fleet.mode == "netns":  # else the whole machine is counted
            assert last_pid(there) == pid
    wait_for(lambda: not Path(f"/proc/{far}").exists(), "the end of the far end with its connection")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_connections_and_refusals_leave_no_thread_and_no_file_open(box, line, tmp_path):
    fleets._make_key(tmp_path / "other", "other")
    wrong = login_to(box, tmp_path, key_filename=str(tmp_path / "other"))

    def connect() -> None:
        with through(line, box) as there:
            assert there.poll().supervisor is None

    def fail(number: int) -> None:
        with reached(replace(wrong, known_as=f"other{number}")) as way, pytest.raises(refused.LoginRefused):
            way.call("alive", 5.0, identity=None)

    connect()
    fail(-1)
    wait_for(lambda: not any(thread.name.startswith("watch") for thread in threading.enumerate()), "the watches' end")
    threads, files = threading.active_count(), descriptors()
    for _ in range(30):
        connect()
    for number in range(10):
        fail(number)
    wait_for(lambda: threading.active_count() <= threads, "the end of all threads")
    wait_for(lambda: descriptors() <= files, "the closing of all files")
    wait_for(lambda: line.active == 0, "the end of all connections")
