"""Real OpenSSH servers on this machine that stand in for the hosts of a run.

Two modes, chosen by what the machine allows:

- netns (root): a host is a set of namespaces. It has its own address and port 22, its own processes, host name, boot
  id and /etc, an account with a password and a key, and a cable that can be pulled, slowed or made to lose packets.
- loopback (anyone): a host is an sshd of one's own on 127.0.0.1, with a key login as oneself and a home of its own.

Nothing of the machine is changed but network devices, and those go with the fleet. A fleet ends with the process that
started it, however that process ends. The folder stays, so a fleet started there again has the same keys and homes.
Kernel, clock, disk, /tmp and programs are the machine's in both modes. Linux only.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# An empty environment has no PATH, and the PATH of an ordinary account often lacks the sbin folders.
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
SHELLS = ("zsh", "tcsh", "fish")  # accounts have them as login shells; tcsh is csh too
PACKAGES = ("openssh-server", "openssh-client", "openssl", "iproute2", "nftables", "strace", *SHELLS)
WAIT_S = 20.0


class FleetError(RuntimeError):
    """The fleet cannot do what it was asked; the message says why."""


# ------------------------------------------------------------------------------------------------------------- hosts


@dataclass
class Host:
    """One host, and the ways in which it can fail."""

    name: str
    address: str
    port: int
    username: str
    password: str | None
    key: Path
    home: Path  # the account's home, as seen from outside the host
    credentials: Path
    folder: Path
    _seen: int = field(default=0, init=False, repr=False)  # how much of the log was there when sshd last began

    @property
    def log(self) -> Path:
        """What its sshd says: logins, refusals, the reason when it does not start."""
        return self.folder / "sshd.log"

    @property
    def fingerprint(self) -> str:
        """The present host key's fingerprint, as ssh-keygen prints it."""
        blob = base64.b64decode((self.folder / "host_key.pub").read_text().split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def write_credentials(self, path: Path, password: bool = False, **extra: Any) -> None:
        """A credentials file with the key or the password; `extra` adds and replaces entries, None takes one away."""
        if password and self.password is None:
            raise FleetError(f"{self.name} has no password login: in loopback mode one logs in as oneself, by key")
        login = {"password": self.password} if password else {"key_filename": str(self.key)}
        entries = {"address": self.address, "port": self.port, "username": self.username, **login}
        write_private(path, {**entries, "host_key": self.fingerprint, **extra})

    def new_key(self) -> str:
        """Replace the host key and restart sshd, give the new fingerprint; known_hosts and credentials keep the old."""
        _make_key(self.folder / "host_key", self.name, anew=True)
        self.reload()
        return self.fingerprint

    def reload(self) -> None:
        """Have sshd read its files again; connections stay."""
        self._mark()
        os.kill(self.listener(), signal.SIGHUP)
        self._wait_listening()

    def boot(self) -> None:
        """Power on: returns when sshd listens."""
        raise NotImplementedError

    def crash(self) -> None:
        """Power off: every process dies. In netns mode the peers hear nothing of it; on loopback they are hung up."""
        raise NotImplementedError

    def cut(self) -> None:
        """The network is gone, the processes go on. On loopback the kernel still takes connections, nobody answers."""
        raise NotImplementedError

    def restore(self) -> None:
        """The network is back."""
        raise NotImplementedError

    def processes(self) -> list[int]:
        """The pids, as this machine counts them, of what was started on the host; without its sshd and its init."""
        raise NotImplementedError

    def outside(self, pid: int) -> int:
        """The pid, as this machine counts, of the process that the host calls `pid`."""
        raise NotImplementedError

    def slow(self, rate: str) -> None:
        """So much bandwidth each way, in tc's words: "80mbit". Until `fast` or `crash`."""
        raise FleetError("a slow line needs netns mode")

    def lossy(self, percent: float) -> None:
        """So many (below 100) of the packets that come to the host are lost. Until `fast` or `crash`."""
        raise FleetError("a lossy line needs netns mode")

    def fast(self) -> None:
        """The line is unhindered again."""

    def _sshd(self) -> list[int]:
        raise NotImplementedError

    def _alive(self) -> bool:
        raise NotImplementedError

    def servers(self) -> list[int]:
        """The pids of its sshd: the listener and one or two for each connection."""
        return self._sshd()

    def listener(self) -> int:
        """The pid of the sshd that takes new connections: the oldest. One of a connection may have lost its parent."""
        pids, table = self._sshd(), _table()  # connections come and go meanwhile
        return min((pid for pid in pids if pid in table), key=lambda pid: (table[pid].start, pid))

    def _mark(self) -> None:
        self._seen = self.log.stat().st_size if self.log.exists() else 0

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while b"Server listening on" not in (said := self.log.read_bytes()[self._seen :] if self.log.exists() else b""):
            if not self._alive() or time.monotonic() > deadline:
                raise FleetError(f"{self.name}: sshd does not listen; {self.log} ends with\n{said.decode()[-2000:]}")
            time.sleep(0.01)


class _NetnsHost(Host):
    init: subprocess.Popen[bytes] | None = None
    cable = ""  # our end of it
    switch = ""
    mac = ""

    def boot(self) -> None:
        if self._alive():
            return
        self._mark()
        # The host lives in the namespaces of `unshare`; its init ends when our end of the pipe is closed.
        flags = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with (self.folder / "init.log").open("ab") as log:
            self.init = subprocess.Popen(
                [_tool("unshare"), *flags, str(self.folder / "init")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.init.stdin is not None and self.init.stdout is not None
        with self.init.stdout as answer:
            if answer.readline() != b"up\n":
                raise FleetError(f"{self.name} does not boot:\n{(self.folder / 'init.log').read_text()[-2000:]}")
        peer = f"peer name e0 address {self.mac} netns {self.init.pid}"
        _do("ip", "link", "add", "name", self.cable, "type", "veth", *peer.split())
        _do("ip", "link", "set", self.cable, "master", self.switch, "up")
        # With a fixed neighbour a host that is cut off is silent; else "no route to host" would come back after 3 s.
        _do("ip", "neigh", "replace", self.address, "lladdr", self.mac, "dev", self.switch, "nud", "permanent")
        self.init.stdin.write(b"cable\n")
        self.init.stdin.flush()
        self._wait_listening()

    def crash(self) -> None:
        if self.init is None:
            return
        with contextlib.suppress(FleetError):
            self.cut()  # first, or the dying processes would say good-bye
        table = _table()
        for pid, process in table.items():
            if process.parent == self.init.pid:
                _kill(pid, signal.SIGKILL)
        # Process 1 of a namespace is gone only when all others are, and `unshare` waits for it.
        assert self.init.stdin is not None
        self.init.stdin.close()
        self.init.wait()
        self.init = None
        with contextlib.suppress(FleetError):
            _do("ip", "link", "del", self.cable)

    def cut(self) -> None:
        _do("ip", "link", "set", self.cable, "down")

    def restore(self) -> None:
        _do("ip", "link", "set", self.cable, "up")

    def processes(self) -> list[int]:
        if self.init is None:
            return []
        table, ours = _table(), self._inside()
        known = [pid for pid in ours if pid in table]  # one may have begun meanwhile
        return [pid for pid in known if table[pid].session != self.init.pid and not table[pid].name.startswith("sshd")]

    def outside(self, pid: int) -> int:
        for found in self._inside():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{found}/status").read_text()
                if status.partition("\nNSpid:")[2].splitlines()[0].split()[-1] == str(pid):
                    return found
        raise ProcessLookupError(f"{self.name} has no process {pid}")

    def slow(self, rate: str) -> None:
        shape = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms"]
        _do("tc", "qdisc", "replace", "dev", self.cable, *shape)
        self._do_inside("tc", "qdisc", "replace", "dev", "e0", *shape)

    def lossy(self, percent: float) -> None:
        rule = f"iif e0 numgen random mod 1000 < {round(percent * 10)} drop"
        chain = f"chain in {{ type filter hook input priority 0; {rule}; }}"
        table = f"table inet loss\ndelete table inet loss\ntable inet loss {{ {chain}\n}}\n"
        self._do_inside("nft", "-f", "-", stdin=table)

    def fast(self) -> None:
        qdisc = ["tc", "qdisc", "del", "root", "dev"]
        with contextlib.suppress(FleetError):  # it was not slow
            _do(*qdisc, self.cable)
            self._do_inside(*qdisc, "e0")
        with contextlib.suppress(FleetError):  # it was not lossy
            self._do_inside("nft", "delete", "table", "inet", "loss")

    def _do_inside(self, *argv: str, stdin: str = "") -> str:
        assert self.init is not None, f"{self.name} is off"
        return _do("nsenter", f"--net=/proc/{self.init.pid}/ns/net", _tool(argv[0]), *argv[1:], stdin=stdin)

    def _inside(self) -> list[int]:
        assert self.init is not None, f"{self.name} is off"
        ours = Path(f"/proc/{self.init.pid}/ns/pid_for_children").readlink()
        found = []
        for pid, process in _table().items():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/pid").readlink() == ours and process.state != "Z":
                    found.append(pid)
        return found

    def _sshd(self) -> list[int]:
        table = _table()
        return [pid for pid in self._inside() if pid in table and table[pid].name.startswith("sshd")]

    def _alive(self) -> bool:
        return self.init is not None and self.init.poll() is None


class _LoopbackHost(Host):
    server: subprocess.Popen[bytes] | None = None
    mark = ""  # stands in the environment of everything that is started on the host

    def boot(self) -> None:
        if self._alive():
            return
        self._mark()
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                [_tool("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_listening()

    def crash(self) -> None:
        _sweep(self.folder / "sshd_config", self.mark)
        if self.server is not None:
            self.server.wait()
        self.server = None

    def cut(self) -> None:
        stopped: set[int] = set()
        while new := set(self._sshd()) - stopped:  # again, for what sshd started while we looked
            for pid in sorted(new):
                _kill(pid, signal.SIGSTOP)
            stopped |= new

    def restore(self) -> None:
        for pid in self._sshd():
            _kill(pid, signal.SIGCONT)

    def processes(self) -> list[int]:
        table = _table()
        return [pid for pid in _marked(self.mark) if pid in table and not table[pid].name.startswith("sshd")]

    def outside(self, pid: int) -> int:
        if pid not in self.processes():
            raise ProcessLookupError(f"{self.name} has no process {pid}")
        return pid

    def _sshd(self) -> list[int]:
        return [] if self.server is None else _sshd_tree(_table(), [self.server.pid])

    def _alive(self) -> bool:
        return self.server is not None and self.server.poll() is None


# ------------------------------------------------------------------------------------------------------------- fleet


@dataclass
class Fleet:
    """Hosts by name, and the files that let OpenSSH's own client in: `ssh -F fleet.ssh_config tensor01`."""

    folder: Path
    mode: str
    hosts: dict[str, Host]
    _ending: contextlib.ExitStack

    @property
    def known_hosts(self) -> Path:
        """The true host keys."""
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """An alias for each host, with strict checking of its key."""
        return self.folder / "ssh_config"

    def trust(self) -> None:
        """Write known_hosts and the credentials by the present host keys."""
        lines = []
        for host in self.hosts.values():
            where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
            lines.append(f"{where} {(host.folder / 'host_key.pub').read_text()}")
            host.write_credentials(host.credentials)
        self.known_hosts.write_text("".join(lines))

    def close(self) -> None:
        """End all hosts and take away what is not a file of the fleet's folder; once more does nothing."""
        self._ending.close()


@contextlib.contextmanager
def start(
    folder: Path,
    names: Sequence[str] = ("tensor01", "tensor02"),
    mode: str = "auto",
    sshd: Sequence[str] = (),
    shell: str = "/bin/bash",
    home_shared: bool = False,
    login: str = "mapper",
) -> Iterator[Fleet]:
    """Hosts that are up. `sshd`: more lines for sshd_config; `login`: the account's name (loopback: always oneself)."""
    folder = folder.resolve()
    if mode == "auto":
        mode = "loopback" if available("netns") or folder.is_relative_to("/srv") else "netns"
    if missing := available(mode):
        raise FleetError(missing)
    if mode == "netns" and folder.is_relative_to("/srv"):
        raise FleetError(f"{folder}: in netns mode a host has its own /srv, so its files must be elsewhere")
    with contextlib.ExitStack() as ending:
        fleet = _make(folder, names, mode, sshd, shell, home_shared, login, ending)
        atexit.register(fleet.close)  # a test session that is broken off leaves this block without its end
        ending.callback(atexit.unregister, fleet.close)
        yield fleet


def _make(
    folder: Path,
    names: Sequence[str],
    mode: str,
    sshd: Sequence[str],
    shell: str,
    home_shared: bool,
    login: str,
    ending: contextlib.ExitStack,
) -> Fleet:
    (folder / "credentials").mkdir(parents=True, exist_ok=True)
    (folder / "credentials").chmod(0o700)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root refuses to start without
    lock = ending.enter_context(_lock(folder))
    mark = f"RUNBOOK_FLEET={_tag(folder)}"
    for name in names:  # of an earlier fleet that nobody ended
        _sweep(folder / name / "sshd_config", f"{mark}/{name}")
    switch, net = _switch(folder, ending) if mode == "netns" else ("", "")
    ending.enter_context(_guard(folder, names, switch, lock))
    _make_key(folder / "client_key", "fleet")
    password = secrets.token_urlsafe(12) if mode == "netns" else None
    ports = _free_ports(folder, len(names)) if mode == "loopback" else [22] * len(names)
    kind: type[Host] = _NetnsHost if mode == "netns" else _LoopbackHost
    hosts: dict[str, Host] = {}
    for number, name in enumerate(names):
        (folder / name).mkdir(exist_ok=True)
        hosts[name] = kind(
            name=name,
            address=f"{net}.{10 + number}" if mode == "netns" else "127.0.0.1",
            port=ports[number],
            username=login if mode == "netns" else pwd.getpwuid(os.getuid()).pw_name,
            password=password,
            key=folder / "client_key",
            home=folder / "home" if home_shared else folder / name / "home",
            credentials=folder / "credentials" / f"{name}.credentials",
            folder=folder / name,
        )
    for number, host in enumerate(hosts.values()):
        host.home.mkdir(exist_ok=True)
        _make_key(host.folder / "host_key", host.name)
        if isinstance(host, _NetnsHost):
            host.switch, host.cable, host.mac = switch, f"{switch}-{number}", _mac(net, 10 + number)
            ending.callback(shutil.rmtree, host.folder / "etc", ignore_errors=True)
            _write_netns(host, list(hosts.values()), sshd, shell)
        elif isinstance(host, _LoopbackHost):
            host.mark = f"{mark}/{host.name}"
            _write_loopback(host, sshd, shell)
        _do("sshd", "-t", "-f", str(host.folder / "sshd_config"))
    fleet = Fleet(folder, mode, hosts, ending)
    fleet.trust()
    _write_ssh_config(fleet)
    for host in hosts.values():
        ending.callback(host.crash)
        host.boot()
    return fleet


def available(mode: str = "auto") -> str:
    """Empty when a fleet can be started here, else a sentence that says why not."""
    if mode not in ("auto", "netns", "loopback"):
        raise ValueError(f"mode: expected auto, netns or loopback, not {mode!r}")
    if sys.platform != "linux":
        return f"A fleet needs Linux, this is {sys.platform}."
    for tool in ("sshd", "ssh-keygen"):
        if not shutil.which(tool, path=SEARCH):
            return f"No {tool} on this machine: install the OpenSSH server (`python demo/fleet.py install` as root)."
    return _no_namespaces() if mode == "netns" else ""


@functools.cache
def _no_namespaces() -> str:
    if os.geteuid() != 0:
        return "Namespaces need root."
    for tool in ("ip", "unshare", "nsenter", "openssl"):
        if not shutil.which(tool, path=SEARCH):
            return f"Namespaces need {tool}, which is not on this machine."
    trial = "ip link add name b0 type bridge && ip link add name v0 type veth peer name v1 && mount -t tmpfs tmpfs /srv"
    flags = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
    try:
        _do("unshare", *flags, "/bin/sh", "-c", f"PATH={SEARCH}; {trial}")
    except FleetError as error:
        return f"This machine does not let us make namespaces with a bridge in them: {error}"
    return ""


def install() -> str:
    """Install what a fleet needs; empty when it is there, else a sentence that says what to do."""
    tools = all(shutil.which(tool, path=SEARCH) for tool in ("nft", "strace", *SHELLS))  # strace: for tests of crashes
    if not available() and (os.geteuid() != 0 or not available("netns")) and tools:
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get", path=SEARCH):
        return available() and f"{available()} On Debian and Ubuntu as root: apt-get install {' '.join(PACKAGES)}"
    if why := apt_install(PACKAGES):
        return why
    _no_namespaces.cache_clear()
    return available()


def apt_install(packages: Sequence[str]) -> str:
    """Install packages of Debian or Ubuntu without starting their services; empty when done, else why not."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:  # else the packages would start daemons on this machine
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "PATH": SEARCH, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for argv in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", "-q", *argv], env=environment, stdin=subprocess.DEVNULL)
            if done.returncode:
                return f"apt-get {argv[0]} ended with exit code {done.returncode}."
    finally:
        if ours:
            policy.unlink()
    return ""


# ------------------------------------------------------------------------------------------------- files of the hosts


def write_private(path: Path, entries: Mapping[str, Any]) -> None:
    """A JSON file that nobody else can read; entries that are None are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({name: value for name, value in entries.items() if value is not None}, indent=1))


def _write_sshd_config(host: Host, first: Sequence[str], environment: Sequence[str], own: Sequence[str]) -> None:
    # sshd takes the first value of a keyword, so the caller's lines come first; of SetEnv it takes one line only.
    given = [line for line in first if line.split()[0].lower() != "setenv"]
    for line in first:
        if line.split()[0].lower() == "setenv":
            environment = [*shlex.split(line)[1:], *environment]
    (host.folder / "sshd_config").write_text(
        "\n".join(
            [
                *given,
                "SetEnv " + " ".join(f'"{entry}"' for entry in environment),
                f"ListenAddress {host.address}",
                f"Port {host.port}",
                f'HostKey "{host.folder / "host_key"}"',
                f'AuthorizedKeysFile "{host.key}.pub"',
                f"AllowUsers {host.username}",
                "PidFile none",
                "StrictModes no",
                "UsePAM no",
                "KbdInteractiveAuthentication no",
                "PrintMotd no",
                "PrintLastLog no",
                "LogLevel VERBOSE",
                *own,
                "",
            ]
        )
    )


def _write_loopback(host: _LoopbackHost, sshd: Sequence[str], shell: str) -> None:
    # The account is one's own, so sshd starts its login shell in one's own home. It is given an empty home, so that
    # it reads no settings there, and a command that goes on to the host's home and shell.
    nowhere = host.folder / "nowhere"
    nowhere.mkdir(exist_ok=True)
    enter = host.folder / "enter"
    _write_script(
        enter,
        f"""
export HOME={shlex.quote(str(host.home))} SHELL={shlex.quote(shell)}
cd "$HOME" || exit 1
command=${{SSH_ORIGINAL_COMMAND-}}
unset SSH_ORIGINAL_COMMAND SHLVL OLDPWD
[ -z "$command" ] && exec "$SHELL" -l
exec "$SHELL" -c "$command"
""",
    )
    own = [f"ForceCommand {shlex.quote(str(enter))}", "PasswordAuthentication no", "PermitRootLogin prohibit-password"]
    sftp = next((path for path in SFTP_SERVERS if Path(path).exists()), None)
    own += [f"Subsystem sftp {sftp}"] if sftp else []
    _write_sshd_config(host, sshd, [f"HOME={nowhere}", host.mark], own)


def _write_netns(host: _NetnsHost, all_hosts: Sequence[Host], sshd: Sequence[str], shell: str) -> None:
    assert host.password is not None
    home, etc = f"/srv/home/{host.username}", host.folder / "etc"
    shutil.rmtree(etc, ignore_errors=True)
    _do("cp", "-a", "/etc", str(etc))
    for secret in [*etc.glob("*shadow*"), *etc.glob("ssh/ssh_host_*")]:
        secret.unlink()
    # uid 0, so that the account can read a Python under /root, where test machines often keep theirs. In front of
    # root, so that uid 0 is called by this name and has this home.
    accounts = [f"{host.username}:x:0:0::{home}:{shell}\n", (etc / "passwd").read_text()]
    (etc / "passwd").write_text("".join(accounts))
    (etc / "shadow").touch(mode=0o600)
    crypted = _do("openssl", "passwd", "-6", "-stdin", stdin=host.password).strip()
    (etc / "shadow").write_text(f"{host.username}:{crypted}:20000:0:99999:7:::\n")
    (etc / "hostname").write_text(f"{host.name}\n")
    lines = ["127.0.0.1 localhost", *(f"{other.address} {other.name}" for other in all_hosts)]
    (etc / "hosts").unlink(missing_ok=True)
    (etc / "hosts").write_text("\n".join(lines) + "\n")
    quoted = {name: shlex.quote(str(host.folder / name)) for name in ("etc", "boot_id", "sshd_config", "sshd.log")}
    _write_script(
        host.folder / "init",
        f"""# Process 1 of this host.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
hostname {host.name}
mount --bind {quoted["etc"]} /etc
cat /proc/sys/kernel/random/uuid > {quoted["boot_id"]}
mount --bind {quoted["boot_id"]} /proc/sys/kernel/random/boot_id
mount -t tmpfs tmpfs /srv
mkdir -p {home}
mkdir -m 700 /srv/screen /srv/tmux
mount --bind {shlex.quote(str(host.home))} {home}
exec 3<&0 </dev/null
echo up
exec >&2
read -r cable <&3
ip link set lo up
ip address add {host.address}/24 dev e0
ip link set e0 up
while :; do {_tool("sshd")} -D -e -f {quoted["sshd_config"]} 2>>{quoted["sshd.log"]}; sleep 0.2; done 3<&- &
cat <&3 >/dev/null &  # ends when whoever started this host closes the pipe, or is gone
wait $!
""",
    )
    own = ["PasswordAuthentication yes", "PermitRootLogin yes", "Subsystem sftp internal-sftp"]
    # screen and tmux would else meet their servers on the machine itself: /run and /tmp are the machine's.
    _write_sshd_config(host, sshd, ["SCREENDIR=/srv/screen", "TMUX_TMPDIR=/srv/tmux"], own)


def _write_ssh_config(fleet: Fleet) -> None:
    lines = []
    for host in fleet.hosts.values():
        lines += [f"Host {host.name}", f"  HostName {host.address}", f"  Port {host.port}", f"  User {host.username}"]
        lines += [f'  IdentityFile "{host.key}"', "  IdentitiesOnly yes", "  GlobalKnownHostsFile none"]
        lines += [f'  UserKnownHostsFile "{fleet.known_hosts}"', "  StrictHostKeyChecking yes"]
    fleet.ssh_config.write_text("\n".join(lines) + "\n")


def _write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def _make_key(path: Path, comment: str, anew: bool = False) -> None:
    if anew:
        path.unlink(missing_ok=True)
    if not path.exists():
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


# ----------------------------------------------------------------------------------------------- one fleet, many fleets


def _tag(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[int]:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + WAIT_S  # a fleet whose owner was killed is being swept away
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FleetError(f"another fleet is up in {folder}: end it, or choose another folder") from None
                time.sleep(0.1)
        yield fd
    finally:
        os.close(fd)


def _switch(folder: Path, ending: contextlib.ExitStack) -> tuple[str, str]:
    """A bridge of our own, and the first three bytes of its network. Its name is the claim to the network."""
    begin = int(_tag(folder), 16)
    for number in range(begin, begin + 256):
        second, third = 224 + (number >> 8) % 16, number % 256
        name, net = f"fl{second}x{third}", f"10.{second}.{third}"
        if _do("ip", "-4", "route", "show", "root", f"{net}.0/24").strip():
            continue
        with contextlib.suppress(FleetError):  # a fleet that started at the same moment has it
            _do("ip", "link", "add", "name", name, "address", _mac(net, 1), "type", "bridge")
            ending.callback(_unplug, name)
            _do("ip", "address", "add", f"{net}.1/24", "dev", name)
            _do("ip", "link", "set", name, "up")
            return name, net
    raise FleetError("no free network between 10.224.0.0/24 and 10.239.255.0/24")


def _unplug(switch: str) -> None:
    with contextlib.suppress(FleetError):
        _do("ip", "link", "del", switch)


def _mac(net: str, number: int) -> str:
    return ":".join(f"{byte:02x}" for byte in (2, 0, *map(int, net.split(".")), number))


def _free_ports(folder: Path, count: int) -> list[int]:
    # Below the ports that the kernel gives to clients: a host that is off must find its port free.
    begin = int(_tag(folder), 16)
    found: list[int] = []
    for number in range(10_000):
        if len(found) == count:
            return found
        port = 20_000 + (begin + number) % 10_000
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
            found.append(port)
    raise FleetError("no free port between 20000 and 29999")


@contextlib.contextmanager
def _guard(folder: Path, names: Sequence[str], switch: str, lock: int) -> Iterator[None]:
    """A process that sweeps up when this one is killed; it holds the lock until that is done."""
    argv = [sys.executable, "-I", __file__, "guard", str(folder), switch, *names]
    guard = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[lock], start_new_session=True)
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()


def _keep_guard(folder: Path, switch: str, *names: str) -> None:
    sys.stdin.read()
    for name in names:
        _sweep(folder / name / "sshd_config", f"RUNBOOK_FLEET={_tag(folder)}/{name}")
    if switch:
        _unplug(switch)


# --------------------------------------------------------------------------------------------------------- processes


class _Process(NamedTuple):
    parent: int
    session: int
    state: str
    name: str
    start: int  # in ticks since the machine's boot


def _table() -> dict[int, _Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
                state, parent, _group, session, *more = rest.split()
                found[int(entry.name)] = _Process(int(parent), int(session), state, name, int(more[15]))
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or another's
        return b""


def _marked(mark: str) -> list[int]:
    """The living processes that have `mark` in their environment (a zombie's is empty)."""
    return [pid for pid in _table() if mark.encode() in _read(pid, "environ").split(b"\0")]


def _sshd_tree(table: dict[int, _Process], roots: list[int]) -> list[int]:
    """The roots and what they descend to through servers only; not the commands that those started."""
    found = list(roots)
    for above in found:
        found += [p for p, process in table.items() if process.parent == above and process.name.startswith("sshd")]
    return found


def _sweep(config: Path, mark: str) -> None:
    """Kill the server that was started with `config`, its connections, and all that was started over them."""
    deadline = time.monotonic() + WAIT_S
    while True:  # again, for what was being started while we looked
        table = _table()
        servers = [pid for pid in table if table[pid].name.startswith("sshd")]
        # A server's title keeps its command line: "sshd: /usr/sbin/sshd -D -e -f CONFIG [listener] ..."
        listeners = [pid for pid in servers if f" -f {config} ".encode() in _read(pid, "cmdline").replace(b"\0", b" ")]
        doomed = {*_sshd_tree(table, listeners), *_marked(mark)}
        if not doomed:
            return
        if time.monotonic() > deadline:
            raise FleetError(f"{config.parent.name}: the processes {sorted(doomed)} do not die")
        for pid in doomed:
            _kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _tool(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise FleetError(f"{name} is not on this machine")
    return found


def _do(*argv: str, stdin: str = "") -> str:
    done = subprocess.run([_tool(argv[0]), *argv[1:]], input=stdin, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise FleetError(f"`{shlex.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


# ------------------------------------------------------------------------------------------------------ command line


def _up(folder: Path, names: Sequence[str], mode: str, shell: str, command: Sequence[str]) -> int:
    watched = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    with start(folder, names, mode, shell=shell) as fleet:
        for host in fleet.hosts.values():
            print(f"{host.name} is up: ssh -F {shlex.quote(str(fleet.ssh_config))} {host.name}")
            print(f"    credentials: {host.credentials}", flush=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        if not command:
            print("Ctrl-C ends the hosts.", flush=True)
            signal.sigwait(watched - {signal.SIGCHLD})
            return 0
        unblock: Callable[[], Any] = functools.partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        try:
            child = subprocess.Popen(command, preexec_fn=unblock)
        except OSError as error:
            raise FleetError(f"cannot run {command[0]}: {error.strerror}") from None
        while child.poll() is None:
            came = signal.sigwaitinfo(watched)
            # A terminal's Ctrl-C (si_code above 0: from the kernel) has reached the command already.
            if came.si_signo != signal.SIGCHLD and came.si_code <= 0:
                child.send_signal(came.si_signo)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main(argv: Sequence[str]) -> int:
    """The command line; gives the exit code."""
    if argv[:1] == ["guard"]:
        _keep_guard(Path(argv[1]), argv[2], *argv[3:])
        return 0
    parser = argparse.ArgumentParser(
        prog="fleet.py",
        description="Real SSH servers on this machine that stand in for GPU hosts.",
        epilog="""examples:
  python demo/fleet.py install                       what a fleet needs (Debian, Ubuntu; as root)
  python demo/fleet.py up /tmp/fleet                 two hosts until Ctrl-C; says how to log in
  python demo/fleet.py up /tmp/fleet --mode loopback -- runbook run profile.yaml
                                                      two hosts for as long as the command runs

For each host FOLDER/credentials/NAME.credentials names address, port, account, key and the fingerprint of the host's
key: what a profile's `credentials:` points to. FOLDER/ssh_config has an alias for each host. A host's home is
FOLDER/NAME/home; it and the keys stay when the hosts have ended, so that `up FOLDER` goes on where it was.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="install OpenSSH's server and the tools for namespaces")
    up = verbs.add_parser("up", help="start hosts, run COMMAND (or wait for Ctrl-C), end the hosts")
    up.add_argument("folder", type=Path, metavar="FOLDER", help="where keys, homes, logs and credentials are kept")
    up.add_argument("--hosts", nargs="+", default=["tensor01", "tensor02"], metavar="NAME")
    up.add_argument("--mode", choices=["auto", "netns", "loopback"], default="auto", help="default: netns for root")
    up.add_argument("--shell", default="/bin/bash", help="the account's shell")
    up.epilog = "COMMAND follows after `--`; its exit code is given on."
    split = list(argv).index("--") if "--" in argv else len(argv)
    options, command = parser.parse_args(argv[:split]), list(argv[split + 1 :])
    try:
        if options.verb == "install":
            if missing := install():
                print(missing, file=sys.stderr)
            return 1 if missing else 0
        return _up(options.folder, options.hosts, options.mode, options.shell, command)
    except FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
