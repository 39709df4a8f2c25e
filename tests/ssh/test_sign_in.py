"""Connections that a person opens, by `runbook login` or their own configuration; and how connections end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleet as fleets
import jupyter_client.manager
import pytest
from own_ssh_hosts import PATIENT, Setting, reached, serving
from proxy import Proxy
from waiting import wait_for

from runbook_lib.errors import HostError, LinkLost
from runbook_lib.hosts.ssh import alias, client, link, sign_in
from runbook_lib.hosts.ssh.alias import Alias
from runbook_lib.hosts.ssh.refused import HostKeyRefused, LoginRefused

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A host that wants a key and a password."""
    if why := fleets.available("netns"):
        pytest.skip(f"no SSH hosts with passwords: {why}")
    lines = ["AuthenticationMethods publickey,password"]
    with fleets.start(tmp_path / "fleet", names=["box"], mode="netns", sshd=lines) as started:
        at = Setting(tmp_path, started.hosts["box"], monkeypatch)
        at.known.write_text(f"{at.host.address} {at.public_key}\n")
        at.write("PreferredAuthentications publickey,password")
        yield at
        sign_in.end("box")


def is_in() -> bool:
    with reached() as way:
        assert way.call("alive", 5.0, identity=None) is False
        return way.sessions() == link.SESSIONS


def test_a_second_factor_is_refused_with_the_command_and_given_once_in_a_terminal(asking):
    """And the same process goes on after it, though it had been refused."""
    with reached() as way:
        with pytest.raises(LoginRefused, match="second factor, answer once: `runbook login box`"):
            way.call("alive", 5.0, identity=None)
        assert "logged in to" in in_a_terminal(asking, "login", "box")
        assert way.call("alive", 5.0, identity=None) is False
    logins = asking.host.log.read_text().count("Accepted password")
    assert is_in() and is_in()
    assert "logged in to" in in_a_terminal(asking, "login", "box")
    assert asking.host.log.read_text().count("Accepted password") == logins == 1
    assert client.is_alive(client.lent(Alias("box", "box")))  # it is theirs: we never end it
    assert "is ended" in in_a_terminal(asking, "login", "box", "--end")
    assert "no connection" in in_a_terminal(asking, "login", "box", "--end")
    with reached() as way, pytest.raises(LoginRefused):
        way.call("alive", 5.0, identity=None)


