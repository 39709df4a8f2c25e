"""A real Slurm on this machine: munged, slurmctld and a few nodes, for tests and for `make demo-slurm`.

A node is a slurmd with its own processes, host name and /proc (namespaces), so a process number of a task means nothing
outside, as on a cluster; disk, clock, /tmp and network are this machine's. No systemd and no cgroups are needed, and
nothing of /etc is read or written. Everything ends with the process that started it. Debian or Ubuntu, as root.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import fleet
from fleet import SEARCH, FleetError

PACKAGES = ("slurm-wlm", "munge")
TOOLS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
PLAIN_TOOLS = ("unshare", "nsenter", "setpriv", "mount", "hostname", "bash")
NVIDIA = (1, 3)  # the device number of /dev/null: a made-up GPU that is counted and named to its task
WAIT_S = 120.0

# Impatient where a test would wait: on a cluster SlurmdTimeout is 300 s, KillWait 30 s, cred_expire 120 s.
SETTINGS = """
ClusterName=demo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
GresTypes=gpu
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
"""
# Process 1 of a node: it gives the node its name, and reaps what tasks leave behind.
NODE = """
hostname "$1"
mount --bind "$2" /etc/hosts
slurmd -D -N "$1" &
while kill -0 $! 2>/dev/null; do wait; done
"""


@dataclass
class Cluster:
    """A Slurm that runs: `run("squeue")` asks it; a program of its own needs the variable SLURM_CONF."""

    folder: Path
    nodes: tuple[str, ...]
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """Its settings: what SLURM_CONF names."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which its commands find it."""
        return {"SLURM_CONF": str(self.conf), "PATH": SEARCH}

    def run(self, *argv: str) -> str:
        """What a command prints. FleetError when it fails."""
        done = subprocess.run(
            argv, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise FleetError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def crash(self, node: str) -> None:
        """Power loss: every process of the node dies at once."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def boot(self, node: str) -> None:
        """Power on: returns when the controller says that the node is ready."""
        if node not in self._daemons:
            words = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--uts", "--ipc", "--"]
            self._start(node, [*words, "bash", "-c", NODE, "bash", node, str(self.folder / "hosts")])
            began = int(time.time()) - 1  # else the controller may still think of the node as it was
            _wait(lambda: self._registered_at(node) >= began, f"{node} does not register: {self.folder}/{node}.out")
        _wait(lambda: node in self._ready(), f"{node} is not ready: {self.folder}/slurmd.{node}.log")

    def cut(self, node: str) -> None:
        """The controller hears nothing of the node; its tasks go on."""
        self._signal_daemons(node, signal.SIGSTOP)

    def heal(self, node: str) -> None:
        """The controller hears of the node again."""
        self._signal_daemons(node, signal.SIGCONT)

    @contextlib.contextmanager
    def hidden(self, folder: Path) -> Iterator[None]:
        """No node sees what is in a folder, as if it were not on a shared disk. At the end all nodes boot anew."""
        for node in self.nodes:
            inside = ("nsenter", f"--target={self._first(node)}", "--mount")
            self.run(*inside, "mount", "-t", "tmpfs", "tmpfs", str(folder))
        try:
            yield
        finally:
            for node in self.nodes:
                self.crash(node)
                self.boot(node)

    def kill_controller(self) -> None:
        """The controller dies without a word, and with it what it has not saved: jobs of the last seconds."""
        daemon = self._daemons.pop("slurmctld")
        daemon.kill()
        daemon.wait()

    def start_controller(self) -> None:
        """The controller runs and answers."""
        if "slurmctld" not in self._daemons:
            self._start("slurmctld", ["slurmctld", "-D"])
        _wait(lambda: self.run("scontrol", "ping"), f"slurmctld does not answer: {self.folder}/slurmctld.log")

    def pids(self, node: str) -> list[int]:
        """The processes of a node, as this machine counts them: those in the process list of its process 1."""
        inner = _namespace(self._first(node))
        return [pid for pid in _processes() if _namespace(pid) == inner]

    def outside(self, node: str, pid: int) -> int:
        """The process that the node calls `pid`, as this machine counts. FleetError where there is none."""
        for found in self.pids(node):
            with contextlib.suppress(OSError):
                numbers = Path(f"/proc/{found}/status").read_text().partition("\nNSpid:")[2].splitlines()[0].split()
                if numbers[-1] == str(pid):
                    return found
        raise FleetError(f"{node} has no process {pid}")

    def close(self) -> None:
        """End everything; the folder stays, with the logs."""
        for name in [*self.nodes, "slurmctld", "munged"]:
            if daemon := self._daemons.pop(name, None):
                daemon.kill()
                daemon.wait()

    def _first(self, node: str) -> int:
        """Process 1 of a node, as this machine counts; 0 before there is one."""
        top = self._daemons[node].pid
        return int((Path(f"/proc/{top}/task/{top}/children").read_text().split() or ["0"])[0])

    def _signal_daemons(self, node: str, signum: int) -> None:
        for pid in self.pids(node):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() in ("slurmd", "slurmstepd"):
                    os.kill(pid, signum)

    def _start(self, name: str, argv: Sequence[str]) -> None:
        """A daemon that ends with us, however we end."""
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _registered_at(self, node: str) -> float:
        """When the slurmd began that the controller knows of a node; 0 where it knows of none."""
        match = re.search(r"SlurmdStartTime=(\d\S+)", self.run("scontrol", "show", "node", node))
        return datetime.fromisoformat(match.group(1)).timestamp() if match else 0.0

    def _ready(self) -> set[str]:
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        return {line.split()[0] for line in lines if line.split()[1].rstrip("~#") in ("idle", "mixed", "allocated")}


@contextlib.contextmanager
def start(
    folder: Path, nodes: int = 2, cpus: int = 4, gpus: int = 2, settings: Sequence[str] = ()
) -> Iterator[Cluster]:
    """A cluster whose nodes n1, n2 ... are ready; `settings`: more lines of slurm.conf, such as "MaxArraySize=5"."""
    if missing := available():
        raise FleetError(missing)
    cluster = Cluster(folder.resolve(), tuple(f"n{number + 1}" for number in range(nodes)))
    with contextlib.ExitStack() as ending:
        ending.callback(cluster.close)
        _write(cluster, cpus, gpus, settings)
        munge = [f"--{name}={cluster.folder}/munge.{name.removesuffix('-file')}" for name in _MUNGE]
        cluster._start(
            "munged", ["munged", "--foreground", "--force", f"--socket={cluster.folder}/munge.socket", *munge]
        )
        _wait(
            lambda: (cluster.folder / "munge.socket").exists(), f"munged does not answer: {cluster.folder}/munged.out"
        )
        cluster.start_controller()
        for node in cluster.nodes:
            cluster.boot(node)
        yield cluster


_MUNGE = ("key-file", "pid-file", "log-file", "seed-file")


def _write(cluster: Cluster, cpus: int, gpus: int, settings: Sequence[str]) -> None:
    folder = cluster.folder
    for name in ("state", "spool", "dev", "cgroup"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    port = _port(folder, len(cluster.nodes) + 1)
    lines = [SETTINGS.format(host=socket.gethostname().split(".")[0], folder=folder, port=port), *settings]
    for number, node in enumerate(cluster.nodes, 1):
        (folder / "spool" / node).mkdir(exist_ok=True)
        where = f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port + number}"
        size = f"CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=4000"
        lines.append(f"{where} {size} Gres=gpu:{gpus}")
    lines.append("PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    cluster.conf.write_text("\n".join(lines) + "\n")
    for number in range(gpus):  # by their names slurmd knows them for NVIDIA's and sets CUDA_VISIBLE_DEVICES
        device = folder / "dev" / f"nvidia{number}"
        if not device.exists():
            os.mknod(device, 0o20666, os.makedev(*NVIDIA))
    device = f"{folder}/dev/nvidia[0-{gpus - 1}]"
    (folder / "gres.conf").write_text(f"Name=gpu File={device} Flags=nvidia_gpu_env\n" if gpus else "")
    # No cgroup is used, yet slurmd does not start without a version that it knows; this one asks for no systemd.
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/cgroup\n")
    names = "".join(f"127.0.0.1 {node}\n" for node in cluster.nodes)
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + names)


def _port(folder: Path, count: int) -> int:
    """The first of so many free ports below those that the kernel gives to clients."""
    begin = int(hashlib.sha256(str(folder).encode()).hexdigest()[:6], 16)
    for number in range(1000):
        first = 20_000 + (begin + number * count) % 9_000
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            for port in range(first, first + count):
                opened.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
            return first
    raise FleetError("no free ports between 20000 and 29999")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _wait(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        with contextlib.suppress(FleetError, subprocess.TimeoutExpired):
            if holds():
                return
        if time.monotonic() > deadline:
            raise FleetError(what)
        time.sleep(0.1)


def available() -> str:
    """Empty when a Slurm can be started here, else a sentence that says why not."""
    if sys.platform != "linux":
        return f"A Slurm of one's own needs Linux, this is {sys.platform}."
    if os.geteuid() != 0:
        return "A Slurm of one's own needs root: its nodes are namespaces."
    if missing := [tool for tool in (*TOOLS, *PLAIN_TOOLS) if not shutil.which(tool, path=SEARCH)]:
        return f"No {missing[0]} on this machine: install Slurm (`python demo/slurm.py install` as root)."
    flags = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--uts", "--ipc"]
    trial = subprocess.run(["unshare", *flags, "true"], capture_output=True, text=True, check=False)
    return f"This machine does not let us make namespaces: {trial.stderr.strip()}" if trial.returncode else ""


def install() -> str:
    """Install what a Slurm needs; empty when it is there, else a sentence that says what to do."""
    if any(not shutil.which(tool, path=SEARCH) for tool in TOOLS):
        if os.geteuid() != 0 or not shutil.which("apt-get", path=SEARCH):
            return f"{available()} On Debian and Ubuntu as root: apt-get install {' '.join(PACKAGES)}"
        if why := fleet.apt_install(PACKAGES):
            return why
    return available()


def main(argv: Sequence[str]) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="slurm.py",
        description="A real Slurm on this machine, for as long as a command runs.",
        epilog="`up FOLDER -- COMMAND` gives the command SLURM_CONF, and its exit code on.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="install Slurm and munge (Debian, Ubuntu; as root); no service is started")
    up = verbs.add_parser("up", help="start a cluster, run COMMAND, end the cluster")
    up.add_argument("folder", type=Path, metavar="FOLDER", help="where its settings, state and logs are kept")
    up.add_argument("--nodes", type=int, default=2)
    split = list(argv).index("--") if "--" in argv else len(argv)
    options, command = parser.parse_args(argv[:split]), list(argv[split + 1 :])
    try:
        if options.verb == "install":
            if missing := install():
                print(missing, file=sys.stderr)
            return 1 if missing else 0
        with start(options.folder, options.nodes) as cluster:
            return subprocess.run(command, env={**os.environ, **cluster.environment}, check=False).returncode
    except FleetError as error:
        print(f"slurm: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
