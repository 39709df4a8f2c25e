"""The hosts that our tests stand on are real: they let in, go silent, die, come back, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fleet as fleets
import paramiko
import pytest
import ssh_server
from waiting import wait_for

from worker import process

COUNT = "setsid sh -c 'while :; do echo; sleep 0.05; done' > ticks 2>/dev/null < /dev/null & echo $!"


def need(mode: str) -> str:
    """The mode, or a skip that says why this machine does not have it."""
    if missing := fleets.available(mode):
        pytest.skip(missing)
    return mode


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleets.Fleet]:
    """Hosts with addresses and cables of their own."""
    with fleets.start(tmp_path_factory.mktemp("wired"), mode=need("netns")) as started:
        yield started


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleets.Fleet]:
    """Hosts on 127.0.0.1."""
    with fleets.start(tmp_path_factory.mktemp("looped"), mode=need("loopback")) as started:
        yield started


@pytest.fixture(params=["wired", "looped"])
def fleet(request: pytest.FixtureRequest) -> fleets.Fleet:
    """Either: what must hold in both modes."""
    found: fleets.Fleet = request.getfixturevalue(request.param)
    return found


def ssh(fleet: fleets.Fleet, name: str, command: str, within_s: float = 30) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(fleet.ssh_config), "-o", "BatchMode=yes", name, command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=within_s, stdin=subprocess.DEVNULL)


def said(fleet: fleets.Fleet, name: str, command: str) -> str:
    done = ssh(fleet, name, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def by_paramiko(host: fleets.Host | ssh_server.Server, **login: object) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    options = {"look_for_keys": False, "allow_agent": False, "timeout": 20, **login}
    client.connect(host.address, host.port, host.username, **options)  # type: ignore[arg-type]
    return client


def silent(host: fleets.Host) -> bool:
    """No sshd answers, and nothing says that there is none."""
    try:
        with socket.create_connection((host.address, host.port), timeout=0.5) as line:
            line.recv(1)
    except TimeoutError:
        return True
    return False


def runs(pid: int) -> bool:
    return process.start_time(pid) is not None  # a zombie that its init has not collected yet does not run


def switch(address: str) -> Path:
    """The device that a fleet in netns mode has on this machine."""
    return Path("/sys/class/net/fl{1}x{2}".format(*address.split(".")))


def end(host: fleets.Host) -> None:
    """Leave nothing running that a test started, and the host up."""
    host.restore()
    host.crash()
    host.boot()


# ------------------------------------------------------------------------------------------------------------ logins


def test_the_openssh_client_logs_in_by_key_and_is_at_home(fleet):
    for name, host in fleet.hosts.items():
        home = host.home if fleet.mode == "loopback" else "/srv/home/mapper"
        assert said(fleet, name, 'pwd; echo "$HOME"') == f"{home}\n{home}"
        (host.home / "seen").write_text(name)
        assert said(fleet, name, "cat seen") == name
    assert ssh(fleet, "tensor01", "exit 7").returncode == 7


def test_files_go_over_sftp_to_the_host_s_home(fleet):
    host = fleet.hosts["tensor02"]
    with by_paramiko(host, key_filename=str(host.key)) as client, client.open_sftp() as sftp:
        with sftp.open("by_sftp", "w") as file:
            file.write("x")
        assert (host.home / "by_sftp").read_text() == "x"


def test_credentials_are_private_and_name_the_key_that_the_host_shows(fleet):
    host = fleet.hosts["tensor01"]
    assert host.credentials.stat().st_mode & 0o777 == 0o600
    content = json.loads(host.credentials.read_text())
    assert content["host_key"] == host.fingerprint
    assert (content["address"], content["port"], content["username"]) == (host.address, host.port, host.username)
    with by_paramiko(host, key_filename=content["key_filename"]) as client:
        assert client.get_transport().get_remote_server_key().fingerprint == content["host_key"]


def test_password_login_where_the_account_is_the_host_s_own(wired, tmp_path):
    host = wired.hosts["tensor01"]
    host.write_credentials(tmp_path / "c", password=True, host_key=None, more=1)
    content = json.loads((tmp_path / "c").read_text())
    assert set(content) == {"address", "port", "username", "password", "more"}
    with by_paramiko(host, password=content["password"]) as client:
        assert client.exec_command("id -un")[1].read() == b"mapper\n"
    with pytest.raises(paramiko.AuthenticationException):
        by_paramiko(host, password="wrong")
    assert "Failed password for mapper" in host.log.read_text()


def test_loopback_says_that_it_has_no_passwords_and_no_cables(looped, tmp_path):
    host = looped.hosts["tensor01"]
    with pytest.raises(fleets.FleetError, match="loopback mode"):
        host.write_credentials(tmp_path / "c", password=True)
    with pytest.raises(fleets.FleetError, match="netns mode"):
        host.slow("1mbit")
    with pytest.raises(fleets.FleetError, match="netns mode"):
        host.lossy(1)
    host.fast()


def test_the_account_can_run_this_python(fleet):
    assert said(fleet, "tensor01", f"{sys.executable} -c 'print(6 * 7)'") == "42"


@pytest.mark.parametrize("mode", ["netns", "loopback"])
def test_shell_settings_and_a_shared_home_are_the_caller_s_choice(mode, tmp_path):
    lines = ["SetEnv FLAVOUR=sour SECOND=2", "MaxSessions 3"]
    with fleets.start(tmp_path, mode=need(mode), shell="/bin/sh", sshd=lines, home_shared=True, login="guest") as fleet:
        shown = said(fleet, "tensor01", "touch common; echo $SHELL ${0##*/} $FLAVOUR $SECOND")
        assert shown == "/bin/sh sh sour 2"
        assert said(fleet, "tensor02", "ls") == "common"
        assert fleet.hosts["tensor01"].home == fleet.hosts["tensor02"].home
        if mode == "netns":
            assert said(fleet, "tensor02", "id -un") == "guest"


def test_a_changed_host_key_is_noticed_until_it_is_trusted(fleet):
    host = fleet.hosts["tensor01"]
    before = host.fingerprint
    assert host.new_key() == host.fingerprint != before
    refused = ssh(fleet, "tensor01", "true")
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert json.loads(host.credentials.read_text())["host_key"] == before
    fleet.trust()
    assert said(fleet, "tensor01", "echo in") == "in"
    assert json.loads(host.credentials.read_text())["host_key"] == host.fingerprint


# ------------------------------------------------------------------------------------------------------------ faults


def test_a_detached_child_survives_the_logout_and_dies_in_a_crash(fleet):
    host = fleet.hosts["tensor01"]
    pid = host.outside(int(said(fleet, "tensor01", COUNT)))
    assert pid in host.processes()
    assert pid not in fleet.hosts["tensor02"].processes()
    host.crash()
    assert not runs(pid)
    assert ssh(fleet, "tensor02", "true").returncode == 0
    ticks = (host.home / "ticks").stat().st_size
    host.boot()
    assert said(fleet, "tensor01", "echo back") == "back"
    assert host.processes() == []
    assert (host.home / "ticks").stat().st_size == ticks > 0


def test_a_host_that_is_cut_off_is_silent_and_its_processes_go_on(fleet):
    host = fleet.hosts["tensor02"]
    said(fleet, "tensor02", COUNT)
    with by_paramiko(host, key_filename=str(host.key)) as client:
        channel = client.get_transport().open_session()
        channel.settimeout(0.5)
        channel.exec_command("while :; do echo x; sleep 0.05; done")
        assert channel.recv(1)
        host.cut()
        assert silent(host)
        with pytest.raises(TimeoutError):
            while channel.recv(1000):
                pass
        ticks = (host.home / "ticks").stat().st_size
        wait_for(lambda: (host.home / "ticks").stat().st_size > ticks, "the detached process goes on")
        assert ssh(fleet, "tensor01", "true").returncode == 0
        host.restore()
        assert said(fleet, "tensor02", "echo back") == "back"
        channel.settimeout(30)
        assert channel.recv(1)  # the old connection goes on too
    end(host)


def test_silence_stays_silence(tmp_path):
    with fleets.start(tmp_path, ["one"], need("netns")) as fleet:
        host = fleet.hosts["one"]
        host.cut()
        with pytest.raises(TimeoutError):  # of a neighbour it does not find, the kernel would tell us after 3 s
            socket.create_connection((host.address, host.port), timeout=4)
        host.restore()
        assert said(fleet, "one", "echo back") == "back"


def test_peers_hear_nothing_of_a_crash_and_are_reset_by_the_next_life(wired):
    host = wired.hosts["tensor01"]
    with socket.create_connection((host.address, host.port), timeout=10) as line:
        assert line.recv(8) == b"SSH-2.0-"
        line.recv(1000)
        host.crash()
        line.settimeout(0.5)
        with pytest.raises(TimeoutError):
            line.recv(1)
        host.boot()
        with pytest.raises(TimeoutError):
            line.recv(1)
        line.sendall(b"SSH-2.0-late\r\n")
        line.settimeout(30)
        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_hosts_have_names_processes_and_boot_ids_of_their_own_and_see_each_other(wired):
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    first, second = said(wired, "tensor01", boot_id), said(wired, "tensor02", boot_id)
    assert len({first, second, Path("/proc/sys/kernel/random/boot_id").read_text().strip()}) == 3
    wired.hosts["tensor01"].crash()
    wired.hosts["tensor01"].boot()
    assert said(wired, "tensor01", boot_id) not in (first, second)
    assert said(wired, "tensor02", "hostname; id -un; id -u") == "tensor02\nmapper\n0"
    assert said(wired, "tensor02", "exec 3<>/dev/tcp/tensor01/22; head -c 8 <&3") == "SSH-2.0-"
    assert "tensor02" not in Path("/etc/hosts").read_text()


def test_a_slow_line_is_slow_and_a_lossy_one_loses(wired):
    host = wired.hosts["tensor02"]
    try:
        host.slow("4mbit")
        began = time.monotonic()
        assert len(said(wired, "tensor02", "head -c 500000 /dev/zero | tr '\\0' x")) == 500_000
        assert time.monotonic() - began > 0.7  # 1 s by the rate; the bucket lets 32 kB through at once
        host.fast()
        host.lossy(99.9)
        assert silent(host)
        host.fast()
        assert said(wired, "tensor02", "echo back") == "back"
        host.fast()  # of an unhindered line: nothing to do
        with pytest.raises(fleets.FleetError, match="tc qdisc"):
            host.slow("so so")
    finally:
        host.fast()


# ----------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("mode", ["netns", "loopback"])
def test_two_fleets_at_once_and_nothing_is_left_of_them(mode, tmp_path):
    with fleets.start(tmp_path / "a", mode=need(mode)) as one, fleets.start(tmp_path / "b", mode=mode) as two:
        assert {(h.address, h.port) for h in one.hosts.values()}.isdisjoint(
            (h.address, h.port) for h in two.hosts.values()
        )
        pids = [host.outside(int(said(each, name, COUNT))) for each in (one, two) for name, host in each.hosts.items()]
        switches = [switch(each.hosts["tensor01"].address) for each in (one, two)]
        assert all(path.exists() == (mode == "netns") for path in switches)
        two.hosts["tensor01"].cut()
        two.hosts["tensor02"].crash()
        one.close()
        assert not any(runs(pid) for pid in pids[:2])
        assert runs(pids[2])
    assert not any(runs(pid) for pid in pids)
    assert not any(path.exists() for path in switches)
    assert str(tmp_path) not in "".join(
        path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")
    )


def test_a_folder_s_second_fleet_has_the_same_keys_and_homes(tmp_path):
    with fleets.start(tmp_path, ["one"], need("loopback")) as fleet:
        before, content = fleet.hosts["one"].fingerprint, fleet.hosts["one"].credentials.read_text()
        said(fleet, "one", "touch kept")
    with fleets.start(tmp_path, ["one"], "loopback") as fleet:
        assert fleet.hosts["one"].fingerprint == before
        assert fleet.hosts["one"].credentials.read_text() == content
        assert said(fleet, "one", "ls") == "kept"


def test_a_folder_holds_one_fleet_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(fleets, "WAIT_S", 0.2)
    first = fleets.start(tmp_path, [], need("loopback"))
    second = fleets.start(tmp_path, [], "loopback")
    with first, pytest.raises(fleets.FleetError, match="another fleet is up"), second:
        pass


def test_settings_that_sshd_refuses_are_said_in_its_words(tmp_path):
    wrong = fleets.start(tmp_path, mode=need("loopback"), sshd=["Nonsense yes"])
    with pytest.raises(fleets.FleetError, match="Bad configuration option: Nonsense"), wrong:
        pass


def test_a_machine_without_sshd_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fleets, "SEARCH", str(tmp_path))
    assert "install the OpenSSH server" in fleets.available()
    with pytest.raises(fleets.FleetError, match="install the OpenSSH server"), fleets.start(tmp_path):
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fleets.available() == "A fleet needs Linux, this is darwin."


# ------------------------------------------------------------------------------------------------------ command line


def up(folder: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, fleets.__file__, "up", str(folder), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("mode", ["netns", "loopback"])
def test_a_killed_owner_leaves_nothing_and_blocks_nobody(mode, tmp_path):
    with up(tmp_path, "--mode", need(mode), "--hosts", "one") as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith("one is up")
        config = ["ssh", "-F", str(tmp_path / "ssh_config"), "one"]
        ticks = tmp_path / "one" / "home" / "ticks"
        subprocess.run([*config, COUNT], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
        wait_for(lambda: ticks.exists() and ticks.stat().st_size, "the detached process runs")
        address = json.loads((tmp_path / "credentials" / "one.credentials").read_text())["address"]
        assert switch(address).exists() == (mode == "netns")
        owner.kill()
    wait_for(lambda: not switch(address).exists(), "the switch is gone")
    with fleets.start(tmp_path, ["one"], mode) as fleet:
        seen = ticks.stat().st_size
        assert fleet.hosts["one"].processes() == []
        assert said(fleet, "one", "echo in") == "in"
    assert ticks.stat().st_size == seen


def test_up_runs_a_command_and_gives_its_exit_code(tmp_path):
    command = f"ssh -F {tmp_path}/ssh_config tensor02 'echo from $PWD'; exit 5"
    with up(tmp_path, "--mode", need("loopback"), "--", "sh", "-c", command) as running:
        out = running.communicate(timeout=60)[0]
    assert running.returncode == 5
    assert f"from {tmp_path}/tensor02/home" in out
    assert f"credentials: {tmp_path}/credentials/tensor01.credentials" in out


def test_up_passes_an_interrupt_on_and_ends_the_hosts_afterwards(tmp_path):
    command = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with up(tmp_path, "--mode", need("loopback"), "--hosts", "one", "--", "sh", "-c", command) as running:
        assert running.stdout is not None
        while running.stdout.readline() != "ready\n":
            pass
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60)[0] == "interrupted\n"
    assert running.returncode == 9
    port = re.search(r"Port (\d+)", (tmp_path / "one" / "sshd_config").read_text())
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port[1])), timeout=5)


def test_help_teaches(tmp_path):
    for argv in (["--help"], ["up", "--help"]):
        done = subprocess.run([sys.executable, fleets.__file__, *argv], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert "COMMAND" in done.stdout


def test_an_ordinary_account_with_an_empty_environment_and_no_terminal(tmp_path):
    """As root: another account's, in a mount namespace of its own that knows it."""
    need("loopback")
    with contextlib.ExitStack() as ending:
        folder = Path(tempfile.mkdtemp(prefix="fleet"))
        ending.callback(shutil.rmtree, folder)
        shutil.copy(fleets.__file__, folder / "fleet.py")
        python, become = sys.executable, ["env", "-i"]
        if os.geteuid() == 0:
            if missing := fleets.available("netns"):
                pytest.skip(missing)
            uid, passwd = 12345, folder / "passwd"
            passwd.write_text(f"{Path('/etc/passwd').read_text()}visitor:x:{uid}:{uid}::/nonexistent:/bin/sh\n")
            os.chown(folder, uid, uid)
            ids = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
            become = [*ids, *become]
            try_out = [*become, "/bin/sh", "-c", 'for p; do "$p" -c 0 2>/dev/null && echo "$p"; done', "sh"]
            candidates = [python, "/usr/bin/python3"]
            found = subprocess.run([*try_out, *candidates], capture_output=True, text=True).stdout.splitlines()
            if not found:
                pytest.skip(f"an ordinary account cannot run any of {candidates}")
            python = found[0]
            mount = f'mount --bind {passwd} /etc/passwd; exec "$@"'
            become = ["unshare", "--mount", "sh", "-c", mount, "sh", *become]
        command = f"/usr/bin/ssh -F {folder}/f/ssh_config tensor01 'echo $HOME'"
        argv = [*become, python, str(folder / "fleet.py"), "up", str(folder / "f"), "--", "/bin/sh", "-c", command]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, start_new_session=True
        )
        assert f"{folder}/f/tensor01/home" in done.stdout.splitlines(), done.stderr