def in_a_terminal(at: Setting, *arguments: str) -> str:
    """What `runbook` says on a terminal where somebody types the password."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "runbook_lib.cli", *arguments]
    options = {"start_new_session": True, "preexec_fn": own_terminal}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, **options) as child:
        os.close(theirs)
        said, typed, deadline = b"", False, time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    said += os.read(ours, 10_000)
                except OSError:
                    break
            if b"assword:" in said and not typed:
                typed = True
                os.write(ours, f"{at.host.password}\n".encode())
            if child.poll() is not None and not select.select([ours], [], [], 0.2)[0]:
                break
        child.wait(10)
    os.close(ours)
    assert at.host.password and at.host.password.encode() not in said
    return said.decode()


def own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_without_a_terminal_each_question_is_asked_where_the_cell_is(asking):
    if alias.version() < (8, 4):
        pytest.skip("SSH_ASKPASS_REQUIRE came with OpenSSH 8.4")
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        seen.append(listed())
        return "wr0ng" if len(questions) == 1 else str(asking.host.password)

    seen: list[bytes] = []
    assert "logged in to" in sign_in.open_for(Alias("box", "box"), ask)
    assert len(questions) == 2 and all("password" in question for question in questions)
    assert is_in()
    seen.append(listed())
    assert not any(str(asking.host.password).encode() in each or b"wr0ng" in each for each in seen)


def listed() -> bytes:
    """The command lines of all processes, and what lies in folders of ours."""
    said = b""
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *client.PLACE.glob("runbook-*/*")]:
        with contextlib.suppress(OSError):
            said += path.read_bytes() if path.is_file() else b""
    return said


def test_who_cannot_answer_is_told_what_ssh_said_and_nothing_is_left(asking):
    def nobody(question: str) -> str:
        raise EOFError("nobody is here")

    with pytest.raises(EOFError):
        sign_in.open_for(Alias("box", "box"), nobody)
    with pytest.raises(HostError, match=r"box: the login failed: .*Permission denied"):
        sign_in.open_for(Alias("box", "box"), lambda question: "wr0ng")
    assert not client.is_alive(client.lent(Alias("box", "box")))
    wait_for(lambda: str(asking.host.address).encode() not in listed(), "the end of ssh and of what asked", 10)


CELL = "from runbook_lib.notebook import sign_in\nprint(sign_in('box'))"


def test_in_a_cell_of_a_real_kernel_the_question_is_its_input_and_papermill_is_told_what_to_do(asking):
    if alias.version() < (8, 4):
        pytest.skip("SSH_ASKPASS_REQUIRE came with OpenSSH 8.4")
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3", env={**os.environ})
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        said.append(json.dumps(message["content"]))

    def answer(message: dict[str, Any]) -> None:
        assert message["content"]["password"] is True and "password" in message["content"]["prompt"]
        client.input(asking.host.password)

    try:
        client.execute_interactive(CELL, allow_stdin=False, output_hook=hear, timeout=60)
        assert "log in once from a terminal, runbook login box" in "".join(said)
        said.clear()
        client.execute_interactive(CELL, allow_stdin=True, output_hook=hear, stdin_hook=answer, timeout=60)
        assert "box: logged in to" in "".join(said) and str(asking.host.password) not in "".join(said)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert is_in()  # though the kernel is gone


def test_a_hop_that_was_logged_in_to_serves_the_hosts_behind_it(asking):
    """The one behind is the same machine, so it refuses us: the hop did not."""
    behind = ["Host behind", f"  HostName {asking.host.address}", "  ProxyJump box", f"  User {asking.host.username}"]
    behind += [f'  IdentityFile "{asking.host.key}"', f'  UserKnownHostsFile "{asking.known}"']
    asking.config.write_text("\n".join([asking.config.read_text(), *behind]))
    with reached("behind") as way, pytest.raises(LoginRefused):
        way.call("alive", 5.0, identity=None)
    assert "Connection from" in asking.host.log.read_text() and inward(asking) == 0
    sign_in.open_for(Alias("box", "box"), lambda question: str(asking.host.password))
    with reached("behind") as way, pytest.raises(LoginRefused, match="answer once: `runbook login behind`"):
        way.call("alive", 5.0, identity=None)
    assert inward(asking) == 1


def inward(at: Setting) -> int:
    """How often the machine was reached from itself, so through the hop."""
    return at.host.log.read_text().count(f"Connection from {at.host.address}")


def test_a_dead_socket_in_the_way_and_a_folder_of_somebody_else(asking, tmp_path, monkeypatch):
    path = client.lent(Alias("box", "box"))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text("no socket")
    assert "logged in to" in sign_in.open_for(Alias("box", "box"), lambda question: str(asking.host.password))
    sign_in.end("box")
    monkeypatch.setattr(client, "PLACE", tmp_path)
    (tmp_path / f"runbook-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(HostError, match="expected a folder that only you can enter"):
        sign_in.open_for(Alias("box", "box"), lambda question: "")


# ------------------------------------------------------------------------------------- a master of their configuration


@contextlib.contextmanager
def their_master(at: Setting, *lines: str, port: int = 0) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """A connection that their own configuration keeps open; gives what asks it."""
    short = tempfile.mkdtemp(prefix="m-")  # a socket's path has 107 characters at most
    at.write("ControlMaster auto", f"ControlPath {short}/m-%r-%h-%n", "ControlPersist yes", *lines)
    at.config.write_text(at.config.read_text().replace(f"Port {at.host.port}", f"Port {port or at.host.port}"))

    def their(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", "-F", str(at.config), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False)

    subprocess.run(["ssh", "-F", str(at.config), "-fN", "box"], check=True, timeout=30, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield their
    finally:
        their("-O", "exit", "box")
        shutil.rmtree(short, ignore_errors=True)


def test_a_connection_that_they_keep_open_is_used_and_left_alive(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at, their_master(at) as their:
        before = at.host.log.read_text().count("Connection from")
        assert is_in()
        assert at.host.log.read_text().count("Connection from") == before
        assert their("-O", "check", "box").returncode == 0


def test_a_connection_of_theirs_that_is_full_is_used_within_its_room(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch, "MaxSessions 2") as at, their_master(at), reached() as way:
        assert way.call("alive", 5.0, identity=None) is False
        assert way.sessions() == 2 and way.link.connections == 1


def test_a_connection_of_theirs_whose_link_is_dead_is_used_no_more(tmp_path, monkeypatch):
    """It says that it is alive, and hangs: only a keepalive would tell, which their configuration may not have."""
    with serving(tmp_path, monkeypatch) as at, Proxy(at.host.address, at.host.port) as line:
        at.known.write_text(f"farm {at.public_key}\n")
        with their_master(at, "HostKeyAlias farm", port=line.port) as their:
            at.config.write_text(at.config.read_text().replace(f"Port {line.port}", f"Port {at.host.port}"))
            with reached(patience=replace(PATIENT, silence_s=3.0)) as way:
                assert way.call("alive", 5.0, identity=None) is False
                line.blackhole()
                with pytest.raises(LinkLost):
                    way.call("alive", 5.0, identity=None)
                wait_for(lambda: answers(way), "a connection of our own", 20)
                assert their("-O", "check", "box").returncode == 0


def answers(way) -> bool:
    try:
        return way.call("alive", 5.0, identity=None) is False
    except LinkLost:
        return False


def test_a_connection_of_theirs_to_a_machine_that_nobody_checked_is_not_used(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.known.write_text("")
        with their_master(at, "StrictHostKeyChecking no") as their:
            assert their("-O", "check", "box").returncode == 0
            at.known.write_text("")
            with reached() as way, pytest.raises(HostKeyRefused, match="is not known here"):
                way.call("alive", 5.0, identity=None)


# ------------------------------------------------------------------------------------------------- ends of our process

DRIVER = """
import sys, time
from runbook_lib.hosts.ssh import link, login, ssh
from runbook_lib.profile.profile import HostSpec
way = ssh.SshTransport("host", link.link_to(login.of(HostSpec(name="host", kind="ssh", ssh="box"))))
def far_end():
    with way.link.session() as session:
        return session.hello.pid
