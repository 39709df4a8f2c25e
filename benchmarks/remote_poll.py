"""What it costs to look at hosts over SSH, side by side with the founding plan's way of looking.

    python benchmarks/remote_poll.py                        all three tables, about seven minutes
    python benchmarks/remote_poll.py poll --rounds 1        one of them: preflight, poll or many

preflight   16 hosts, none connected yet. The plan's way is its Pre-flight Checklist: three scripts, each with a new
            connection to one host after another and a command per check, seven in all. Ours is inventory.take. Three
            times: bare; with a start-up file of the account that takes as long as where the goal was set (a conda or
            module set-up does that; every command waits for it); and that behind 20 ms.
poll        one reading of a host with 8 slots and 200 committed parts. The plan's way: a new connection and ten
            commands; the same ten as one command of a kept connection; ours is Host.poll. How many round trips each
            takes comes from a line with a known delay, what it starts on the host from that host's own pid counter.
many        a round of polls over 2 and over 50 hosts, then with one of the 50 cut off and back again.

Hosts are names on a few real OpenSSH servers on this machine, each name with a connection and a folder of its own, so
they share this machine's cores, and what is done on many at once is seen slower than on real ones. Who looks is a
process of its own; its start and its imports are not measured. Exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "helpers"), str(HERE.parent / "demo")]
# ruff: noqa: E402

import fleet
import paramiko
import wired
from proxy import Proxy

from runbook_lib.errors import RunbookError
from runbook_lib.hosts import hosts, inventory
from runbook_lib.profile import profile
from runbook_lib.run import opening, run
from worker.layout import HostFolder
from worker.wire import Reading

SLOTS, PARTS, PART_ROWS = 8, 200, 1024
RTT_S = 0.02
STARTUP_S = 0.13
OURS_AT_ONCE, KEPT_AT_ONCE = 50, 5  # polls of one round: the quick ones need more of them to be measured
COUNTED = 200  # polls over which processes and bytes are counted
PAUSE_S = 10.0  # the longest time for which a host that is gone is not tried again
LAST_PID = "/proc/sys/kernel/ns_last_pid"  # of the reader's pid namespace: each netns host has one of its own

Figures = dict[str, Any]

# The plan's Pre-flight Checklist, steps 2, 3 and 4: one script each.
SCRIPTS = (
    ('hostname && echo "SSH OK"',),
    (
        'ls -la ~/mapper_embeddings/ 2>&1 || echo "DIRECTORY NOT FOUND"',
        "ls -lh ~/mapper_embeddings/wikipedia.pkl 2>&1",
        "nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader 2>&1",
        "which conda 2>&1",
    ),
    ("df -h ~", "df -h ~ | tail -1 | awk '{print $4}'"),
)


def slot_name(number: int) -> str:
    """The name of a slot of every host here."""
    return f"cluster0_gpu{number}"


# ------------------------------------------------------------------------------------------------------ the plan's way


def plan_login(spec: profile.HostSpec) -> paramiko.SSHClient:
    """A new connection as the plan makes it; by the key alone, and so without the plan's guessing of others."""
    assert spec.credentials is not None
    given = json.loads(spec.credentials.read_text())
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        hostname=given["address"],
        port=given["port"],
        username=given["username"],
        key_filename=given["key_filename"],
        timeout=10,
        allow_agent=False,
        look_for_keys=False,
    )
    return client


def plan_command(client: paramiko.SSHClient, command: str) -> str:
    """What a command prints."""
    _, out, _ = client.exec_command(command)
    return str(out.read(), "utf-8")


def plan_preflight(this: run.Run) -> None:
    """Script after script, host after host, command after command."""
    for commands in SCRIPTS:
        for spec in this.hosts:
            client = plan_login(spec)
            said = [plan_command(client, command) for command in commands]
            assert said[0], f"{spec.name} says nothing to {commands[0]}"
            client.close()


def plan_questions(this: run.Run, spec: profile.HostSpec) -> list[str]:
    """The ten commands of one look at a host with eight workers."""
    folder = f"{spec.workdir}/{this.name}/progress"
    asked = [f"cat {folder}/{slot_name(number)}.json 2>&1" for number in range(SLOTS)]
    asked.append("nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits 2>&1")
    return [*asked, "screen -ls 2>&1 | grep mapper_gpu | wc -l"]