# -------------------------------------------------------------------------------------- the server that keeps secrets


def test_the_recording_server_runs_real_commands(tmp_path):
    with ssh_server.start(tmp_path) as server:
        content = json.loads(server.credentials.read_text())
        assert server.credentials.stat().st_mode & 0o777 == 0o600
        with by_paramiko(server, key_filename=content["key_filename"]) as client:
            assert client.get_transport().get_remote_server_key().fingerprint == content["host_key"]
            stdin, stdout, stderr = client.exec_command("pwd; cat; echo wrong >&2; exit 3")
            stdin.write("given")
            stdin.channel.shutdown_write()
            assert (stdout.read(), stderr.read()) == (f"{server.home}\ngiven".encode(), b"wrong\n")
            assert stdout.channel.recv_exit_status() == 3
            assert len(client.exec_command("head -c 5000000 /dev/zero")[1].read()) == 5_000_000
            pid = int(client.exec_command(COUNT)[1].read())
            client.exec_command("sleep 1000")
            # The server accepts a command before it notes it; one whose connection is gone by then is never begun.
            wait_for(lambda: server.commands[-1] == "sleep 1000", "the last command is noted")
        assert runs(pid)
        os.kill(pid, signal.SIGKILL)
        assert server.attempts == [("mapper", "publickey")]
        assert server.passwords_seen == []