before = far_end()
print("in", flush=True)
if sys.argv[1] == "ends":
    sys.exit()
try:
    if sys.argv[1] == "busy":
        way.call("run", 60.0, argv=["sleep", "30"], limit_s=60.0, cwd="/", input="")
    time.sleep(60)
except KeyboardInterrupt:
    print(sys.argv[1] == "busy" or far_end() == before, way.call("alive", 5.0, identity=None), flush=True)
    assert way.link.connections == 1
"""


def ssh_of(at: Setting) -> list[str]:
    """The processes that go to that machine."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    folders = [str(path) for path in client.PLACE.glob("runbook-ssh-*") if (path / "config").exists()
               and str(at.config) in (path / "config").read_text()]  # fmt: skip
    return [line for line in found if any(folder in line for folder in folders)]


@pytest.mark.parametrize("doing", ["idle", "busy"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "Ctrl-C", "its end"])
def test_whatever_ends_us_ends_our_ssh_and_a_ctrl_c_does_not_reach_it(doing, end, tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write()
        argv = [sys.executable, "-c", DRIVER, doing if end else "ends"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
            assert child.stdout and child.stdout.readline() == "in\n"
            if end:
                assert len(ssh_of(at)) >= 2
                time.sleep(0.3)
                os.killpg(child.pid, end)  # all of its group, as a terminal does
            said = child.stdout.read()
        if end == signal.SIGINT:
            assert said == "True False\n"
        wait_for(lambda: not ssh_of(at), "the end of every ssh", 5)
        if end == signal.SIGKILL:  # what was left of it is swept by the next
            left = [path for path in client.PLACE.glob("runbook-ssh-*") if str(at.config) in read(path / "config")]
            for path in left:
                os.utime(path, (0, 0))
            assert is_in()
            assert left and not any(path.exists() for path in left)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_threads_that_come_at_once_make_one_connection(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as at:
        at.write()
        with reached() as way:
            threads = [threading.Thread(target=lambda: way.call("alive", 5.0, identity=None)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert way.link.connections == 1