# ------------------------------------------------------------------------------------------------------------- looking


def ask(parent: str) -> str:
    """Have the process that owns the hosts do something, and give its answer."""
    print(parent, flush=True)
    return sys.stdin.readline().strip()


def cpu_s() -> float:
    """CPU seconds of this process and of its children that ended: ours asks the ssh client how to log in."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def timed(work: Callable[[], object], times: int = 1) -> Figures:
    """Milliseconds of `work` (median) and of this process's CPU (mean)."""
    took, cpu = [], cpu_s()
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - began))
    return {"ms": statistics.median(took), "cpu_ms": 1000 * (cpu_s() - cpu) / times}


def step_plan_preflight(this: run.Run, rounds: int) -> Figures:
    """All hosts, the plan's way."""
    return timed(lambda: plan_preflight(this))


def step_preflight(this: run.Run, rounds: int) -> Figures:
    """All hosts, our way."""

    def take() -> None:
        checks, facts = inventory.take(this)
        if not checks.ok or len(facts) < len(this.hosts):
            raise SystemExit(f"the hosts of the benchmark do not pass:\n{checks}")

    return timed(take)


def whole(reading: Reading) -> Reading:
    """A reading in which everything is that was put there."""
    assert len(reading.committed) == PARTS, reading
    assert [slot.alive for slot in reading.slots.values()] == [True] * SLOTS, reading
    return reading


def step_poll(this: run.Run, rounds: int) -> Figures:
    """One reading of the first host in three ways; then what each starts there, and the bytes that ours moves."""
    spec = this.hosts[0]
    asked = plan_questions(this, spec)
    ours, kept = hosts.connect(spec, this.name), plan_login(spec)

    def new_connection() -> None:
        client = plan_login(spec)
        said = [plan_command(client, command) for command in asked]
        assert all('"heartbeat_at"' in text for text in said[:SLOTS]), said
        client.close()

    def one_command() -> None:
        said = plan_command(kept, "; ".join(asked))
        assert said.count('"heartbeat_at"') == SLOTS, said

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "plan": (new_connection, 1),
        "kept": (one_command, KEPT_AT_ONCE),
        "ours": (lambda: whole(ours.poll()), OURS_AT_ONCE),
    }
    for work, _ in ways.values():
        work()
    found: Figures = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (work, times) in ways.items():
            found[way].append(timed(work, times))

    def last_pid() -> int:
        return int(ours.read(Path(LAST_PID), limit=100))

    found["started"] = {}
    if ask("counts pids") == "yes":
        for way, (work, _) in ways.items():
            times = COUNTED if way == "ours" else 2
            before = last_pid()
            for _ in range(times):
                work()
            found["started"][way] = (last_pid() - before) / times
    moved = ask("bytes").split()
    for _ in range(COUNTED):
        ours.poll()
    found["bytes"] = [(int(n) - int(b)) / COUNTED for n, b in zip(ask("bytes").split(), moved, strict=True)]
    kept.close()
    return found