def test_the_recording_server_keeps_what_it_is_told(tmp_path):
    with ssh_server.start(tmp_path, refuse_passwords=True, max_attempts=2, banner="Beware\n") as server:
        transport = paramiko.Transport((server.address, server.port))
        transport.start_client(timeout=20)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password("mapper", "wrong")
        assert transport.get_banner() == b"Beware\n"
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password("mapper", server.password)
        wait_for(lambda: not transport.is_active(), "the server has hung up")
        transport.close()
        assert server.attempts == [("mapper", "password")] * 2
        assert server.passwords_seen == ["wrong", server.password]
        assert server.connections == 1


def test_the_recording_server_can_ask_questions_and_pose_as_another(tmp_path, looped):
    host = looped.hosts["tensor01"]
    with ssh_server.start(tmp_path, host_key=host.folder / "host_key", only_keyboard_interactive=True) as server:
        assert server.fingerprint == host.fingerprint
        transport = paramiko.Transport((server.address, server.port))
        transport.start_client(timeout=20)
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            transport.auth_password("mapper", server.password, fallback=False)
        assert refusal.value.allowed_types == ["keyboard-interactive"]
        transport.auth_interactive("mapper", lambda title, text, prompts: [server.password for _ in prompts])
        assert transport.is_authenticated()
        assert transport.get_remote_server_key().fingerprint == host.fingerprint
        transport.close()
        assert server.attempts == [("mapper", "keyboard-interactive")]