def resident_mb() -> float:
    """This process's memory at present."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def look(this: run.Run) -> Figures:
    """One round over all hosts: what it took, what the slowest host that answered took, and who did not answer."""
    answered: list[float] = []
    cpu, began = cpu_s(), time.perf_counter()

    def one(host: hosts.Host) -> None:
        asked = time.perf_counter()
        whole(host.poll())
        answered.append(1000 * (time.perf_counter() - asked))

    found = hosts.side_by_side(this, one)
    took = 1000 * (time.perf_counter() - began)
    silent = {name: str(error) for name, error in found.items() if isinstance(error, RunbookError)}
    return {
        "ms": took,
        "cpu_ms": 1000 * (cpu_s() - cpu),
        "slowest_ms": max(answered),
        "answered": len(answered),
        "silent": silent,
    }


def step_many(this: run.Run, rounds: int) -> Figures:
    """Rounds over many hosts: the first, which connects, and the others; what it holds; then with one host cut off."""
    found: Figures = {"mb_before": resident_mb(), "threads_before": threading.active_count()}
    found["first"] = look(this)
    found["later"] = [look(this) for _ in range(5 * rounds)]
    found["mb"], found["threads"] = resident_mb(), threading.active_count()
    assert not any(each["silent"] for each in (found["first"], *found["later"])), found
    cpu, began = cpu_s(), time.perf_counter()
    time.sleep(3.0)
    found["idle_cpu"] = (cpu_s() - cpu) / (time.perf_counter() - began)
    if ask("cut") == "no":
        return found
    found["cut"] = {"first": look(this), "at once": look(this)}
    time.sleep(PAUSE_S)
    found["cut"]["after a pause"] = look(this)
    assert all(len(each["silent"]) == 1 for each in found["cut"].values()), found["cut"]
    ask("restore")
    began = time.perf_counter()
    while look(this)["silent"]:
        time.sleep(0.5)
    found["back_s"] = time.perf_counter() - began
    return found


STEPS: dict[str, Callable[[run.Run, int], Figures]] = {
    step.__name__.removeprefix("step_"): step for step in (step_plan_preflight, step_preflight, step_poll, step_many)
}


# -------------------------------------------------------------------------------------------------------- making ready


def make_run(folder: Path, names: Sequence[str], credentials: Sequence[Path]) -> run.Run:
    """A run over hosts of these names, which take turns with the credentials; each has a folder of its own there."""
    lines = [
        f"  - {{name: {name}, kind: ssh, credentials: {credentials[number % len(credentials)]}, slots: {SLOTS}, "
        f"device: cpu, threads: 1, workdir: ~/{name}, environment: {sys.executable}}}\n"
        for number, name in enumerate(names)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    text = "run: bench\ncorpus: {path: corpus.json}\nmodel: {name: ./model}\nhosts:\n" + "".join(lines)
    (folder / "profile.yaml").write_text(text)
    return opening.create(profile.load(folder / "profile.yaml"), "bench")


def fill(this: run.Run, on: Sequence[fleet.Host]) -> None:
    """Put into each host's folder, on the server of its number, what eight workers leave; one sleeper is them all."""
    for number, spec in enumerate(this.hosts):
        server = on[number]
        folder = HostFolder(server.home / spec.name / this.name)
        for each in (folder.parts, folder.root / "hosts", folder.root / "progress"):
            each.mkdir(parents=True, exist_ok=True)
        asleep = hosts.connect(spec, this.name).start(["sleep", "3600"], folder.log("sleep"), Path("/"))
        rows = PARTS * PART_ROWS // SLOTS
        slots = [wired.slot(slot_name(n), (n * rows, (n + 1) * rows)) for n in range(SLOTS)]
        folder.assignment(spec.name).write_text(json.dumps(wired.assignment(slots)))
        report = {"state": "running", "process": asleep, "heartbeat_at": time.time(), "rows_in_part": 96,
                  "rows_committed": 25 * PART_ROWS, "device": "cpu", "processing_time": 12.5}  # fmt: skip
        for slot in slots:
            folder.progress(str(slot["slot"])).write_text(json.dumps(report))
        states = {slot["slot"]: {"state": "running", "process": asleep} for slot in slots}
        folder.supervisor(spec.name).write_text(json.dumps({"process": asleep, "slots": states}))
        for part in range(PARTS):
            path = folder.part(part * PART_ROWS, (part + 1) * PART_ROWS)
            path.touch()
            path.with_suffix(".json").touch()


def step(name: str, this: run.Run, rounds: int, answers: dict[str, Callable[[], str]] | None = None) -> Figures:
    """A step in a process of its own; `answers` is what it may ask of us meanwhile."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(this.folder), "--rounds", str(rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        last = ""
        for line in child.stdout:
            last = line.strip()
            if answers and last in answers:
                child.stdin.write(answers[last]() + "\n")
                child.stdin.flush()
    if child.returncode:
        raise SystemExit(f"{name} ended with exit code {child.returncode}")
    found: Figures = json.loads(last)
    return found


# ----------------------------------------------------------------------------------------------------------- the tables


class Goals:
    """What is expected of the figures, and whether all of it was seen."""

    def __init__(self) -> None:
        self.met = True

    def expect(self, what: str, seen: float, limit: float, unit: str = "") -> None:
        """Print a goal beside what was seen."""
        good = seen <= limit
        self.met &= good
        print(f"  goal: {what} at most {limit:g}{unit}; seen {seen:.4g}{unit}: {'met' if good else 'MISSED'}")


def middle(rounds: Sequence[Figures], name: str) -> float:
    """The median of a figure over rounds."""
    return float(statistics.median(each[name] for each in rounds))


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], name: str = "ms") -> float:
    """The median of ours / theirs, each pair of one round."""
    return float(statistics.median(a[name] / b[name] for a, b in zip(ours, theirs, strict=True)))


def preflight(made: fleet.Fleet, folder: Path, rounds: int, count: int, goals: Goals) -> Figures:
    """The first table."""
    servers = list(made.hosts.values())[:2]
    names = [f"p{number:02}" for number in range(count)]
    near = make_run(folder / "near", names, [server.credentials for server in servers])
    found: Figures = {}
    print(f"\n{f'preflight of {count} hosts':<52}{'seconds':>9}{'client CPU s':>14}{'x':>8}", flush=True)

    def measure(label: str, this: run.Run) -> None:
        seen: Figures = {"plan": [], "ours": []}
        for _ in range(rounds):
            seen["plan"].append(step("plan_preflight", this, 1))
            seen["ours"].append(step("preflight", this, 1))
        found[label] = seen
        for way, name in (("plan", "3 connections, 7 commands each"), ("ours", "inventory.take")):
            seconds, cpu = middle(seen[way], "ms") / 1000, middle(seen[way], "cpu_ms") / 1000
            times = ratio(seen[way], seen["plan"])
            print(f"{f'{label}, {way}: {name}':<52}{seconds:>9.2f}{cpu:>14.2f}{times:>8.3f}", flush=True)

    measure("bare", near)
    for server in servers:
        (server.home / ".bashrc").write_text(f"sleep {STARTUP_S}\n")
    measure("start-up file", near)
    with ExitStack() as lines:
        far = make_run(folder / "far", names, [behind(lines, made, server)[1] for server in servers])
        measure(f"and {1000 * RTT_S:g} ms", far)
    for server in servers:
        (server.home / ".bashrc").unlink()
    goals.expect("preflight", ratio(found["start-up file"]["ours"], found["start-up file"]["plan"]), 0.10, "x")
    return found


def behind(lines: ExitStack, made: fleet.Fleet, server: fleet.Host) -> tuple[Proxy, Path]:
    """A line to a server that has a delay, and credentials that lead over it."""
    line = lines.enter_context(Proxy(server.address, server.port))
    line.delay(RTT_S / 2)
    credentials = made.folder / "credentials" / f"{server.name}.far"
    server.write_credentials(credentials, address="127.0.0.1", port=line.port)
    return line, credentials


def poll(made: fleet.Fleet, folder: Path, rounds: int, goals: Goals) -> Figures:
    """The second table: measured without delay; the round trips on a line that has one."""
    server = next(iter(made.hosts.values()))
    near = make_run(folder / "near", ["poll"], [server.credentials])
    fill(near, [server])
    counts = "yes" if made.mode == "netns" else "no"
    found = step("poll", near, rounds, {"counts pids": lambda: counts, "bytes": lambda: "0 0"})
    with ExitStack() as lines:
        line, credentials = behind(lines, made, server)
        far = make_run(folder / "far", ["poll"], [credentials])
        answers = {"counts pids": lambda: "no", "bytes": lambda: f"{line.up} {line.down}"}
        found["far"] = step("poll", far, rounds, answers)
    print(f"\none poll of a host with {SLOTS} slots{'':13}{'ms':>9}{'client CPU ms':>15}{'x':>9}", end="")
    print(f"{'round trips':>13}{'started there':>15}")
    labels = {
        "plan": "plan: a new connection, 10 commands",
        "kept": "a kept connection, one command",
        "ours": "ours: Host.poll",
    }
    for way, label in labels.items():
        ms = middle(found[way], "ms")
        trips = (middle(found["far"][way], "ms") - ms) / (1000 * RTT_S)
        started = f"{found['started'][way]:.1f}" if way in found["started"] else "-"
        print(f"{label:<42}{ms:>8.2f}{middle(found[way], 'cpu_ms'):>15.2f}", end="")
        print(f"{ratio(found[way], found['plan']):>9.4f}{trips:>13.1f}{started:>15}")
    far_ratio = ratio(found["far"]["ours"], found["far"]["plan"])
    up, down = found["far"]["bytes"]
    print(f"  ours moves {up:.0f} bytes there and {down:.0f} back; behind {1000 * RTT_S:g} ms it is {far_ratio:.4f}x")
    goals.expect("poll", ratio(found["ours"], found["plan"]), 0.01, "x")
    goals.expect("client CPU of a poll", middle(found["ours"], "cpu_ms"), 5.0, " ms")
    if "ours" in found["started"]:
        goals.expect(f"started on the host by {COUNTED} polls", COUNTED * found["started"]["ours"], 0)
    return found


def many(made: fleet.Fleet, folder: Path, rounds: int, counts: Sequence[int]) -> Figures:
    """The third table. The last host of a run is alone on its server, which can be cut off."""
    *servers, lone = made.hosts.values()
    found: Figures = {}

    def cut() -> str:
        lone.cut()
        return "done"

    def restore() -> str:
        lone.restore()
        return "done"

    for count in counts:
        on = [servers[number % len(servers)] for number in range(count - 1)] + [lone]
        names = [f"m{count}x{number:02}" for number in range(count)]
        this = make_run(folder / str(count), names, [server.credentials for server in on])
        fill(this, on)
        last = count == max(counts)
        found[str(count)] = step("many", this, rounds, {"cut": cut if last else lambda: "no", "restore": restore})
    print(f"\na round of polls{'':26}", *(f"{count:>4} hosts" for count in counts), sep="  ")
    rows: dict[str, Callable[[Figures], float]] = {
        "connecting, ms": lambda seen: seen["first"]["ms"],
        "connecting, client CPU ms": lambda seen: seen["first"]["cpu_ms"],
        "every later round, ms": lambda seen: middle(seen["later"], "ms"),
        "every later round, client CPU ms": lambda seen: middle(seen["later"], "cpu_ms"),
        "between rounds, client CPU ms a second": lambda seen: 1000 * seen["idle_cpu"],
        "memory of the client before, MB": lambda seen: seen["mb_before"],
        "memory of the client connected, MB": lambda seen: seen["mb"],
        "threads": lambda seen: seen["threads"],
    }
    for label, figure in rows.items():
        print(f"{label:<42}", *(f"{figure(found[str(count)]):>10.1f}" for count in counts), sep="  ")
    seen = found[str(max(counts))]
    print(f"\none of {max(counts)} hosts cut off{'':20}{'round ms':>10}{'slowest other ms':>18}")
    for label, figures in seen["cut"].items():
        why = next(iter(figures["silent"].values()))
        print(f"{label:<42}{figures['ms']:>10.0f}{figures['slowest_ms']:>18.1f}   {why}")
    print(f"heard again {seen['back_s']:.1f} s after the network was back")
    return found


def main() -> int:
    """Start the hosts, print the tables, give the exit code; or be who looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ("preflight", "poll", "many")
    parser.add_argument("table", nargs="*", default=tables, help="preflight, poll, many (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the plan's way and ours in turn (default 3)")
    parser.add_argument("--hosts", type=int, default=16, help="hosts of the preflight (default 16)")
    parser.add_argument("--many", type=int, default=50, help="hosts of the last table, beside 2 (default 50)")
    parser.add_argument("--mode", default="auto", choices=["auto", "netns", "loopback"], help="see demo/fleet.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures here")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](opening.open_folder(options.folder), options.rounds)))
        return 0
    if wrong := set(options.table) - set(tables):
        parser.error(f"no table {', '.join(sorted(wrong))}: there are {', '.join(tables)}")
    goals = Goals()
    found: Figures = {"load": os.getloadavg()[0]}
    print(f"load {found['load']:.2f} on {os.cpu_count()} cores; medians of {options.rounds} rounds", flush=True)
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        # A real host sees one connection of ours. Here many begin at once, which a server's default turns away.
        servers = ("tensor01", "tensor02", "tensor03")
        made = ending.enter_context(
            fleet.start(folder / "fleet", servers, options.mode, sshd=["MaxStartups 200:30:300"])
        )
        if "preflight" in options.table:
            found["preflight"] = preflight(made, folder / "preflight", options.rounds, options.hosts, goals)
        if "poll" in options.table:
            found["poll"] = poll(made, folder / "poll", options.rounds, goals)
        if "many" in options.table:
            found["many"] = many(made, folder / "many", options.rounds, (2, options.many))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0 if goals.met else 1


if __name__ == "__main__":
    sys.exit(main())
